//! One case for each field of each op: a change in it changes the key, or is listed as one that must not.

use super::key::{ReadKey, chain_id, key, named, parts};
use crate::oci::{Descriptor, Digest, MediaType, Platform};
use crate::plan::op::*;
use crate::report::Span;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", "")
}

fn exec() -> ExecOp {
    ExecOp {
        base: Some(0),
        args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
        env: vec![("A".into(), "1".into())],
        env_unkeyed: vec![],
        cwd: "/".into(),
        user: String::new(),
        mounts: vec![],
        network: Network::Default,
        insecure: false,
        platform: amd64(),
        hostname: None,
        extra_hosts: vec![],
        limits: Limits::default(),
    }
}

fn copy() -> CopyAction {
    CopyAction::plain(Some(1), &["/a"], "/b")
}

fn file(actions: Vec<FileAction>) -> FileOp {
    FileOp { base: Some(0), actions, link: false, workdir: false }
}

fn secret() -> MountSource {
    MountSource::Secret { id: "s".into(), env: None, file: true, required: false, mode: 0o400, uid: 0, gid: 0 }
}

fn cache() -> MountSource {
    MountSource::Cache {
        id: "c".into(),
        from: None,
        source: String::new(),
        readonly: false,
        sharing: Sharing::Shared,
        mode: 0o755,
        uid: 0,
        gid: 0,
    }
}

fn exec_with(change: impl FnOnce(&mut ExecOp)) -> Op {
    let mut op = exec();
    change(&mut op);
    Op::Exec(op)
}

fn mounted(kind: MountSource) -> Op {
    exec_with(|e| e.mounts = vec![Mount { target: "/m".into(), kind }])
}

fn copy_with(change: impl FnOnce(&mut CopyAction)) -> Op {
    let mut action = copy();
    change(&mut action);
    Op::File(file(vec![FileAction::Copy(action)]))
}

fn mkfile(name: &str, content: &[u8], mode: Option<Mode>, owner: Option<Owner>) -> Op {
    let action = FileAction::Mkfile { path: "/d/".into(), name: name.into(), content: content.to_vec(), mode, owner };
    Op::File(file(vec![action]))
}

fn mkdir(path: &str, mode: u32, user: Option<&str>) -> Op {
    let owner = user.map(|u| Owner { user: u.into(), group: None });
    Op::File(file(vec![FileAction::Mkdir { path: path.into(), mode, owner }]))
}

fn owner(user: &str, group: Option<&str>) -> Option<Owner> {
    Some(Owner { user: user.into(), group: group.map(Into::into) })
}

fn image(layers: &[&str], arch: &str, name: &str) -> Op {
    Op::Image(ImageOp {
        reference: name.parse().unwrap(),
        layout: None,
        manifest: digest(name),
        platform: Platform::new("linux", arch, ""),
        layers: layers
            .iter()
            .map(|l| BaseLayer {
                descriptor: Descriptor::new(MediaType::ImageLayerGzip, 1, digest(name).to_spec()),
                diff_id: digest(l),
            })
            .collect(),
    })
}

fn git(change: impl FnOnce(&mut GitOp)) -> Op {
    let mut op = GitOp {
        remote: "https://h/r".into(),
        reference: "main".into(),
        commit: "c1".into(),
        subdir: String::new(),
        keep_git_dir: false,
        submodules: true,
    };
    change(&mut op);
    Op::Git(op)
}

fn http(url: &str, filename: &str, content: Option<&str>) -> Op {
    Op::Http(HttpOp { url: url.into(), checksum: None, filename: filename.into(), content: content.map(digest) })
}

