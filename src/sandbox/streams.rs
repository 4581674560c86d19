//! The standard streams of a process: captured, or kiln's own.
//!
//! A process can open again what its descriptors are open for, by `/proc/self/fd`, and with other rights: a file that kiln only appends to it
//! could read, and one that kiln only reads it could write to. So of kiln's own streams it gets only those that lead to nothing else:
//! terminals, devices without content, pipes without a name and sockets. For all others it gets a pipe, and kiln carries the bytes.

use super::output::{Input, Pipes, Sink};
use super::{Error, Stdio, Stream};
use crate::sys::Said as _;
use crate::sys::child::step::Stream as Source;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs};
use rustix::pipe::PipeFlags;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The streams of the process, and the caller's ends of those that are pipes.
pub(crate) fn streams(stdio: Stdio) -> Result<([Source; 3], Pipes), Error> {
    match stdio {
        Stdio::Captured => captured(),
        Stdio::Inherit => own(),
        Stdio::Terminal => Ok(([0, 1, 2].map(Source::Inherit), Pipes::default())),
    }
}

fn captured() -> Result<([Source; 3], Pipes), Error> {
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let null = null.said("open", "/dev/null")?;
    let (out, out_end) = output_pipe()?;
    let (err, err_end) = output_pipe()?;
    let open = vec![(Sink::Caller(Stream::Stdout), out), (Sink::Caller(Stream::Stderr), err)];
    Ok(([Source::Fd(null), Source::Fd(out_end), Source::Fd(err_end)], Pipes::new(open, None)))
}

/// Kiln's own, or pipes to them.
fn own() -> Result<([Source; 3], Pipes), Error> {
    let (mut open, mut input) = (Vec::new(), None);
    let [stdin, stdout, stderr] = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let first = match leads_elsewhere(stdin) {
        None => Source::Inherit(0),
        Some(_) => {
            let (end, from) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
            rustix::io::ioctl_fionbio(&from, true).call("ioctl(FIONBIO)")?;
            input = Some(Input::new(from));
            Source::Fd(end)
        }
    };
    let mut carried = |stream| -> Result<OwnedFd, Error> {
        let (out, end) = output_pipe()?;
        open.push((Sink::Own(stream), out));
        Ok(end)
    };
    let (second, third) = match (leads_elsewhere(stdout), leads_elsewhere(stderr)) {
        // What comes first is first in the file, too.
        (Some(out), Some(err)) if (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino) => {
            let end = carried(Stream::Stdout)?;
            (Source::Fd(end.try_clone().call("dup")?), Source::Fd(end))
        }
        (out, err) => (
            if out.is_some() { Source::Fd(carried(Stream::Stdout)?) } else { Source::Inherit(1) },
            if err.is_some() { Source::Fd(carried(Stream::Stderr)?) } else { Source::Inherit(2) },
        ),
    };
    Ok(([first, second, third], Pipes::new(open, input)))
}

/// Whether more can be had by opening again what a stream is open for; what that is.
fn leads_elsewhere(stream: BorrowedFd<'_>) -> Option<Stat> {
    /// `PIPEFS_MAGIC`, of pipes that have no name.
    const PIPES: u64 = 0x5049_5045;
    /// The major number of `/dev/null` and its like, and the minor ones of those that hold nothing.
    const MEMORY: u32 = 1;
    const EMPTY: [u32; 5] = [3, 5, 7, 8, 9];
    let stat = fstat(stream).ok()?;
    let plain = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => true,
        FileType::Fifo => fstatfs(stream).is_ok_and(|fs| fs.f_type as u64 == PIPES),
        FileType::CharacterDevice => {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            rustix::termios::isatty(stream) || (major == MEMORY && EMPTY.contains(&minor))
        }
        _ => false,
    };
    (!plain).then_some(stat)
}

/// A pipe from the process; kiln's end of it comes first.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
    // Of this end alone: the process expects an ordinary pipe.
    rustix::io::ioctl_fionbio(&read, true).call("ioctl(FIONBIO)")?;
    Ok((read, write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn only_what_leads_nowhere_else_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let (file, fifo) = (dir.path().join("file"), dir.path().join("fifo"));
        std::fs::write(&file, "").unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let open = |path: &std::path::Path| std::fs::File::options().read(true).write(true).open(path).unwrap();
        for path in [&file, &fifo] {
            assert!(leads_elsewhere(open(path).as_fd()).is_some(), "{}", path.display());
        }
        assert!(leads_elsewhere(std::fs::File::open(dir.path()).unwrap().as_fd()).is_some());
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let terminal = open(std::path::Path::new("/dev/ptmx"));
        let null = open(std::path::Path::new("/dev/null"));
        for fd in [read.as_fd(), write.as_fd(), socket.as_fd(), terminal.as_fd(), null.as_fd()] {
            assert!(leads_elsewhere(fd).is_none(), "{:?}", fstat(fd));
        }
    }
}
