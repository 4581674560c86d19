//! Threads that compress blocks side by side and give them back in order.

use super::Compression;
use super::codec::{Block, Codec};
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvError, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A block to compress, and where to send it back.
struct Job {
    block: Block,
    reply: Sender<io::Result<Block>>,
}

/// The threads, and the blocks that they have. They end when this is dropped.
pub(super) struct Workers {
    compression: Compression,
    most: usize,
    threads: Vec<JoinHandle<()>>,
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    under_way: VecDeque<Receiver<io::Result<Block>>>,
}

impl Workers {
    /// Up to `most` threads; none is started before there is work for it.
    pub(super) fn new(compression: Compression, most: usize) -> Self {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        Self { compression, most, threads: Vec::new(), jobs, queue, under_way: VecDeque::new() }
    }

    /// Whether nothing was given to them yet.
    pub(super) fn are_idle(&self) -> bool {
        self.threads.is_empty()
    }

    /// Whether as many blocks are under way as keep all threads busy while one is taken back.
    pub(super) fn are_full(&self) -> bool {
        self.under_way.len() > self.most
    }

    /// Hands a block over.
    pub(super) fn give(&mut self, block: Block) -> io::Result<()> {
        if self.threads.len() < self.most && self.threads.len() <= self.under_way.len() {
            self.start_one()?;
        }
        let (reply, receiver) = mpsc::channel();
        self.jobs.send(Job { block, reply }).map_err(|_| gone())?;
        self.under_way.push_back(receiver);
        Ok(())
    }

    /// The next block in order, waiting for it; `None` if none is under way.
    pub(super) fn wait(&mut self) -> Option<io::Result<Block>> {
        let receiver = self.under_way.pop_front()?;
        Some(receiver.recv().unwrap_or_else(|RecvError| Err(gone())))
    }

    /// The next block in order if it is ready.
    pub(super) fn poll(&mut self) -> Option<io::Result<Block>> {
        let result = match self.under_way.front()?.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(gone()),
        };
        self.under_way.pop_front();
        Some(result)
    }

    fn start_one(&mut self) -> io::Result<()> {
        let (queue, compression) = (Arc::clone(&self.queue), self.compression);
        match thread::Builder::new().name("compress".to_owned()).spawn(move || work(&queue, compression)) {
            Ok(thread) => self.threads.push(thread),
            // Fewer are slower; none is an error.
            Err(e) if self.threads.is_empty() => return Err(e),
            Err(_) => self.most = self.threads.len(),
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Without a sender they end; what they still have nobody waits for.
        self.jobs = mpsc::channel().0;
        self.under_way.clear();
        for thread in self.threads.drain(..) {
            // A panic has been told where its block was awaited.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, compression: Compression) {
    let mut codec = Codec::new(compression);
    loop {
        let Ok(queue) = queue.lock() else { return };
        let Ok(Job { mut block, reply }) = queue.recv() else { return };
        drop(queue);
        let result = match &mut codec {
            Ok(codec) => codec.compress(&mut block).map(|()| block),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        // Nobody waits any more after an error elsewhere.
        let _ = reply.send(result);
    }
}

fn gone() -> io::Error {
    io::Error::other("a compressor thread ended early")
}
