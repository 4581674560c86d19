//! Command lines and what they mean.

use super::request::*;
use super::*;
use crate::cli::progress::Style;
use crate::oci::Platform;
use crate::plan::Entitlements;
use crate::plan::op::Network;
use std::path::PathBuf;

fn env() -> Env {
    let vars = [("HOME", "/home/u"), ("TOKEN", "t0k"), ("EMPTY", "")];
    Env {
        program: "/usr/bin/kiln".into(),
        vars: vars.map(|(k, v)| (k.into(), v.into())).into_iter().collect(),
        cwd: PathBuf::from("/work"),
        uid: 1000,
        rootless: super::Rootless::Untried,
        executed_again: false,
        exposed: None,
        supervisor: None,
        network: None,
        name_files: None,
        cores: 4,
        terminal: None,
        output: None,
    }
}

/// The request of a command line, its words separated by spaces.
fn ask(line: &str) -> Result<Request, Problem> {
    ask_in(line, &env())
}

fn ask_in(line: &str, env: &Env) -> Result<Request, Problem> {
    let words = std::iter::once("kiln").chain(line.split(' ').filter(|w| !w.is_empty())).map(OsString::from);
    match parse(words, env)? {
        Wanted::Request(request) => Ok(*request),
        Wanted::Text(text) => panic!("{text}"),
    }
}

fn build(line: &str) -> BuildRequest {
    build_in(line, &env())
}

