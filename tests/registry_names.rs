//! Names of registries by fixed texts of `/etc/hosts` and `/etc/resolv.conf`, against a name server of the test's own: where
//! a client goes, whatever stands in the system's files. No privilege needed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support {
    pub(crate) mod dns;
    pub(crate) mod server;
}

use kiln::registry::{Client, Config, Error, Mirror, Proxies, Retry, fixed_resolver};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use support::dns::{AAAA, NameServer, Reply, answer, of_kind, question};
use support::server::{Answer, Server};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// An address that nobody has (RFC 5737): whoever goes there does not come back.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A registry with one image, and its port.
async fn registry() -> (Server, u16) {
    let manifest = || Answer::new(200).header("Content-Type", "application/vnd.oci.image.index.v1+json").body(INDEX);
    let server = Server::start(move |_| manifest()).await;
    let port = server.host.rsplit_once(':').unwrap().1.parse().unwrap();
    (server, port)
}

fn config(hosts: &str, resolv_conf: &str) -> Config {
    Config {
        retry: Retry { attempts: 1, ..Retry::default() },
        patience: Duration::from_secs(20),
        resolver: Some(fixed_resolver(hosts, resolv_conf)),
        ..Config::default()
    }
}

/// Asks a server with this name for something.
async fn ask(config: Config, host: &str, port: u16) -> Result<(), Error> {
    Client::new(config).web(&format!("http://{host}:{port}/file"), None).await.map(drop)
}

#[tokio::test]
async fn the_hosts_text_comes_first() {
    let (_server, port) = registry().await;
    let dns = NameServer::start(|_| Reply::Addresses(vec![NOWHERE]));
    ask(config("127.0.0.1 registry.test", &dns.line()), "registry.test", port).await.unwrap();
    assert!(dns.asked().is_empty());
}

/// What a RUN does in place, while kiln pushes: it writes to the file that names are resolved by.
#[tokio::test]
async fn a_file_that_changes_after_the_start_changes_nothing() {
    let ((ours, port), (theirs, _)) = (registry().await, registry().await);
    let folder = tempfile::tempdir().unwrap();
    let [hosts, resolv_conf] = ["hosts", "resolv.conf"].map(|name| folder.path().join(name));
    let (good, evil) = (
        NameServer::start(|_| Reply::Addresses(vec![LOOPBACK])),
        NameServer::start(|_| Reply::Addresses(vec![NOWHERE])),
    );
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    std::fs::write(&resolv_conf, good.line()).unwrap();
    let text = |path| std::fs::read_to_string(path).unwrap();
    let url = format!("http://registry.test:{port}");
    let mirrors = vec![Mirror { registry: "docker.io".into(), url }];
    let client = Client::new(Config { mirrors, ..config(&text(&hosts), &text(&resolv_conf)) });
    std::fs::write(&hosts, "192.0.2.1 registry.test\n").unwrap();
    std::fs::write(&resolv_conf, evil.line()).unwrap();
    for client in [client.impatient(), client.clone()] {
        client.manifest(&"docker.io/library/app:1".parse().unwrap()).await.unwrap();
    }
    assert!(evil.asked().is_empty() && theirs.asked().is_empty());
    assert_eq!((good.names().first().map(String::as_str), ours.asked().len()), (Some("registry.test"), 2));
}

#[tokio::test]
async fn name_servers_are_asked_for_both_sorts_of_addresses() {
    let (_server, port) = registry().await;
    let dns = NameServer::start(|_| Reply::Addresses(vec![LOOPBACK]));
    ask(config("", &dns.line()), "registry.test", port).await.unwrap();
    let mut kinds: Vec<_> = dns.asked().iter().map(|a| (a.name.clone(), a.kind, a.tcp)).collect();
    kinds.sort();
    assert_eq!(kinds, [("registry.test".into(), 1, false), ("registry.test".into(), 28, false)]);
    let dns = NameServer::start(|_| Reply::Alias("other.test".into(), vec![LOOPBACK]));
    ask(config("", &format!("{}options no-aaaa\n", dns.line())), "registry.test", port).await.unwrap();
    assert_eq!(dns.asked().len(), 1);
}

