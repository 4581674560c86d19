//! The texts of `/etc/hosts` and `/etc/resolv.conf`, as the C library reads them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The port of name servers.
const PORT: u16 = 53;
/// The limits of the C library.
const MOST_SERVERS: usize = 3;
const MOST_DOTS: usize = 15;
const MOST_SECONDS: u64 = 30;
const MOST_ATTEMPTS: u32 = 5;

/// `/etc/hosts`: the addresses of names, in the order of the lines.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads the text. A line whose address is not one is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words {
                let addresses = hosts.entry(name.to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(hosts)
    }

    /// The addresses of a name, if it has any.
    pub(super) fn find(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(&name.to_ascii_lowercase()).map(Vec::as_slice)
    }
}

/// `/etc/resolv.conf`: who is asked, for what, and how often.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The name servers, in the order in which they are asked; never empty.
    pub(super) servers: Vec<SocketAddr>,
    /// Domains that are appended to names.
    pub(super) search: Vec<String>,
    /// A name with fewer dots is tried in the domains before it is tried as it is.
    pub(super) dots: usize,
    /// How long one server has for an answer.
    pub(super) patience: Duration,
    /// How often all servers are asked.
    pub(super) attempts: u32,
    /// Whether each question starts with another server.
    pub(super) rotate: bool,
    /// Whether questions go by TCP at once.
    pub(super) tcp: bool,
    /// Whether IPv6 addresses are asked for.
    pub(super) ipv6: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            patience: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
            ipv6: true,
        }
    }
}

impl Settings {
    /// Reads the text; what is not understood is passed over. Of several `search` lines the last one counts. Without a
    /// name server it is the one of this machine.
    pub(super) fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(server)),
                Some("domain") => settings.search = words.next().map(domain).into_iter().collect(),
                Some("search") => settings.search = words.map(domain).collect(),
                Some("options") => words.for_each(|option| settings.set(option)),
                _ => {}
            }
        }
        settings.search.retain(|domain| !domain.is_empty());
        settings.servers.truncate(MOST_SERVERS);
        if settings.servers.is_empty() {
            settings.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        settings
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<u64>();
        match (name, number) {
            ("ndots", Ok(dots)) => self.dots = usize::try_from(dots).unwrap_or(MOST_DOTS).min(MOST_DOTS),
            ("timeout", Ok(seconds)) => self.patience = Duration::from_secs(seconds.clamp(1, MOST_SECONDS)),
            ("attempts", Ok(attempts)) => {
                self.attempts = u32::try_from(attempts).unwrap_or(MOST_ATTEMPTS).clamp(1, MOST_ATTEMPTS);
            }
            ("rotate", _) => self.rotate = true,
            ("use-vc", _) => self.tcp = true,
            ("no-aaaa", _) => self.ipv6 = false,
            _ => {}
        }
    }

    /// The names that are asked for when somebody wants `name`, in order. A dot at its end makes it the only one.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let whole = std::iter::once(name.to_owned());
        let dots = name.bytes().filter(|b| *b == b'.').count();
        if dots >= self.dots { whole.chain(searched).collect() } else { searched.chain(whole).collect() }
    }
}

/// A name server's address. A port may be given as OpenBSD's resolver has it: `[ADDRESS]:PORT`.
fn server(word: &str) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some((address, PORT).into());
    }
    if let Some((address, port)) = word.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return Some((address.parse::<IpAddr>().ok()?, port.parse().ok()?).into());
    }
    let (address, zone) = word.split_once('%')?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, interface(zone)?).into())
}

/// The number of a network interface, given by number or by name.
fn interface(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number);
    }
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    netdevice::name_to_index(&socket, zone).ok()
}

