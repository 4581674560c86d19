//! One question to one name server: by UDP, and by TCP where the answer is too long for that.

use super::message::{Answer, Question};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// The longest answer by UDP. Without an extension that nobody asks for here it has 512 bytes.
const LONGEST: usize = 4096;

/// Asks a server, and waits no longer than `patience`. Each question has a port and a number of its own, drawn at random:
/// whoever wants to answer in the server's place has to guess both.
pub(super) async fn ask(server: SocketAddr, question: &Question, patience: Duration, tcp: bool) -> io::Result<Answer> {
    let asked = async {
        if !tcp {
            match by_udp(server, question).await? {
                Answer::Truncated => {}
                answer => return Ok(answer),
            }
        }
        by_tcp(server, question).await
    };
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn by_udp(server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // From here on the kernel hands over only what comes from the server.
    socket.connect(server).await?;
    let id = number()?;
    socket.send(&question.message(id)).await?;
    let mut buffer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = question.answer(id, buffer.get(..length).unwrap_or_default()) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let id = number()?;
    let message = question.message(id);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    match question.answer(id, &message) {
        Some(Answer::Truncated) | None => Err(io::Error::other("it answered another question")),
        Some(answer) => Ok(answer),
    }
}

/// A number that nobody can foresee.
fn number() -> io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}
