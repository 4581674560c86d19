//! Contexts in buckets: S3 against `moto_server` (PyPI's moto, which `scripts/test` installs), Google's store against a
//! server of the test's own, which checks what it is sent. They copy files and run nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/archives.rs"]
mod archives;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use archives::{gzip, tar};
use server::{Answer, Server};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use world::{Run, World};

const COPY_ALL: &str = "FROM scratch\nCOPY . /\n";
const OUT: &str = "-otype=local,dest=out";

/// A running `moto_server`.
struct Moto {
    child: Child,
    host: String,
}

impl Moto {
    /// `None`, and a line that says so, where the program is missing.
    fn start() -> Option<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto/bin/moto_server");
        let program = if own.exists() { own } else { "moto_server".into() };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let spawned = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            // It asks who is there only after this many requests; `reset-auth` sets the count anew.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "1000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            println!("skipped: moto_server is not installed (scripts/test puts PyPI's moto into target/moto)");
            return None;
        };
        let moto = Self { child, host: format!("127.0.0.1:{port}") };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&moto.host).is_err() {
            assert!(Instant::now() < end, "moto_server doesn't listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(moto)
    }

    /// An answer's body to a request that nobody signs.
    fn ask(&self, method: &str, path: &str, service: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let scope =
            format!("AWS4-HMAC-SHA256 Credential=x/20300101/us-east-1/{service}/aws4_request, SignedHeaders=host");
        let form = if service == "iam" { "Content-Type: application/x-www-form-urlencoded\r\n" } else { "" };
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: {scope}\r\n{form}Content-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 ") || head.contains(" 204 "), "{method} {path}: {answer}");
        body.to_owned()
    }

    fn put(&self, path: &str, body: &[u8]) {
        self.ask("PUT", path, "s3", body);
    }

    /// A user that may read everything; from now on nobody else may. Its two keys.
    fn only_for_a_user(&self) -> [String; 2] {
        let iam = |body: &str| self.ask("POST", "/", "iam", format!("{body}&UserName=u&Version=2010-05-08").as_bytes());
        iam("Action=CreateUser");
        let may_all = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Action\
                       %22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%7D";
        iam(&format!("Action=PutUserPolicy&PolicyName=p&PolicyDocument={may_all}"));
        let made = iam("Action=CreateAccessKey");
        let of = |name: &str| {
            let (_, rest) = made.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        self.ask("POST", "/moto-api/reset-auth", "s3", b"0");
        [of("AccessKeyId"), of("SecretAccessKey")]
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    fn build(&self, args: &[&str], vars: &[(&str, &str)]) -> Run {
        let mut command = self.command([&["build", OUT], args].concat());
        Run::of(command.envs(vars.iter().copied()).spawn().unwrap())
    }

    /// What a build left in `out`, and takes it away.
    fn built(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        fs::remove_dir_all(self.path("out")).unwrap();
        names
    }
}

#[test]
fn a_context_in_s3_by_name_and_with_credentials() {
    let Some(moto) = Moto::start() else { return };
    let endpoint = format!("http://{}", moto.host);
    moto.put("/pot", b"");
    let plain = tar(&[("Dockerfile", COPY_ALL), ("a", "A")]);
    moto.put("/pot/dir/c.tar.gz", &gzip(&plain));
    moto.put("/pot/a%20b=c/c.tar.zst", &zstd::encode_all(&plain[..], 1).unwrap());
    moto.put("/pot/context.tar.gz", &gzip(&tar(&[("Dockerfile", COPY_ALL), ("default", "")])));
    moto.put("/pot/Dockerfile", b"FROM scratch\nCOPY <<EOF /made\nhello\nEOF\n");
    let world = World::new();
    // moto can't check the signature of such a name.
    let anybody = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL", &endpoint)];
    world.build(&["s3://pot/a b=c/c.tar.zst"], &anybody).ok();
    assert_eq!(world.built(), ["Dockerfile", "a"]);
    let [key, secret] = moto.only_for_a_user();
    let keys = [("AWS_ACCESS_KEY_ID", key.as_str()), ("AWS_SECRET_ACCESS_KEY", &secret), ("S3_ENDPOINT", &endpoint)];
    for (context, made) in [
        ("s3://pot/dir/c.tar.gz", &["Dockerfile", "a"][..]),
        ("s3://pot", &["Dockerfile", "default"]),
        ("s3://pot/Dockerfile", &["made"]),
    ] {
        // The second time it hasn't changed.
        for _ in 0..2 {
            world.build(&[context], &keys).ok().says(&format!("fetching the context {context}"));
            assert_eq!(world.built(), made, "{context}");
        }
    }
    // As a named context; where nothing is taken from it, it isn't fetched.
    world.dockerfile("FROM scratch\nCOPY --from=lib a /lib\n");
    let lib = ["--build-context", "lib=s3://pot/dir/c.tar.gz", "context"];
    world.build(&lib, &keys).ok();
    assert_eq!(world.built(), ["lib"]);
    world.build(&["--build-context", "lib=s3://pot/Dockerfile", "context"], &keys).fails(2).says("is no tar");
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    world.build(&lib, &[]).ok().doesnt_say("fetching");
    // The files of Amazon's own tools.
    let profile = format!("[ci]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    world.file("home/.aws/credentials", profile);
    world
        .build(&["s3://pot"], &[("S3_ENDPOINT", &endpoint), ("AWS_PROFILE", "ci"), ("S3_FORCE_PATH_STYLE", "true")])
        .ok();
    world.nothing_is_left();
    for (vars, part) in [
        (&[("AWS_ACCESS_KEY_ID", "AKIAWRONG"), ("AWS_SECRET_ACCESS_KEY", "hush"), keys[2]][..], "403"),
        (&[keys[0], ("AWS_SECRET_ACCESS_KEY", "hush"), keys[2]], "403"),
        (&[keys[0], keys[2]], "AWS_SECRET_ACCESS_KEY"),
    ] {
        let run = world.build(&["s3://pot/dir/c.tar.gz"], vars).fails(3).says("s3://pot/dir/c.tar.gz").says(part);
        run.says("AWS_ACCESS_KEY_ID").doesnt_say("hush").doesnt_say(&key).doesnt_say("AKIAWRONG").doesnt_say(&secret);
    }
    for missing in ["s3://pot/none.tar.gz", "s3://nopot/x.tar.gz"] {
        let run =
            world.build(&[missing], &keys).fails(3).says(missing).says("404").says("check the name of the bucket");
        run.doesnt_say(&key).doesnt_say(&secret);
    }
    world.nothing_is_left();
}

#[test]
fn an_endpoint_that_is_down_is_told() {
    let world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush"), ("S3_ENDPOINT", endpoint.as_str())];
    let run = world.build(&["s3://pot/c.tar.gz"], &keys).fails(3).says("s3://pot/c.tar.gz").says("S3_ENDPOINT");
    run.says(&format!("127.0.0.1:{port}")).doesnt_say("hush");
    for (endpoint, part) in [("ftp://x", "no web address"), ("http://me:hush@x", "host and a path")] {
        let vars = [keys[0], keys[1], ("S3_ENDPOINT", endpoint)];
        world.build(&["s3://pot/x"], &vars).fails(3).says("S3_ENDPOINT").says(part).doesnt_say("hush");
    }
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_answer_is_not_believed() {
    let server = Server::start(|asked| match asked.line().as_str() {
        "GET /pot/cut" => Answer::new(200).body("half").cut(100),
        "GET /pot/away" => Answer::new(307).header("Location", "http://127.0.0.1:1/steal"),
        "GET /pot/region" => Answer::new(301)
            .header("x-amz-bucket-region", "eu-west-1")
            .body("<Error><Code>PermanentRedirect</Code><Message>there</Message></Error>"),
        _ => Answer::new(403).body(format!(
            "<Error><Code>SignatureDoesNotMatch</Code><Message>no\u{1b}[31m</Message><AWSAccessKeyId>AKIAID</AWSAccessKeyId>\
             <StringToSign>{}</StringToSign></Error>",
            asked.header("authorization").unwrap()
        )),
    })
    .await;
    let world = World::new();
    let endpoint = format!("http://{}", server.host);
    let keys =
        [("AWS_ACCESS_KEY_ID", "AKIAID"), ("AWS_SECRET_ACCESS_KEY", "hush"), ("AWS_SESSION_TOKEN", "hush-session")];
    let build = |context: &str| {
        let vars = [&keys[..], &[("S3_ENDPOINT", &endpoint)]].concat();
        let run = world.build(&[context], &vars).fails(3).says(context);
        run.doesnt_say("hush").doesnt_say("AKIAID").doesnt_say("\u{1b}").doesnt_say("Signature=")
    };
    build("s3://pot/cut");
    build("s3://pot/away").says("307");
    build("s3://pot/region").says("AWS_REGION").says("eu-west-1");
    build("s3://pot/x").says("403 (SignatureDoesNotMatch: no[31m)").says("AWS_ACCESS_KEY_ID");
    let asked = server.asked();
    let last = asked.last().unwrap();
    assert!(last.header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 Credential=AKIAID/"));
    assert_eq!(last.header("x-amz-security-token"), Some("hush-session"));
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_role_is_asked_for() {
    let server = Server::start(|asked| match (asked.path.as_str(), asked.header("x-amz-security-token")) {
        ("/role", _) if asked.header("authorization") == Some("pod") => Answer::new(200).body(
            r#"{"AccessKeyId":"ASIA","SecretAccessKey":"hush","Token":"session","Expiration":"2999-01-01T00:00:00Z"}"#,
        ),
        ("/pot/c.tar", Some("session")) => Answer::new(200)
            .header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
            .body(tar(&[("Dockerfile", COPY_ALL)])),
        _ => Answer::new(403),
    })
    .await;
    let world = World::new();
    let (endpoint, role) = (format!("http://{}", server.host), format!("http://{}/role", server.host));
    let token = world.file("token", "pod").path("token").display().to_string();
    let vars = [
        ("S3_ENDPOINT", endpoint.as_str()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &role),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
    ];
    world.build(&["s3://pot/c.tar"], &vars).ok();
    assert_eq!(world.built(), ["Dockerfile"]);
    world.file("token", "another");
    world.build(&["s3://pot/c.tar"], &vars).fails(3).says("403").doesnt_say("another");
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_in_googles_store() {
    let server = Server::start(|asked| match asked.path.replace("%2F", "/").replace("%2E", ".").as_str() {
        "/pot/dir/c.tar.gz" => Answer::new(200)
            .header("ETag", "\"1\"")
            .header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
            .body(gzip(&tar(&[("Dockerfile", COPY_ALL), ("a", "A")]))),
        _ => Answer::new(404).body("<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"),
    })
    .await;
    let world = World::new();
    // An emulator is asked without credentials, as Google's own libraries do it.
    let emulator = [("STORAGE_EMULATOR_HOST", server.host.as_str())];
    world.build(&["gs://pot/dir/c.tar.gz"], &emulator).ok();
    assert_eq!(world.built(), ["Dockerfile", "a"]);
    world.build(&["gs://pot/none"], &emulator).fails(3).says("gs://pot/none").says("NoSuchKey").says("check the name");
    assert!(server.asked().iter().all(|a| a.header("authorization").is_none_or(|a| a == "Bearer ")));
    let credentials = [("GOOGLE_APPLICATION_CREDENTIALS", "nowhere.json")];
    world.build(&["gs://pot/x"], &credentials).fails(3).says("GOOGLE_APPLICATION_CREDENTIALS").says("nowhere.json");
    world
        .file("key.json", r#"{"type":"service_account","private_key":"hush","private_key_id":"i","client_email":"e"}"#);
    let path = world.path("key.json").display().to_string();
    let credentials = [("GOOGLE_APPLICATION_CREDENTIALS", path.as_str())];
    world.build(&["gs://pot/x"], &credentials).fails(3).says("gs://pot/x").doesnt_say("hush");
    world.nothing_is_left();
}
