//! A layer's blob to a snapshot: decompressed and hashed on one thread, written on another.

use super::error::{Error, Result};
use crate::layer::{self, Decoder, EntrySink as _, Format, Tally, TarReader, Timestamp};
use crate::oci::{self, Descriptor, Digest, Hasher};
use crate::snapshot::{Layers, NewLayer};
use crate::store::TempSnapshot;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How much is handed from thread to thread at once, and how many such pieces may wait, bytes.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;

/// Refuses layers that aren't tars, whatever their bytes look like.
pub(super) fn check_media_type(descriptor: &Descriptor) -> Result<()> {
    if oci::is_layer(descriptor.media_type()) {
        return Ok(());
    }
    Err(Error::MediaType { digest: descriptor.digest().to_string(), media_type: descriptor.media_type().to_string() })
}

/// Unpacks a layer upon `parents` into `temp`, and verifies that it is the one with this `diff_id`. Says how much was in it.
pub(super) fn unpack(
    blob: impl Read + Send,
    digest: &Digest,
    diff_id: &Digest,
    parents: &Layers,
    temp: &TempSnapshot,
) -> Result<Tally> {
    let layer = NewLayer::prepare(temp.folder(), parents, temp.form())?;
    // Directories that no entry speaks of: the same time wherever they are made.
    let mut writer = layer.writer(Timestamp::default())?;
    let tar = |input: &mut dyn Read| -> std::result::Result<Tally, layer::Error> {
        let (mut tar, mut tally) = (TarReader::layer(input), Tally::default());
        while let Some(entry) = tar.next_entry()? {
            tally.add(&entry);
            writer.add(&entry, &mut tar)?;
        }
        tar.drain().map(|()| tally)
    };
    let hasher = diff_id.hasher();
    let (read, got) = read_ahead(blob, hasher, tar);
    let tally = read.map_err(|source| Error::Unpack { digest: digest.clone(), source })?;
    if got != *diff_id {
        return Err(Error::DiffId { digest: digest.clone(), expected: diff_id.clone(), got });
    }
    writer.finish()?;
    Ok(tally)
}

/// Runs `work` on the decompressed bytes of `blob`, which another thread reads, decompresses and hashes ahead of it.
fn read_ahead<T>(blob: impl Read + Send, hasher: Hasher, work: impl FnOnce(&mut dyn Read) -> T) -> (T, Digest) {
    let (full, filled) = sync_channel(AHEAD);
    let (back, spare) = sync_channel(AHEAD + 1);
    std::thread::scope(|scope| {
        let failed = full.clone();
        let reader = std::thread::Builder::new().spawn_scoped(scope, move || send_all(blob, hasher, &full, &spare));
        // There may be no PID left for a thread.
        let reader = reader.map_err(|e| failed.send(Err(e))).ok();
        drop(failed);
        let mut pieces = Pieces { filled, back, piece: Vec::new(), at: 0 };
        let done = work(&mut pieces);
        // The reader ends when nobody takes what it reads.
        drop(pieces);
        let digest = reader.and_then(|reader| reader.join().ok()).unwrap_or_else(|| Hasher::sha256().finish());
        (done, digest)
    })
}

type Piece = io::Result<Vec<u8>>;

fn send_all(blob: impl Read, mut hasher: Hasher, full: &SyncSender<Piece>, spare: &Receiver<Vec<u8>>) -> Digest {
    let mut input = match decompress(blob) {
        Ok(input) => input,
        Err(e) => {
            let _ = full.send(Err(e));
            return hasher.finish();
        }
    };
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.clear();
        let read = input.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        hasher.update(&piece);
        let end = !matches!(read, Ok(n) if n > 0);
        if full.send(read.map(|_| piece)).is_err() || end {
            return hasher.finish();
        }
    }
}

/// The bytes behind a compression that is told by its first bytes, as containerd does: media types lie. But it must
/// be one that a media type could name.
fn decompress<R: Read>(blob: R) -> io::Result<Decoder<R>> {
    let decoder = Decoder::new(blob)?;
    match decoder.format() {
        Format::Plain | Format::Gzip | Format::Zstd => Ok(decoder),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?} is no compression of layers"))),
    }
}

/// The pieces as one stream.
struct Pieces {
    filled: Receiver<Piece>,
    back: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() {
            // A sender that is gone has sent an empty piece or an error before.
            let Ok(next) = self.filled.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.piece, next?);
            let _ = self.back.try_send(used);
            self.at = 0;
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{MediaType, describe};
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(blob: &[u8]) -> (io::Result<Vec<u8>>, Digest) {
        read_ahead(blob, Hasher::sha256(), |input| {
            let mut all = Vec::new();
            input.read_to_end(&mut all).map(|_| all)
        })
    }

    #[test]
    fn every_compression_is_told_by_its_bytes() {
        let plain: Vec<u8> = (0u32..1_000_000).flat_map(u32::to_le_bytes).collect();
        let members = [gzip(&plain[..100]), gzip(&plain[100..])].concat();
        let skipped =
            [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd::encode_all(&plain[..], 1).unwrap()].concat();
        for blob in [&plain, &gzip(&plain), &members, &zstd::encode_all(&plain[..], 1).unwrap(), &skipped] {
            let (got, digest) = read(blob);
            assert!(got.unwrap() == plain);
            assert_eq!(digest, Digest::of(&plain));
        }
        assert_eq!(read(b"").0.unwrap(), b"");
    }

    #[test]
    fn other_compressions_are_none_of_layers() {
        let said = read(b"BZh9 and so on").0.unwrap_err().to_string();
        assert!(said.contains("no compression of layers"), "{said}");
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let plain = vec![7; 1 << 20];
        for blob in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            assert!(read(&blob[..blob.len() - 3]).0.is_err());
        }
    }

    #[test]
    fn nobody_waits_for_who_gave_up() {
        let blob = gzip(&vec![0; 50 << 20]);
        let ((), _) = read_ahead(&blob[..], Hasher::sha256(), |_| ());
    }

    #[test]
    fn only_tars_are_layers() {
        for good in [
            MediaType::ImageLayer,
            MediaType::ImageLayerGzip,
            MediaType::ImageLayerZstd,
            oci::docker::LAYER_GZIP.into(),
        ] {
            check_media_type(&describe(good, b"")).unwrap();
        }
        for bad in
            ["", "application/vnd.oci.image.layer.v1.tar+encrypted", "application/vnd.wasm.content.layer.v1+wasm"]
        {
            let said = check_media_type(&describe(bad.into(), b"")).unwrap_err().to_string();
            assert!(said.contains(bad) && said.contains("tar+zstd"), "{said}");
        }
    }
}
