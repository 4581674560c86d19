//! `EXPOSE`: `[ip:[host:]]port[-port][/protocol]`, of which only port and protocol count.

/// The ports that a specification names, as `80/tcp`.
pub(super) fn ports(spec: &str) -> Result<Vec<String>, String> {
    let (ip, host, container) = split(spec);
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(format!("no port specified: {container}<empty>"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid proto: {other}")),
    };
    check_ip(&ip)?;
    let (first, last) = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if last - first != host_last - host_first && last != first {
            return Err(format!("invalid ranges specified for container and host Ports: {port} and {host}"));
        }
    }
    Ok((first..=last).map(|n| format!("{n}/{protocol}")).collect())
}

/// IP address, port on the host, and the rest; an IPv6 address has colons of its own.
fn split(spec: &str) -> (String, &str, &str) {
    let mut parts = spec.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default().to_owned(), host, container)
}

fn check_ip(text: &str) -> Result<(), String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {text}"));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten();
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ports() {
        for (spec, want) in [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("80/", "80/tcp"),
            ("1-3/sctp", "1/sctp 2/sctp 3/sctp"),
            ("127.0.0.1:80:81", "81/tcp"),
            ("[::1]:8080:8080", "8080/tcp"),
            ("5000:5001", "5001/tcp"),
            ("8000-9000:80", "80/tcp"),
            ("0", "0/tcp"),
        ] {
            assert_eq!(ports(spec).map(|p| p.join(" ")), Ok(want.to_owned()), "{spec}");
        }
    }

    #[test]
    fn refuses() {
        for (spec, want) in [
            ("", "no port specified: <empty>"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("80/x", "invalid proto: x"),
            ("65536", "invalid containerPort: 65536"),
            ("3-1", "invalid containerPort: 3-1"),
            ("+1", "invalid containerPort: +1"),
            ("x:80", "invalid hostPort: x"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
        ] {
            assert_eq!(ports(spec), Err(want.to_owned()), "{spec}");
        }
    }
}
