//! What a process writes, handed on as it comes, and what it reads of kiln's own input.

use super::control::Control;
use super::{Error, Stream};
use crate::sys::Said;
use crate::sys::child::{Child, Ended};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A pipe holds that much, so one read empties it.
const BUFFER: usize = 64 << 10;

/// What is read at most after the process has ended: what the pipe held, and no endless stream of somebody who was handed
/// the other end.
const LAST: usize = 1 << 20;

/// Where the bytes of a pipe go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sink {
    /// To the caller.
    Caller(Stream),
    /// To kiln's own stream of that name.
    Own(Stream),
}

/// The caller's ends of the pipes of a process.
#[derive(Default)]
pub(crate) struct Pipes {
    open: Vec<(Sink, OwnedFd)>,
    input: Option<Input>,
    buffer: Vec<u8>,
}

impl Pipes {
    /// Takes the ends to read from, and the one to write to; they don't block.
    pub(super) fn new(open: Vec<(Sink, OwnedFd)>, input: Option<Input>) -> Self {
        Self { open, input, buffer: vec![0; BUFFER] }
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
            if ready.input {
                self.input = self.input.take().map(Input::carry).transpose()?.flatten();
            }
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
        fds.extend(self.input.as_ref().map(Input::polled));
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
            input: self.input.is_some() && fds.get(1 + self.open.len()).is_some_and(ready),
        })
    }

    /// Reads once from each stream that has something, and forgets those that have ended.
    fn read(&mut self, ready: &[bool], output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), Error> {
        let mut ready = ready.iter();
        let mut kept = Vec::new();
        for (sink, fd) in std::mem::take(&mut self.open) {
            if !ready.next().copied().unwrap_or(false) || read_once(&fd, sink, &mut self.buffer, output)? != Some(0) {
                kept.push((sink, fd));
            }
        }
        self.open = kept;
        Ok(())
    }

    fn read_rest(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), Error> {
        for (sink, fd) in &self.open {
            let mut left = LAST;
            while left > 0 {
                match read_once(fd, *sink, &mut self.buffer, output)? {
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
    input: bool,
}

/// Reads what there is; `None` if there is nothing at the moment, 0 at the end, or where nobody reads on.
fn read_once(
    fd: impl AsFd,
    sink: Sink,
    buffer: &mut [u8],
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Option<usize>, Error> {
    loop {
        let length = match rustix::io::read(fd.as_fd(), &mut *buffer) {
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno).call("read").map_err(Error::Call),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        return match sink {
            _ if bytes.is_empty() => Ok(Some(0)),
            Sink::Caller(stream) => {
                output(stream, bytes);
                Ok(Some(length))
            }
            Sink::Own(stream) => Ok(Some(if write_all(stream, bytes)? { length } else { 0 })),
        };
    }
}

/// Writes to kiln's own stream; `false` where nobody reads it any more.
fn write_all(stream: Stream, mut rest: &[u8]) -> Result<bool, Error> {
    let (own, name) = match stream {
        Stream::Stdout => (rustix::stdio::stdout(), "standard output"),
        Stream::Stderr => (rustix::stdio::stderr(), "standard error"),
    };
    while !rest.is_empty() {
        match rustix::io::write(own, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(own, PollFlags::OUT)], None);
            }
            Err(Errno::PIPE) => return Ok(false),
            Err(errno) => return Err(errno).said("write", name).map_err(Error::Call),
        }
    }
    Ok(true)
}

/// Kiln's own input, carried to a process.
#[derive(Debug)]
pub(super) struct Input {
    to: OwnedFd,
    /// What was read and the pipe has no room for yet.
    waiting: Vec<u8>,
}

impl Input {
    /// Takes the end to write to; it doesn't block.
    pub(super) fn new(to: OwnedFd) -> Self {
        Self { to, waiting: Vec::new() }
    }

    /// What to wait for: input, or room for it.
    fn polled(&self) -> PollFd<'_> {
        let input: BorrowedFd<'static> = rustix::stdio::stdin();
        match self.waiting.is_empty() {
            true => PollFd::from_borrowed_fd(input, PollFlags::IN),
            false => PollFd::new(&self.to, PollFlags::OUT),
        }
    }

    /// Reads, or writes; `None` at the end, or once the process reads no more.
    fn carry(mut self) -> Result<Option<Self>, Error> {
        if self.waiting.is_empty() {
            let mut buffer = vec![0; BUFFER];
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) => return Ok(None),
                Ok(length) => buffer.truncate(length),
                Err(Errno::INTR | Errno::AGAIN) => return Ok(Some(self)),
                Err(errno) => return Err(errno).said("read", "standard input").map_err(Error::Call),
            }
            self.waiting = buffer;
        }
        match rustix::io::write(&self.to, &self.waiting) {
            Ok(written) => drop(self.waiting.drain(..written.min(self.waiting.len()))),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::PIPE) => return Ok(None),
            Err(errno) => return Err(errno).call("write").map_err(Error::Call),
        }
        Ok(Some(self))
    }
}
