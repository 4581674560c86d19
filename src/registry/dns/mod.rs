//! Addresses of hosts by texts that were read once, where the system's resolver would read files that others have put in
//! their place.
//!
//! At the isolation level in-place a RUN's `/etc/hosts` and `/etc/resolv.conf` stand in `/` while kiln pulls and pushes.
//! There [`fixed_resolver`] is given the container's own texts. It asks as the C library does with `hosts: files dns`: the
//! hosts file, then name servers, with search domains and the options that matter. Elsewhere the system's resolver is used,
//! which knows more sources (`/etc/nsswitch.conf`).

mod exchange;
mod files;
mod message;

use files::{Hosts, Settings};
use message::{Answer, Family, Question};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Finds the addresses of hosts. Clones share what is known of the name servers.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: Hosts,
    settings: Settings,
    /// The server that is asked first: the one that answered last, or the next one where they take turns.
    first: AtomicUsize,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unresolved {
    #[error("there is no host {0}")]
    NoHost(String),
    #[error("the name server {server} has no answer: {why}")]
    NoAnswer {
        server: SocketAddr,
        why: String,
        /// Whether nobody answered at all, so that other names needn't be tried.
        silent: bool,
    },
}

/// Resolves names of hosts by the texts of `/etc/hosts` and `/etc/resolv.conf`, whatever stands in these files later.
pub fn fixed_resolver(hosts: &str, resolv_conf: &str) -> Resolver {
    let (hosts, settings) = (Hosts::parse(hosts), Settings::parse(resolv_conf));
    Resolver(Arc::new(Inner { hosts, settings, first: AtomicUsize::new(0) }))
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let inner = self.0.clone();
        Box::pin(async move {
            let found = inner.addresses(name.as_str()).await?;
            // The port is that of the address that somebody wants to reach.
            let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

impl Inner {
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        if let Some(found) = self.hosts.find(name.trim_end_matches('.')) {
            return Ok(preferred(found.to_vec()));
        }
        if is_localhost(name) {
            // No name server is to say what this machine is (RFC 6761).
            return Ok(preferred(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        let mut failed = None;
        for candidate in self.settings.candidates(name) {
            match self.both(&candidate).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => return Ok(preferred(found)),
                Err(error @ Unresolved::NoAnswer { silent: true, .. }) => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Unresolved::NoHost(name.into())))
    }

    /// Asks for addresses of both sorts at once. One that is found is good even if the other question has no answer.
    async fn both(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let v6 = async { if self.settings.ipv6 { self.ask(name, Family::V6).await } else { Ok(Vec::new()) } };
        match tokio::join!(self.ask(name, Family::V4), v6) {
            (Ok(v4), Ok(v6)) => Ok([v4, v6].concat()),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// Asks the name servers one after the other until one answers.
    async fn ask(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, Unresolved> {
        // What no name in the DNS can be like has no address.
        let Some(question) = Question::new(name, family) else { return Ok(Vec::new()) };
        let Settings { servers, patience, attempts, rotate, tcp, .. } = &self.settings;
        let first =
            if *rotate { self.first.fetch_add(1, Ordering::Relaxed) } else { self.first.load(Ordering::Relaxed) };
        let mut failed = Unresolved::NoHost(name.into());
        for turn in 0..servers.len().saturating_mul(*attempts as usize) {
            let number = first.wrapping_add(turn) % servers.len().max(1);
            let Some(server) = servers.get(number).copied() else { break };
            failed = match exchange::ask(server, &question, *patience, *tcp).await {
                Ok(Answer::Addresses(found)) => {
                    if !rotate {
                        self.first.store(number, Ordering::Relaxed);
                    }
                    return Ok(found);
                }
                Ok(Answer::Failed(why)) => Unresolved::NoAnswer { server, why: why.into(), silent: false },
                Ok(Answer::Truncated) => {
                    Unresolved::NoAnswer { server, why: "its answer is too long".into(), silent: false }
                }
                Err(error) => Unresolved::NoAnswer { server, why: said(&error), silent: true },
            };
        }
        Err(failed)
    }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "it is silent".into(),
        _ => error.to_string(),
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Addresses in the order in which they are to be tried: IPv6 first only where there is a way to it. Otherwise the order
/// stays as it was.
fn preferred(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let v6 = addresses.iter().find(|ip| ip.is_ipv6());
    let v6_first = v6.is_some_and(|ip| addresses.iter().any(IpAddr::is_ipv4) && has_route(*ip));
    addresses.sort_by_key(|ip| ip.is_ipv6() != v6_first);
    addresses
}

/// Whether the kernel knows a way to an address. Nothing is sent.
fn has_route(address: IpAddr) -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect((address, 9))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_no_name_server() {
        // Nobody listens there: a question would fail.
        let resolver = fixed_resolver("10.0.0.1 a.example\n10.0.0.2 only.localhost", "nameserver [127.0.0.1]:1");
        let loopback: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for (name, want) in [
            ("A.Example", vec![IpAddr::from([10, 0, 0, 1])]),
            ("a.example.", vec![[10, 0, 0, 1].into()]),
            ("only.localhost", vec![[10, 0, 0, 2].into()]),
            ("192.0.2.7", vec![[192, 0, 2, 7].into()]),
            ("localhost", loopback.clone()),
            ("LOCALHOST.", loopback.clone()),
            ("b.localhost", loopback),
        ] {
            let mut found = resolver.0.addresses(name).await.unwrap();
            found.sort();
            assert_eq!(found, want, "{name}");
        }
        for bad in ["a..b", "", &"a".repeat(64)] {
            assert_eq!(resolver.0.addresses(bad).await, Err(Unresolved::NoHost(bad.into())));
        }
        let said = resolver.0.addresses("b.example").await.unwrap_err().to_string();
        assert!(said.contains("127.0.0.1:1"), "{said}");
    }

    #[test]
    fn an_address_that_cannot_be_reached_comes_last() {
        let v4: Vec<IpAddr> = vec![[10, 0, 0, 2].into(), [10, 0, 0, 1].into()];
        assert_eq!(preferred(v4.clone()), v4);
        let unroutable: IpAddr = "fe80::1".parse().unwrap();
        let both = vec![unroutable, v4[0], v4[1]];
        assert_eq!(preferred(both), [v4[0], v4[1], unroutable]);
        assert_eq!(preferred(vec![unroutable]), [unroutable]);
    }
}