/// All of these differ from each other.
fn different() -> Vec<Op> {
    let bind = |source: &str, readonly| MountSource::Bind { from: None, source: source.into(), readonly };
    let mut ops = vec![
        Op::Exec(exec()),
        exec_with(|e| e.args = vec!["/bin/sh".into(), "-cmake".into()]),
        exec_with(|e| e.env = vec![("A".into(), "2".into())]),
        exec_with(|e| e.env = vec![("A1".into(), String::new())]),
        exec_with(|e| e.cwd = "/w".into()),
        exec_with(|e| e.user = "1000".into()),
        exec_with(|e| e.network = Network::None),
        exec_with(|e| e.network = Network::Host),
        exec_with(|e| e.insecure = true),
        exec_with(|e| e.platform = Platform::new("linux", "arm64", "")),
        exec_with(|e| e.hostname = Some("h".into())),
        exec_with(|e| e.hostname = Some("i".into())),
        exec_with(|e| e.extra_hosts = vec![("h".into(), "10.0.0.1".into())]),
        exec_with(|e| e.limits.shm_size = Some(1)),
        exec_with(|e| e.limits.ulimits = vec![("nofile".into(), 1, 2)]),
        exec_with(|e| e.limits.ulimits = vec![("nofile".into(), 2, 2)]),
        mounted(bind("/", true)),
        mounted(bind("/", false)),
        exec_with(|e| e.mounts = vec![Mount { target: "/n".into(), kind: bind("/", true) }]),
        mounted(MountSource::Tmpfs { size: None }),
        mounted(MountSource::Tmpfs { size: Some(1) }),
        mounted(MountSource::Text { content: "a".into(), mode: 0o644 }),
        mounted(MountSource::Text { content: "b".into(), mode: 0o644 }),
        mounted(MountSource::Text { content: "a".into(), mode: 0o755 }),
        mounted(MountSource::Ssh { id: "s".into(), required: false, mode: 0o600, uid: 0, gid: 0 }),
        mounted(MountSource::Ssh { id: "t".into(), required: false, mode: 0o600, uid: 0, gid: 0 }),
        mounted(MountSource::Ssh { id: "s".into(), required: true, mode: 0o600, uid: 0, gid: 0 }),
        mounted(MountSource::Ssh { id: "s".into(), required: false, mode: 0o660, uid: 0, gid: 0 }),
        mounted(MountSource::Ssh { id: "s".into(), required: false, mode: 0o600, uid: 1, gid: 0 }),
        mounted(MountSource::Ssh { id: "s".into(), required: false, mode: 0o600, uid: 0, gid: 1 }),
        mounted(MountSource::Bind { from: Some(1), source: "/".into(), readonly: true }),
        mounted(MountSource::Bind { from: Some(1), source: "/a".into(), readonly: true }),
        exec_with(|e| {
            let text = |t: &str| Mount { target: t.into(), kind: MountSource::Tmpfs { size: None } };
            e.mounts = vec![text("/1"), text("/2")];
        }),
        exec_with(|e| {
            let text = |t: &str| Mount { target: t.into(), kind: MountSource::Tmpfs { size: None } };
            e.mounts = vec![text("/2"), text("/1")];
        }),
        exec_with(|e| e.env = vec![("A".into(), "1".into()), ("B".into(), "2".into())]),
        exec_with(|e| e.env = vec![("B".into(), "2".into()), ("A".into(), "1".into())]),
        exec_with(|e| e.env = vec![]),
        exec_with(|e| e.platform = Platform::new("linux", "amd64", "v3")),
        exec_with(|e| e.platform = Platform::new("windows", "amd64", "")),
        exec_with(|e| e.extra_hosts = vec![("i".into(), "10.0.0.1".into())]),
        exec_with(|e| e.extra_hosts = vec![("h".into(), "10.0.0.2".into())]),
        exec_with(|e| e.limits.shm_size = Some(2)),
        exec_with(|e| e.limits.ulimits = vec![("nofile".into(), 1, 3)]),
        exec_with(|e| e.limits.ulimits = vec![("nproc".into(), 1, 2)]),
        copy_with(|_| {}),
        copy_with(|c| c.from = None),
        copy_with(|c| c.dest = "/c".into()),
        copy_with(|c| c.owner = owner("1", None)),
        copy_with(|c| c.owner = owner("1", Some("1"))),
        copy_with(|c| c.owner = owner("1", Some("2"))),
        copy_with(|c| c.owner = owner("2", None)),
        copy_with(|c| c.mode = Some(Mode::Octal(0o755))),
        copy_with(|c| c.mode = Some(Mode::Symbolic("u-x".into()))),
        copy_with(|c| c.mode = Some(Mode::Octal(0o644))),
        copy_with(|c| c.mode = Some(Mode::Symbolic("u+x".into()))),
        copy_with(|c| c.parents = true),
        copy_with(|c| c.unpack = Unpack::Archives),
        copy_with(|c| c.unpack = Unpack::Always),
        copy_with(|c| c.sources = vec!["/z".into()]),
        copy_with(|c| c.exclude = vec!["*.md".into()]),
        Op::File(FileOp { link: true, ..file(vec![FileAction::Copy(copy())]) }),
        Op::File(FileOp { workdir: true, ..file(vec![FileAction::Copy(copy())]) }),
        mkfile("f", b"1", None, None),
        mkfile("g", b"1", None, None),
        mkfile("f", b"2", None, None),
        mkfile("f", b"1", Some(Mode::Octal(0o600)), None),
        mkfile("f", b"1", None, owner("1", None)),
        Op::File(file(vec![])),
        Op::File(file(vec![FileAction::Copy(copy()), FileAction::Copy(copy())])),
        Op::File(file(vec![FileAction::Mkfile {
            path: "/e/".into(),
            name: "f".into(),
            content: b"1".to_vec(),
            mode: None,
            owner: None,
        }])),
        mkfile("f", b"1", Some(Mode::Octal(0o644)), None),
        mkfile("f", b"1", None, owner("1", Some("1"))),
        mkdir("/a", 0o755, None),
        mkdir("/b", 0o755, None),
        mkdir("/a", 0o700, None),
        mkdir("/a", 0o755, Some("1")),
        image(&["1"], "amd64", "x"),
        image(&["1", "2"], "amd64", "x"),
        image(&["1"], "arm64", "x"),
        git(|_| {}),
        git(|g| g.commit = "c2".into()),
        git(|g| g.subdir = "s".into()),
        git(|g| g.keep_git_dir = true),
        git(|g| g.submodules = false),
        http("http://h/a", "a", Some("1")),
        http("http://h/a", "b", Some("1")),
        http("http://h/a", "a", Some("2")),
        http("http://h/a", "a", None),
        http("http://h/b", "a", None),
        Op::Http(HttpOp { url: "http://h/a".into(), checksum: Some(digest("3")), filename: "a".into(), content: None }),
        git(|g| (g.submodules, g.remote) = (true, "https://h/other".into())),
        git(|g| (g.submodules, g.keep_git_dir, g.remote) = (false, true, "https://h/r".into())),
        git(|g| (g.submodules, g.keep_git_dir, g.remote) = (false, true, "https://h/other".into())),
        image(&["2", "1"], "amd64", "x"),
        Op::Local(LocalOp { name: "context".into() }),
        Op::Local(LocalOp { name: "other".into() }),
    ];
    for change in 0..8u32 {
        let MountSource::Secret { mut id, mut env, mut file, mut required, mut mode, mut uid, mut gid } = secret()
        else {
            unreachable!()
        };
        match change {
            1 => id = "t".into(),
            2 => env = Some("E".into()),
            3 => file = false,
            4 => required = true,
            5 => mode = 0o440,
            6 => uid = 1,
            7 => gid = 1,
            _ => {}
        }
        ops.push(mounted(MountSource::Secret { id, env, file, required, mode, uid, gid }));
    }
    for change in 0..10u32 {
        let MountSource::Cache { mut id, mut from, mut source, mut readonly, mut sharing, mut mode, mut uid, mut gid } =
            cache()
        else {
            unreachable!()
        };
        match change {
            1 => id = "d".into(),
            2 => readonly = true,
            3 => sharing = Sharing::Locked,
            4 => mode = 0o700,
            5 => uid = 1,
            6 => gid = 1,
            7 => sharing = Sharing::Private,
            8 => from = Some(1),
            9 => (from, source) = (Some(1), "/a".into()),
            _ => {}
        }
        ops.push(mounted(MountSource::Cache { id, from, source, readonly, sharing, mode, uid, gid }));
    }
    ops
}

