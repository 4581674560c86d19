//! What a COPY or ADD takes from its source tree: reading alone, nothing is written.

use super::error::Error;
use super::{Fingerprints, archive};
use crate::layer::EntryPath;
use crate::plan::glob::{Glob, is_pattern};
use crate::plan::ignore::Matcher;
use crate::plan::op::{CopyAction, Unpack};
use crate::report::Span;
use crate::snapshot::{Fingerprint, Ignore, Kind, Meta, Tree, Verdict, walked};
use std::collections::HashSet;
use std::sync::Arc;

/// What one copy takes, in the order in which it is to be placed.
#[derive(Debug)]
pub struct Selection {
    pub(super) picks: Vec<Pick>,
    /// Says which files come under which names, and with what in them: paths inside what is copied, kinds, modes, owners,
    /// attributes and contents; never times.
    pub content: Fingerprint,
}

/// One source, or one match of a source's wildcard.
#[derive(Debug)]
pub(super) struct Pick {
    /// Where it stands; links are followed.
    pub(super) path: EntryPath,
    /// The name that it has in a destination directory.
    pub(super) name: Vec<u8>,
    pub(super) meta: Meta,
    /// What is in it, if it is a directory: a sorted walk.
    pub(super) items: Vec<Item>,
    /// Whether it is to be unpacked.
    pub(super) archive: bool,
    /// What is in it, if it is a file; else what there is to it besides mode and owner, if anything.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Something in a directory that is copied.
#[derive(Debug)]
pub(super) struct Item {
    /// Its path in that directory.
    pub(super) path: EntryPath,
    pub(super) meta: Meta,
    /// Whether the patterns take it; otherwise it is only a directory on the way to something that they take.
    pub(super) wanted: bool,
    /// As [`Pick::fingerprint`].
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Something that a selection takes, for those who compare it with another.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// The folder that it is in, or its own path where it is named itself.
    pub source: &'a EntryPath,
    /// Its path in that folder.
    pub inside: Option<&'a EntryPath>,
    /// What it is.
    pub meta: &'a Meta,
    /// What is in it.
    pub fingerprint: Option<&'a Fingerprint>,
}

impl Selection {
    /// Everything that is taken, in order; of a folder that is named, what is in it.
    pub fn taken(&self) -> impl Iterator<Item = Taken<'_>> {
        self.picks.iter().flat_map(|pick| {
            let own = (!pick.meta.is_dir()).then_some(Taken {
                source: &pick.path,
                inside: None,
                meta: &pick.meta,
                fingerprint: pick.fingerprint.as_ref(),
            });
            let items = pick.items.iter().filter(|item| item.wanted).map(|item| Taken {
                source: &pick.path,
                inside: Some(&item.path),
                meta: &item.meta,
                fingerprint: item.fingerprint.as_ref(),
            });
            own.into_iter().chain(items)
        })
    }

    /// The paths that the sources turned out to be.
    pub fn sources(&self) -> impl Iterator<Item = &EntryPath> {
        self.picks.iter().map(|pick| &pick.path)
    }
}

/// Selects what `copy` takes from `tree`.
pub fn select(copy: &CopyAction, tree: &dyn Tree, fingerprints: &dyn Fingerprints) -> Result<Selection, Error> {
    let exclude = if copy.exclude.is_empty() { None } else { Some(patterns(&copy.exclude)?) };
    let mut picks = Vec::new();
    for (index, source) in copy.sources.iter().enumerate() {
        let source = Source { text: source, span: copy.source_spans.get(index).copied() };
        let (folder, include) = match copy.parents {
            true => source.parents(tree)?,
            false => (source.text.to_owned(), None),
        };
        for path in source.matches(tree, &folder)? {
            picks.push(pick(copy, tree, &source, path, include.as_ref(), exclude.as_deref())?);
        }
    }
    fingerprint(tree, fingerprints, &mut picks)?;
    let content = content(tree, &mut picks)?;
    Ok(Selection { picks, content })
}

struct Source<'a> {
    text: &'a str,
    span: Option<Span>,
}

