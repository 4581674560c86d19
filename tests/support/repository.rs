//! A git repository, and the ways to serve it.

#![allow(dead_code, reason = "each test uses a part of it")]

use super::server::{Answer, Asked};
use super::world::World;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A repository `git/repo` of a world: the tag `v1` and its commit `first`, and the branch `main`, where `early` is `late`.
pub(crate) struct Repository {
    /// The folder with repositories in it.
    pub(crate) root: PathBuf,
    pub(crate) first: String,
    daemon: Option<Child>,
    port: u16,
}

impl Repository {
    /// `None`, and a line that says why, where there is no git.
    pub(crate) fn make(world: &World) -> Option<Self> {
        let copy_all = "FROM scratch\nCOPY . /\n";
        world.file("git/repo/Dockerfile", copy_all).file("git/repo/early", "E");
        world.file("git/repo/sub/Dockerfile", "FROM scratch\nCOPY deep /inner\n").file("git/repo/sub/deep", "D");
        let repo = world.path("git/repo");
        git(&repo, &["init", "-q"])?;
        git(&repo, &["add", "."])?;
        git(&repo, &["commit", "-qm", "one"])?;
        git(&repo, &["tag", "v1"])?;
        let first = git(&repo, &["rev-parse", "HEAD"])?;
        git(&repo, &["mv", "early", "late"])?;
        git(&repo, &["commit", "-qm", "two"])?;
        Some(Self { root: world.path("git"), first, daemon: None, port: 0 })
    }

    /// The same, served by `git daemon` until this is dropped.
    pub(crate) fn start(world: &World) -> Option<Self> {
        let mut served = Self::make(world)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = Command::new("git")
            .args(["daemon", "--export-all", "--listen=127.0.0.1", &format!("--port={port}"), "--reuseaddr"])
            .arg(format!("--base-path={}", served.root.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        (served.daemon, served.port) = (Some(daemon), port);
        for _ in 0..400 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(served);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("git daemon doesn't listen");
    }

    /// Its address by git's own protocol.
    pub(crate) fn url(&self) -> String {
        format!("git://127.0.0.1:{}/repo", self.port)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        // Asked to end rather than killed, so that it ends its helper.
        let pid = rustix::process::Pid::from_raw(daemon.id().try_into().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = daemon.wait();
    }
}

/// What git says; `None`, and a line that says why, where there is none.
pub(crate) fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let ran = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .output();
    let Ok(output) = ran else {
        println!("skipped: git is not installed (apt-get install git)");
        return None;
    };
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Answers as a web server with `git http-backend` would, for the repositories in `root`.
pub(crate) async fn http_backend(root: PathBuf, asked: Asked) -> Answer {
    let run = move || {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let header = |name: &str| asked.header(name).unwrap_or_default().to_owned();
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &asked.method)
            .env("CONTENT_TYPE", header("content-type"))
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .env("REMOTE_ADDR", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(&asked.body);
        child.wait_with_output().unwrap().stdout
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let headers = head.lines().filter_map(|l| l.split_once(": "));
    let (status, others): (Vec<_>, Vec<_>) = headers.partition(|(name, _)| *name == "Status");
    let status = status.first().map_or(200, |(_, s)| s[..3].parse().unwrap());
    let answer = others.iter().fold(Answer::new(status), |answer, (name, value)| answer.header(name, value));
    answer.body(&output[end + 4..])
}
