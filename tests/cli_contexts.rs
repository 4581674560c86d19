//! Builds whose context isn't a folder: standard input, archives, a web server and a git daemon of the test's own. They
//! copy files and run nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/archives.rs"]
mod archives;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/repository.rs"]
mod repository;
#[path = "support/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use archives::{gzip, tar};
use repository::Repository;
use server::{Answer, Server};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use world::{Run, World};

const COPY_ALL: &str = "FROM scratch\nCOPY . /\n";
/// Where a build's files go.
const OUT: &str = "-otype=local,dest=out";

/// A tar with a link of this kind at the end, and then a file.
fn tar_with_link(kind: tar::EntryType, name: &str, target: &str, after: (&str, &str)) -> Vec<u8> {
    let mut bytes = tar(&[("Dockerfile", COPY_ALL), ("a", "A")]);
    bytes.truncate(4 * 512);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o777);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(tar(&[after]));
    bytes
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Runs the binary with these bytes on standard input.
fn with_input(world: &World, args: &[&str], input: &[u8]) -> Run {
    let input = File::open(world.file("input", input).path("input")).unwrap();
    Run::of(world.command(args).stdin(Stdio::from(input)).spawn().unwrap())
}

/// What a build left in `out`, and takes it away.
fn built(world: &World) -> Vec<String> {
    let out = world.path("out");
    let mut names: Vec<String> =
        fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    fs::remove_dir_all(out).unwrap();
    names
}

#[test]
fn a_tar_on_standard_input_in_every_compression() {
    let world = World::new();
    let files = [("Dockerfile", COPY_ALL), ("a", "A"), ("sub/b", "B"), ("no", ""), (".dockerignore", "no\n.docker*\n")];
    let plain = tar(&files);
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for (form, bytes) in
        [("plain", plain.clone()), ("gzip", gzip(&plain)), ("bzip2", bzip2(&plain)), ("xz", xz(&plain)), ("zstd", zstd)]
    {
        with_input(&world, &["build", OUT, "-"], &bytes).ok();
        assert_eq!(fs::read_to_string(world.path("out/sub/b")).unwrap(), "B", "{form}");
        assert_eq!(built(&world), ["Dockerfile", "a", "sub"], "{form}");
    }
    world.nothing_is_left();
}

#[test]
fn a_dockerfile_inside_a_tar() {
    let world = World::new();
    let files = [
        ("Dockerfile", "FROM nowhere.invalid/x\n"),
        ("sub/D", "FROM scratch\nCOPY a /from-sub\n"),
        ("a", "A"),
        ("no", ""),
        ("sub/D.dockerignore", "no\n"),
    ];
    let bytes = gzip(&tar(&files));
    with_input(&world, &["build", "-f", "sub/D", OUT, "-"], &bytes).ok();
    assert_eq!(built(&world), ["from-sub"]);
    with_input(&world, &["build", "-f", "missing", OUT, "-"], &bytes).fails(2).says("missing");
    with_input(&world, &["build", "-f", "../context/Dockerfile", OUT, "-"], &bytes).fails(2).says("leads out");
    with_input(&world, &["build", "-f", "-", OUT, "-"], &bytes).fails(2).says("standard input");
    let checked =
        with_input(&world, &["build", "--call=targets", "-"], &tar(&[("Dockerfile", "FROM scratch AS one\n")]));
    checked.ok().prints("one");
    world.nothing_is_left();
}

#[test]
fn a_dockerfile_alone_on_standard_input() {
    let world = World::new();
    let dockerfile = b"FROM scratch\nCOPY <<EOF /made\nhello\nEOF\n";
    with_input(&world, &["build", OUT, "-"], dockerfile).ok();
    assert_eq!(fs::read_to_string(world.path("out/made")).unwrap(), "hello\n");
    assert_eq!(built(&world), ["made"]);
    with_input(&world, &["build", "-"], b"FROM scratch\nCOPPY a b\n").fails(2).says("Dockerfile:2").points_at("COPPY");
    with_input(&world, &["build", "-"], b"FROM scratch\nCOPY a b\n").fails(1).says("a");
    with_input(&world, &["build", "-f", "D", "-"], dockerfile).fails(2).says("-f");
    with_input(&world, &["build", "-"], b"").fails(2);
    world.nothing_is_left();
}

