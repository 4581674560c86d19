//! What is read, and what is refused.

use super::*;

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
fn an_end_is_an_end_and_an_error_an_error() {
    let bytes = [write(&vec![file("a", b"")]), plain(b"after", b"")].concat();
    let mut reader = TarReader::layer(bytes.as_slice());
    assert!(reader.next_entry().unwrap().is_some());
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.next_entry().unwrap(), None, "what comes after isn't part of it");
    let bytes = [plain(b"../out", b""), plain(b"in", b"")].concat();
    let mut reader = TarReader::layer(bytes.as_slice());
    assert!(reader.next_entry().is_err());
    assert!(reader.next_entry().unwrap_err().to_string().contains("broken before"));
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

/// A path of a megabyte once took 768 MB to unpack: as many open directories as it has parts, each with its own path.
#[test]
fn paths_that_no_runtime_opens_are_refused() {
    let long = b"d/".repeat(500_000);
    let gnu = |kind| [raw_header(b"LongLink", kind, long.len() as i64, |_| ()), padded(&long)].concat();
    for bytes in [
        [pax(&[("path", &long)]), plain(b"x", b"")].concat(),
        [pax(&[("linkpath", &long)]), raw_header(b"l", b'1', 0, |_| ())].concat(),
        [gnu(b'L'), plain(b"x", b"")].concat(),
        [gnu(b'K'), raw_header(b"l", b'1', 0, |_| ())].concat(),
        [pax(&[("path", &b"a/../".repeat(200_000))]), plain(b"x", b"")].concat(),
    ] {
        let said = reason(&bytes);
        assert!(said.contains("longer than 4095 bytes") && said.len() < 900, "{said}");
    }
    let longest = [b"d/".repeat(2047), b"f".to_vec()].concat();
    let bytes = [pax(&[("path", &longest)]), plain(b"x", b"")].concat();
    assert_eq!(read(&bytes).unwrap()[0].0.path.as_bytes(), longest);
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
