//! What a process writes, handed on as it comes.

use super::control::Control;
use super::{Error, Stream};
use crate::sys::Said;
use crate::sys::child::{Child, Ended};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// A pipe holds that much, so one read empties it.
const BUFFER: usize = 64 << 10;

/// What is read at most after the process has ended: what the pipe held, and no endless stream of somebody who was handed
/// the other end.
const LAST: usize = 1 << 20;

/// The caller's ends of the pipes of a process.
pub(crate) struct Pipes {
    open: Vec<(Stream, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Pipes {
    /// Takes the ends to read from; they don't block.
    pub(super) fn new(open: Vec<(Stream, OwnedFd)>) -> Self {
        Self { open, buffer: vec![0; BUFFER] }
    }

    /// Hands on what is written until the process has ended, by itself or by what `control` says.
    pub(crate) fn follow(
        mut self,
        child: &mut Child,
        output: &mut dyn FnMut(Stream, &[u8]),
        control: Control<'_>,
    ) -> Result<Ended, Error> {
        loop {
            let ready = self.wait(child, control)?;
            if let Some(ended) = control.act(child)? {
                self.read_rest(output)?;
                return Ok(ended);
            }
            self.read(&ready.streams, output)?;
            if ready.ended {
                let ended = child.wait()?;
                self.read_rest(output)?;
                return Ok(ended);
            }
        }
    }

    fn wait(&self, child: &Child, control: Control<'_>) -> Result<Ready, Error> {
        let pidfd = child.pidfd();
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(self.open.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        fds.extend(control.polled());
        while let Err(errno) = poll(&mut fds, None) {
            if errno != Errno::INTR {
                return Err(errno).call("poll").map_err(Error::Call);
            }
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Ready {
            ended: fds.first().is_some_and(ready),
            streams: fds.iter().skip(1).take(self.open.len()).map(ready).collect(),
        })
    }

    /// Reads once from each stream that has something, and forgets those that have ended.
    fn read(&mut self, ready: &[bool], output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), Error> {
        let mut ready = ready.iter();
        let mut kept = Vec::new();
        for (stream, fd) in std::mem::take(&mut self.open) {
            if !ready.next().copied().unwrap_or(false) || read_once(&fd, stream, &mut self.buffer, output)? != Some(0) {
                kept.push((stream, fd));
            }
        }
        self.open = kept;
        Ok(())
    }

    fn read_rest(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), Error> {
        for (stream, fd) in &self.open {
            let mut left = LAST;
            while left > 0 {
                match read_once(fd, *stream, &mut self.buffer, output)? {
                    None | Some(0) => break,
                    Some(n) => left = left.saturating_sub(n),
                }
            }
        }
        Ok(())
    }
}

struct Ready {
    ended: bool,
    streams: Vec<bool>,
}

/// Reads what there is; `None` if there is nothing at the moment, 0 at the end.
fn read_once(
    fd: impl AsFd,
    stream: Stream,
    buffer: &mut [u8],
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Option<usize>, Error> {
    loop {
        match rustix::io::read(fd.as_fd(), &mut *buffer) {
            Ok(length) => {
                if length > 0 {
                    output(stream, buffer.get(..length).unwrap_or_default());
                }
                return Ok(Some(length));
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno).call("read").map_err(Error::Call),
        }
    }
}