#[test]
fn hostile_tars_stay_inside() {
    let world = World::new();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap();
    let (symlink, hardlink) = (tar::EntryType::Symlink, tar::EntryType::Link);
    let secret = world.file("secret", "hush\nhush\n").path("secret");
    let secret = secret.to_str().unwrap();
    for bytes in [
        tar(&[("Dockerfile", COPY_ALL), ("../evil", "E")]),
        tar(&[("Dockerfile", COPY_ALL), ("/tmp/../../evil", "E")]),
        tar(&[("Dockerfile", COPY_ALL), (&format!("{target}/evil"), "E")]),
        tar_with_link(symlink, "link", target, ("link/evil", "E")),
        tar_with_link(symlink, "link", "../../../..", ("link/evil", "E")),
        tar_with_link(hardlink, "link", secret, ("b", "B")),
        tar_with_link(hardlink, "link", "../../../../../../../etc/passwd", ("b", "B")),
    ] {
        let run = with_input(&world, &["build", OUT, "-"], &bytes);
        assert!(matches!(run.code, Some(0 | 2)), "{:?}: {}", run.code, run.stderr);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{}", run.stderr);
        let link = fs::read_to_string(world.path("out/link")).unwrap_or_default();
        assert!(!link.contains("hush") && !link.contains("root:"), "{link}");
        let _ = fs::remove_dir_all(world.path("out"));
    }
    for name in ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"] {
        let bytes = tar_with_link(symlink, name, secret, ("b", "B"));
        with_input(&world, &["build", OUT, "-"], &bytes).fails(2).says("leads out of the context").doesnt_say("hush");
    }
    assert!(!world.path("evil").exists() && !Path::new("/evil").exists());
    world.nothing_is_left();
}

#[test]
fn broken_tars_are_told() {
    let world = World::new();
    let whole = gzip(&tar(&[("Dockerfile", COPY_ALL), ("a", &"x".repeat(5000))]));
    with_input(&world, &["build", "-"], &whole[..whole.len() / 2]).fails(2).says("cannot unpack the context");
    world.file("c.tar", &tar(&[("Dockerfile", COPY_ALL), ("a", &"x".repeat(5000))])[..2000]);
    world.kiln(["build", "c.tar"]).fails(2).says("c.tar");
    world.nothing_is_left();
}

