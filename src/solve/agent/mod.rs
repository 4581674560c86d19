//! `RUN --mount=type=ssh`: a socket in the sandbox behind which an SSH agent of the host answers, as far as it may, or kiln
//! itself with the keys of files.
//!
//! The process gets a socket of its own, with the mount's mode and owner, so that nothing of the host's changes. What
//! may be asked is what BuildKit lets through: which keys there are, and signatures. Adding, removing and locking keys
//! would outlive the build, and extensions mean whatever an agent likes; both are refused.
//! Messages: draft-ietf-sshm-ssh-agent, section 3.

mod file;
mod key;
#[cfg(test)]
mod key_tests;
mod wire;

pub use key::{Keys, Unusable};

use super::problem::Result;
use crate::report::{Kind, Problem};
use crate::sys::{Cancel, recorded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// The socket's name in its folder.
pub const SOCKET: &str = "agent";

/// The longest message, in bytes: OpenSSH's.
const LONGEST: u32 = 256 << 10;

/// How many connections may be open at once; a process that wants more is hung up on.
const CONNECTIONS: usize = 64;

/// "Refused", as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// What may be asked: SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENTC_SIGN_REQUEST.
const IDENTITIES: u8 = 11;
const SIGN: u8 = 13;

/// Who answers.
#[derive(Debug, Clone)]
pub enum Agent {
    /// An agent of the host's, at this socket.
    Socket(PathBuf),
    /// kiln.
    Keys(Arc<Keys>),
}

/// A socket that is answered until this is dropped.
#[derive(Debug)]
pub struct Forwarded {
    stop: Cancel,
    accepting: Option<JoinHandle<()>>,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// Makes the socket [`SOCKET`] in `folder` and answers there with what the agent says.
///
/// # Errors
/// Where no agent answers, or the socket can't be made.
pub fn forward(id: &str, agent: &Agent, folder: &Path, mode: u32, (uid, gid): (u32, u32)) -> Result<Forwarded> {
    let cannot = |what: String, e: &io::Error| Problem::new(Kind::Environment, format!("ssh {id}: {what}")).because(e);
    // A build that would only find out after an hour that nobody answers is better not begun.
    if let Agent::Socket(path) = agent {
        UnixStream::connect(path).map_err(|e| cannot(format!("no agent answers at {}", path.display()), &e))?;
    }
    let listener = listen(folder, mode, uid, gid).map_err(|e| cannot("can't make a socket".into(), &e))?;
    let stop = Cancel::new().map_err(|e| Problem::new(Kind::Environment, format!("ssh {id}")).because(&e))?;
    let (stopped, agent) = (stop.clone(), agent.clone());
    let accepting = std::thread::Builder::new()
        .name("ssh agent".into())
        .spawn(move || accept(&listener, &agent, &stopped))
        .map_err(|e| cannot("can't start a thread".into(), &e))?;
    Ok(Forwarded { stop, accepting: Some(accepting) })
}

/// A socket's path has 107 bytes at most; a folder's, seen through its descriptor, is always short.
fn listen(folder: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<UnixListener> {
    let dir = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH, Mode::empty())?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    let path = folder.join(SOCKET);
    recorded::give(&path, uid, gid)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Gives each connection a thread, until told to stop. A connection ends with its process, so nobody waits for it.
fn accept(listener: &UnixListener, agent: &Agent, stop: &Cancel) {
    let open = Arc::new(());
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if stop.is_cancelled() {
            return;
        }
        let Ok((client, _)) = listener.accept() else { continue };
        if Arc::strong_count(&open) > CONNECTIONS {
            continue;
        }
        let (one, agent) = (open.clone(), agent.clone());
        let _ = std::thread::Builder::new().name("ssh agent".into()).spawn(move || {
            let _ = serve(client, &agent);
            drop(one);
        });
    }
}

/// Answers one connection until it is closed.
fn serve(mut client: UnixStream, agent: &Agent) -> io::Result<()> {
    client.set_nonblocking(false)?;
    match agent {
        Agent::Socket(path) => relay(&mut client, &mut UnixStream::connect(path)?),
        Agent::Keys(keys) => {
            while let Some(question) = message(&mut client)? {
                client.write_all(&keys.answer(&question))?;
            }
            Ok(())
        }
    }
}

/// Hands allowed questions on and answers back, one after the other, as the protocol has them.
fn relay(client: &mut (impl Read + Write), agent: &mut (impl Read + Write)) -> io::Result<()> {
    while let Some(question) = message(client)? {
        if question.get(4).is_some_and(|kind| [IDENTITIES, SIGN].contains(kind)) {
            agent.write_all(&question)?;
            let answer = message(agent)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            client.write_all(&answer)?;
        } else {
            client.write_all(&FAILURE)?;
        }
    }
    Ok(())
}

/// Reads a message with its length; `None` at the end.
fn message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = u32::from_be_bytes(length);
    if size == 0 || size > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    from.take(u64::from(size)).read_to_end(&mut message)?;
    if message.len() as u64 != u64::from(size) + 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a kind with a body.
    fn of(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
        [&length[..], &[kind], body].concat()
    }

    /// An agent that answers everything with a 12 and what it was asked, as long as the test runs.
    fn echo(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    while let Ok(Some(question)) = message(&mut stream) {
                        stream.write_all(&of(12, &question[4..])).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn questions_are_answered_and_changes_refused() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("real");
        echo(&agent);
        let folder = dir.path().join("x".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let forwarded = forward("default", &Agent::Socket(agent), &folder, 0o640, owner).unwrap();
        let mode = std::fs::metadata(folder.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let dir_fd = rustix::fs::open(&folder, OFlags::DIRECTORY | OFlags::PATH, Mode::empty()).unwrap();
        let short = format!("/proc/self/fd/{}/{SOCKET}", dir_fd.as_raw_fd());
        let mut client = UnixStream::connect(&short).unwrap();
        for (kind, refused) in
            [(11, false), (17, true), (13, false), (18, true), (19, true), (22, true), (25, true), (27, true)]
        {
            client.write_all(&of(kind, b"body")).unwrap();
            let answer = message(&mut client).unwrap().unwrap();
            let want = if refused { FAILURE.to_vec() } else { of(12, &of(kind, b"body")[4..]) };
            assert_eq!(answer, want, "{kind}");
        }
        // A process may be connected while another asks.
        let mut second = UnixStream::connect(&short).unwrap();
        second.write_all(&of(11, b"")).unwrap();
        assert_eq!(message(&mut second).unwrap().unwrap(), of(12, &[11]));
        drop(forwarded);
        assert!(UnixStream::connect(&short).is_err(), "nobody listens any more");
    }

    #[test]
    fn broken_messages_end_the_connection() {
        for broken in [&[0, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff, 11], &[0, 0, 0, 9, 11, 1]] {
            assert!(message(&mut &broken[..]).is_err(), "{broken:?}");
        }
        assert_eq!(message(&mut &[][..]).unwrap(), None);
    }

    #[test]
    fn an_agent_that_is_not_there_is_told_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let none = Agent::Socket(dir.path().join("none"));
        let problem = forward("work", &none, dir.path(), 0o600, (0, 0)).unwrap_err();
        assert!(problem.message.contains("ssh work"), "{}", problem.message);
    }
}
