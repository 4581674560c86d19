//! A registry's stand-in that passes everything on and writes it down.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One exchange.
#[derive(Debug, Clone)]
pub(crate) struct Passed {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
}

pub(crate) struct Proxy {
    /// Host and port.
    pub(crate) host: String,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl Proxy {
    /// Stands in for the server at `behind`.
    pub(crate) fn start(behind: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let passed: Arc<Mutex<Vec<Passed>>> = Arc::default();
        let (log, behind) = (passed.clone(), behind.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, behind) = (log.clone(), behind.clone());
                // A client that hangs up is no matter.
                thread::spawn(move || drop(pass(stream, &behind, &log)));
            }
        });
        Self { host, passed }
    }

    /// What was passed on since the last call.
    pub(crate) fn take(&self) -> Vec<Passed> {
        std::mem::take(&mut self.passed.lock().unwrap())
    }
}

/// One request on a connection of its own: both sides close after it.
fn pass(client: TcpStream, behind: &str, log: &Mutex<Vec<Passed>>) -> std::io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let (head, length) = head(&mut from)?;
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut server = TcpStream::connect(behind)?;
    server.write_all(head.as_bytes())?;
    std::io::copy(&mut from.take(length), &mut server)?;
    let mut answer = BufReader::new(server);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    log.lock().unwrap().push(Passed { method, path, status });
    let mut to = &client;
    to.write_all(line.as_bytes())?;
    to.write_all(b"Connection: close\r\n")?;
    std::io::copy(&mut answer, &mut to)?;
    client.shutdown(std::net::Shutdown::Write)
}

/// The lines up to the body, which ask to close the connection, and the body's length.
fn head(from: &mut BufReader<TcpStream>) -> std::io::Result<(String, u64)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(n) = lower.strip_prefix("content-length:") {
            length = n.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            return Ok((head + "Connection: close\r\n\r\n", length));
        }
        if !lower.starts_with("connection:") {
            head += &line;
        }
    }
}