#[test]
fn a_context_that_never_comes_is_waited_for_until_ctrl_c() {
    let world = World::new();
    let mut child = world.command(["build", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    let begun = |name: &str| fs::read_dir(world.path(name)).is_ok_and(|mut e| e.next().is_some());
    while !begun("store/tmp") {
        std::thread::sleep(Duration::from_millis(10));
        let start = &tar(&[("Dockerfile", COPY_ALL)])[..1024];
        let _ = input.as_ref().unwrap().write_all(start);
    }
    rustix::process::kill_process(pid(&child), rustix::process::Signal::INT).unwrap();
    Run::of(child).fails(130);
    drop(input);
    world.nothing_is_left();
}

#[test]
fn archives_and_folders_by_kanikos_names() {
    let world = World::new();
    world.file("c.tar.gz", gzip(&tar(&[("Dockerfile", COPY_ALL), ("a", "A")])));
    world.dockerfile(COPY_ALL).file("context/f", "F");
    let path = |name: &str| world.path(name).display().to_string();
    for context in ["c.tar.gz".to_owned(), "tar://c.tar.gz".to_owned(), format!("tar://{}", path("c.tar.gz"))] {
        world.kiln(["build", OUT, &context]).ok();
        assert_eq!(built(&world), ["Dockerfile", "a"], "{context}");
    }
    world.kiln(["build", OUT, &format!("dir://{}", path("context"))]).ok();
    assert_eq!(built(&world), ["Dockerfile", "f"]);
    world.kiln(["build", "tar://nowhere.tar"]).fails(2).says("nowhere.tar");
    world.kiln(["build", "context/f"]).fails(2).says("neither a folder nor a tar");
    // Files of a tar are root's, as those of a folder are.
    world.kiln(["build", "-otype=tar,dest=out.tar", "c.tar.gz"]).ok();
    let mut made = tar::Archive::new(File::open(world.path("out.tar")).unwrap());
    assert!(made.entries().unwrap().all(|e| e.unwrap().header().uid().unwrap() == 0));
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_from_a_web_server() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/c.tar.gz" => Answer::new(200).body(gzip(&tar(&[("Dockerfile", COPY_ALL), ("a", "A")]))),
        "/Dockerfile" => Answer::new(200).body("FROM scratch\nCOPY <<EOF /made\nhello\nEOF\n"),
        "/cut" => Answer::new(200).body("half").cut(100),
        _ => Answer::new(404),
    })
    .await;
    let world = World::new();
    let url = |name: &str| format!("http://{}/{name}", server.host);
    world.kiln(["build", OUT, &url("c.tar.gz")]).ok();
    assert_eq!(built(&world), ["Dockerfile", "a"]);
    world.kiln(["build", OUT, &url("Dockerfile")]).ok();
    assert_eq!(built(&world), ["made"]);
    let own = world.file("own", "FROM scratch\nCOPY a /mine\n").path("own");
    world.kiln(["build", OUT, "-f", own.to_str().unwrap(), &url("c.tar.gz")]).ok();
    assert_eq!(built(&world), ["mine"]);
    let secret = url("c.tar.gz").replace("http://", "http://me:hush@");
    world.kiln(["build", OUT, &secret]).ok().says("fetching the context http://").doesnt_say("hush");
    assert_eq!(built(&world), ["Dockerfile", "a"]);
    for name in ["missing", "cut"] {
        world.kiln(["build", "--metadata-file", "meta.json", &url(name)]).fails(3).says(name);
        let account = fs::read_to_string(world.path("meta.json")).unwrap();
        assert!(account.contains("kiln.error") && account.contains(name), "{account}");
        fs::remove_file(world.path("meta.json")).unwrap();
    }
    world.nothing_is_left();
}