#[test]
fn every_keyed_field_changes_the_key() {
    let base = Some(named("t", "base"));
    let read = [ReadKey::Definition(named("t", "read"))];
    let mut seen = std::collections::HashMap::new();
    for op in different() {
        if let Some(other) = seen.insert(key(&op, base, &read), format!("{op:?}")) {
            panic!("the same key for {other} and {op:?}");
        }
    }
}

/// What `kiln explain` tells of: no change of a key goes without a part that says what it was, inputs aside.
#[test]
fn every_keyed_field_is_in_a_part() {
    let inputs = |op: &Op| (super::reads(op).len(), std::mem::discriminant(op));
    let mut seen = std::collections::HashMap::new();
    for op in different() {
        let parts: Vec<String> = parts(&op).iter().map(|p| format!("{:?} {} {}", p.sort, p.name, p.digest)).collect();
        if let Some(other) = seen.insert((parts, inputs(&op)), format!("{op:?}")) {
            panic!("the same parts for {other} and {op:?}");
        }
    }
}

#[test]
fn no_value_of_a_variable_is_in_a_part() {
    let op = exec_with(|e| e.env = vec![("TOKEN".into(), "hunter2".into())]);
    assert!(!format!("{:?}", parts(&op)).contains("hunter2"));
}

#[test]
fn what_does_not_matter_does_not_change_the_key() {
    let base = Some(named("t", "base"));
    let same = |a: Op, b: Op| assert_eq!(key(&a, base, &[]), key(&b, base, &[]), "{a:?} {b:?}");
    same(Op::Exec(exec()), exec_with(|e| e.base = Some(7)));
    same(Op::Exec(exec()), exec_with(|e| e.env_unkeyed = vec![("HTTP_PROXY".into(), "p".into())]));
    same(Op::Exec(exec()), exec_with(|e| e.limits.memory = Some(1)));
    same(Op::Exec(exec()), exec_with(|e| (e.limits.cpu_shares, e.limits.milli_cpus) = (Some(1), Some(2))));
    same(copy_with(|_| {}), copy_with(|c| c.source_spans = vec![Span::new(1, 2)]));
    same(image(&["1"], "amd64", "x"), image(&["1"], "amd64", "mirror.example/y:2"));
    same(git(|_| {}), git(|g| g.reference = "v1".into()));
    same(git(|g| g.submodules = false), git(|g| (g.submodules, g.remote) = (false, "https://mirror/r".into())));
    let layout = |name: Option<&str>| {
        let Op::Image(mut op) = image(&["1"], "amd64", "x") else { unreachable!() };
        op.layout = name.map(str::to_owned);
        Op::Image(op)
    };
    same(layout(None), layout(Some("/layout:tag")));
    let checked = |checksum| {
        let Op::Http(mut op) = http("http://h/a", "a", Some("1")) else { unreachable!() };
        op.checksum = checksum;
        Op::Http(op)
    };
    same(checked(None), checked(Some(digest("1"))));
    same(http("http://h/a", "a", Some("1")), http("http://mirror/a", "a", Some("1")));
}