impl Source<'_> {
    fn not_found(&self, tree: &dyn Tree, path: &EntryPath) -> Error {
        Error::NotFound { path: path.clone(), span: self.span, ignored: tree.is_ignored(path) }
    }

    /// Splits a source of `--parents` at its pivot `/./`: the folder that is copied, and what is taken of it.
    fn parents(&self, tree: &dyn Tree) -> Result<(String, Option<Include>), Error> {
        let (folder, pattern) = self.text.split_once("/./").unwrap_or(("/", self.text));
        let pattern = absolute(pattern)?;
        if !is_pattern(self.text) {
            let mut required = absolute(folder)?;
            for name in pattern.components() {
                required = required.join(name)?;
            }
            if tree.lookup(&required, true)?.is_none() {
                return Err(self.not_found(tree, &required));
            }
        }
        Ok((folder.to_owned(), Some(Include::new(&pattern)?)))
    }

    /// The paths that the source names, wildcards filled in, sorted; links on the way to the first wildcard are followed.
    fn matches(&self, tree: &dyn Tree, text: &str) -> Result<Vec<EntryPath>, Error> {
        let path = absolute(text)?;
        // What came from text is text.
        let names: Vec<&str> = path.components().filter_map(|n| std::str::from_utf8(n).ok()).collect();
        let plain = names.iter().take_while(|n| !is_pattern(n)).count();
        let (plain, wild) = names.split_at(plain);
        let mut folder = EntryPath::root();
        for name in plain {
            folder = folder.join(name.as_bytes())?;
        }
        if wild.is_empty() {
            return Ok(vec![folder]);
        }
        let folder = tree.lookup(&folder, true)?.ok_or_else(|| self.not_found(tree, &folder))?;
        let mut found = vec![(folder.path, folder.meta)];
        for pattern in wild {
            // BuildKit takes a broken pattern for one that matches nothing.
            let Ok(pattern) = Glob::new(pattern) else { return Ok(Vec::new()) };
            let mut next = Vec::new();
            // A walk doesn't go through links.
            for (dir, _) in found.iter().filter(|(_, meta)| meta.is_dir()) {
                for (name, meta) in tree.read_dir(dir)? {
                    if pattern.matches(&name) {
                        next.push((dir.join(&name)?, meta));
                    }
                }
            }
            found = next;
        }
        Ok(found.into_iter().map(|(path, _)| path).collect())
    }
}

/// What patterns of .dockerignore files, `--exclude` and `--parents` say about paths.
pub fn patterns(patterns: &[String]) -> Result<Box<Ignore>, Error> {
    let matcher = Arc::new(Matcher::new(patterns).map_err(|e| Error::Pattern(e.to_string()))?);
    let prune = matcher.clone();
    let enter = move |path: &str, above: Option<&_>| {
        let verdict = matcher.enter(path, above);
        (verdict.excluded, verdict)
    };
    Ok(walked(enter, move |dir| prune.can_prune_dir(dir)))
}

/// A source's path, clean, `..` ending at the root.
fn absolute(text: &str) -> Result<EntryPath, Error> {
    Ok(EntryPath::parse(format!("/{text}").as_bytes())?)
}

/// What `--parents` takes from a folder.
struct Include {
    patterns: Box<Ignore>,
    /// The names that every match begins with.
    prefix: Vec<Vec<u8>>,
    /// How deep a match lies at most, below which all is taken.
    depth: Option<usize>,
}

impl Include {
    fn new(pattern: &EntryPath) -> Result<Self, Error> {
        let names: Vec<&[u8]> = pattern.components().collect();
        let special = |name: &[u8]| name.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\' | b'!' | b'#'));
        let prefix = names.iter().take_while(|n| !special(n)).map(|n| n.to_vec()).collect();
        let depth = (!names.iter().any(|n| n.windows(2).any(|w| w == b"**"))).then_some(names.len());
        let text = String::from_utf8_lossy(pattern.as_bytes()).into_owned();
        Ok(Self { patterns: self::patterns(&[text])?, prefix, depth })
    }

    fn takes(&self, path: &EntryPath, is_dir: bool) -> bool {
        (self.patterns)(path, is_dir) != Verdict::Keep
    }

    /// Whether something in a directory that isn't taken itself may be.
    fn leads_on(&self, path: &EntryPath) -> bool {
        path.components().zip(&self.prefix).all(|(name, want)| name == want.as_slice())
            && self.depth.is_none_or(|depth| path.components().count() < depth)
    }
}

fn pick(
    copy: &CopyAction,
    tree: &dyn Tree,
    source: &Source<'_>,
    path: EntryPath,
    include: Option<&Include>,
    exclude: Option<&Ignore>,
) -> Result<Pick, Error> {
    let found = tree.lookup(&path, true)?.ok_or_else(|| source.not_found(tree, &path))?;
    let name = path.file_name().unwrap_or_default().to_vec();
    let archive =
        copy.unpack != Unpack::Never && found.meta.kind == Kind::File && archive::is_archive(tree, &found.path)?;
    let items = if found.meta.is_dir() { walk(tree, &found.path, include, exclude)? } else { Vec::new() };
    Ok(Pick { path: found.path, name, meta: found.meta, items, archive, fingerprint: None })
}

/// One directory on the way of a walk: its path, and what is left of it.
type Frame = (EntryPath, EntryPath, std::vec::IntoIter<(Vec<u8>, Meta)>);

