//! Files with holes.

use super::*;

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
