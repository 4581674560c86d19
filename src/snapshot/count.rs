//! How many files and directories a snapshot has, noted beside it: `SNAPSHOT/entries`.
//!
//! Nothing can verify a snapshot, and a step on top of one that lost files would give an image without them. So the number is
//! noted by whoever makes a snapshot from entries, since it knows what it wrote. A process's changes on an overlay nobody
//! counts; there the first walk does, which packs them. Each further walk of the whole snapshot compares: no walk is made for
//! the number alone.

use super::Error;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The number's place, beside a layer's files.
fn place(files: &Path) -> PathBuf {
    files.with_file_name("entries")
}

/// Notes how many files and directories are in `files`, a layer's; written beside and renamed, so that the number is
/// whole.
pub(super) fn note(files: &Path, entries: u64) -> Result<(), Error> {
    let (path, beside) = (place(files), files.with_file_name(format!("entries.{}", std::process::id())));
    fs::write(&beside, entries.to_string()).map_err(|e| Error::host("write", &beside, e))?;
    fs::rename(&beside, &path).map_err(|e| Error::host("rename", &path, e))
}

/// The number that is noted for a layer's files. Older snapshots have none; one that a power cut has torn is none.
pub(super) fn noted(files: &Path) -> Result<Option<u64>, Error> {
    let path = place(files);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.parse().ok()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::host("read", &path, e)),
    }
}

