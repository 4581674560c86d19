//! Blobs as a whole: packed, compressed, read back, verified.

use super::*;
use crate::oci::{Digest, MediaType};
use proptest::prelude::*;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

const WAYS: [Compression; 6] = [
    Compression::None,
    Compression::Gzip(0),
    Compression::Gzip(1),
    Compression::GZIP,
    Compression::Gzip(9),
    Compression::Zstd(1),
];

fn threads(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn compress(bytes: &[u8], way: Compression, n: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), way, threads(n));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Decoder::new(bytes)?.read_to_end(&mut out)?;
    Ok(out)
}

/// Bytes like those of a layer: text that repeats, and noise.
fn sample(len: usize, noisy: bool) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        match next() {
            n if noisy => out.extend_from_slice(&n.to_le_bytes()),
            n => out.extend_from_slice(format!("line {} of {}\n", n % 100, n % 7).as_bytes()),
        }
    }
    out.truncate(len);
    out
}

fn path(s: &str) -> EntryPath {
    EntryPath::parse(s.as_bytes()).unwrap()
}

fn pack(way: Compression, n: usize, files: &[(&str, &[u8])]) -> (Packed, Vec<u8>) {
    let mut packer = Packer::layer(Vec::new(), way, threads(n));
    for (name, content) in files {
        let entry = Entry::new(path(name), EntryKind::File { size: content.len() as u64 });
        packer.add(&entry, &mut { *content }).unwrap();
    }
    packer.finish().unwrap()
}

#[test]
fn streams_of_all_sizes_come_back() {
    const BLOCK: usize = 256 << 10;
    for noisy in [false, true] {
        for len in [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK + 77, (2 << 20) + 1] {
            let bytes = sample(len, noisy);
            for way in WAYS {
                assert!(decompress(&compress(&bytes, way, 2)).unwrap() == bytes, "{len} {way} {noisy}");
            }
        }
    }
}

#[test]
fn bytes_depend_neither_on_threads_nor_on_writes() {
    let bytes = [sample(900_000, false), sample(600_000, true), sample(900_000, false)].concat();
    for way in [Compression::GZIP, Compression::ZSTD] {
        let want = compress(&bytes, way, 1);
        for n in [2, 3, 8] {
            assert!(compress(&bytes, way, n) == want, "{n}");
        }
        let mut encoder = Encoder::new(Vec::new(), way, threads(2));
        for chunk in bytes.chunks(997) {
            encoder.write_all(chunk).unwrap();
            encoder.flush().unwrap();
        }
        assert!(encoder.finish().unwrap() == want);
    }
}

#[test]
fn gzip_is_one_member_whose_blocks_know_the_one_before() {
    let bytes = sample(1 << 20, true);
    // Noise that comes again 20,000 bytes later is found again, across blocks too.
    let again = bytes[..20_000].repeat(50);
    let packed = compress(&again, Compression::GZIP, 2);
    assert!(packed.len() < 40_000, "{}", packed.len());
    let mut one = flate2::bufread::GzDecoder::new(packed.as_slice());
    let mut out = Vec::new();
    one.read_to_end(&mut out).unwrap();
    assert!(out == again && one.into_inner().is_empty());
}

#[test]
fn noise_is_stored() {
    let bytes = sample(3 << 20, true);
    for way in [Compression::GZIP, Compression::Gzip(1), Compression::ZSTD] {
        let len = compress(&bytes, way, 2).len();
        assert!(len < bytes.len() + bytes.len() / 1000, "{way}: {len}");
    }
}

#[test]
fn an_output_that_fails_stops_the_input() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for way in WAYS {
        let mut encoder = Encoder::new(Full(100_000), way, threads(2));
        let error = (0..100).find_map(|_| encoder.write_all(&sample(1 << 20, true)).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{way}");
        let error = Packer::layer(Full(10), way, threads(2)).finish();
        assert!(matches!(error, Err(Error::Write(_))), "{way}");
    }
}

#[test]
fn packed_layers_are_described_and_read_back() {
    let big = sample(1_000_000, false);
    let files = [("a", &b"hello"[..]), ("big", &big), ("z", b"")];
    let plain = pack(Compression::None, 1, &files);
    assert_eq!(plain.0.digest, plain.0.diff_id);
    for (way, media_type) in [
        (Compression::None, MediaType::ImageLayer),
        (Compression::GZIP, MediaType::ImageLayerGzip),
        (Compression::ZSTD, MediaType::ImageLayerZstd),
    ] {
        let (packed, blob) = pack(way, 2, &files);
        assert_eq!(packed.diff_id, plain.0.diff_id);
        assert_eq!((packed.size, packed.unpacked_size), (blob.len() as u64, plain.1.len() as u64));
        assert_eq!((&packed.digest, &packed.media_type), (&Digest::of(&blob), &media_type));
        assert_eq!(packed.descriptor().size(), packed.size);
        let blob = LayerReader::new(blob.as_slice(), &packed.digest, packed.size, Some(&packed.diff_id)).unwrap();
        let mut reader = TarReader::layer(blob);
        for (name, content) in files {
            assert_eq!(reader.next_entry().unwrap().unwrap().path, path(name));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert!(read == content, "{name}");
        }
        assert_eq!(reader.next_entry().unwrap(), None);
        reader.drain().unwrap();
    }
}

