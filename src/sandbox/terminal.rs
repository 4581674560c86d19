//! A person's terminal connected to the sandbox's, for `kiln run -t`.

use super::Error;
use super::control::Control;
use crate::sys::Said;
use crate::sys::child::{Child, Ended};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};
use std::os::fd::{AsFd, BorrowedFd};

/// How often the size of the window is looked at.
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Carries bytes between kiln's standard streams and `main`, the caller's side of the sandbox's terminal, until the process
/// has ended. Kiln's own terminal passes every key on meanwhile (raw mode), and is as it was afterwards.
///
/// # Errors
/// [`Error::Cancelled`] if the build was stopped; the process is dead then.
pub(super) fn connect(main: impl AsFd, child: &mut Child, control: Control<'_>) -> Result<Ended, Error> {
    let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let _raw = Raw::new(input);
    let main = main.as_fd();
    let mut input_open = true;
    loop {
        copy_size(input, main);
        let ready = wait(main, input, input_open, child, control)?;
        if let Some(ended) = control.act(child)? {
            return Ok(ended);
        }
        if ready.input {
            input_open = carry(input, main)?;
        }
        // Output of the last moment comes before the end.
        if ready.output && carry(main, output)? {
            continue;
        }
        if ready.ended {
            return Ok(child.wait()?);
        }
    }
}

struct Ready {
    ended: bool,
    output: bool,
    input: bool,
}

fn wait(
    main: BorrowedFd<'_>,
    input: BorrowedFd<'_>,
    input_open: bool,
    child: &Child,
    control: Control<'_>,
) -> Result<Ready, Error> {
    let pidfd = child.pidfd();
    let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&main, PollFlags::IN)];
    // An input that has ended would be ready for ever.
    fds.extend(input_open.then(|| PollFd::new(&input, PollFlags::IN)));
    fds.extend(control.polled());
    match poll(&mut fds, Some(&GLANCE)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).call("poll").map_err(Error::Call),
    }
    let ready = |number: usize| fds.get(number).is_some_and(|fd| !fd.revents().is_empty());
    Ok(Ready { ended: ready(0), output: ready(1), input: input_open && ready(2) })
}

/// Moves what there is; `false` at the end. A terminal whose other side is closed reads as `EIO`.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut buffer = [0; 4096];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        other => other.call("read")?,
    };
    let mut rest = buffer.get(..length).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::IO | Errno::PIPE) => return Ok(false),
            Err(errno) => return Err(errno).call("write").map_err(Error::Call),
        }
    }
    Ok(true)
}

/// Gives a terminal the size of another one, if that is a terminal.
fn copy_size(from: impl AsFd, to: impl AsFd) {
    let Ok(size) = rustix::termios::tcgetwinsize(from) else { return };
    let differs =
        rustix::termios::tcgetwinsize(&to).is_ok_and(|old| (old.ws_row, old.ws_col) != (size.ws_row, size.ws_col));
    if differs {
        // A window that can't be told its size keeps the old one.
        let _ = rustix::termios::tcsetwinsize(to, size);
    }
}

/// Kiln's own terminal in raw mode, until dropped.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Option<Termios>,
}

impl<'a> Raw<'a> {
    /// Does nothing to what isn't a terminal.
    fn new(terminal: BorrowedFd<'a>) -> Self {
        let before = rustix::termios::tcgetattr(terminal).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _ = rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw);
        }
        Self { terminal, before }
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(self.terminal, OptionalActions::Flush, before);
        }
    }
}
