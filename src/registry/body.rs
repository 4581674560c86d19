//! What a request carries: nothing, a few bytes, or a file that is read while it is sent.

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// How much of a file is in memory at once, twice: one piece is sent while the next is read.
const PIECE: u64 = 256 * 1024;

/// Told how many bytes of a blob are done.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// A request's body; clones send the same bytes again.
#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    File(FilePart),
}

/// A range of a file. Reads are positioned, so the file's own offset neither matters nor moves.
#[derive(Clone)]
pub(crate) struct FilePart {
    file: Arc<File>,
    start: u64,
    end: u64,
    sent: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
    progress: Option<Progress>,
}

impl FilePart {
    pub(crate) fn new(file: Arc<File>, start: u64, end: u64, progress: Option<Progress>) -> Self {
        Self { file, start, end, sent: Arc::default(), failure: Arc::default(), progress }
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Bytes handed to the connection so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Why reading failed, if that is what broke the request.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        self.sent.store(0, Ordering::Relaxed);
        let first = self.read_ahead(self.start);
        try_unfold((self, first), |(part, next)| async move {
            let Some(reading) = next else { return Ok(None) };
            let (at, bytes) = part.noted(reading.await.map_err(io::Error::other).flatten())?;
            let end = at + bytes.len() as u64;
            let done = end - part.start;
            part.sent.store(done, Ordering::Relaxed);
            if let Some(progress) = &part.progress {
                progress(end);
            }
            let ahead = part.read_ahead(end);
            Ok(Some((bytes, (part, ahead))))
        })
    }

    /// Starts to read the piece at `at`; `None` at the end.
    fn read_ahead(&self, at: u64) -> Option<JoinHandle<io::Result<(u64, Bytes)>>> {
        let length = PIECE.min(self.end.checked_sub(at)?) as usize;
        let file = Arc::clone(&self.file);
        (length > 0).then(|| {
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, at)?;
                Ok((at, piece.into()))
            })
        })
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|e| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
        })
    }
}

impl Body {
    /// The length to announce.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(part) => part.len(),
        }
    }

    /// A fresh stream of the bytes.
    pub(crate) fn to_reqwest(&self) -> reqwest::Body {
        match self {
            Self::Empty => reqwest::Body::from(Bytes::new()),
            Self::Bytes(bytes) => reqwest::Body::from(bytes.clone()),
            Self::File(part) => reqwest::Body::wrap_stream(part.clone().stream()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;
    use std::io::Write as _;

    async fn collect(part: &FilePart) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = part.clone().stream().try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn parts_are_sent_whole_and_again() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..PIECE * 2 + 7).map(|n| (n % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        for (start, end) in [(0, content.len()), (5, 9), (3, 3), (PIECE as usize, content.len())] {
            let part = FilePart::new(Arc::clone(&file), start as u64, end as u64, None);
            for _ in 0..2 {
                assert_eq!(collect(&part).await.unwrap(), content[start..end]);
                assert_eq!(part.sent(), part.len());
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_noted() {
        let part = FilePart::new(Arc::new(tempfile::tempfile().unwrap()), 0, 10, None);
        assert!(collect(&part).await.is_err());
        assert!(part.failure().is_some());
    }
}