#[test]
fn an_error_names_the_file() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let mut packer = Packer::layer(Vec::new(), Compression::GZIP, threads(1));
    let error = packer.add(&Entry::new(path("etc/f"), EntryKind::File { size: 1 }), &mut Broken).unwrap_err();
    assert_eq!(error.to_string(), "read /etc/f");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk on fire");
}

#[test]
fn names_that_act_as_whiteouts_are_refused_in_layers_alone() {
    let file = EntryKind::File { size: 0 };
    let kinds = [
        file.clone(),
        EntryKind::Dir,
        EntryKind::Symlink(b"a".to_vec()),
        EntryKind::Hardlink(path("a")),
        EntryKind::Fifo,
        EntryKind::Whiteout,
    ];
    for kind in kinds {
        let entry = Entry::new(path("d/.wh.a"), kind);
        let mut layer = Packer::layer(Vec::new(), Compression::None, threads(1));
        let error = layer.add(&entry, &mut io::empty()).unwrap_err();
        assert!(matches!(&error, Error::Reserved(p) if *p == path("d/.wh.a")), "{error}");
        assert!(error.to_string().contains("/d/.wh.a"), "{error}");
        Packer::archive(Vec::new(), Compression::None, threads(1)).add(&entry, &mut io::empty()).unwrap();
    }
    let mut layer = Packer::layer(Vec::new(), Compression::None, threads(1));
    for (name, kind) in [(".wh", file.clone()), (".WH.a", file), ("a", EntryKind::Whiteout), ("", EntryKind::Opaque)] {
        layer.add(&Entry::new(path(name), kind), &mut io::empty()).unwrap();
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

const XZ: &str = "fd377a585a000004e6d6b446020021011c00000010cf58cc01000c68656c6c6f2c20776f726c640a000000007b465a81c912b8ea0001250d7119c4b61fb6f37d010000000004595a";
const XZ_X86: &str = "fd377a585a000004e6d6b44602010400210116000d86351f01000c68656c6c6f2c20776f726c640a000000007b465a81c912b8ea0001250d7119c4b61fb6f37d010000000004595a";
/// One byte, with a window of 1.5 GiB.
const XZ_HUGE: &str = "fd377a585a00000ae1fb0ca102002101250000003b787b4101000078000000002d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881000131010f82dc91189b4b9a01000000000a595a";
const BZIP2: &str =
    "425a683931415926535954a49784000002d180001040040644908020003100302068620049d4b21f3f17724538509054a49784";

/// `hello, world` in each format.
fn hellos() -> Vec<(Format, Vec<u8>)> {
    let hello = b"hello, world\n";
    vec![
        (Format::Gzip, compress(hello, Compression::GZIP, 1)),
        (Format::Zstd, compress(hello, Compression::ZSTD, 1)),
        (Format::Bzip2, hex(BZIP2)),
        (Format::Xz, hex(XZ)),
        (Format::Xz, hex(XZ_X86)),
    ]
}

#[test]
fn every_format_is_known_and_read() {
    for (format, bytes) in hellos() {
        assert_eq!(Decoder::new(bytes.as_slice()).unwrap().format(), format);
        assert_eq!(decompress(&bytes).unwrap(), b"hello, world\n", "{format:?}");
        assert_eq!(decompress(&bytes.repeat(3)).unwrap(), b"hello, world\n".repeat(3), "{format:?} in three parts");
    }
    for plain in [&b""[..], b"a", b"hello", b"\x1f\x8b", b"BZ", &[0; 700]] {
        assert_eq!(decompress(plain).unwrap(), plain);
    }
}

#[test]
fn skippable_frames_are_zstd() {
    let bytes = [hex("502a4d1803000000ffffff"), compress(b"x", Compression::ZSTD, 1)].concat();
    assert_eq!(decompress(&bytes).unwrap(), b"x");
}

#[test]
fn streams_that_trickle_are_the_same() {
    struct Trickle<'a>(&'a [u8]);
    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buf[..1])
        }
    }
    for (format, bytes) in hellos() {
        let text = io::read_to_string(Decoder::new(Trickle(&bytes)).unwrap()).unwrap();
        assert_eq!(text, "hello, world\n", "{format:?}");
    }
}

#[test]
fn cut_streams_are_errors() {
    for (format, bytes) in hellos() {
        for len in 7..bytes.len() {
            assert!(decompress(&bytes[..len]).is_err(), "{format:?} {len} of {}", bytes.len());
        }
    }
}

#[test]
fn changed_streams_never_panic_and_stay_broken() {
    for (format, bytes) in hellos() {
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let Ok(mut decoder) = Decoder::new(bytes.as_slice()) else { continue };
                if io::copy(&mut decoder, &mut io::sink()).is_err() {
                    assert!(decoder.read(&mut [0; 9]).is_err(), "{format:?}");
                    assert!(decoder.drain().is_err(), "{format:?}");
                }
            }
        }
    }
}