/// Everything in a directory that the patterns take, and the directories on the way to it.
fn walk(
    tree: &dyn Tree,
    root: &EntryPath,
    include: Option<&Include>,
    exclude: Option<&Ignore>,
) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    let mut stack: Vec<Frame> = vec![(root.clone(), EntryPath::root(), tree.read_dir(root)?.into_iter())];
    while let Some((dir, inside, left)) = stack.last_mut() {
        let Some((name, meta)) = left.next() else {
            stack.pop();
            continue;
        };
        let (path, here) = (dir.join(&name)?, inside.join(&name)?);
        let included = include.is_none_or(|i| i.takes(&here, meta.is_dir()));
        let verdict = exclude.map_or(Verdict::Keep, |e| e(&here, meta.is_dir()));
        let wanted = included && verdict == Verdict::Keep;
        if meta.is_dir() && verdict != Verdict::Drop && (included || include.is_none_or(|i| i.leads_on(&here))) {
            stack.push((path.clone(), here.clone(), tree.read_dir(&path)?.into_iter()));
        } else if !wanted {
            continue;
        }
        items.push(Item { path: here, meta, wanted, fingerprint: None });
    }
    Ok(without_empty_ways(items))
}

/// Leaves out the directories that lead to nothing that is wanted.
fn without_empty_ways(mut items: Vec<Item>) -> Vec<Item> {
    if items.iter().all(|item| item.wanted) {
        return items;
    }
    let mut needed = HashSet::new();
    for item in items.iter().filter(|item| item.wanted) {
        let mut above = item.path.parent();
        while let Some(path) = above.filter(|p| !needed.contains(p)) {
            above = path.parent();
            needed.insert(path);
        }
    }
    items.retain(|item| item.wanted || needed.contains(&item.path));
    items
}

/// Fingerprints all files at once, so that whoever does it can do it in parallel.
fn fingerprint(tree: &dyn Tree, fingerprints: &dyn Fingerprints, picks: &mut [Pick]) -> Result<(), Error> {
    let mut files = Vec::new();
    for pick in picks.iter() {
        if pick.meta.kind == Kind::File {
            files.push((pick.path.clone(), pick.meta));
        }
        for item in pick.items.iter().filter(|i| i.meta.kind == Kind::File) {
            files.push((pick.path.append(&item.path), item.meta));
        }
    }
    let mut prints = fingerprints.of(tree, &files)?.into_iter();
    for pick in picks {
        if pick.meta.kind == Kind::File {
            pick.fingerprint = prints.next();
        }
        for item in pick.items.iter_mut().filter(|i| i.meta.kind == Kind::File) {
            item.fingerprint = prints.next();
        }
    }
    Ok(())
}

/// The content of a selection as one number.
fn content(tree: &dyn Tree, picks: &mut [Pick]) -> Result<Fingerprint, Error> {
    let mut hash = Content(blake3::Hasher::new());
    for pick in picks {
        if pick.meta.is_dir() {
            // Of the directory itself nothing is copied.
            hash.text(b"directory");
        } else {
            hash.text(if pick.archive { b"archive" } else { b"file" });
            hash.text(&pick.name);
            pick.fingerprint = hash.file(tree, &pick.path, &pick.meta, pick.fingerprint)?;
        }
        for item in &mut pick.items {
            hash.text(if item.wanted { b"item" } else { b"way" });
            hash.text(item.path.as_bytes());
            let path = pick.path.append(&item.path);
            item.fingerprint = hash.file(tree, &path, &item.meta, item.fingerprint)?;
        }
    }
    Ok(*hash.0.finalize().as_bytes())
}

struct Content(blake3::Hasher);

impl Content {
    /// Bytes with their length, so that no two sequences of them read alike.
    fn text(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Takes in what stands at `path`; gives back what there is to it besides mode and owner.
    fn file(
        &mut self,
        tree: &dyn Tree,
        path: &EntryPath,
        meta: &Meta,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Option<Fingerprint>, Error> {
        for number in [meta.mode, meta.uid, meta.gid] {
            self.number(number.into());
        }
        if meta.kind == Kind::File {
            self.text(b"f");
            self.number(meta.size);
            self.text(&fingerprint.unwrap_or_default());
            return Ok(fingerprint);
        }
        let mut special = Self(blake3::Hasher::new());
        let mut both = |bytes: &[u8]| {
            self.text(bytes);
            special.text(bytes);
        };
        match meta.kind {
            Kind::File => {}
            Kind::Dir => {
                let xattrs = tree.xattrs(path)?;
                if xattrs.is_empty() {
                    self.text(b"d");
                    self.text(b"");
                    return Ok(None);
                }
                both(b"d");
                xattrs.iter().for_each(|(name, value)| {
                    both(name);
                    both(value);
                });
                both(b"");
            }
            Kind::Symlink => {
                both(b"l");
                both(&tree.read_link(path)?);
            }
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                both(if matches!(meta.kind, Kind::CharDevice(_)) { b"c" } else { b"b" });
                both(&device.major.to_le_bytes());
                both(&device.minor.to_le_bytes());
            }
            Kind::Fifo => both(b"p"),
            Kind::Socket => both(b"s"),
        }
        Ok(Some(*special.0.finalize().as_bytes()))
    }
}
