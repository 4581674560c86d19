//! ADD's archives: a tar, plain or compressed, found by its content, unpacked into the destination.

use super::draft::{Content, Draft};
use super::error::Error;
use super::place::How;
use super::select::Pick;
use crate::layer::{self, Decoder, Entry, EntryKind, EntryPath, TarReader};
use crate::snapshot::{Kind, Tree, follow};
use std::io::Read;

/// Whether a regular file is an archive: it begins with an entry, whatever is in it.
pub(super) fn is_archive(tree: &dyn Tree, path: &EntryPath) -> Result<bool, Error> {
    Ok(layer::is_archive(tree.open(path)?))
}

/// The archives that a step unpacks.
#[derive(Default)]
pub(super) struct Archives {
    /// Each one's action and path in the tree of that action.
    pub(super) files: Vec<(usize, EntryPath)>,
}

impl Archives {
    /// Places an archive's entries below `dest`. Its devices and pipes are left out, as BuildKit does.
    pub(super) fn unpack(
        &mut self,
        draft: &mut Draft<'_>,
        how: &How<'_>,
        tree: &dyn Tree,
        pick: &Pick,
        dest: &EntryPath,
    ) -> Result<(), Error> {
        let root = draft.resolve(dest, true)?;
        draft.make_dirs(&root, 0o755, how.owner.unwrap_or_default())?;
        let archive = self.files.len();
        self.files.push((how.action, pick.path.clone()));
        let mut unpacker = Unpacker { draft, how, root, archive };
        read(tree, &pick.path, |number, entry, _| unpacker.entry(number, entry))
    }
}

/// Goes through an archive's entries, numbered from 0.
pub(super) fn read(
    tree: &dyn Tree,
    path: &EntryPath,
    mut each: impl FnMut(usize, Entry, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    let stream = Decoder::new(tree.open(path)?).map_err(|source| layer::Error::Read { offset: 0, source })?;
    let mut tar = TarReader::archive(stream);
    let mut number = 0;
    while let Some(entry) = tar.next_entry()? {
        each(number, entry, &mut tar)?;
        number += 1;
    }
    Ok(())
}

struct Unpacker<'u, 'd> {
    draft: &'u mut Draft<'d>,
    how: &'u How<'u>,
    /// The destination; the archive's own root.
    root: EntryPath,
    archive: usize,
}

impl Unpacker<'_, '_> {
    fn entry(&mut self, number: usize, mut entry: Entry) -> Result<(), Error> {
        if matches!(entry.kind, EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) | EntryKind::Fifo) {
            return Ok(());
        }
        let inside = self.resolve(&entry.path)?;
        if inside.is_root() {
            return Ok(());
        }
        let path = self.root.append(&inside);
        self.draft.make_dirs(&path.parent().unwrap_or_default(), 0o755, (0, 0))?;
        (entry.uid, entry.gid) = self.how.owner.unwrap_or((entry.uid, entry.gid));
        match entry.kind.clone() {
            EntryKind::Hardlink(target) => self.hardlink(&path, &target, entry),
            EntryKind::Dir if self.draft.is_dir(&path)? => self.draft.change_dir(&path, |dir| {
                let mut xattrs = std::mem::take(&mut dir.xattrs);
                xattrs.extend(std::mem::take(&mut entry.xattrs));
                *dir = Entry { path: path.clone(), xattrs, ..entry };
            }),
            EntryKind::File { .. } => {
                let content = Content::Archive { archive: self.archive, entry: number };
                self.draft.put(&path, entry, content).map(drop)
            }
            _ => self.draft.put(&path, entry, Content::None).map(drop),
        }
    }

    /// Another name for a file that is there; it takes over what this entry says of it.
    fn hardlink(&mut self, path: &EntryPath, target: &EntryPath, entry: Entry) -> Result<(), Error> {
        let missing = |reason| Error::Archive { path: entry.path.clone(), reason };
        let target = self.root.append(&self.resolve(target)?);
        if target == *path {
            return Ok(());
        }
        let index = match self.draft.nodes.get(&target) {
            Some(index) => *index,
            None => return self.base_link(path, &target, entry),
        };
        let file = self.draft.files.get_mut(index).filter(|f| f.kind() != Kind::Dir);
        let file = file.ok_or_else(|| missing("a hard link to a directory"))?;
        (file.entry.uid, file.entry.gid) = (entry.uid, entry.gid);
        if file.kind() == Kind::File {
            (file.entry.mode, file.entry.mtime) = (entry.mode, entry.mtime);
            file.entry.xattrs.extend(entry.xattrs.clone());
        }
        self.draft.link(path, index);
        Ok(())
    }

    /// A hard link to a file of the base: that one is in a lower layer, so here it is a copy.
    fn base_link(&mut self, path: &EntryPath, target: &EntryPath, entry: Entry) -> Result<(), Error> {
        let meta = self.draft.base_at(target)?;
        let (kind, content) = match meta.map(|m| (m.kind, m.size)) {
            Some((Kind::File, size)) => (EntryKind::File { size }, Content::Base { path: target.clone() }),
            Some((Kind::Symlink, _)) => (EntryKind::Symlink(self.draft.base.read_link(target)?), Content::None),
            Some(_) => return Err(Error::Archive { path: entry.path, reason: "a hard link to a directory or device" }),
            None => return Err(Error::Archive { path: entry.path, reason: "a hard link to what isn't there" }),
        };
        self.draft.put(path, Entry { kind, ..entry }, content).map(drop)
    }

    /// Where an entry goes inside the destination: links above it are followed there and may not lead out; the entry itself
    /// is not followed.
    fn resolve(&self, path: &EntryPath) -> Result<EntryPath, Error> {
        let mut escapes = false;
        let resolved = follow(path, false, |inside| {
            let full = self.root.append(inside);
            let target = self.draft.link_target(&full)?;
            escapes |= target.as_deref().is_some_and(|t| leads_out(inside, t));
            Ok(target)
        })?;
        match escapes {
            true => Err(Error::Archive {
                path: path.clone(),
                reason: "a symbolic link on its way leads out of the destination",
            }),
            false => Ok(resolved),
        }
    }
}

/// Whether a link's target climbs above the archive's root.
fn leads_out(link: &EntryPath, target: &[u8]) -> bool {
    let mut depth = if target.starts_with(b"/") { 0 } else { link.components().count().saturating_sub(1) };
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}
