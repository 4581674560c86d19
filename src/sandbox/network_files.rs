//! `/etc/hosts` and `/etc/resolv.conf` as BuildKit writes them.

use super::Network;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The content of `/etc/hosts`; `extra` are names and addresses.
pub fn hosts(hostname: &str, extra: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        // A write to a String can't fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    text.into_bytes()
}

/// The content of `/etc/resolv.conf`, from the host's.
///
/// On the host's network it is the host's own, unless that names no server. Otherwise servers on a loopback address are
/// left out, as they would not be there, and Google's public ones take their place when none is left.
pub fn resolv_conf(host: &str, network: Network) -> Vec<u8> {
    if network != Network::None && servers(host).next().is_some() {
        return host.as_bytes().to_vec();
    }
    let kept: Vec<&str> = host.lines().filter(|l| server(l).is_none_or(|a| !a.is_loopback())).collect();
    let mut text = String::new();
    for line in &kept {
        let _ = writeln!(text, "{line}");
    }
    if !kept.iter().any(|l| server(l).is_some()) {
        text.push_str("nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }
    text.into_bytes()
}

/// The servers that a `resolv.conf` names.
pub(super) fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(server)
}

/// The server that a line names.
fn server(line: &str) -> Option<IpAddr> {
    let address = line.strip_prefix("nameserver")?.trim();
    // A zone is no part of an address.
    address.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_buildkits() {
        let text = hosts("buildkitsandbox", &[("db".into(), "10.0.0.2".into())]);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n"
        );
    }

    #[test]
    fn resolv_conf_follows_the_network() {
        let stub = "# comment\nnameserver 127.0.0.53\nsearch example.org\n";
        let fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let check = |host: &str, network, expected: &str| {
            assert_eq!(String::from_utf8(resolv_conf(host, network)).unwrap(), expected, "{host:?} {network:?}");
        };
        check(stub, Network::Host, stub);
        check(stub, Network::None, &format!("# comment\nsearch example.org\n{fallback}"));
        check("", Network::Host, fallback);
        check("nameserver fe80::1%eth0\nnameserver ::1\n", Network::None, "nameserver fe80::1%eth0\n");
        check("nameserver 10.0.0.1", Network::None, "nameserver 10.0.0.1\n");
    }
}