#[test]
fn a_window_that_would_fill_the_memory_is_refused() {
    assert!(decompress(&hex(XZ_HUGE)).unwrap_err().to_string().contains("memory"));
    // A frame header with a window of 2^30 bytes, and a raw block of one byte.
    assert!(decompress(&hex("28b52ffd00a009000061")).is_err());
    assert_eq!(decompress(&hex("28b52ffd008809000061")).unwrap(), b"a", "2^27 is taken");
}

#[test]
fn what_add_takes_for_an_archive() {
    let (_, tar) = pack(Compression::None, 1, &[("f", b"x")]);
    assert!(is_archive(tar.as_slice()));
    assert!(is_archive(compress(&tar, Compression::GZIP, 1).as_slice()));
    assert!(is_archive(compress(&tar, Compression::ZSTD, 1).as_slice()));
    for (format, text) in hellos() {
        assert!(!is_archive(text.as_slice()), "{format:?}");
    }
    for no in [&b""[..], b"#!/bin/sh\n", b"\x1f\x8b\x08broken", b"PK\x03\x04", &[0; 4096]] {
        assert!(!is_archive(no));
    }
}

#[test]
fn verified_streams() {
    let digest = Digest::of(b"hello");
    let read = |bytes: &[u8], size| io::read_to_string(Verified::new(bytes, digest.clone(), size));
    assert_eq!(read(b"hello", Some(5)).unwrap(), "hello");
    assert_eq!(read(b"hello", None).unwrap(), "hello");
    for (bytes, size, want) in [
        (&b"hellO"[..], Some(5), "its digest is"),
        (b"hellO", None, "its digest is"),
        (b"hell", Some(5), "1 of 5 bytes are missing"),
        (b"hello!", Some(5), "more than its 5 bytes"),
        (b"", Some(5), "5 of 5"),
    ] {
        let error = read(bytes, size).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(error.get_ref().unwrap().is::<VerifyError>());
    }
    let mut verified = Verified::new(&b"hello"[..], digest.clone(), Some(5));
    verified.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(verified.read(&mut []).unwrap(), 0);
    assert!(!verified.is_accepted(), "the end wasn't read");
    assert_eq!(verified.read(&mut [0]).unwrap(), 0);
    assert!(verified.is_accepted());
}

#[test]
fn a_layer_is_accepted_only_whole_and_unchanged() {
    let (packed, blob) = pack(Compression::GZIP, 1, &[("f", &sample(3000, false))]);
    let other = Digest::of(b"other");
    let read = |blob: &[u8], size, diff_id| {
        let mut reader = TarReader::layer(LayerReader::new(blob, &packed.digest, size, diff_id)?);
        while reader.next_entry().map_err(io::Error::other)?.is_some() {}
        reader.drain().map_err(io::Error::other)
    };
    read(&blob, packed.size, Some(&packed.diff_id)).unwrap();
    read(&blob, packed.size, None).unwrap();
    assert!(read(&blob, packed.size, Some(&other)).is_err(), "diff id");
    assert!(read(&blob, packed.size + 1, None).is_err(), "size");
    assert!(read(&blob[..blob.len() - 1], packed.size, None).is_err(), "cut off");
    assert!(read(&[blob.clone(), vec![0]].concat(), packed.size, None).is_err(), "longer");
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        assert!(read(&changed, packed.size, None).is_err(), "byte {at}");
    }
}

#[test]
fn what_follows_the_compressed_stream_is_verified_too() {
    // The blob's last frame means nothing, but belongs to it.
    let frame = hex("502a4d1803000000ffffff");
    let (packed, blob) = pack(Compression::ZSTD, 1, &[("f", b"x")]);
    let blob = [blob, frame].concat();
    let mut reader = LayerReader::new(blob.as_slice(), &packed.digest, packed.size, None).unwrap();
    assert!(io::copy(&mut reader, &mut io::sink()).is_err());
    let mut reader = LayerReader::new(blob.as_slice(), &Digest::of(&blob), blob.len() as u64, None).unwrap();
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), packed.unpacked_size);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_comes_back(
        parts in prop::collection::vec((1_usize..400_000, any::<bool>()), 0..4),
        n in 1_usize..4,
    ) {
        let bytes = parts.into_iter().flat_map(|(len, noisy)| sample(len, noisy)).collect::<Vec<_>>();
        for way in [Compression::GZIP, Compression::ZSTD] {
            prop_assert!(decompress(&compress(&bytes, way, n)).unwrap() == bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(magic in 0_usize..6, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let magics: [&[u8]; 6] =
            [b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"];
        let bytes = [magics[magic], &bytes].concat();
        is_archive(bytes.as_slice());
        if let Ok(decoder) = Decoder::new(bytes.as_slice()) {
            let _ = io::copy(&mut decoder.take(1 << 20), &mut io::sink());
        }
    }
}
