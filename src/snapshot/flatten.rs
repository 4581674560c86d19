//! A root filesystem as one list of entries, whatever it is layered of.

use super::tree::{Tree, entry};
use super::{Error, Kind, Meta};
use crate::layer::{Entry, EntryKind, EntryPath, EntrySink};
use std::collections::HashMap;
use std::io::{self, Read};

/// Writes everything in `tree` to `sink`: sorted, directories before what is in them, further names of a file as hardlinks.
/// Sockets are left out.
pub fn flatten(tree: &dyn Tree, sink: &mut dyn EntrySink) -> Result<(), Error> {
    let mut names: HashMap<(u64, u64), EntryPath> = HashMap::new();
    let mut todo: Vec<(EntryPath, Meta)> = Vec::new();
    if let Some(root) = tree.stat(&EntryPath::root())? {
        todo.push((EntryPath::root(), root));
    }
    while let Some((path, meta)) = todo.pop() {
        if meta.kind == Kind::Socket {
            continue;
        }
        let mut entry = entry(tree, &path, &meta)?;
        if meta.links > 1 && !meta.is_dir() {
            match names.get(&meta.inode) {
                Some(first) => entry.kind = EntryKind::Hardlink(first.clone()),
                None => drop(names.insert(meta.inode, path.clone())),
            }
        }
        add(tree, &entry, sink)?;
        if meta.is_dir() {
            for (name, meta) in tree.read_dir(&path)?.into_iter().rev() {
                todo.push((path.join(&name)?, meta));
            }
        }
    }
    Ok(())
}

fn add(tree: &dyn Tree, entry: &Entry, sink: &mut dyn EntrySink) -> Result<(), Error> {
    let mut content: Box<dyn Read> = match entry.kind {
        EntryKind::File { .. } => Box::new(tree.open(&entry.path)?),
        _ => Box::new(io::empty()),
    };
    Ok(sink.add(entry, &mut content)?)
}
