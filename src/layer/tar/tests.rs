use super::*;
use crate::layer::{Device, Entry, EntryKind, EntryPath, EntrySink, Error, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Read};

type Pairs = Vec<(Entry, Vec<u8>)>;

fn path(s: &str) -> EntryPath {
    EntryPath::parse(s.as_bytes()).unwrap()
}

fn file(name: &str, content: &[u8]) -> (Entry, Vec<u8>) {
    (Entry::new(path(name), EntryKind::File { size: content.len() as u64 }), content.to_vec())
}

fn other(name: &str, kind: EntryKind) -> (Entry, Vec<u8>) {
    (Entry::new(path(name), kind), Vec::new())
}

fn write(entries: &Pairs) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        writer.add(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read_all<R: Read>(mut reader: TarReader<R>) -> Result<Pairs, Error> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        // Sparse files may claim to be endless.
        (&mut reader).take(1 << 20).read_to_end(&mut content).map_err(|source| Error::Read { offset: 0, source })?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn read(bytes: &[u8]) -> Result<Pairs, Error> {
    read_all(TarReader::layer(bytes))
}

fn reason(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

/// An archive by hand: a header with any name and kind, changed by `edit`, and what follows.
fn raw_header(name: &[u8], kind: u8, size: i64, edit: impl FnOnce(&mut block::Block)) -> Vec<u8> {
    let mut b = block::Block::zero();
    b.set_text(block::NAME, name);
    b.set_kind(kind);
    b.set_octal(block::MODE, 0o644);
    b.set_octal(block::LENGTH, size);
    b.seal();
    edit(&mut b);
    reseal(&mut b);
    b.0.to_vec()
}

/// The checksum anew, the magic as it is.
fn reseal(b: &mut block::Block) {
    let magic: [u8; 8] = b.0[257..265].try_into().unwrap();
    b.0[148..156].fill(b' ');
    let sum: u32 = b.0.iter().map(|x| u32::from(*x)).sum();
    b.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(b.0[257..265], magic);
}

fn gnu(b: &mut block::Block) {
    b.0[257..265].copy_from_slice(b"ustar  \0");
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut v = bytes.to_vec();
    v.resize(v.len() + block::padding(v.len() as u64), 0);
    v
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (k, v) in records {
        body.extend(pax::format(&[(k.as_bytes().to_vec(), v.to_vec())].into()));
    }
    pax_body(&body)
}

fn pax_body(body: &[u8]) -> Vec<u8> {
    [raw_header(b"PaxHeaders.0/x", b'x', body.len() as i64, |_| ()), padded(body)].concat()
}

fn plain(name: &[u8], content: &[u8]) -> Vec<u8> {
    [raw_header(name, b'0', content.len() as i64, |_| ()), padded(content)].concat()
}

const END: [u8; 1024] = [0; 1024];

#[test]
fn every_kind_comes_back() {
    let device = Device { major: 4095, minor: 1048575 };
    let entries = vec![
        other("", EntryKind::Dir),
        other("d", EntryKind::Dir),
        file("d/empty", b""),
        file("d/block", &[7; 512]),
        file("d/odd", &[8; 513]),
        other("d/link", EntryKind::Symlink(b"../../no/matter".to_vec())),
        other("d/hard", EntryKind::Hardlink(path("d/odd"))),
        other("d/char", EntryKind::CharDevice(device)),
        other("d/block-device", EntryKind::BlockDevice(device)),
        other("d/fifo", EntryKind::Fifo),
        other("gone", EntryKind::Whiteout),
        other("d/.gone", EntryKind::Whiteout),
        other("d", EntryKind::Opaque),
        other("", EntryKind::Opaque),
    ];
    let bytes = write(&entries);
    assert_eq!(bytes.len() % 512, 0);
    assert_eq!(bytes[bytes.len() - 1024..], END);
    assert_eq!(read(&bytes).unwrap(), entries);
}

#[test]
fn attributes_come_back() {
    let mut entries = Vec::new();
    for (n, mode) in [0, 0o644, 0o7777, 0o4755, 0o1777].into_iter().enumerate() {
        entries.push(file(&format!("mode{n}"), b"x"));
        entries[n].0.mode = mode;
    }
    for id in [0, 1000, 0o7777777, 0o10000000, u32::MAX] {
        let mut e = file(&format!("id{id}"), b"");
        (e.0.uid, e.0.gid) = (id, u32::MAX - id);
        entries.push(e);
    }
    let times =
        [(0, 0), (1, 1), (-1, 0), (-1, 999_999_999), (1 << 33, 0), ((1 << 33) - 1, 0), (i64::MAX, 5), (i64::MIN, 7)];
    for (n, (secs, nanos)) in times.into_iter().enumerate() {
        let mut e = file(&format!("time{n}"), b"");
        e.0.mtime = Timestamp { secs, nanos };
        entries.push(e);
    }
    assert_eq!(read(&write(&entries)).unwrap(), entries);
}

#[test]
fn xattrs_of_any_bytes_come_back() {
    let mut e = file("f", b"x");
    for (name, value) in [
        ("user.lines", &b"a\nb\n"[..]),
        ("user.record", b"12 path=evil\n"),
        ("user.nul", b"\0\0"),
        ("user.empty", b""),
        ("user.equals", b"a=b"),
        ("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("user.n\u{e4}me", b"\xff"),
    ] {
        e.0.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
    }
    e.0.xattrs.insert(b"user.big".to_vec(), vec![b'\n'; 65536]);
    assert_eq!(read(&write(&vec![e.clone()])).unwrap(), [e]);
}

#[test]
fn names_of_any_bytes_and_length_come_back() {
    for len in [1_usize, 99, 100, 101, 155, 156, 255, 256, 4096, 20_000] {
        for part in [&b"x"[..], b"y/", b"\xc3\xa4", b"\xff", b"\n"] {
            let name = EntryPath::parse(&part.repeat(len.div_ceil(part.len()))).unwrap();
            let entries = vec![
                (Entry::new(name.clone(), EntryKind::Dir), vec![]),
                (Entry::new(name.clone(), EntryKind::Symlink(name.as_bytes().to_vec())), vec![]),
                (Entry::new(name.clone(), EntryKind::Hardlink(name.clone())), vec![]),
                (Entry::new(name.clone(), EntryKind::Whiteout), vec![]),
                (Entry::new(name.clone(), EntryKind::File { size: 3 }), b"abc".to_vec()),
            ];
            assert_eq!(read(&write(&entries)).unwrap(), entries, "{len} {}", part.escape_ascii());
        }
    }
}

#[test]
fn the_header_is_gos_to_the_byte() {
    let mut e = file("etc/hosts", b"hello\n");
    e.0.mtime = Timestamp::from_secs(1_700_000_000);
    e.0.uid = 1000;
    let bytes = write(&vec![e]);
    let mut want = vec![0; 512];
    for (at, text) in [
        (0, "etc/hosts"),
        (100, "0000644\0"),
        (108, "0001750\0"),
        (116, "0000000\0"),
        (124, "00000000006\0"),
        (136, "14524770400\0"),
        (148, "007776\0 "),
        (156, "0"),
        (257, "ustar\x0000"),
        (329, "0000000\0"),
        (337, "0000000\0"),
    ] {
        want[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let sum: u32 = want[..148].iter().chain(&want[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
    want[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(bytes[..512].escape_ascii().to_string(), want.escape_ascii().to_string());
    assert_eq!(&bytes[512..518], b"hello\n");
}

#[test]
fn the_extended_header_is_gos_to_the_byte() {
    let mut e = other("a/b\u{e4}", EntryKind::Dir);
    e.0.mtime = Timestamp { secs: 1, nanos: 500_000_000 };
    let bytes = write(&vec![e]);
    let head = block::Block(bytes[..512].try_into().unwrap());
    assert_eq!(head.text(block::NAME), b"a/b/PaxHeaders.0");
    assert_eq!(head.kind(), b'x');
    assert!(head.0[100..124].iter().chain(&head.0[136..148]).all(|b| *b == 0), "no mode, owner, time");
    let body = "13 mtime=1.5\n15 path=a/b\u{e4}/\n";
    assert_eq!(&bytes[512..512 + body.len()], body.as_bytes());
    let main = block::Block(bytes[1024..1536].try_into().unwrap());
    assert_eq!((main.text(block::NAME), main.kind()), (&b"a/b/"[..], b'5'));
}

#[test]
fn nothing_extended_where_ustar_is_enough() {
    let mut e = file(&"x".repeat(100), b"");
    (e.0.uid, e.0.gid) = (0o7777777, 0o7777777);
    e.0.mtime = Timestamp::from_secs(0o77777777777);
    assert_eq!(write(&vec![e]).len(), 512 + 1024);
}

#[test]
fn big_files_have_their_size_in_the_extended_header() {
    struct Zeros(u64);
    impl Read for Zeros {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.min(buf.len() as u64);
            self.0 -= n;
            Ok(n as usize)
        }
    }
    // The content itself would take seconds: only the header is looked at.
    struct Stop(Vec<u8>);
    impl io::Write for Stop {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0.len() >= 1536 {
                return Err(io::Error::other("enough"));
            }
            self.0.extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let size = 1 << 33;
    let mut out = Stop(Vec::new());
    let entry = Entry::new(path("big"), EntryKind::File { size });
    TarWriter::new(&mut out).add(&entry, &mut Zeros(size)).unwrap_err();
    let entry_back = TarReader::layer(out.0.as_slice()).next_entry().unwrap().unwrap();
    assert_eq!(entry_back, entry);
}

#[test]
fn a_file_that_shrinks_or_grows_is_an_error() {
    let e = Entry::new(path("etc/f"), EntryKind::File { size: 5 });
    for (content, want) in [(&b"1234"[..], "fewer"), (b"123456", "more"), (b"", "fewer")] {
        let error = TarWriter::new(Vec::new()).add(&e, &mut { content }).unwrap_err().to_string();
        assert!(error.contains("/etc/f changed") && error.contains(want), "{error}");
    }
    let empty = Entry::new(path("f"), EntryKind::File { size: 0 });
    assert!(TarWriter::new(Vec::new()).add(&empty, &mut &b"x"[..]).is_err());
}

#[test]
fn what_tar_cannot_hold_is_an_error() {
    let mut equals = file("f", b"").0;
    equals.xattrs.insert(b"user.a=b".to_vec(), vec![]);
    let mut huge = file("f", b"").0;
    huge.xattrs.insert(b"user.a".to_vec(), vec![0; 1 << 20]);
    let far = Device { major: u32::MAX, minor: 0 };
    for bad in [
        equals,
        huge,
        other("d", EntryKind::CharDevice(far)).0,
        other("", EntryKind::Fifo).0,
        other("", EntryKind::Whiteout).0,
        other("l", EntryKind::Symlink(b"a\0b".to_vec())).0,
        Entry::new(path("f"), EntryKind::File { size: u64::MAX }),
    ] {
        let error = TarWriter::new(Vec::new()).add(&bad, &mut io::empty()).unwrap_err();
        assert!(matches!(error, Error::Unrepresentable { .. }), "{error}");
    }
}

#[test]
fn content_that_nobody_reads_is_skipped() {
    let bytes = write(&vec![file("a", &[1; 1000]), file("b", b"bb")]);
    let mut reader = TarReader::layer(bytes.as_slice());
    assert_eq!(reader.next_entry().unwrap().unwrap().path, path("a"));
    reader.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(reader.next_entry().unwrap().unwrap().path, path("b"));
    assert_eq!(io::read_to_string(&mut reader).unwrap(), "bb");
    assert_eq!(reader.next_entry().unwrap(), None);
}

#[test]
fn ends_without_zeros_or_padding_are_ends() {
    let whole = write(&vec![file("a", b"abc")]);
    for len in [515, 600, 1024, 1536, 2048] {
        assert_eq!(read(&whole[..len]).unwrap().len(), 1, "{len}");
    }
    assert_eq!(read(b"").unwrap(), []);
    assert_eq!(read(&END).unwrap(), []);
    assert_eq!(read(&END[..512]).unwrap(), []);
}

#[test]
fn cuts_elsewhere_are_errors() {
    let whole = write(&vec![file("a", b"abc")]);
    for len in [1, 511, 512, 514] {
        assert!(read(&whole[..len]).is_err(), "{len}");
    }
    assert!(reason(&pax(&[("path", b"x")])).contains("ends after an extended header"));
}

#[test]
fn what_follows_the_end_is_drained() {
    let bytes = [write(&vec![file("a", b"")]), vec![9; 100_000]].concat();
    let mut left = bytes.as_slice();
    let mut reader = TarReader::layer(&mut left);
    while reader.next_entry().unwrap().is_some() {}
    reader.drain().unwrap();
    drop(reader);
    assert!(left.is_empty());
}

#[test]
fn garbage_is_refused_by_name_and_place() {
    assert!(reason(&[b'x'; 2000]).contains("wrong checksum"));
    let bytes = [plain(b"good", b"1"), vec![b'?'; 1024]].concat();
    let text = reason(&bytes);
    assert!(text.contains("\"good\"") && text.contains("byte 1024"), "{text}");
    let bytes = [vec![0; 512], plain(b"late", b"")].concat();
    assert!(reason(&bytes).contains("zeros between"));
}

#[test]
fn old_archives_are_read() {
    let v7 = |name: &[u8], kind| raw_header(name, kind, 0, |b| b.0[257..512].fill(0));
    let bytes = [v7(b"dir/", 0), v7(b"dir/file", 0), v7(b"d2/", b'5'), v7(b"odd/", b'0'), END.to_vec()].concat();
    let kinds: Vec<_> = read(&bytes).unwrap().into_iter().map(|(e, _)| (e.path, e.kind)).collect();
    let f = EntryKind::File { size: 0 };
    let want = [("dir", EntryKind::Dir), ("dir/file", f.clone()), ("d2", EntryKind::Dir), ("odd", f)];
    assert_eq!(kinds, want.map(|(p, k)| (path(p), k)));
}

#[test]
fn prefixes_by_dialect() {
    let with = |edit: fn(&mut block::Block)| {
        let bytes = raw_header(b"name", b'0', 0, |b| {
            b.set_text(block::PREFIX, b"pre/fix");
            edit(b);
        });
        read(&bytes).unwrap()[0].0.path.clone()
    };
    assert_eq!(with(|_| ()), path("pre/fix/name"));
    assert_eq!(with(|b| b.0[508..512].copy_from_slice(b"tar\0")), path("pre/fix/name"));
    assert_eq!(with(|b| b.0[257..265].fill(0)), path("name"));
    // Go before 1.9 wrote GNU's magic with a POSIX prefix.
    assert_eq!(with(gnu), path("pre/fix/name"));
    assert_eq!(with(|b| (gnu(b), b.set_text(block::PREFIX, b"00000000012\x0000000000013")).1), path("name"));
}

#[test]
fn gnu_long_names() {
    let long = "n".repeat(300);
    let link = "l".repeat(300);
    let special = |kind, text: &str| {
        [raw_header(b"././@LongLink", kind, text.len() as i64 + 1, gnu), padded(&[text.as_bytes(), b"\0"].concat())]
            .concat()
    };
    let bytes =
        [special(b'L', &long), special(b'K', &link), raw_header(b"cut", b'2', 0, gnu), plain(b"next", b"")].concat();
    let entries = read(&bytes).unwrap();
    assert_eq!(entries[0].0.path, path(&long));
    assert_eq!(entries[0].0.kind, EntryKind::Symlink(link.into_bytes()));
    assert_eq!(entries[1].0.path, path("next"));
}

#[test]
fn base_256_numbers() {
    let bytes = raw_header(b"f", b'0', 0, |b| {
        gnu(b);
        b.0[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
        b.0[136..148].copy_from_slice(&[0xff; 12]);
    });
    let e = &read(&bytes).unwrap()[0].0;
    assert_eq!((e.uid, e.mtime.secs), (0xffff_fffe, -1));
}

#[test]
fn bad_numbers_are_refused() {
    let with =
        |at: usize, bytes: &[u8]| raw_header(b"f", b'0', 0, |b| b.0[at..at + bytes.len()].copy_from_slice(bytes));
    for (at, bytes, want) in [
        (100, &b"rw-r--r-"[..], "mode"),
        (108, b"9999999\0", "owner"),
        (108, &[0xff; 8], "owner"),
        (116, &[0x80, 0, 0, 1, 0, 0, 0, 0], "group"),
        (124, &[0xff; 12], "size"),
        (124, b"1e3\0\0\0\0\0\0\0\0\0", "size"),
        (136, b"xxxxxxxxxxx\0", "time"),
    ] {
        assert!(reason(&with(at, bytes)).contains(want), "{want}");
    }
}

#[test]
fn paths_that_lead_out_are_refused() {
    for (bytes, want) in [
        (plain(b"../x", b""), "leads out"),
        (plain(b"a/../../x", b""), "leads out"),
        ([pax(&[("path", b"../x")]), plain(b"x", b"")].concat(), "leads out"),
        (plain(b"", b""), "no name"),
        (plain(b"/", b""), "no name"),
        (plain(b".wh.", b""), "not a file name"),
        (plain(b"a/.wh...", b""), "not a file name"),
        (raw_header(b"l", b'1', 0, |b| b.set_text(block::LINK, b"../../etc/shadow")), "leads out"),
        (raw_header(b"l", b'1', 0, |_| ()), "hard link to the root"),
        (raw_header(b"l", b'2', 0, |_| ()), "symbolic link to nothing"),
        (raw_header(b"l", b'Z', 0, |_| ()), "type 'Z'"),
    ] {
        assert!(reason(&bytes).contains(want), "{want}: {}", reason(&bytes));
    }
}

#[test]
fn absolute_and_unclean_paths_are_made_relative() {
    let bytes = [plain(b"/etc/passwd", b""), plain(b"./a//b/../c", b"")].concat();
    let paths: Vec<_> = read(&bytes).unwrap().into_iter().map(|(e, _)| e.path).collect();
    assert_eq!(paths, [path("etc/passwd"), path("a/c")]);
}

#[test]
fn whiteouts_are_files_in_an_archive() {
    let bytes = [plain(b"a/.wh.b", b""), plain(b"a/.wh..wh..opq", b""), plain(b".wh..wh.plnk", b"")].concat();
    let kinds = |r| read_all(r).unwrap().into_iter().map(|(e, _)| (e.path, e.kind)).collect::<Vec<_>>();
    assert_eq!(
        kinds(TarReader::layer(bytes.as_slice())),
        [(path("a/b"), EntryKind::Whiteout), (path("a"), EntryKind::Opaque)]
    );
    let f = EntryKind::File { size: 0 };
    let want = ["a/.wh.b", "a/.wh..wh..opq", ".wh..wh.plnk"].map(|p| (path(p), f.clone()));
    assert_eq!(kinds(TarReader::archive(bytes.as_slice())), want);
}

#[test]
fn extended_headers_say_what_counts() {
    let bytes = [
        pax(&[
            ("path", b"real\nname"),
            ("uid", b"4000000000"),
            ("gid", b"7"),
            ("mtime", b"-1.25"),
            ("size", b"3"),
            ("SCHILY.xattr.user.k", b"v\n20 path=smuggled-x\n"),
            ("comment", b"whatever"),
        ]),
        raw_header(b"short", b'0', 0, |_| ()),
        padded(b"abc"),
        plain(b"next", b""),
    ]
    .concat();
    let entries = read(&bytes).unwrap();
    let (e, content) = &entries[0];
    assert_eq!((e.path.as_bytes(), content.as_slice()), (&b"real\nname"[..], &b"abc"[..]));
    assert_eq!((e.uid, e.gid, e.mtime), (4_000_000_000, 7, Timestamp { secs: -2, nanos: 750_000_000 }));
    assert_eq!(e.xattrs, BTreeMap::from([(b"user.k".to_vec(), b"v\n20 path=smuggled-x\n".to_vec())]));
    assert_eq!((entries[1].0.path.clone(), entries[1].0.uid), (path("next"), 0));
}

#[test]
fn the_last_of_equal_records_counts_and_empty_ones_do_not() {
    let two = [pax(&[("path", b"one"), ("path", b"two")]), plain(b"x", b"")].concat();
    assert_eq!(read(&two).unwrap()[0].0.path, path("two"));
    let empty = [pax(&[("path", b""), ("uid", b"")]), plain(b"x", b"")].concat();
    assert_eq!(read(&empty).unwrap()[0].0.path, path("x"));
}

#[test]
fn broken_extended_headers_are_refused() {
    for body in [&b"garbage"[..], b"99 path=x\n", b"9 path=x", b"10 path=\0x\n", b"12 uid=many\n", b"13 mtime=1.x\n"] {
        let bytes = [pax_body(body), plain(b"x", b"")].concat();
        assert!(reason(&bytes).contains("extended header"), "{}", body.escape_ascii());
    }
    let bytes = [pax(&[("size", b"-1")]), plain(b"x", b"")].concat();
    assert!(reason(&bytes).contains("size"));
    let bytes = [pax(&[("SCHILY.xattr.", b"v")]), plain(b"x", b"")].concat();
    assert!(reason(&bytes).contains("without a name"));
}

#[test]
fn an_extended_header_has_a_limit() {
    for kind in [b'x', b'g', b'L', b'K'] {
        let bytes = raw_header(b"h", kind, (1 << 20) + 1, |_| ());
        assert!(reason(&bytes).contains("the most is 1048576"));
    }
    // A size that isn't there takes no memory.
    assert!(read(&raw_header(b"h", b'x', 1 << 20, |_| ())).is_err());
}

#[test]
fn global_headers_change_nothing() {
    let body = b"19 path=everywhere\n";
    let bytes = [raw_header(b"g", b'g', body.len() as i64, |_| ()), padded(body), plain(b"x", b"")].concat();
    assert_eq!(read(&bytes).unwrap()[0].0.path, path("x"));
    let bad = [raw_header(b"g", b'g', 4, |_| ()), padded(b"junk"), plain(b"x", b"")].concat();
    assert!(read(&bad).is_err());
}

#[test]
fn sizes_of_what_has_no_content_are_ignored() {
    let bytes = [
        raw_header(b"d/", b'5', 999, |_| ()),
        raw_header(b"h", b'1', 999, |b| b.set_text(block::LINK, b"x")),
        plain(b"next", b"n"),
    ]
    .concat();
    let entries = read(&bytes).unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2].1, b"n");
}

/// 4 bytes, a hole, 3 bytes, a hole up to 20.
const HOLED: &[u8] = b"AAAA\0\0\0\0\0\0BBB\0\0\0\0\0\0\0";

#[test]
fn sparse_files_of_each_kind() {
    let old = [
        raw_header(b"s", b'S', 7, |b| {
            gnu(b);
            b.0[386..434].copy_from_slice(b"00000000000\x0000000000004\x0000000000012\x0000000000003\0");
            b.0[483..495].copy_from_slice(b"00000000024\0");
        }),
        padded(b"AAAABBB"),
    ];
    let zero = [
        pax(&[
            ("GNU.sparse.size", b"20"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", b"10"),
            ("GNU.sparse.numbytes", b"3"),
        ]),
        plain(b"s", b"AAAABBB"),
    ];
    let one = [
        pax(&[
            ("GNU.sparse.size", b"20"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"0,4,10,3"),
        ]),
        plain(b"GNUSparseFile.0/s", b"AAAABBB"),
    ];
    let modern = [
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"20"),
        ]),
        plain(b"GNUSparseFile.0/s", &[padded(b"2\n0\n4\n10\n3\n"), b"AAAABBB".to_vec()].concat()),
    ];
    for (way, parts) in [("old", old), ("0.0", zero), ("0.1", one), ("1.0", modern)] {
        let bytes = [parts.concat(), plain(b"next", b"n"), END.to_vec()].concat();
        let entries = read(&bytes).unwrap_or_else(|e| panic!("{way}: {e}"));
        assert_eq!(entries[0].0.path, path("s"), "{way}");
        assert_eq!(entries[0].0.kind, EntryKind::File { size: 20 }, "{way}");
        assert_eq!(entries[0].1, HOLED, "{way}");
        assert_eq!(entries[1].1, b"n", "{way}");
        // What isn't read is skipped.
        let mut reader = TarReader::layer(bytes.as_slice());
        reader.next_entry().unwrap();
        reader.read_exact(&mut [0; 6]).unwrap();
        assert_eq!(reader.next_entry().unwrap().unwrap().path, path("next"), "{way}");
    }
}

#[test]
fn an_old_sparse_map_goes_on_in_more_blocks() {
    let pair = |offset: u64| format!("{offset:011o}\0{:011o}\0", 1);
    let mut more = [0; 512];
    for i in 0..3 {
        more[i * 24..(i + 1) * 24].copy_from_slice(pair(8 + 2 * i as u64).as_bytes());
    }
    let head = raw_header(b"s", b'S', 7, |b| {
        gnu(b);
        for i in 0..4 {
            b.0[386 + i * 24..386 + (i + 1) * 24].copy_from_slice(pair(2 * i as u64).as_bytes());
        }
        b.0[482] = 1;
        b.0[483..495].copy_from_slice(b"00000000020\0");
    });
    let bytes = [head.clone(), more.to_vec(), padded(b"1234567")].concat();
    assert_eq!(read(&bytes).unwrap()[0].1, b"1\x002\x003\x004\x005\x006\x007\0\0\0");
    assert!(read(&head).is_err());
    // A map that always goes on ends with the archive, not with the memory.
    more[504] = 1;
    assert!(read(&[head, more.repeat(3)].concat()).is_err());
}

#[test]
fn lying_sparse_files_are_refused() {
    let list = |map: &[u8], blocks: &[u8], size: &[u8], stored: &[u8]| {
        let records = [("GNU.sparse.size", size), ("GNU.sparse.numblocks", blocks), ("GNU.sparse.map", map)];
        [pax(&records), plain(b"s", stored)].concat()
    };
    assert!(read(&list(b"0,4", b"1", b"20", b"AAAA")).is_ok());
    for (map, blocks, size, stored) in [
        (&b"0,4"[..], &b"2"[..], &b"20"[..], &b"AAAA"[..]),
        (b"0,4,5", b"2", b"20", b"AAAA"),
        (b"0,4", b"1", b"3", b"AAAA"),
        (b"0,4", b"1", b"20", b"AAAAA"),
        (b"0,4", b"1", b"20", b"AAA"),
        (b"-1,4", b"1", b"20", b"AAAA"),
        (b"4,2,0,2", b"2", b"20", b"AAAA"),
        (b"0,9223372036854775807,9223372036854775807,9", b"2", b"9223372036854775807", b"AAAA"),
        (b"0,4", b"1", b"-20", b"AAAA"),
        (b"a,b", b"1", b"20", b"AAAA"),
    ] {
        assert!(read(&list(map, blocks, size, stored)).is_err(), "{}", map.escape_ascii());
    }
    let content = |body: &[u8]| {
        [
            pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")]),
            plain(b"s", body),
        ]
        .concat()
    };
    assert!(read(&content(&padded(b"0\n"))).is_ok());
    for body in [&b""[..], b"1", b"x\n", b"-1\n", b"1\n0\n", b"99999999\n", b"123456789012345678901234567890\n"] {
        assert!(read(&content(body)).is_err(), "{}", body.escape_ascii());
        assert!(read(&content(&padded(body))).is_err() || body.is_empty(), "{}", body.escape_ascii());
    }
    let unknown = [pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]), plain(b"s", b"")].concat();
    assert!(reason(&unknown).contains("unknown version"));
}

#[test]
fn a_huge_sparse_file_takes_no_memory() {
    let bytes = [
        pax(&[("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"0,0")]),
        plain(b"s", b""),
    ]
    .concat();
    let mut reader = TarReader::layer(bytes.as_slice());
    assert_eq!(reader.next_entry().unwrap().unwrap().size(), i64::MAX as u64);
    let mut buf = [1; 4096];
    reader.read_exact(&mut buf).unwrap();
    assert_eq!(buf, [0; 4096]);
    assert_eq!(reader.next_entry().unwrap(), None);
}

#[test]
fn what_starts_like_a_tar() {
    let long = [raw_header(b"L", b'L', 4, gnu), padded(b"abc\0"), plain(b"x", b"")].concat();
    let global = [raw_header(b"g", b'g', 6, |_| ()), padded(b"6 k=v\n")].concat();
    for (bytes, want) in [
        (plain(b"x", b""), true),
        (plain(b"../x", b""), true),
        (raw_header(b"x", b'Z', 0, |_| ()), true),
        (long, true),
        (global, true),
        (b"".to_vec(), false),
        (END.to_vec(), false),
        (b"just text".to_vec(), false),
        (vec![b'a'; 4096], false),
        (plain(b"x", b"")[..300].to_vec(), false),
        (pax(&[("path", b"x")]), false),
    ] {
        assert_eq!(starts_like_tar(bytes.as_slice()), want, "{}", bytes[..bytes.len().min(20)].escape_ascii());
    }
}

/// The tar crate reads what we write as we do.
#[test]
fn the_tar_crate_agrees() {
    let mut long = file(&"long/".repeat(60), b"content");
    long.0.uid = 3_000_000;
    let entries = vec![
        other("d", EntryKind::Dir),
        file("d/f", b"hello"),
        long,
        other("l", EntryKind::Symlink("t".repeat(200).into_bytes())),
        other("h", EntryKind::Hardlink(path("d/f"))),
        other("dev", EntryKind::CharDevice(Device { major: 1, minor: 3 })),
    ];
    let bytes = write(&entries);
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    for (theirs, (ours, content)) in archive.entries().unwrap().zip(&entries) {
        let mut theirs = theirs.unwrap();
        let name = theirs.path_bytes().strip_suffix(b"/").map_or(theirs.path_bytes().to_vec(), <[u8]>::to_vec);
        assert_eq!(name, ours.path.as_bytes());
        assert_eq!(theirs.size(), ours.size());
        assert_eq!(theirs.header().mode().unwrap(), ours.mode);
        match &ours.kind {
            EntryKind::Symlink(t) => assert_eq!(theirs.link_name_bytes().unwrap().as_ref(), t),
            EntryKind::Hardlink(t) => assert_eq!(theirs.link_name_bytes().unwrap().as_ref(), t.as_bytes()),
            EntryKind::CharDevice(d) => assert_eq!(theirs.header().device_minor().unwrap(), Some(d.minor)),
            _ => {}
        }
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).unwrap();
        assert_eq!(&read, content);
    }
}

/// We read what the tar crate writes (GNU dialect with long names).
#[test]
fn the_tar_crates_archives_are_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let names = ["short".to_owned(), "dir/".repeat(50) + "file", "ä".repeat(80)];
    for name in &names {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o640);
        header.set_mtime(9);
        builder.append_data(&mut header, name, &b"data"[..]).unwrap();
    }
    let entries = read(&builder.into_inner().unwrap()).unwrap();
    for ((e, content), name) in entries.iter().zip(&names) {
        assert_eq!((e.path.as_bytes(), content.as_slice(), e.mode), (name.as_bytes(), &b"data"[..], 0o640));
    }
    assert_eq!(entries.len(), 3);
}

fn any_path() -> impl Strategy<Value = EntryPath> {
    let name = prop::collection::vec(prop_oneof![Just(b'a'), Just(b'.'), Just(b' '), 1_u8..=255], 1..120);
    prop::collection::vec(name, 1..4).prop_filter_map("a path", |names| {
        let path = EntryPath::parse(&names.join(&b'/')).ok()?;
        (!path.is_root() && !path.components().any(|c| c.starts_with(b".wh."))).then_some(path)
    })
}

fn any_kind() -> impl Strategy<Value = (EntryKind, Vec<u8>)> {
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    prop_oneof![
        bytes.prop_map(|c| (EntryKind::File { size: c.len() as u64 }, c)),
        Just((EntryKind::Dir, vec![])),
        prop::collection::vec(1_u8..=255, 1..300).prop_map(|t| (EntryKind::Symlink(t), vec![])),
        any_path().prop_map(|t| (EntryKind::Hardlink(t), vec![])),
        (0_u32..1 << 21, 0_u32..1 << 21)
            .prop_map(|(major, minor)| (EntryKind::BlockDevice(Device { major, minor }), vec![])),
        Just((EntryKind::Whiteout, vec![])),
        Just((EntryKind::Opaque, vec![])),
    ]
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let xattr = (
        prop::collection::vec(prop_oneof![b'a'..=b'z', 128_u8..=255], 1..9),
        prop::collection::vec(any::<u8>(), 0..60),
    );
    (
        any_path(),
        any_kind(),
        0_u32..0o10000,
        any::<(u32, u32, i64)>(),
        0_u32..1_000_000_000,
        prop::collection::btree_map(xattr.0, xattr.1, 0..4),
    )
        .prop_map(|(path, (kind, content), mode, (uid, gid, secs), nanos, xattrs)| {
            (Entry { path, kind, mode, uid, gid, mtime: Timestamp { secs, nanos }, xattrs }, content)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_written_is_read_back(entries in prop::collection::vec(any_entry(), 0..6)) {
        let bytes = write(&entries);
        prop_assert_eq!(&write(&entries), &bytes);
        prop_assert_eq!(read(&bytes).unwrap(), entries);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
        starts_like_tar(bytes.as_slice());
    }

    #[test]
    fn changed_archives_never_panic(
        entries in prop::collection::vec(any_entry(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        seal in any::<bool>(),
    ) {
        let mut bytes = write(&entries);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // With the checksum mended, the change gets further in.
            let start = at / 512 * 512;
            if seal && bytes[start + 257..].starts_with(b"ustar") {
                let mut b = block::Block(bytes[start..start + 512].try_into().unwrap());
                reseal(&mut b);
                bytes[start..start + 512].copy_from_slice(&b.0);
            }
        }
        let _ = read(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = read(&bytes);
    }

    #[test]
    fn broken_extended_headers_never_panic(body in "[0-9]{1,3} (path|size|uid|mtime|GNU.sparse.(map|offset|numbytes|major|size))=[-0-9.,]{0,30}\n{0,2}") {
        let _ = read(&[pax_body(body.as_bytes()), plain(b"x", b"abc")].concat());
    }
}