#[tokio::test]
async fn search_domains_are_tried_in_order() {
    let (_server, port) = registry().await;
    let dns = NameServer::start(|asked| match asked.name.as_str() {
        // The first domain's server fails, which says nothing of the others.
        "registry.a.test" => Reply::Code(2),
        "registry.c.test" => Reply::Addresses(vec![LOOPBACK]),
        _ => Reply::Code(3),
    });
    let text = format!("{}search a.test b.test c.test\noptions attempts:1", dns.line());
    ask(config("", &text), "registry", port).await.unwrap();
    assert_eq!(dns.names(), ["registry.a.test", "registry.b.test", "registry.c.test"]);
    let text = format!("{}search c.test\noptions ndots:2", dns.line());
    ask(config("", &text), "registry.test", port).await.unwrap_err();
    assert_eq!(dns.names()[3..], ["registry.test.c.test", "registry.test"]);
}

#[tokio::test]
async fn a_long_answer_comes_by_tcp() {
    let (_server, port) = registry().await;
    let dns = NameServer::start(|asked| match asked.tcp {
        false => Reply::Truncated,
        true => Reply::Addresses(vec![LOOPBACK; 60]),
    });
    ask(config("", &dns.line()), "registry.test", port).await.unwrap();
    assert_eq!(dns.asked().iter().filter(|a| a.tcp).count(), 2);
    let dns = NameServer::start(|_| Reply::Addresses(vec![LOOPBACK]));
    ask(config("", &format!("{}options use-vc", dns.line())), "registry.test", port).await.unwrap();
    assert!(dns.asked().iter().all(|a| a.tcp));
}

#[tokio::test]
async fn what_answers_another_question_is_passed_over() {
    let (_server, port) = registry().await;
    let dns = NameServer::start(|asked| {
        let lie = |id, name, kind| {
            let question = question(id, name, kind);
            answer(&question, 0, false, &of_kind(kind, &[NOWHERE], &[0xc0, 12]))
        };
        let other_kind = if asked.kind == AAAA { 1 } else { AAAA };
        let lies = vec![
            lie(asked.id.wrapping_add(1), "registry.test", asked.kind),
            lie(asked.id, "registry.evil", asked.kind),
            lie(asked.id, "registry.test", other_kind),
            question(asked.id, "registry.test", asked.kind),
            vec![],
            b"nonsense".to_vec(),
        ];
        Reply::After(lies, vec![LOOPBACK])
    });
    ask(config("", &dns.line()), "registry.test", port).await.unwrap();
    let ids: Vec<u16> = dns.asked().iter().map(|a| a.id).collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_is_passed_over_once() {
    let (_server, port) = registry().await;
    let good = NameServer::start(|_| Reply::Addresses(vec![LOOPBACK]));
    for bad in [Reply::Silence, Reply::Code(2), Reply::Code(5)] {
        let bad = NameServer::start(move |_| bad.clone());
        let text = format!("{}{}options timeout:1", bad.line(), good.line());
        let config = config("", &text);
        for _ in 0..3 {
            ask(config.clone(), "registry.test", port).await.unwrap();
        }
        // From then on the one that answers is asked first.
        assert_eq!(bad.asked().len(), 2);
    }
    let gone = "nameserver [127.0.0.1]:1\n".to_owned();
    ask(config("", &(gone + &good.line())), "registry.test", port).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_resolved_is_said() {
    let dns = NameServer::start(|_| Reply::Code(3));
    let error = ask(config("", &dns.line()), "registry.test", 1).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { why, .. } if why == "there is no host registry.test"), "{error:?}");
    let dns = NameServer::start(|_| Reply::Silence);
    let begin = Instant::now();
    let text = format!("{}options timeout:1 attempts:1\nsearch a.test b.test", dns.line());
    let error = ask(config("", &text), "registry.test", 1).await.unwrap_err();
    let said = format!("the name server {} has no answer: it is silent", dns.address);
    assert!(matches!(&error, Error::Unreachable { why, .. } if *why == said), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn the_name_of_a_proxy_is_resolved_in_the_same_way() {
    let (proxy, port) = registry().await;
    let proxies = Proxies { http: Some(format!("http://proxy.test:{port}")), ..Proxies::default() };
    let config = Config { proxies, ..config("127.0.0.1 proxy.test", "nameserver [127.0.0.1]:1") };
    ask(config, "registry.test", 5000).await.unwrap();
    assert_eq!(proxy.asked()[0].path, "http://registry.test:5000/file");
}
