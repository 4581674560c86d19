//! A finished draft to the entries of a layer.

use super::archive::{self, Archives};
use super::draft::{Content, Draft, New};
use super::error::Error;
use crate::layer::{Entry, EntryKind, EntryPath, EntrySink};
use crate::plan::op::{FileAction, FileOp};
use crate::snapshot::{Kind, Tree, entry, fingerprint, xattrs_of};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

/// Writes a draft to `sink`, each file read once: first, sorted, all but what archives hold, then that in the order of
/// each archive. A directory of the base comes along if something in it is new.
pub(super) fn emit(
    draft: &Draft<'_>,
    op: &FileOp,
    trees: &[Option<&dyn Tree>],
    archives: &Archives,
    sink: &mut dyn EntrySink,
) -> Result<usize, Error> {
    let mut emitter = Emitter { draft, op, trees, sink, done: HashSet::new(), first: HashMap::new(), count: 0 };
    // The names of each archive's files, by their number in it.
    let mut waiting: HashMap<(usize, usize), Vec<(&EntryPath, usize)>> = HashMap::new();
    for (path, index) in &draft.nodes {
        match draft.files.get(*index).map(|new| &new.content) {
            Some(Content::Archive { archive, entry }) => {
                waiting.entry((*archive, *entry)).or_default().push((path, *index));
            }
            _ => emitter.node(path, *index, &mut io::empty())?,
        }
    }
    for (number, (action, path)) in archives.files.iter().enumerate() {
        let Some(tree) = trees.get(*action).copied().flatten() else { continue };
        archive::read(tree, path, |entry, _, content| {
            for (path, index) in waiting.remove(&(number, entry)).unwrap_or_default() {
                emitter.node(path, index, content)?;
            }
            Ok(())
        })?;
    }
    Ok(emitter.count)
}

struct Emitter<'a, 'd> {
    draft: &'a Draft<'d>,
    op: &'a FileOp,
    /// What each action reads.
    trees: &'a [Option<&'a dyn Tree>],
    sink: &'a mut dyn EntrySink,
    /// The directories that are written.
    done: HashSet<EntryPath>,
    /// The first name of each file that is written.
    first: HashMap<usize, EntryPath>,
    count: usize,
}

impl Emitter<'_, '_> {
    /// Writes what is new at a path; `archived` is its content if an archive holds it.
    fn node(&mut self, path: &EntryPath, index: usize, archived: &mut dyn Read) -> Result<(), Error> {
        let Some(new) = self.draft.files.get(index) else { return Ok(()) };
        if self.done.contains(path) || self.is_unchanged(path, new)? {
            return Ok(());
        }
        self.parents(path)?;
        let entry = Entry { path: path.clone(), ..new.entry.clone() };
        if new.kind() == Kind::Dir {
            return self.directory(entry, new);
        }
        if let Some(first) = self.first.get(&index) {
            return self.add(&Entry { kind: EntryKind::Hardlink(first.clone()), ..entry }, &mut io::empty());
        }
        self.first.insert(index, path.clone());
        self.content(entry, new, archived)
    }

    fn content(&mut self, mut entry: Entry, new: &New, archived: &mut dyn Read) -> Result<(), Error> {
        let (tree, path) = match &new.content {
            Content::None => return self.add(&entry, &mut io::empty()),
            Content::Archive { .. } => return self.add(&entry, archived),
            Content::Text { action } => {
                let text = match self.op.actions.get(*action) {
                    Some(FileAction::Mkfile { content, .. }) => content.as_slice(),
                    _ => &[],
                };
                return self.add(&entry, &mut { text });
            }
            Content::Source { action, path, .. } => (self.trees.get(*action).copied().flatten(), path),
            Content::Base { path } => (Some(self.draft.base), path),
        };
        let Some(tree) = tree else { return self.add(&entry, &mut io::empty()) };
        let file = tree.open(path)?;
        entry.xattrs.extend(xattrs_of(&file, path)?);
        self.count += 1;
        Ok(self.sink.add_file(&entry, &file)?)
    }

    fn directory(&mut self, entry: Entry, new: &New) -> Result<(), Error> {
        self.done.insert(entry.path.clone());
        self.add(&entry, &mut io::empty())?;
        // It came after something that had itself replaced a directory.
        if new.hides && self.draft.base.stat(&entry.path)?.is_some_and(|m| m.is_dir()) {
            self.add(&Entry::new(entry.path, EntryKind::Opaque), &mut io::empty())?;
        }
        Ok(())
    }

    /// Writes the directories above a path that aren't written yet, new ones and the base's.
    fn parents(&mut self, path: &EntryPath) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(dir) = above.filter(|d| !d.is_root() && !self.done.contains(d)) {
            above = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            if let Some(new) = self.draft.new_at(&dir) {
                self.directory(Entry { path: dir, ..new.entry.clone() }, new)?;
            } else if let Some(meta) = self.draft.base.stat(&dir)? {
                let mut entry = entry(self.draft.base, &dir, &meta)?;
                entry.mtime = self.draft.touched.get(&dir).copied().unwrap_or(entry.mtime);
                self.done.insert(dir);
                self.add(&entry, &mut io::empty())?;
            }
        }
        Ok(())
    }

    /// Whether the base has the very same already, by the rules of [`diff`](crate::snapshot::diff).
    fn is_unchanged(&self, path: &EntryPath, new: &New) -> Result<bool, Error> {
        let Some(old) = self.draft.base_at(path)? else { return Ok(false) };
        let entry = &new.entry;
        if new.hides || (old.kind, old.mode, old.uid, old.gid) != (new.kind(), entry.mode, entry.uid, entry.gid) {
            return Ok(false);
        }
        match (&entry.kind, &new.content) {
            (EntryKind::Dir, _) => Ok(self.draft.base.xattrs(path)? == entry.xattrs),
            _ if old.mtime != entry.mtime => Ok(false),
            (EntryKind::Symlink(target), _) => Ok(self.draft.base.read_link(path)? == *target),
            (EntryKind::File { size }, Content::Source { fingerprint: Some(print), .. }) => {
                Ok(old.size == *size && fingerprint(self.draft.base, path)? == *print)
            }
            _ => Ok(false),
        }
    }

    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        self.count += 1;
        Ok(self.sink.add(entry, content)?)
    }
}