fn build_in(line: &str, env: &Env) -> BuildRequest {
    match ask_in(line, env).unwrap().command {
        Command::Build(b) => *b,
        other => panic!("{other:?}"),
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_bare_build_has_dockers_defaults() {
    let b = build("build .");
    assert_eq!(b.source.context, PathBuf::from("/work/."));
    let dockerfile = DockerfileAt::Path { path: "/work/./Dockerfile".into(), shown: "Dockerfile".into() };
    assert_eq!(b.source.dockerfile, dockerfile);
    assert_eq!(b.source.platforms, [Platform::host()]);
    assert_eq!((b.jobs.at_once.get(), b.style, b.call.method), (4, Style::Plain, Method::Build));
    assert_eq!(b.process, ProcessRequest::default());
    assert_eq!(b.store_limit, crate::store::Limit::Disk);
    assert!(b.tags.is_empty() && b.outputs.is_empty() && !b.push && !b.no_cache && !b.pull && !b.print_id);
}

#[test]
fn the_dockerfile_is_named_from_the_working_directory() {
    let at = |line| build(line).source.dockerfile;
    let path = |path: &str, shown: &str| DockerfileAt::Path { path: path.into(), shown: shown.into() };
    assert_eq!(at("build -f sub/D src"), path("/work/sub/D", "sub/D"));
    assert_eq!(at("build --file=/abs src"), path("/abs", "/abs"));
    assert_eq!(at("build -f - src"), DockerfileAt::Stdin);
    assert_eq!(at("build src"), path("/work/src/Dockerfile", "src/Dockerfile"));
}

#[test]
fn build_arguments_come_from_the_environment_where_no_value_is_given() {
    let b = build("build --build-arg A=1 --build-arg TOKEN --build-arg EMPTY --build-arg UNSET --build-arg A=2 .");
    assert_eq!(b.source.build_args, pairs(&[("A", "2"), ("TOKEN", "t0k"), ("EMPTY", "")]));
    let mut env = env();
    env.vars.insert("SOURCE_DATE_EPOCH".into(), "7".into());
    assert_eq!(build_in("build .", &env).source.build_args, pairs(&[("SOURCE_DATE_EPOCH", "7")]));
    let given = build_in("build --build-arg SOURCE_DATE_EPOCH=1 .", &env);
    assert_eq!(given.source.build_args, pairs(&[("SOURCE_DATE_EPOCH", "1")]));
}

#[test]
fn what_the_store_may_take_is_the_flags_or_the_variables() {
    use crate::store::Limit;
    let mut env = env();
    let limit = |line, env: &Env| build_in(line, env).store_limit;
    assert_eq!(limit("build --store-limit 2g .", &env), Limit::Bytes(2 << 30));
    env.vars.insert("KILN_STORE_LIMIT".into(), "1k".into());
    assert_eq!(limit("build .", &env), Limit::Bytes(1024));
    assert_eq!(limit("build --store-limit none .", &env), Limit::None);
    env.vars.insert("KILN_STORE_LIMIT".into(), "much".into());
    assert!(ask_in("build .", &env).unwrap_err().message.contains("$KILN_STORE_LIMIT"));
}

#[test]
fn several_of_a_flag_add_up() {
    let b = build(
        "build -t a -t 127.0.0.1:5000/b:1 --label x=1 --label y -o out -o type=oci,dest=o.tar --push --no-cache-filter a,b --no-cache-filter c .",
    );
    assert_eq!(
        b.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["docker.io/library/a:latest", "127.0.0.1:5000/b:1"]
    );
    assert_eq!(b.labels, pairs(&[("x", "1"), ("y", "")]));
    assert_eq!(b.outputs, ["out", "type=oci,dest=o.tar"]);
    assert_eq!(b.no_cache_filter, ["a", "b", "c"]);
    assert!(b.push);
}

#[test]
fn what_processes_may_use() {
    let b = build(
        "build --network none --add-host db:10.0.0.7 --shm-size 64m --ulimit nofile=1:2 -m 512m --cpu-shares 512 --cpus 1.5 --isolation root .",
    );
    assert_eq!(b.process.network, Network::None);
    assert_eq!(b.process.extra_hosts, pairs(&[("db", "10.0.0.7")]));
    let limits = b.process.limits;
    assert_eq!((limits.shm_size, limits.memory), (Some(64 << 20), Some(512 << 20)));
    assert_eq!(limits.ulimits, [("nofile".to_owned(), 1, 2)]);
    assert_eq!((limits.cpu_shares, limits.milli_cpus), (Some(512), Some(1500)));
    assert_eq!(b.process.isolation, Isolation::Root);
    assert_eq!(build("build -m 0 .").process.limits.memory, None);
}

#[test]
fn platforms_are_a_list_without_repeats() {
    let b = build("build --platform linux/amd64,linux/arm64 --platform linux/x86_64 .");
    let names: Vec<String> = b.source.platforms.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["linux/amd64", "linux/arm64"]);
}

#[test]
fn secrets() {
    let file = |id: &str, path: &str| Secret { id: id.into(), from: SecretFrom::File(path.into()), onbuild: true };
    let variable = |id: &str, name: &str| Secret { id: id.into(), from: SecretFrom::Env(name.into()), onbuild: true };
    for (spec, want) in [
        ("id=a,src=f", file("a", "/work/f")),
        ("type=file,id=a,source=/f", file("a", "/f")),
        ("id=a,env=B", variable("a", "B")),
        ("type=env,id=a,src=B", variable("a", "B")),
        ("id=TOKEN", variable("TOKEN", "TOKEN")),
        ("id=a", file("a", "/work/a")),
        ("ID=a,\"src=x,y\"", file("a", "/work/x,y")),
    ] {
        assert_eq!(build(&format!("build --secret {spec} .")).secrets, [want], "{spec}");
    }
}

#[test]
fn progress_styles() {
    let terminal = Terminal { columns: 80, rows: 24 };
    let mut on = env();
    on.terminal = Some(terminal);
    let tty = |colours| Style::Tty { terminal, colours };
    assert_eq!(build_in("build .", &on).style, tty(true));
    assert_eq!(build_in("build --progress tty .", &on).style, tty(true));
    assert_eq!(build_in("build --progress plain .", &on).style, Style::Plain);
    assert_eq!(build("build --progress tty .").style, Style::Plain);
    assert_eq!(build("build --progress rawjson .").style, Style::RawJson);
    let quiet = build_in("build -q .", &on);
    assert_eq!((quiet.style, quiet.print_id), (Style::Quiet, true));
    assert!(build("build --progress quiet .").print_id);
    on.vars.insert("NO_COLOR".into(), "1".into());
    assert_eq!(build_in("build .", &on).style, tty(false));
    on.vars.insert("TERM".into(), "dumb".into());
    assert_eq!(build_in("build .", &on).style, Style::Plain);
}

#[test]
fn where_the_store_is() {
    let store = |line: &str, env: &Env| ask_in(line, env).unwrap().store;
    let mut e = env();
    assert_eq!(store("images", &e), PathBuf::from("/home/u/.local/share/kiln"));
    e.vars.insert("XDG_DATA_HOME".into(), "relative".into());
    assert_eq!(store("images", &e), PathBuf::from("/home/u/.local/share/kiln"));
    e.vars.insert("XDG_DATA_HOME".into(), "/data".into());
    assert_eq!(store("images", &e), PathBuf::from("/data/kiln"));
    e.uid = 0;
    assert_eq!(store("images", &e), PathBuf::from("/var/lib/kiln"));
    e.vars.insert("KILN_ROOT".into(), "/k".into());
    assert_eq!(store("images", &e), PathBuf::from("/k"));
    assert_eq!(store("--root r images", &e), PathBuf::from("/work/r"));
    assert_eq!(store("images --root r", &e), PathBuf::from("/work/r"));
    let homeless = Env { uid: 1000, ..Env::default() };
    assert_eq!(ask_in("images", &homeless).unwrap_err().hints.len(), 1);
}

#[test]
fn registries() {
    let b = build("build --registry-mirror docker.io=http://127.0.0.1:5000 --insecure-registry Reg.example:5000 .");
    assert_eq!(b.registry.mirrors[0].0, "docker.io");
    assert_eq!(b.registry.mirrors[0].1.as_str(), "http://127.0.0.1:5000/");
    assert_eq!(b.registry.insecure, ["reg.example:5000"]);
}

#[test]
fn running_an_image() {
    let run = |line| match ask(line).unwrap().command {
        Command::Run(r) => r,
        other => panic!("{other:?}"),
    };
    let r = run("run -e A=1 -e TOKEN -u 1000:1000 -w /srv --network host app:1.0 ls -l --all");
    assert_eq!((r.image.typed.as_str(), r.args.join(" ")), ("app:1.0", "ls -l --all".into()));
    assert_eq!(r.env, pairs(&[("A", "1"), ("TOKEN", "t0k")]));
    assert_eq!((r.user.as_deref(), r.workdir.as_deref()), (Some("1000:1000"), Some("/srv")));
    assert_eq!(r.process.network, Network::Host);
    assert_eq!(run("run --entrypoint sh app").entrypoint, Some(vec!["sh".into()]));
    assert_eq!(run("run --entrypoint= app").entrypoint, Some(Vec::new()));
    assert_eq!(run("run app -- x").args, ["--", "x"]);
}

#[test]
fn images_are_named_by_reference_or_id() {
    let named = |line: &str| match ask(line).unwrap().command {
        Command::Inspect(mut images) => images.remove(0),
        other => panic!("{other:?}"),
    };
    assert_eq!(named("inspect app").reference.unwrap().to_string(), "docker.io/library/app:latest");
    assert_eq!(named(&format!("inspect {}", "ab".repeat(32))).reference, None);
    assert_eq!(named(&format!("inspect sha256:{}", "ab".repeat(32))).typed.len(), 71);
    assert_eq!(ask("inspect Not/Valid").unwrap_err().kind, Kind::Usage);
}

#[test]
fn credentials() {
    let login = |line| match ask(line).unwrap().command {
        Command::Login(l) => l,
        other => panic!("{other:?}"),
    };
    let l = login("login -u me --password-stdin https://reg.example/");
    assert_eq!((l.host.as_str(), l.username.as_deref()), ("reg.example", Some("me")));
    assert_eq!(l.password, PasswordFrom::Stdin);
    let l = login("login -u me -p hunter2");
    assert_eq!((l.host.as_str(), &l.password), ("docker.io", &PasswordFrom::Given("hunter2".into())));
    assert!(!format!("{l:?}").contains("hunter2"));
    assert!(matches!(ask("logout").unwrap().command, Command::Logout(host) if host == "docker.io"));
}

#[test]
fn the_other_commands() {
    for (line, want) in [
        ("images -q", "Images(Ids)"),
        ("images --format json", "Images(Json)"),
        ("du --format=json", "Du { verbose: false, json: true }"),
        ("du -v", "Du { verbose: true, json: false }"),
        ("explain", "Explain(ExplainRequest { build: None, list: false, all: false, json: false })"),
        (
            "explain 7 -a --format json",
            "Explain(ExplainRequest { build: Some(7), list: false, all: true, json: true })",
        ),
        ("info --format json", "Info { json: true }"),
        ("debug ast -", "DebugAst(Stdin)"),
    ] {
        assert_eq!(format!("{:?}", ask(line).unwrap().command), want, "{line}");
    }
    assert!(matches!(ask("rmi a b").unwrap().command, Command::Rmi { images, force: false } if images.len() == 2));
    assert!(
        matches!(ask("tag a b:1").unwrap().command, Command::Tag(a, b) if a.typed == "a" && b.tag.as_deref() == Some("1"))
    );
    assert!(matches!(
        ask("history --no-trunc a").unwrap().command,
        Command::History { whole_lines: true, json: false, .. }
    ));
    assert!(matches!(ask("push a").unwrap().command, Command::Push(..)));
    assert!(matches!(ask("pull --platform linux/arm64 a").unwrap().command, Command::Pull(_, p) if p.arch == "arm64"));
    assert!(
        matches!(ask("plan --target x .").unwrap().command, Command::Plan(s, _, PlanFormat::Text) if s.target.as_deref() == Some("x"))
    );
    assert!(matches!(ask("check -f D .").unwrap().command, Command::Check(_)));
    assert_eq!(build("build --check .").call.method, Method::Check);
    let calls = [
        ("build", Method::Build, false, false),
        ("lint", Method::Check, false, false),
        ("check,format=json", Method::Check, true, false),
        ("check,ignorestatus", Method::Check, false, true),
        ("outline,format=text", Method::Outline, false, false),
        ("targets,format=json,ignorestatus=0", Method::Targets, true, false),
    ];
    for (text, method, json, ignore_status) in calls {
        assert_eq!(build(&format!("build --call={text} .")).call, Call { method, json, ignore_status }, "{text}");
    }
}

#[test]
fn flags_whose_work_is_not_done_are_refused_by_name() {
    for flag in [
        "--cache-from type=s3,bucket=b",
        "--annotation a=b",
        "--attest type=sbom",
        "--provenance",
        "--provenance=mode=max",
        "--sbom=true",
        "--cgroup-parent g",
    ] {
        let problem = ask(&format!("build {flag} .")).unwrap_err();
        assert_eq!(problem.kind, Kind::Usage, "{flag}");
        let name = flag.split([' ', '=']).next().unwrap();
        assert!(
            problem.message.starts_with("not supported yet: ") && problem.message.contains(name),
            "{}",
            problem.message
        );
    }
    for line in ["build ftp://host/x", "build --build-context a=ftp://host/x ."] {
        assert!(ask(line).unwrap_err().message.contains("not supported yet"), "{line}");
    }
    // What kiln does anyway may be asked for.
    build("build --provenance=false --sbom=false .");
}

#[test]
fn a_context_is_told_by_its_text() {
    let place = |text: &str| build(&format!("build {text}")).source.place;
    for text in ["src", ".", "dir:///src", "tar://x.tar.gz", "./github.com/a/b"] {
        assert_eq!(place(text), Place::Path, "{text}");
    }
    assert_eq!(build("build dir://src").source.context, PathBuf::from("/work/src"));
    assert_eq!((place("-"), place("tar://stdin")), (Place::Stdin, Place::Stdin));
    for text in ["https://h/x.git#main:sub", "git@h:x.git", "github.com/a/b", "git://h/x", "ssh://h/x"] {
        assert!(matches!(place(text), Place::Git(_)), "{text}");
    }
    assert_eq!(place("https://h/x.tar"), Place::Http("https://h/x.tar".into()));
    for text in ["s3://b/k", "gs://b/k"] {
        assert!(matches!(place(text), Place::Object(_)), "{text}");
    }
    // Azure's addresses are a web server's, unless there is a credential for them.
    let azure = "build https://me.blob.core.windows.net/c/x.tar";
    assert!(matches!(build(azure).source.place, Place::Http(_)));
    let mut env = env();
    env.vars.insert("AZURE_STORAGE_ACCESS_KEY".into(), "aw==".into());
    assert!(matches!(build_in(azure, &env).source.place, Place::Object(_)));
    for wrong in ["build -f - -", "build dir://", "build https://h/x.git?no=1"] {
        assert_eq!(ask(wrong).unwrap_err().kind, Kind::Usage, "{wrong}");
    }
}

#[test]
fn git_addresses_have_kanikos_meaning_where_they_can_have_no_other() {
    let remote = |text: &str, env: &Env| match build_in(&format!("build {text}"), env).source.place {
        Place::Git(url) => (url.remote, url.reference),
        other => panic!("{text}: {other:?}"),
    };
    let mut env = env();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (text, want, reference) in [
        ("git://h/o/r#b", "git://h/o/r", "b"),
        ("git://github.com/o/r#refs/heads/b", "https://github.com/o/r", "refs/heads/b"),
        ("git://tok@gitlab.com/o/r.git", "https://tok@gitlab.com/o/r.git", ""),
        ("git://github.com.evil.io/o/r", "git://github.com.evil.io/o/r", ""),
        (&format!("git://github.com/o/r#refs/heads/b#{commit}"), "https://github.com/o/r", commit),
    ] {
        assert_eq!(remote(text, &env), (want.to_owned(), reference.to_owned()), "{text}");
    }
    env.vars.insert("GIT_PULL_METHOD".into(), "http".into());
    assert_eq!(remote("git://h/o/r#b", &env), ("http://h/o/r".into(), "b".into()));
    env.vars.insert("GIT_PULL_METHOD".into(), "ftp".into());
    assert!(ask_in("build git://h/o/r", &env).unwrap_err().message.contains("GIT_PULL_METHOD"));
}

#[test]
fn a_named_context_is_told_by_its_text() {
    use crate::plan::Context::{Git, Http, Image, OciLayout, Target};
    let named = |text: &str| build(&format!("build --build-context {text} .")).source.named_contexts;
    let planned = |context| [("a".to_owned(), NamedContext::Planned(context))];
    let git = |text: &str| crate::plan::GitUrl::context(text).unwrap().unwrap();
    assert_eq!(named("Lib=../lib"), [("lib".into(), NamedContext::Folder("/work/../lib".into()))]);
    assert_eq!(named("a=dir:///lib"), [("a".into(), NamedContext::Folder("/lib".into()))]);
    assert_eq!(named("a=https://h/x.git#b"), planned(Git(git("https://h/x.git#b"))));
    assert_eq!(named("a=https://h/x"), planned(Http("https://h/x".into())));
    assert_eq!(named("a=docker-image://b:1"), planned(Image("b:1".into())));
    assert_eq!(named("a=oci-layout://b:1"), planned(OciLayout("/work/b:1".into())));
    assert_eq!(named("a=target:b"), planned(Target("b".into())));
    assert!(matches!(named("a=s3://b/k")[0].1, NamedContext::Object(_)));
    for wrong in ["a", "=b", "a=", "a=target:", "a=docker-image://", "a=-", "a=s3://"] {
        assert_eq!(ask(&format!("build --build-context {wrong} .")).unwrap_err().kind, Kind::Usage, "{wrong}");
    }
}

#[test]
fn what_may_be_allowed() {
    let allowed = |line: &str| build(line).entitlements;
    let both = Entitlements { insecure: true, network_host: true };
    assert_eq!(allowed("build ."), Entitlements::default());
    assert_eq!(allowed("build --allow network.host --allow security.insecure ."), both);
    assert_eq!(allowed("build --allow security.insecure,network.host ."), both);
    assert!(ask("build --allow everything .").unwrap_err().message.contains("everything"));
}

#[test]
fn wrong_values_are_usage_problems_that_name_flag_and_value() {
    for (line, part) in [
        ("build --build-arg =x .", "--build-arg"),
        ("build -t Up/Case .", "--tag"),
        ("build --platform linux/amd64/v1/x .", "linux/amd64/v1/x"),
        ("build --network bridge .", "--network"),
        ("build --add-host db .", "--add-host"),
        ("build --ulimit files=1 .", "--ulimit"),
        ("build --shm-size x .", "--shm-size"),
        ("build --cpus 0 .", "--cpus"),
        ("build --progress fancy .", "--progress"),
        ("build --isolation vm .", "--isolation"),
        ("build --jobs 0 .", "--jobs"),
        ("build --jobs x .", "--jobs"),
        ("build --secret src=x .", "--secret"),
        ("build --secret id=a,type=x .", "--secret"),
        ("build --secret id=a,file=x .", "--secret"),
        ("build --secret id=a,src=x,env=y .", "--secret"),
        ("build --secret id=a,src=x,onbuild=maybe .", "onbuild"),
        ("build --label =x .", "--label"),
        ("build --compression brotli .", "--compression"),
        ("build --compression gzip:99 .", "--compression"),
        ("build --registry-mirror x .", "--registry-mirror"),
        ("build --insecure-registry http://x .", "--insecure-registry"),
        ("build --push .", "--push"),
        ("build -q --progress plain .", "--quiet"),
        ("build --call describe .", "--call"),
        ("build --check --call check .", "--check"),
        ("build --store-limit much .", "--store-limit"),
        ("explain 3 --list", "--list"),
        ("explain last", "last"),
        ("explain --format xml", "--format"),
        ("build --chwon .", "--chwon"),
        ("build", "CONTEXT"),
        ("build a b", "'b'"),
        ("biuld .", "biuld"),
        ("", "no command"),
        ("login --password-stdin", "--username"),
        ("images --format xml", "--format"),
        ("rmi", "IMAGE"),
    ] {
        let problem = ask(line).unwrap_err();
        assert_eq!(problem.kind, Kind::Usage, "{line}");
        assert!(problem.message.contains(part), "{line}: {}", problem.message);
        assert!(
            !problem.message.contains('\n') && !problem.message.starts_with("error"),
            "{line}: {}",
            problem.message
        );
    }
}

#[test]
fn claps_own_findings_look_like_ours() {
    let problem = ask("build --buildarg A=1 .").unwrap_err();
    assert_eq!(problem.message, "unexpected argument '--buildarg' found");
    assert!(problem.hints[0].contains("--build-arg"), "{:?}", problem.hints);
    assert!(problem.hints.last().unwrap().starts_with("usage: kiln build"), "{:?}", problem.hints);
}

#[test]
fn help_and_version_are_texts() {
    for line in ["--help", "build --help", "-h", "--version"] {
        let words = std::iter::once("kiln").chain(line.split(' ')).map(OsString::from);
        match parse(words, &env()).unwrap() {
            Wanted::Text(text) => assert!(text.contains("kiln"), "{text}"),
            Wanted::Request(r) => panic!("{r:?}"),
        }
    }
}