/// Compares what a walk of all of a layer's files has found with the names that it was told of, and with what is noted; notes
/// it where nothing is.
///
/// # Errors
/// [`Error::Damaged`] if there are fewer files than there should be, or more.
pub(super) fn check(files: &Path, listed: u64, found: u64) -> Result<(), Error> {
    let expected = if listed == found { noted(files)? } else { Some(listed) };
    match expected {
        Some(expected) if expected != found => {
            Err(Error::Damaged { folder: files.parent().unwrap_or(files).into(), expected, found })
        }
        Some(_) => Ok(()),
        // Whoever cannot write to the store has nothing to note.
        None => note(files, found).or(Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, EntryKind, EntryPath, EntrySink as _, Timestamp};
    use crate::snapshot::{FolderWriter, NewLayer, diff};
    use crate::store::Form;
    use proptest::prelude::*;
    use std::io;

    /// What every user can write.
    const NOTED: Form = Form { owners: true, marks: true };

    fn names_below(folder: &Path) -> i64 {
        let below = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            1 + if entry.file_type().unwrap().is_dir() { names_below(&entry.path()) } else { 0 }
        };
        fs::read_dir(folder).unwrap().map(below).sum()
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|names| EntryPath::parse(names.join("/").as_bytes()).unwrap());
        let kind = prop_oneof![
            4 => Just(EntryKind::File { size: 1 }),
            3 => Just(EntryKind::Dir),
            1 => prop::sample::select(vec!["a", "/b", "../c", "."]).prop_map(|to| EntryKind::Symlink(to.into())),
            2 => path.clone().prop_map(EntryKind::Hardlink),
            1 => Just(EntryKind::Fifo),
            1 => Just(EntryKind::CharDevice(crate::layer::Device { major: 1, minor: 3 })),
            2 => Just(EntryKind::Whiteout),
            1 => Just(EntryKind::Opaque),
        ];
        (path, kind).prop_map(|(path, kind)| Entry::new(path, kind))
    }

    /// Adds entries, those that can be added.
    fn add(writer: &mut FolderWriter, entries: &[Entry]) {
        for entry in entries {
            let _ = writer.add(entry, &mut io::repeat(b'x').take(entry.size()));
        }
    }

    use std::io::Read as _;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_counted_is_what_is_there(
            lower in prop::collection::vec(entry(), 0..20),
            upper in prop::collection::vec(entry(), 0..20),
        ) {
            let temp = tempfile::tempdir().unwrap();
            let mut layers: Vec<PathBuf> = Vec::new();
            for (number, entries) in [&lower, &upper].into_iter().enumerate() {
                let layer = NewLayer::prepare(&temp.path().join(number.to_string()), &layers, NOTED).unwrap();
                let mut writer = layer.writer(Timestamp::default()).unwrap();
                add(&mut writer, entries);
                prop_assert_eq!(writer.entries(), names_below(&layer.files()));
                writer.finish().unwrap();
                // The walk of whoever packs it finds as many.
                diff(layer.folder(), &layers, &mut Nowhere).unwrap();
                layers.insert(0, layer.folder().into());
            }
            // Where nothing lies below, what is gone is removed.
            let plain = temp.path().join("plain");
            fs::create_dir(&plain).unwrap();
            for entries in [&lower, &upper] {
                let before = names_below(&plain);
                let mut writer = FolderWriter::plain(&plain, Timestamp::default()).unwrap();
                add(&mut writer, entries);
                for path in entries.iter().filter(|e| e.kind == EntryKind::Whiteout).map(|e| &e.path) {
                    let _ = writer.delete(path);
                }
                for path in entries.iter().filter(|e| e.kind == EntryKind::Opaque).map(|e| &e.path) {
                    let _ = writer.empty(path);
                }
                prop_assert_eq!(before + writer.entries(), names_below(&plain));
            }
        }
    }

    /// Takes everything, and removes a file when it comes to another one.
    struct Removing<'a> {
        at: &'a str,
        file: PathBuf,
    }

    impl crate::layer::EntrySink for Removing<'_> {
        fn add(&mut self, entry: &Entry, _: &mut dyn io::Read) -> Result<(), crate::layer::Error> {
            if entry.path.as_bytes() == self.at.as_bytes() {
                fs::remove_file(&self.file).unwrap();
            }
            Ok(())
        }
    }

    struct Nowhere;

    impl crate::layer::EntrySink for Nowhere {
        fn add(&mut self, _: &Entry, _: &mut dyn io::Read) -> Result<(), crate::layer::Error> {
            Ok(())
        }
    }

    /// A layer with three files, made from entries.
    fn layer(temp: &Path) -> NewLayer {
        let layer = NewLayer::prepare(&temp.join("layer"), &Vec::<PathBuf>::new(), NOTED).unwrap();
        let mut writer = layer.writer(Timestamp::default()).unwrap();
        for name in ["a", "d/b", "d/c"] {
            let path = EntryPath::parse(name.as_bytes()).unwrap();
            writer.add(&Entry::new(path, EntryKind::File { size: 0 }), &mut io::empty()).unwrap();
        }
        writer.finish().unwrap();
        layer
    }

    fn pack(layer: &NewLayer) -> Result<(), Error> {
        diff(layer.folder(), &Vec::<PathBuf>::new(), &mut Nowhere)
    }

    fn is_damaged(packed: Result<(), Error>, numbers: (u64, u64)) -> bool {
        matches!(packed, Err(Error::Damaged { expected, found, .. }) if (expected, found) == numbers)
    }

    #[test]
    fn a_snapshot_that_lost_files_is_not_packed() {
        let temp = tempfile::tempdir().unwrap();
        let layer = layer(temp.path());
        assert_eq!(noted(&layer.files()).unwrap(), Some(4));
        pack(&layer).unwrap();
        fs::write(layer.files().join("d/new"), "").unwrap();
        assert!(is_damaged(pack(&layer), (4, 5)));
        fs::remove_file(layer.files().join("d/new")).unwrap();
        fs::remove_file(layer.files().join("d/c")).unwrap();
        assert!(is_damaged(pack(&layer), (4, 3)));
        fs::remove_dir_all(layer.files().join("d")).unwrap();
        assert!(is_damaged(pack(&layer), (4, 1)));
    }

    #[test]
    fn what_nobody_has_counted_is_counted_when_it_is_packed() {
        let temp = tempfile::tempdir().unwrap();
        let layer = layer(temp.path());
        for text in [None, Some(""), Some("nonsense")] {
            fs::remove_file(place(&layer.files())).unwrap();
            if let Some(torn) = text {
                fs::write(place(&layer.files()), torn).unwrap();
            }
            assert_eq!(noted(&layer.files()).unwrap(), None);
            pack(&layer).unwrap();
            assert_eq!(noted(&layer.files()).unwrap(), Some(4));
        }
        let names = fs::read_dir(layer.folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["entries", "fs", "notes.json"]);
    }

    #[test]
    fn a_file_that_goes_away_during_the_walk_is_missed() {
        let temp = tempfile::tempdir().unwrap();
        let layer = layer(temp.path());
        fs::remove_file(place(&layer.files())).unwrap();
        let mut sink = Removing { at: "d/b", file: layer.files().join("d/c") };
        let packed = diff(layer.folder(), &Vec::<PathBuf>::new(), &mut sink);
        assert!(is_damaged(packed, (4, 3)));
        assert_eq!(noted(&layer.files()).unwrap(), None);
    }
}
