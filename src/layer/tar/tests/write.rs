//! What is written.

use super::*;

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
    for len in [1_usize, 99, 100, 101, 155, 156, 255, 256, 4090] {
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
