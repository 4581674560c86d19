//! A small HTTP/1.1 server whose every answer a test decides, wrong ones too.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The path with its query.
    pub(crate) path: String,
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Which request of this server it is, from 0.
    pub(crate) number: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `METHOD path`, without the query.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path.split('?').next().unwrap())
    }
}

/// What the server does.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Announce this length instead of the body's.
    length: Option<u64>,
    /// Close the connection after the body.
    close: bool,
    /// Send the body over and over, without end.
    endless: bool,
    /// Send nothing at all.
    silent: bool,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![], length: None, close: false, endless: false, silent: false }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Announces `length` bytes but closes the connection after the body.
    pub(crate) fn cut(mut self, length: usize) -> Self {
        self.length = Some(length as u64);
        self.close = true;
        self
    }

    /// Chunked, and never ending.
    pub(crate) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Closes the connection without a word.
    pub(crate) fn hang_up() -> Self {
        Self { silent: true, ..Self::new(0) }
    }
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    /// Host and port.
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Handler = Arc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

impl Server {
    /// Answers by `handler`.
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let handler = Arc::new(handler);
        Self::start_async(move |asked| {
            let answer = handler(&asked);
            async move { answer }
        })
        .await
    }

    /// The same with an asynchronous handler.
    pub(crate) async fn start_async<F>(handler: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(move |asked| Box::pin(handler(asked)));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log)));
            }
        });
        Self { host, asked }
    }

    /// All requests so far, but for the probe of `/v2/`.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|a| a.path != "/v2/").cloned().collect()
    }

    /// Their [`Asked::line`]s.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }
}

async fn serve(stream: TcpStream, handler: Handler, log: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(mut asked) = read(&mut stream).await {
        {
            let mut log = log.lock().unwrap();
            asked.number = log.iter().filter(|a| a.path != "/v2/").count();
            log.push(asked.clone());
        }
        let head = asked.method == "HEAD";
        let answer = if asked.path == "/v2/" { Answer::new(200) } else { handler(asked).await };
        if answer.silent || write(&mut stream, &answer, head).await.is_err() || answer.close {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let mut parts = line.split_whitespace();
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { method, path, headers, body, number: 0 })
}

async fn write(stream: &mut BufReader<TcpStream>, answer: &Answer, head: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Test\r\n", answer.status);
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if answer.endless {
        text += "Transfer-Encoding: chunked\r\n";
    } else if !answer.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
        text += &format!("Content-Length: {}\r\n", answer.length.unwrap_or(answer.body.len() as u64));
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    if head {
        return stream.flush().await;
    }
    if answer.endless {
        return write_forever(stream, &answer.body).await;
    }
    stream.write_all(&answer.body).await?;
    stream.flush().await
}

/// Ends when the client hangs up.
async fn write_forever(stream: &mut BufReader<TcpStream>, body: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
        stream.write_all(body).await?;
        stream.write_all(b"\r\n").await?;
    }
}
