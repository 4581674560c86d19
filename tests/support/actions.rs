//! GitHub's cache service (version 2) and the blob store behind it, as far as a cache uses them; and faults on order.

#![allow(dead_code, reason = "each test uses a part of it")]

use super::server::{Answer, Asked, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

pub(crate) const TOKEN: &str = "t0ken-that-nobody-may-see";
const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const SIGNATURE: &str = "sig=s1gnature-that-nobody-may-see";

/// What the service does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Signed addresses have expired.
    Expired,
    /// Nobody is let in.
    Token,
    /// Every call ends with this status.
    Status(u16),
    /// Connections are closed without an answer.
    HangUp,
    /// Downloads of layers end in the middle, once each.
    Cut,
    /// What is downloaded is something else.
    OtherBytes,
    /// Answers are no JSON.
    NoJson,
    /// The found key is another one than was asked for.
    OtherKey,
    /// Addresses lead round in circles.
    Redirects,
    /// Records never end.
    Endless,
}

#[derive(Debug, Default)]
struct Entry {
    bytes: Vec<u8>,
    blocks: BTreeMap<String, Vec<u8>>,
    finished: bool,
    /// Which of all entries it is: of several that match, the newest is taken.
    number: usize,
}

struct State {
    entries: BTreeMap<String, Entry>,
    fault: Fault,
    cut: BTreeMap<String, ()>,
}

pub(crate) struct ActionsCache {
    server: Server,
    state: Arc<Mutex<State>>,
    /// Keeps the server going.
    _runtime: Runtime,
}