#[test]
fn a_context_from_a_repository() {
    let world = World::new();
    let Some(repository) = Repository::start(&world) else { return };
    let url = repository.url();
    let out = |context: &str| {
        world.kiln(["build", OUT, context]).ok();
        built(&world)
    };
    assert_eq!(out(&url), ["Dockerfile", "late", "sub"]);
    assert_eq!(out(&format!("{url}#v1")), ["Dockerfile", "early", "sub"]);
    assert_eq!(out(&format!("{url}#main:sub")), ["inner"]);
    assert_eq!(out(&format!("{url}#:sub")), ["inner"]);
    assert_eq!(out(&format!("{url}#{}", repository.first)), ["Dockerfile", "early", "sub"]);
    assert_eq!(out(&format!("{url}?keep-git-dir=1")), [".git", "Dockerfile", "late", "sub"]);
    world.kiln(["build", OUT, "-f", "sub/Dockerfile", &url]).fails(1).says("deep");
    let kept = ["build", OUT, "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url];
    world.kiln(kept).ok();
    assert!(built(&world).contains(&".git".to_owned()));
    world.kiln(["check", &url]).ok();
    world.kiln(["check", "--fix", &url]).fails(2).says("--fix");
    world.kiln(["plan", &url]).ok().prints("COPY . /");
    world.kiln(["build", &format!("{url}#nope")]).fails(3).says("nope");
    world.kiln(["build", &format!("{url}#main:nope")]).fails(3).says("nope");
    world.kiln(["build", "-f", "../Dockerfile", &url]).fails(2).says("leads out");
    world.kiln(["build", &format!("{url}#--upload-pack=touch x")]).fails(3);
    assert!(!world.path("x").exists());
    world.nothing_is_left();
}

#[test]
fn the_time_of_a_commit_is_the_contexts() {
    let world = World::new();
    let Some(repository) = Repository::start(&world) else { return };
    let args = ["build", OUT, "--build-arg", "SOURCE_DATE_EPOCH=context", &repository.url()];
    world.kiln(args).ok();
    let changed = fs::metadata(world.path("out/late")).unwrap().modified().unwrap();
    assert_eq!(changed.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000);
    world.kiln(["build", "--build-arg", "SOURCE_DATE_EPOCH=context", "-otype=oci,dest=i.tar", &repository.url()]).ok();
    let mut image = Vec::new();
    std::io::Read::read_to_end(&mut File::open(world.path("i.tar")).unwrap(), &mut image).unwrap();
    assert!(String::from_utf8_lossy(&image).contains("2023-11-14T22:13:20Z"));
}

#[test]
fn the_time_of_a_stage_is_its_repositorys_the_first_time_already() {
    let world = World::new();
    let Some(repository) = Repository::start(&world) else { return };
    world.dockerfile(&format!("FROM scratch AS src\nADD {} /\nFROM scratch\nCOPY Dockerfile /\n", repository.url()));
    world.kiln(["build", "--build-arg", "SOURCE_DATE_EPOCH=src", "-otype=oci,dest=i.tar", "context"]).ok();
    let image = fs::read(world.path("i.tar")).unwrap();
    assert!(String::from_utf8_lossy(&image).contains("2023-11-14T22:13:20Z"));
    world.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn named_contexts_of_every_kind() {
    let server = Server::start(|_| Answer::new(200).body("web")).await;
    let world = World::new();
    world.file("lib/x", "X").file("lib/no", "").file("lib/.dockerignore", "no\n");
    let copy = |from: &str, world: &World, more: &[&str]| {
        world.dockerfile(&format!("FROM scratch AS stage\nCOPY --from={from} . /\n"));
        let args = [&["build", OUT, "context"], more].concat();
        world.kiln(args).ok();
        built(world)
    };
    assert_eq!(copy("lib", &world, &["--build-context", "lib=lib"]), [".dockerignore", "x"]);
    let web = format!("web=http://{}/some/file", server.host);
    assert_eq!(copy("web", &world, &["--build-context", &web]), ["context"]);
    world.dockerfile("FROM scratch\nCOPY own /own\n").file("context/own", "O");
    world.kiln(["build", "-otype=oci,dest=layout,tar=false", "-t", "img:1", "context"]).ok();
    assert_eq!(copy("img", &world, &["--build-context", "img=oci-layout://layout:1"]), ["own"]);
    assert_eq!(copy("img", &world, &["--build-context", "img=oci-layout://layout"]), ["own"]);
    world.dockerfile("FROM scratch AS made\nCOPY own /made\nFROM other\n");
    world.kiln(["build", OUT, "--build-context", "other=target:made", "context"]).ok();
    assert_eq!(built(&world), ["made"]);
    world.kiln(["build", "--build-context", "other=target:none", "context"]).fails(2).says("none");
    world.kiln(["build", "--build-context", "other=oci-layout://nowhere", "context"]).fails(2).says("nowhere");
    world
        .kiln(["build", "--build-context", "other=docker-image://127.0.0.1:1/x", "context"])
        .fails(3)
        .says("127.0.0.1:1");
    if let Some(repository) = Repository::start(&world) {
        let git = format!("repo={}#v1:sub", repository.url());
        assert_eq!(copy("repo", &world, &["--build-context", &git]), ["Dockerfile", "deep"]);
    }
    world.nothing_is_left();
}

#[test]
fn entitlements_must_be_given() {
    let world = World::new();
    for (flag, name) in [("--network=host", "network.host"), ("--security=insecure", "security.insecure")] {
        world.dockerfile(&format!("FROM scratch\nRUN {flag} [\"/none\"]\n"));
        world.kiln(["build", "context"]).fails(2).says(name);
        // Now it is only the program that is missing.
        world.kiln(["build", "--allow", name, "context"]).doesnt_say(name).says("/none");
    }
    world.kiln(["build", "--allow", "all", "context"]).fails(2).says("network.host");
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}