fn domain(word: &str) -> String {
    word.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hosts() {
        let text = "127.0.0.1\tlocalhost # here\n::1 localhost ip6-localhost\n#10.0.0.1 commented\n\
                    10.0.0.2 Registry.Example registry # 10.0.0.3 no\nnonsense name\n10.0.0.4\n10.0.0.5 registry\r\n\
                    10.0.0.2 registry";
        let hosts = Hosts::parse(text);
        for (name, want) in [
            ("localhost", vec!["127.0.0.1", "::1"]),
            ("registry", vec!["10.0.0.2", "10.0.0.5"]),
            ("REGISTRY.example", vec!["10.0.0.2"]),
            ("commented", vec![]),
            ("name", vec![]),
            ("no", vec![]),
            ("10.0.0.4", vec![]),
        ] {
            let want: Vec<IpAddr> = want.into_iter().map(ip).collect();
            assert_eq!(hosts.find(name).unwrap_or_default(), want, "{name}");
        }
        assert_eq!(hosts.find("none"), None);
    }

    #[test]
    fn resolv_conf() {
        let text = "# generated\n; too\nnameserver 10.0.0.53\nnameserver fd00::53\nnameserver nonsense\nnameserver\n\
                    domain ignored.example\nsearch a.example. B.example\noptions ndots:5 timeout:2 attempts:99 rotate\n\
                    options use-vc no-aaaa edns0 ndots:x\nsortlist 1.2.3.4\n";
        let settings = Settings::parse(text);
        assert_eq!(settings.servers, [SocketAddr::from((ip("10.0.0.53"), 53)), (ip("fd00::53"), 53).into()]);
        assert_eq!(settings.search, ["a.example", "b.example"]);
        let Settings { dots, patience, attempts, rotate, tcp, ipv6, .. } = settings;
        assert_eq!((dots, patience.as_secs(), attempts, rotate, tcp, ipv6), (5, 2, 5, true, true, false));
    }

    #[test]
    fn resolv_conf_that_says_little() {
        for text in ["", "search", "options", "nameserver x", "\n\n", "options ndots:"] {
            let want = Settings { servers: vec![(Ipv4Addr::LOCALHOST, 53).into()], ..Settings::default() };
            assert_eq!(Settings::parse(text), want, "{text:?}");
        }
        let many = "nameserver 1.1.1.1\n".repeat(9);
        assert_eq!(Settings::parse(&many).servers.len(), 3);
        let large = Settings::parse("options ndots:99999999999999 timeout:0 attempts:0");
        assert_eq!((large.dots, large.patience.as_secs(), large.attempts), (15, 1, 1));
    }

    #[test]
    fn addresses_of_servers() {
        for (word, want) in [
            ("10.0.0.1", Some("10.0.0.1:53")),
            ("::1", Some("[::1]:53")),
            ("[127.0.0.1]:5353", Some("127.0.0.1:5353")),
            ("[::1]:5353", Some("[::1]:5353")),
            ("fe80::1%2", Some("[fe80::1%2]:53")),
            ("fe80::1%lo", Some("[fe80::1%1]:53")),
            ("fe80::1%no-such-device", None),
            ("10.0.0.1:53", None),
            ("[10.0.0.1]", None),
            ("a.example", None),
        ] {
            assert_eq!(server(word).map(|s| s.to_string()).as_deref(), want, "{word}");
        }
    }

    #[test]
    fn names_to_ask_for() {
        let of = |dots, name: &str| {
            let search = vec!["a.example".to_owned(), "b.example".to_owned()];
            Settings { dots, search, ..Settings::default() }.candidates(name)
        };
        assert_eq!(of(1, "registry"), ["registry.a.example", "registry.b.example", "registry"]);
        assert_eq!(of(1, "r.io"), ["r.io", "r.io.a.example", "r.io.b.example"]);
        assert_eq!(of(5, "r.io"), ["r.io.a.example", "r.io.b.example", "r.io"]);
        assert_eq!(of(0, "registry"), ["registry", "registry.a.example", "registry.b.example"]);
        assert_eq!(of(5, "r.io."), ["r.io"]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(?s)[ -~\n\t]{0,300}|.{0,100}") {
            let settings = Settings::parse(&text);
            prop_assert!((1..=MOST_SERVERS).contains(&settings.servers.len()));
            prop_assert!(settings.candidates("x").len() == settings.search.len() + 1);
            Hosts::parse(&text);
        }

        #[test]
        fn what_stands_in_hosts_is_found(lines in prop::collection::vec(("[a-z]{1,8}", any::<u32>()), 0..20)) {
            let text: String =
                lines.iter().map(|(name, ip)| format!("{} other {name}\n", Ipv4Addr::from(*ip))).collect();
            let hosts = Hosts::parse(&text);
            for (name, ip) in &lines {
                prop_assert!(hosts.find(name).unwrap().contains(&Ipv4Addr::from(*ip).into()));
            }
        }
    }
}