#[test]
fn the_base_counts_but_not_under_a_linked_layer() {
    let (a, b) = (Some(named("t", "a")), Some(named("t", "b")));
    let plain = copy_with(|_| {});
    assert_ne!(key(&plain, a, &[]), key(&plain, b, &[]));
    assert_ne!(key(&plain, a, &[]), key(&plain, None, &[]));
    let linked = Op::File(FileOp { link: true, ..file(vec![FileAction::Copy(copy())]) });
    assert_eq!(key(&linked, a, &[]), key(&linked, b, &[]));
}

#[test]
fn equal_content_from_another_place_is_the_same() {
    let content = ReadKey::Content(named("t", "files"));
    let here = copy_with(|_| {});
    let there = copy_with(|c| (c.from, c.sources, c.exclude) = (Some(9), vec!["/x/y".into()], vec!["z".into()]));
    assert_eq!(key(&here, None, &[content]), key(&there, None, &[content]));
    let definition = ReadKey::Definition(named("t", "stage"));
    assert_ne!(key(&here, None, &[definition]), key(&there, None, &[definition]));
    assert_ne!(key(&here, None, &[content]), key(&here, None, &[ReadKey::Content(named("t", "other"))]));
}

#[test]
fn a_mounted_stage_is_part_of_the_key() {
    let op = mounted(MountSource::Bind { from: Some(3), source: "/".into(), readonly: true });
    let read = |t| ReadKey::Content(named("t", t));
    assert_ne!(key(&op, None, &[read("1")]), key(&op, None, &[read("2")]));
    let cached = mounted(MountSource::Cache {
        id: "c".into(),
        from: Some(3),
        source: "/".into(),
        readonly: false,
        sharing: Sharing::Shared,
        mode: 0,
        uid: 0,
        gid: 0,
    });
    assert_ne!(key(&cached, None, &[read("1")]), key(&cached, None, &[read("2")]));
}

/// From the OCI image specification: the chain id of one layer is its diff id; of more, the digest of both.
#[test]
fn chain_ids_follow_the_specification() {
    let (a, b) = (digest("a"), digest("b"));
    assert_eq!(chain_id(&[]), None);
    assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
    assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(digest(&format!("{a} {b}"))));
}
