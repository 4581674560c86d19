//! Contexts in git repositories over smart HTTP (`git http-backend` behind a server of the test's own) and ssh (a program
//! in ssh's place). They copy files and run nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/repository.rs"]
mod repository;
#[path = "support/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use repository::{Repository, git, http_backend};
use server::{Answer, Server};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use world::{Run, World};

const OUT: &str = "-otype=local,dest=out";
/// `x-access-token:hush`
const TOKEN: &str = "Basic eC1hY2Nlc3MtdG9rZW46aHVzaA==";

impl World {
    fn build(&self, args: &[&str], vars: &[(&str, &str)]) -> Run {
        let mut command = self.command([&["build", OUT], args].concat());
        Run::of(command.envs(vars.iter().copied()).spawn().unwrap())
    }

    /// What a build of a context left in `out`, which is taken away.
    fn built(&self, context: &str, vars: &[(&str, &str)]) -> Vec<String> {
        self.build(&[context], vars).ok();
        let entries = fs::read_dir(self.path("out")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        fs::remove_dir_all(self.path("out")).unwrap();
        names
    }
}

/// Serves repositories to whoever sends this `Authorization`, or to all.
async fn serve(repository: &Repository, wanted: Option<&'static str>) -> Server {
    let root = repository.root.clone();
    Server::start_async(move |asked| {
        let root = root.clone();
        async move {
            if wanted.is_some_and(|w| asked.header("authorization") != Some(w)) {
                return Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
            }
            http_backend(root, asked).await
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_over_smart_http() {
    let world = World::new();
    let Some(repository) = Repository::make(&world) else { return };
    let server = serve(&repository, None).await;
    let url = format!("http://{}/repo/.git", server.host);
    let first = &repository.first;
    for (rest, want) in [
        (String::new(), &["Dockerfile", "late", "sub"][..]),
        ("#main".into(), &["Dockerfile", "late", "sub"]),
        ("#v1".into(), &["Dockerfile", "early", "sub"]),
        ("#refs/tags/v1:sub".into(), &["inner"]),
        (format!("#{first}"), &["Dockerfile", "early", "sub"]),
        (format!("#refs/heads/main#{first}"), &["Dockerfile", "early", "sub"]),
        ("?branch=main&subdir=sub".into(), &["inner"]),
    ] {
        assert_eq!(world.built(&format!("{url}{rest}"), &[]), want, "{rest}");
    }
    // Kaniko's form of the address.
    let kanikos = url.replace("http://", "git://");
    assert_eq!(world.built(&kanikos, &[("GIT_PULL_METHOD", "http")]), ["Dockerfile", "late", "sub"]);
    world.build(&[&format!("{url}#none")], &[]).fails(3).says("none");
    world.build(&[&url.replace("/repo/", "/norepo/")], &[]).fails(3).says("/norepo/");
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_come_from_where_the_repository_is() {
    let world = World::new();
    let Some(repository) = Repository::make(&world) else { return };
    world.file("git/inner/inside", "x");
    let (repo, inner) = (world.path("git/repo"), world.path("git/inner"));
    git(&inner, &["init", "-q"]).unwrap();
    git(&inner, &["add", "."]).unwrap();
    git(&inner, &["commit", "-qm", "inner"]).unwrap();
    // Beside the repository's own address, which ends in `/.git`.
    git(&repo, &["submodule", "--quiet", "add", "../inner", "module"]).unwrap();
    git(&repo, &["config", "-f", ".gitmodules", "submodule.module.url", "../../inner/.git"]).unwrap();
    git(&repo, &["commit", "-qam", "three"]).unwrap();
    let server = serve(&repository, None).await;
    let url = format!("http://{}/repo/.git", server.host);
    world.build(&[&url], &[]).ok();
    assert_eq!(fs::read_to_string(world.path("out/module/inside")).unwrap(), "x");
    fs::remove_dir_all(world.path("out")).unwrap();
    world.build(&[&format!("{url}?submodules=false")], &[]).ok();
    assert_eq!(fs::read_dir(world.path("out/module")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_is_told_who_is_there() {
    let world = World::new();
    let Some(repository) = Repository::make(&world) else { return };
    let server = serve(&repository, Some(TOKEN)).await;
    let url = format!("http://{}/repo/.git", server.host);
    let all = ["Dockerfile", "late", "sub"];
    assert_eq!(world.built(&url, &[("GIT_AUTH_TOKEN", "hush")]), all);
    assert_eq!(world.built(&url, &[("GIT_USERNAME", "x-access-token"), ("GIT_PASSWORD", "hush")]), all);
    // No store but this one has it.
    let world = World::new();
    world.build(&[&url], &[]).fails(3).says("GIT_AUTH_TOKEN");
    for vars in [[("GIT_AUTH_TOKEN", "wrong-token")], [("GIT_TOKEN", "wrong-token")]] {
        let run = world.build(&[&url], &vars).fails(3).says("GIT_AUTH_TOKEN").says("/repo/.git");
        run.doesnt_say("wrong-token");
    }
    // A named context is the user's own word, too; a Dockerfile's address isn't.
    world.dockerfile("FROM scratch\nCOPY --from=lib late /lib\n");
    world.build(&["--build-context", &format!("lib={url}"), "context"], &[("GIT_AUTH_TOKEN", "hush")]).ok();
    let world = World::new();
    world.dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    world.build(&["context"], &[("GIT_AUTH_TOKEN", "hush")]).fails(3).says("/repo/.git").doesnt_say("hush");
    let sent = server.asked();
    let last = sent.last().unwrap().header("authorization").map(str::to_owned);
    assert_ne!(last.as_deref(), Some(TOKEN), "a Dockerfile got the token");
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_stays_with_its_server() {
    let world = World::new();
    let Some(repository) = Repository::make(&world) else { return };
    // The other one takes what it gets, and asks for more.
    let thief = serve(&repository, Some("Basic none")).await;
    let to = thief.host.clone();
    let root = repository.root.clone();
    let server = Server::start_async(move |asked| {
        let (to, root) = (to.clone(), root.clone());
        async move {
            let (name, rest) = asked.path[1..].split_once('/').unwrap();
            match (name, asked.header("authorization")) {
                // Elsewhere on this server is fine.
                ("old", _) => Answer::new(301).header("Location", format!("/repo/{rest}")),
                ("away", _) | ("asked-and-away", Some(_)) => {
                    Answer::new(302).header("Location", format!("http://{to}/repo/{rest}"))
                }
                (_, None) => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
                (_, Some(_)) => http_backend(root, asked).await,
            }
        }
    })
    .await;
    let token = [("GIT_AUTH_TOKEN", "hush")];
    let url = |name: &str| format!("http://{}/{name}/.git", server.host);
    assert_eq!(world.built(&url("old"), &token), ["Dockerfile", "late", "sub"]);
    for name in ["away", "asked-and-away"] {
        let before = thief.asked().len();
        world.build(&[&url(name)], &token).fails(3).doesnt_say("hush");
        assert!(thief.asked().len() > before, "{name}: nobody was led away");
    }
    assert!(server.asked().iter().any(|a| a.header("authorization") == Some(TOKEN)));
    assert!(thief.asked().iter().all(|a| a.header("authorization") != Some(TOKEN)), "the token was taken along");
    world.nothing_is_left();
}

#[test]
fn nothing_of_an_address_becomes_an_option() {
    let world = World::new();
    let Some(repository) = Repository::start(&world) else { return };
    let url = repository.url();
    let marker = world.path("ran");
    let touch = format!("touch {}", marker.display());
    for context in [
        format!("{url}#--upload-pack={touch}"),
        format!("{url}#-u{touch}"),
        format!("{url}?ref=--upload-pack%3D{touch}"),
        format!("{url}?branch=-x&subdir=--help"),
        format!("{url}#main:../../etc"),
        format!("{url}#main:sub/../../.."),
        format!("{url}#main:--help"),
        format!("{url}#main:.git"),
        format!("git@-oProxyCommand={touch}:x.git"),
        format!("ssh://-oProxyCommand={touch}/x.git"),
        "git://-x/r".into(),
    ] {
        let run = world.build(&[&context], &[]);
        assert!(matches!(run.code, Some(2 | 3)), "{context}: {:?} {}", run.code, run.stderr);
        assert!(!run.stderr.contains("panicked"), "{context}: {}", run.stderr);
    }
    // What names a program of git's, or this machine's files, is no repository.
    for context in [format!("ext::sh -c {touch}"), format!("file://{}", repository.root.join("repo").display())] {
        world.build(&[&context], &[]).fails(2);
        world.build(&["--build-context", &format!("lib={context}"), "context"], &[]).fails(2);
    }
    world.dockerfile(&format!("FROM scratch\nADD ext::sh%20-c%20{} /\n", touch.replace(' ', "%20")));
    world.build(&["context"], &[]).fails(1);
    assert!(!marker.exists());
    world.nothing_is_left();
}

#[test]
fn over_ssh_host_keys_are_checked() {
    let world = World::new();
    let Some(repository) = Repository::make(&world) else { return };
    world.file(
        "bin/ssh",
        "#!/bin/sh\nprintf '%s\\n' \"$*\" >> \"$HOME/asked\"\nfor last; do :; done\nexec sh -c \"$last\"\n",
    );
    fs::set_permissions(world.path("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
    let remote = |name: &str| format!("ssh://me@{name}.example{}/repo/.git", repository.root.display());
    assert_eq!(world.built(&remote("one"), &[("PATH", &path)]), ["Dockerfile", "late", "sub"]);
    let own = [("PATH", path.as_str()), ("GIT_SSH_COMMAND", "ssh -i mykey")];
    assert_eq!(world.built(&format!("{}#v1", remote("two")), &own), ["Dockerfile", "early", "sub"]);
    let asked = fs::read_to_string(world.path("home/asked")).unwrap();
    assert!(asked.contains("me@one.example") && asked.contains("-i mykey"), "{asked}");
    for line in asked.lines() {
        assert!(line.contains("-o BatchMode=yes"), "{line}");
        assert!(!line.contains("HostKeyChecking") && !line.contains("KnownHosts"), "{line}");
    }
}
