//! The root filesystem as one tar, and several of them side by side.

use super::{Error, Output};
use crate::layer::{self, Entry, EntryKind, EntryPath, EntrySink, TarWriter};
use crate::oci::Platform;
use std::io::Read;

/// Takes the entries of flattened root filesystems and makes one tar of them.
pub struct RootTar(TarWriter<Output>);

impl RootTar {
    /// Writes to `output`.
    pub fn new(output: Output) -> Self {
        Self(TarWriter::new(output))
    }

    /// Ends the tar and puts it into its place.
    ///
    /// # Errors
    /// As [`Output::finish`].
    pub fn finish(self) -> Result<(), Error> {
        self.0.finish()?.finish()
    }
}

impl EntrySink for RootTar {
    /// The root itself is left out, as BuildKit's tar does: who unpacks it has chosen a folder already.
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        if entry.path.is_root() { Ok(()) } else { self.0.add(entry, content) }
    }
}

/// The name of a platform's folder where an output holds several: `linux_arm_v7`.
pub fn folder_name(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// Passes entries on under a folder, which it makes first.
pub struct Under<'a> {
    sink: &'a mut dyn EntrySink,
    folder: EntryPath,
}

impl<'a> Under<'a> {
    /// Puts entries under `folder` of `sink`.
    ///
    /// # Errors
    /// If `folder` is no path, or `sink` takes no folder.
    pub fn new(sink: &'a mut dyn EntrySink, folder: &str) -> Result<Self, layer::Error> {
        let folder = EntryPath::parse(folder.as_bytes())?;
        sink.add(&Entry::new(folder.clone(), EntryKind::Dir), &mut std::io::empty())?;
        Ok(Self { sink, folder })
    }

    fn moved(&self, path: &EntryPath) -> Result<EntryPath, layer::Error> {
        let joined = [self.folder.as_bytes(), path.as_bytes()].join(&b'/');
        Ok(EntryPath::parse(&joined)?)
    }
}

impl EntrySink for Under<'_> {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        let kind = match &entry.kind {
            EntryKind::Hardlink(target) => EntryKind::Hardlink(self.moved(target)?),
            other => other.clone(),
        };
        let entry = Entry { path: self.moved(&entry.path)?, kind, ..entry.clone() };
        self.sink.add(&entry, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<Entry>);

    impl EntrySink for Seen {
        fn add(&mut self, entry: &Entry, _: &mut dyn Read) -> Result<(), layer::Error> {
            self.0.push(entry.clone());
            Ok(())
        }
    }

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn entries_move_under_a_folder() {
        let mut seen = Seen::default();
        let mut under = Under::new(&mut seen, &folder_name(&Platform::new("linux", "arm", "v7"))).unwrap();
        for entry in [Entry::new(path(""), EntryKind::Dir), Entry::new(path("a/b"), EntryKind::Hardlink(path("c")))] {
            under.add(&entry, &mut std::io::empty()).unwrap();
        }
        let paths: Vec<String> = seen.0.iter().map(|e| e.path.as_path().display().to_string()).collect();
        assert_eq!(paths, ["linux_arm_v7", "linux_arm_v7", "linux_arm_v7/a/b"]);
        assert_eq!(seen.0[2].kind, EntryKind::Hardlink(path("linux_arm_v7/c")));
    }
}
