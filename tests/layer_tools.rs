//! Layers and the other tools that read and write them: GNU tar, bsdtar, Python's tarfile, xz, bzip2, zstd, gzip.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)] // the helpers are tests too

use kiln::layer::{
    Compression, Decoder, Device, Entry, EntryKind, EntryPath, EntrySink, Format, Packer, TarReader, TarWriter,
    Timestamp,
};
use std::fs;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether a program is there; a test that needs it says so and ends where it isn't.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("skipped: there is no {program} here");
    }
    there
}

/// What a program prints with that input.
fn output(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let out = std::thread::scope(|scope| {
        // A program may stop reading before the end.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    assert!(out.status.success(), "{command:?}");
    out.stdout
}

fn path(s: &str) -> EntryPath {
    EntryPath::parse(s.as_bytes()).unwrap()
}

/// A file of every kind that a person without privileges can unpack, with all that needs an extended header.
fn layer() -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    let mut add = |name: &str, kind: EntryKind, mode: u32, content: &[u8]| {
        let mut entry = Entry::new(path(name), kind);
        (entry.mode, entry.mtime) = (mode, Timestamp { secs: 1_600_000_000, nanos: 123_456_789 });
        if matches!(entry.kind, EntryKind::File { .. }) {
            entry.xattrs.insert(b"user.lines".to_vec(), b"one\ntwo\n".to_vec());
        }
        tar.add(&entry, &mut { content }).unwrap();
    };
    let size = |content: &[u8]| EntryKind::File { size: content.len() as u64 };
    add("d", EntryKind::Dir, 0o755, b"");
    add("d/file", size(b"hello"), 0o640, b"hello");
    add("d/exe", size(b""), 0o755, b"");
    add("d/hard", EntryKind::Hardlink(path("d/file")), 0o640, b"");
    add("d/soft", EntryKind::Symlink(b"file".to_vec()), 0o777, b"");
    add("d/\u{e4}\u{1f525}", size(b"utf-8"), 0o600, b"utf-8");
    add(&format!("d/{}", "long".repeat(60)), size(b"long"), 0o600, b"long");
    add("d/far", EntryKind::Symlink("../".repeat(50).into_bytes()), 0o777, b"");
    add("d/fifo", EntryKind::Fifo, 0o644, b"");
    tar.finish().unwrap()
}

fn check_unpacked(root: &Path) {
    let d = root.join("d");
    assert_eq!(fs::read(d.join("file")).unwrap(), b"hello");
    let meta = fs::metadata(d.join("file")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 123_456_789));
    assert_eq!(meta.ino(), fs::metadata(d.join("hard")).unwrap().ino());
    assert_eq!(fs::read_link(d.join("soft")).unwrap(), Path::new("file"));
    assert_eq!(fs::read(d.join("\u{e4}\u{1f525}")).unwrap(), b"utf-8");
    assert_eq!(fs::read(d.join("long".repeat(60))).unwrap(), b"long");
    assert_eq!(fs::read_link(d.join("far")).unwrap().as_os_str().len(), 150);
    assert!(fs::symlink_metadata(d.join("fifo")).is_ok());
}

#[test]
fn gnu_tar_unpacks_our_layers() {
    if has("tar") {
        let dir = tempfile::tempdir().unwrap();
        output(Command::new("tar").args(["-x", "-p", "-C"]).arg(dir.path()), &layer());
        check_unpacked(dir.path());
    }
}

#[test]
fn bsdtar_unpacks_our_layers() {
    if has("bsdtar") {
        let dir = tempfile::tempdir().unwrap();
        output(Command::new("bsdtar").args(["-x", "-p", "-f", "-", "-C"]).arg(dir.path()), &layer());
        check_unpacked(dir.path());
    }
}

#[test]
fn python_reads_our_layers() {
    if has("python3") {
        let script = "
import sys, tarfile
for m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'):
    print(m.type.decode(), m.name, m.linkname, oct(m.mode), m.mtime, m.pax_headers.get('SCHILY.xattr.user.lines'))
";
        let text = String::from_utf8(output(Command::new("python3").args(["-c", script]), &layer())).unwrap();
        assert!(text.contains("0 d/file  0o640 1600000000.1234567 one\ntwo\n"), "{text}");
        assert!(text.contains("1 d/hard d/file 0o640"), "{text}");
        assert!(text.contains("0 d/\u{e4}\u{1f525}  0o600"), "{text}");
        assert_eq!(text.matches("\n6 d/fifo").count(), 1, "{text}");
    }
}

fn read_all(tar: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = TarReader::archive(tar);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        entries.push((entry, content));
    }
    entries
}

/// A folder with what each tool writes in its own way.
fn folder(root: &Path) {
    let d = root.join("d");
    fs::create_dir(&d).unwrap();
    fs::write(d.join("file"), b"hello").unwrap();
    fs::hard_link(d.join("file"), d.join("hard")).unwrap();
    symlink("x".repeat(200), d.join("soft")).unwrap();
    fs::create_dir(d.join("l".repeat(120))).unwrap();
    fs::write(d.join("l".repeat(120)).join("m".repeat(120)), b"deep").unwrap();
    fs::write(d.join("\u{e4}"), b"utf-8").unwrap();
}

