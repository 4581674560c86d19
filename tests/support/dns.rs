//! A name server on loopback whose every answer a test decides, wrong ones too. It speaks UDP and TCP.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;

/// A question as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The name in lower case, without a dot at its end.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) tcp: bool,
    /// The number that the answer must have.
    pub(crate) id: u16,
}

/// What the server does.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Records of the name: those of addresses whose sort was asked for.
    Addresses(Vec<IpAddr>),
    /// An alias, and the addresses of what it stands for.
    Alias(String, Vec<IpAddr>),
    /// An error code: 2 is a server's failure, 3 is "no such name".
    Code(u8),
    /// Asks for TCP.
    Truncated,
    /// Nothing.
    Silence,
    /// First these answers to other questions, or from an attacker who guesses; then the right one.
    After(Vec<Vec<u8>>, Vec<IpAddr>),
}

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl NameServer {
    /// Answers by `handler`, as long as the test runs.
    pub(crate) fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let (asked, handler) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(handler));
        let (log, decide) = (asked.clone(), handler.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                for message in answers(&buffer[..length], false, &log, &*decide) {
                    udp.send_to(&message, from).unwrap();
                }
            }
        });
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let _ = serve(stream, &log, &*handler);
            }
        });
        Self { address, asked }
    }

    /// The line of `resolv.conf` that names it.
    pub(crate) fn line(&self) -> String {
        format!("nameserver [{}]:{}\n", self.address.ip(), self.address.port())
    }

    /// The names that were asked for, with the sort of address.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Names whose IPv4 address was asked for, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.asked().into_iter().filter(|a| a.kind == A).map(|a| a.name).collect()
    }
}

/// A UDP and a TCP socket of one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    handler: &dyn Fn(&Asked) -> Reply,
) -> Result<(), std::io::Error> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    for message in answers(&question, true, log, handler) {
        stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes())?;
        stream.write_all(&message)?;
    }
    Ok(())
}

fn answers(question: &[u8], tcp: bool, log: &Mutex<Vec<Asked>>, handler: &dyn Fn(&Asked) -> Reply) -> Vec<Vec<u8>> {
    let asked = read(question, tcp);
    log.lock().unwrap().push(asked.clone());
    match handler(&asked) {
        Reply::Silence => vec![],
        Reply::Code(code) => vec![answer(question, code, false, &[])],
        Reply::Truncated => vec![answer(question, 0, true, &[])],
        Reply::Addresses(addresses) => vec![answer(question, 0, false, &of_kind(asked.kind, &addresses, &[0xc0, 12]))],
        Reply::Alias(target, addresses) => {
            let target = name(&target);
            let mut records = vec![record(&[0xc0, 12], 5, &target)];
            records.extend(of_kind(asked.kind, &addresses, &target));
            vec![answer(question, 0, false, &records)]
        }
        Reply::After(mut first, addresses) => {
            first.push(answer(question, 0, false, &of_kind(asked.kind, &addresses, &[0xc0, 12])));
            first
        }
    }
}

/// A whole answer to a question, with these records.
pub(crate) fn answer(question: &[u8], code: u8, truncated: bool, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] = 0x81 | if truncated { 2 } else { 0 };
    message[3] = 0x80 | code;
    message[7] = u8::try_from(records.len()).unwrap();
    message.extend(records.concat());
    message
}

/// A question as a client would send it.
pub(crate) fn question(id: u16, text: &str, kind: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &name(text), &kind.to_be_bytes(), &[0, 1]].concat()
}

/// The records of those addresses that are of a sort.
pub(crate) fn of_kind(kind: u16, addresses: &[IpAddr], name: &[u8]) -> Vec<Vec<u8>> {
    let bytes = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) if kind == A => Some(v4.octets().to_vec()),
        IpAddr::V6(v6) if kind == AAAA => Some(v6.octets().to_vec()),
        _ => None,
    });
    bytes.map(|bytes| record(name, kind, &bytes)).collect()
}

fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length, data].concat()
}

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').map(|l| [&[u8::try_from(l.len()).unwrap()], l.as_bytes()].concat());
    labels.chain([vec![0]]).collect::<Vec<_>>().concat()
}

fn read(question: &[u8], tcp: bool) -> Asked {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8(question[at + 1..end].to_vec()).unwrap().to_lowercase());
        at = end;
    }
    let number = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
    Asked { name: labels.join("."), kind: number(at + 1), tcp, id: number(0) }
}