impl ActionsCache {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(Mutex::new(State { entries: BTreeMap::new(), fault: Fault::None, cut: BTreeMap::new() }));
        let shared = state.clone();
        let server = runtime.block_on(Server::start(move |asked| shared.lock().unwrap().answer(asked)));
        Self { server, state, _runtime: runtime }
    }

    /// The variables that a runner gives its actions.
    pub(crate) fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("ACTIONS_CACHE_SERVICE_V2", "True".into()),
            ("ACTIONS_RESULTS_URL", format!("http://{}/", self.server.host)),
            ("ACTIONS_RUNTIME_TOKEN", TOKEN.into()),
        ]
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    /// The keys of all files that were finished.
    pub(crate) fn keys(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.entries.iter().filter(|(_, e)| e.finished).map(|(k, _)| k.clone()).collect()
    }

    /// Keys that somebody began to write and never finished.
    pub(crate) fn reserve(&self, keys: &[String]) {
        let mut state = self.state.lock().unwrap();
        state.entries.extend(keys.iter().map(|k| (k.clone(), Entry::default())));
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().entries.clear();
    }

    /// How many requests had this method and this part in their address, since the last `skip` requests.
    pub(crate) fn count(&self, skip: usize, method: &str, part: &str) -> usize {
        self.server.asked().iter().skip(skip).filter(|a| a.method == method && a.path.contains(part)).count()
    }

    pub(crate) fn requests(&self) -> usize {
        self.server.asked().len()
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Answer {
        match self.fault {
            Fault::Status(status) => return Answer::new(status).body(format!("{{\"msg\":\"{TOKEN}\"}}")),
            Fault::HangUp => return Answer::hang_up(),
            Fault::NoJson if asked.method == "POST" => return Answer::new(200).body("<html>"),
            _ => {}
        }
        match asked.path.strip_prefix(SERVICE) {
            Some(method) => self.call(method, asked),
            None => self.blob(asked),
        }
    }

    fn call(&mut self, method: &str, asked: &Asked) -> Answer {
        let known = asked.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        if !known || self.fault == Fault::Token {
            return Answer::new(401).body(r#"{"code":"unauthenticated","msg":"no"}"#);
        }
        let request: Value = serde_json::from_slice(&asked.body).unwrap();
        let key = request["key"].as_str().unwrap().to_owned();
        assert_eq!(request["version"].as_str().unwrap().len(), 64, "{request}");
        assert!(key.len() <= 512 && !key.contains(','), "{key}");
        let host = asked.header("host").unwrap();
        let signed = |key: &str| {
            let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
            format!("http://{host}/blob?key={encoded}&{SIGNATURE}")
        };
        match method {
            "CreateCacheEntry" if self.entries.contains_key(&key) => {
                Answer::new(409).body(r#"{"code":"already_exists","msg":"cache entry with the same key exists"}"#)
            }
            "CreateCacheEntry" => {
                let address = signed(&key);
                self.entries.insert(key, Entry { number: self.entries.len(), ..Entry::default() });
                json_answer(&json!({ "ok": true, "signed_upload_url": address }))
            }
            "FinalizeCacheEntryUpload" => {
                let entry = self.entries.get_mut(&key).unwrap();
                let fits = request["size_bytes"].as_str() == Some(&entry.bytes.len().to_string());
                entry.finished = fits;
                json_answer(&json!({ "ok": fits, "entry_id": "1" }))
            }
            "GetCacheEntryDownloadURL" => {
                let prefixes: Vec<&str> =
                    request["restore_keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let fits = |k: &String| *k == key || prefixes.iter().any(|p| k.starts_with(p));
                let found = self.entries.iter().filter(|(k, e)| e.finished && fits(k)).max_by_key(|(_, e)| e.number);
                match found {
                    None => json_answer(&json!({ "ok": false, "signed_download_url": "", "matched_key": "" })),
                    Some(_) if self.fault == Fault::OtherKey => {
                        json_answer(&json!({ "ok": true, "signed_download_url": signed("x"), "matched_key": "x" }))
                    }
                    Some((k, _)) => {
                        json_answer(&json!({ "ok": true, "signed_download_url": signed(k), "matched_key": k }))
                    }
                }
            }
            other => panic!("{other}"),
        }
    }

    /// The blob store: it knows signatures, no tokens.
    fn blob(&mut self, asked: &Asked) -> Answer {
        assert_eq!(asked.header("authorization"), None, "the token goes to the service alone");
        let address = url::Url::parse(&format!("http://x{}", asked.path)).unwrap();
        let query: BTreeMap<String, String> = address.query_pairs().into_owned().collect();
        if self.fault == Fault::Expired || !asked.path.contains(SIGNATURE) {
            return Answer::new(403).body("<Error>AuthenticationFailed</Error>");
        }
        if self.fault == Fault::Redirects {
            return Answer::new(302).header("Location", &asked.path);
        }
        let key = query["key"].clone();
        let Some(entry) = self.entries.get_mut(&key) else { return Answer::new(404) };
        match (asked.method.as_str(), query.get("comp").map(String::as_str)) {
            ("PUT", None) => {
                assert_eq!(asked.header("x-ms-blob-type"), Some("BlockBlob"));
                entry.bytes.clone_from(&asked.body);
                Answer::new(201)
            }
            ("PUT", Some("block")) => {
                entry.blocks.insert(query["blockid"].clone(), asked.body.clone());
                Answer::new(201)
            }
            ("PUT", Some("blocklist")) => {
                let text = String::from_utf8(asked.body.clone()).unwrap();
                let ids = text.split("<Latest>").skip(1).map(|t| t.split_once('<').unwrap().0);
                entry.bytes = ids.flat_map(|id| entry.blocks[id].clone()).collect();
                Answer::new(201)
            }
            ("GET", None) => {
                let from = asked.header("range").map(|r| r.trim_start_matches("bytes=").trim_end_matches('-'));
                let from: usize = from.map_or(0, |n| n.parse().unwrap());
                let rest = entry.bytes[from.min(entry.bytes.len())..].to_vec();
                let (total, end) = (entry.bytes.len(), entry.bytes.len().saturating_sub(1));
                let answer = match from {
                    0 => Answer::new(200),
                    _ => Answer::new(206).header("Content-Range", format!("bytes {from}-{end}/{total}")),
                };
                match self.fault {
                    Fault::OtherBytes => answer.body(vec![b'x'; rest.len()]),
                    Fault::Endless => answer.body(vec![b' '; 1 << 16]).endless(),
                    Fault::Cut
                        if key.starts_with("kiln-blob") && rest.len() > 1 && self.cut.insert(key, ()).is_none() =>
                    {
                        answer.body(&rest[..rest.len() / 2]).cut(rest.len())
                    }
                    _ => answer.body(rest),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn json_answer(value: &Value) -> Answer {
    Answer::new(200).header("Content-Type", "application/json").body(value.to_string())
}
