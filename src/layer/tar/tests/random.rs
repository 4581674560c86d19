//! Anything at all.

use super::*;

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