fn check_read(tar: &[u8], what: &str) {
    let entries = read_all(tar);
    let find =
        |name: &str| entries.iter().find(|(e, _)| e.path == path(name)).unwrap_or_else(|| panic!("{what} {name}"));
    assert_eq!(find("d").0.kind, EntryKind::Dir, "{what}");
    let links = [find("d/file"), find("d/hard")];
    assert_eq!(links.iter().filter(|(_, content)| content == b"hello").count(), 1, "{what}");
    assert_eq!(links.iter().filter(|(e, _)| matches!(e.kind, EntryKind::Hardlink(_))).count(), 1, "{what}");
    assert_eq!(find("d/soft").0.kind, EntryKind::Symlink(vec![b'x'; 200]), "{what}");
    assert_eq!(find(&format!("d/{}/{}", "l".repeat(120), "m".repeat(120))).1, b"deep", "{what}");
    assert_eq!(find("d/\u{e4}").1, b"utf-8", "{what}");
}

#[test]
fn we_read_what_gnu_tar_writes() {
    if has("tar") {
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path());
        for format in ["gnu", "oldgnu", "pax"] {
            let format = format!("--format={format}");
            check_read(&output(Command::new("tar").args(["-c", &format, "d"]).current_dir(&dir), b""), &format);
        }
    }
}

#[test]
fn we_read_what_bsdtar_writes() {
    if has("bsdtar") {
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path());
        for format in ["pax", "gnutar"] {
            let mut bsdtar = Command::new("bsdtar");
            let bsdtar = bsdtar.env("LC_ALL", "C.UTF-8").current_dir(&dir);
            check_read(&output(bsdtar.args(["-c", "-f", "-", "--format", format, "d"]), b""), format);
        }
    }
}

#[test]
fn we_read_what_python_writes() {
    if has("python3") {
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path());
        for format in ["GNU_FORMAT", "PAX_FORMAT"] {
            let script = format!(
                "import sys, tarfile\nwith tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}) as t: t.add('d')"
            );
            check_read(&output(Command::new("python3").args(["-c", &script]).current_dir(&dir), b""), format);
        }
    }
}

#[test]
fn we_read_the_sparse_files_of_gnu_tar() {
    if has("tar") {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("sparse")).unwrap();
        // More pieces than one old header holds.
        for n in 0..40 {
            file.write_all_at(format!("piece {n}").as_bytes(), n << 16).unwrap();
        }
        file.set_len(5 << 20).unwrap();
        let want = fs::read(dir.path().join("sparse")).unwrap();
        for way in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
            let mut tar = Command::new("tar");
            if way.starts_with("--sparse") {
                tar.arg("--format=pax");
            }
            let bytes = output(tar.args(["-c", "-S", way, "sparse"]).current_dir(&dir), b"");
            assert!(bytes.len() < 1 << 20, "{way}: no hole on this file system");
            let entries = read_all(&bytes);
            assert_eq!(entries[0].0.path, path("sparse"), "{way}");
            assert!(entries[0].1 == want, "{way}");
        }
    }
}

#[test]
fn decompressors_agree_on_our_blobs() {
    let content = b"some text that repeats ".repeat(40_000);
    for (way, program) in [(Compression::GZIP, "gzip"), (Compression::ZSTD, "zstd"), (Compression::GZIP, "pigz")] {
        if has(program) {
            let mut packer = Packer::layer(Vec::new(), way, NonZeroUsize::new(2).unwrap());
            let entry = Entry::new(path("f"), EntryKind::File { size: content.len() as u64 });
            packer.add(&entry, &mut content.as_slice()).unwrap();
            let device = EntryKind::CharDevice(Device { major: 1, minor: 3 });
            packer.add(&Entry::new(path("null"), device), &mut io::empty()).unwrap();
            let (packed, blob) = packer.finish().unwrap();
            let tar = output(Command::new(program).args(["-d", "-c"]), &blob);
            assert_eq!(kiln::oci::Digest::of(&tar), packed.diff_id, "{program}");
        }
    }
}

#[test]
fn we_unpack_what_compressors_write() {
    let content: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    for (program, flags, format) in [
        ("gzip", &["-1"][..], Format::Gzip),
        ("bzip2", &["-9"], Format::Bzip2),
        ("xz", &["-9"], Format::Xz),
        ("xz", &["-0", "--check=sha256", "--block-size=100000"], Format::Xz),
        ("zstd", &["-19"], Format::Zstd),
        ("zstd", &["--ultra", "-22"], Format::Zstd),
    ] {
        if has(program) {
            let packed = output(Command::new(program).arg("-c").args(flags), &content);
            let twice = packed.repeat(2);
            let mut decoder = Decoder::new(twice.as_slice()).unwrap();
            assert_eq!(decoder.format(), format);
            let mut out = Vec::new();
            decoder.read_to_end(&mut out).unwrap();
            assert!(out == content.repeat(2), "{program} {flags:?}");
        }
    }
}
