//! What a step does, as keys and values; what is as usual is left out.

use crate::plan::op::{
    CopyAction, ExecOp, FileAction, FileOp, GitOp, HttpOp, ImageOp, Limits, Mode, Mount, MountSource, Network, Op,
    Owner, Sharing, Unpack, Vertex, VertexId,
};
use serde_json::{Map, Value, json};

/// Everything of a step but its name and inputs.
pub(super) fn of(vertex: &Vertex) -> Map<String, Value> {
    let mut map = match &vertex.op {
        Op::Image(op) => image(op),
        Op::Local(op) => Map::from_iter([("local".to_owned(), json!(op.name))]),
        Op::Git(op) => git(op),
        Op::Http(op) => http(op),
        Op::Exec(op) => exec(op),
        Op::File(op) => file(op),
    };
    if vertex.no_cache {
        map.insert("noCache".into(), json!(true));
    }
    map
}

/// Puts a value into a map unless it is empty.
fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if !empty {
        map.insert(key.to_owned(), value);
    }
}

fn image(op: &ImageOp) -> Map<String, Value> {
    let ImageOp { reference, layout, manifest, platform, layers } = op;
    let mut map = Map::new();
    put(&mut map, "image", json!(reference.to_string()));
    put(&mut map, "layout", json!(layout));
    put(&mut map, "manifest", json!(manifest));
    put(&mut map, "platform", json!(platform.to_string()));
    put(&mut map, "layers", json!(layers.iter().map(|l| l.diff_id.to_string()).collect::<Vec<_>>()));
    map
}

fn git(op: &GitOp) -> Map<String, Value> {
    let GitOp { remote, reference, commit, subdir, keep_git_dir, submodules } = op;
    let mut map = Map::new();
    put(&mut map, "git", json!(remote));
    put(&mut map, "ref", json!(reference));
    put(&mut map, "commit", json!(commit));
    put(&mut map, "subdir", json!(subdir));
    put(&mut map, "keepGitDir", json!(keep_git_dir));
    put(&mut map, "noSubmodules", json!(!submodules));
    map
}

fn http(op: &HttpOp) -> Map<String, Value> {
    let HttpOp { url, checksum, filename, content } = op;
    let mut map = Map::new();
    put(&mut map, "http", json!(url));
    put(&mut map, "filename", json!(filename));
    put(&mut map, "checksum", json!(checksum));
    put(&mut map, "content", json!(content));
    map
}

fn exec(op: &ExecOp) -> Map<String, Value> {
    let ExecOp {
        base,
        args,
        env,
        env_unkeyed,
        cwd,
        user,
        mounts,
        network,
        insecure,
        platform,
        hostname,
        extra_hosts,
        limits,
    } = op;
    let mut map = Map::new();
    put(&mut map, "exec", json!(args));
    put(&mut map, "base", json!(base));
    put(&mut map, "env", json!(env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()));
    // Proxies may hold passwords.
    put(&mut map, "unkeyed", json!(env_unkeyed.iter().map(|(k, _)| k).collect::<Vec<_>>()));
    put(&mut map, "cwd", json!(cwd));
    put(&mut map, "user", json!(user));
    put(&mut map, "mounts", json!(mounts.iter().map(mount).collect::<Vec<_>>()));
    put(&mut map, "network", network_name(*network));
    put(&mut map, "insecure", json!(insecure));
    put(&mut map, "platform", json!(platform.to_string()));
    put(&mut map, "hostname", json!(hostname));
    put(&mut map, "hosts", json!(extra_hosts.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>()));
    if *limits != Limits::default() {
        put(&mut map, "limits", self::limits(limits));
    }
    map
}

fn network_name(network: Network) -> Value {
    match network {
        Network::Default => Value::Null,
        Network::None => json!("none"),
        Network::Host => json!("host"),
    }
}

fn limits(limits: &Limits) -> Value {
    let Limits { shm_size, ulimits, memory, cpu_shares, milli_cpus } = limits;
    let mut map = Map::new();
    put(&mut map, "shmSize", json!(shm_size));
    put(&mut map, "ulimits", json!(ulimits));
    put(&mut map, "memory", json!(memory));
    put(&mut map, "cpuShares", json!(cpu_shares));
    put(&mut map, "milliCpus", json!(milli_cpus));
    Value::Object(map)
}

fn mount(mount: &Mount) -> Value {
    let mut map = Map::from_iter([("target".to_owned(), json!(mount.target))]);
    match &mount.kind {
        MountSource::Bind { from, source, readonly } => {
            put(&mut map, "bind", json!(source));
            put(&mut map, "from", json!(from));
            put(&mut map, "writable", json!(!readonly));
        }
        MountSource::Cache { id, from, source, readonly, sharing, mode, uid, gid } => {
            put(&mut map, "cache", json!(id));
            put(&mut map, "from", json!(from));
            put(&mut map, "source", if source == "/" { Value::Null } else { json!(source) });
            put(&mut map, "readonly", json!(readonly));
            put(&mut map, "sharing", sharing_name(*sharing));
            access(&mut map, (*mode, 0o755), *uid, *gid);
        }
        MountSource::Tmpfs { size } => {
            put(&mut map, "tmpfs", json!(true));
            put(&mut map, "size", json!(size));
        }
        MountSource::Secret { id, env, file, required, mode, uid, gid } => {
            put(&mut map, "secret", json!(id));
            put(&mut map, "env", json!(env));
            put(&mut map, "noFile", json!(!file));
            put(&mut map, "required", json!(required));
            access(&mut map, (*mode, 0o400), *uid, *gid);
        }
        MountSource::Ssh { id, required, mode, uid, gid } => {
            put(&mut map, "ssh", json!(id));
            put(&mut map, "required", json!(required));
            access(&mut map, (*mode, 0o600), *uid, *gid);
        }
        MountSource::Text { content, mode } => {
            put(&mut map, "text", json!(content));
            put(&mut map, "mode", json!(format!("{mode:04o}")));
        }
    }
    Value::Object(map)
}

fn sharing_name(sharing: Sharing) -> Value {
    match sharing {
        Sharing::Shared => Value::Null,
        Sharing::Private => json!("private"),
        Sharing::Locked => json!("locked"),
    }
}

/// Mode and owner where they aren't the usual ones.
fn access(map: &mut Map<String, Value>, (mode, usual): (u32, u32), uid: u32, gid: u32) {
    if mode != usual {
        put(map, "mode", json!(format!("{mode:04o}")));
    }
    if (uid, gid) != (0, 0) {
        put(map, "owner", json!(format!("{uid}:{gid}")));
    }
}

fn file(op: &FileOp) -> Map<String, Value> {
    let FileOp { base, actions, link, workdir } = op;
    let mut map = Map::new();
    put(&mut map, "file", json!(if *workdir { "workdir" } else { "layer" }));
    put(&mut map, "base", json!(base));
    put(&mut map, "link", json!(link));
    put(&mut map, "actions", json!(actions.iter().map(action).collect::<Vec<_>>()));
    map
}

fn action(action: &FileAction) -> Value {
    let mut map = Map::new();
    match action {
        FileAction::Copy(copy) => copy_action(&mut map, copy),
        FileAction::Mkdir { path, mode, owner } => {
            put(&mut map, "mkdir", json!(path));
            put(&mut map, "mode", json!(format!("{mode:04o}")));
            put(&mut map, "owner", owner_text(owner.as_ref()));
        }
        FileAction::Mkfile { path, name, content, mode, owner } => {
            put(&mut map, "mkfile", json!(path));
            put(&mut map, "name", json!(name));
            map.insert("content".into(), json!(String::from_utf8_lossy(content)));
            put(&mut map, "mode", mode_text(mode.as_ref()));
            put(&mut map, "owner", owner_text(owner.as_ref()));
        }
    }
    Value::Object(map)
}

fn copy_action(map: &mut Map<String, Value>, copy: &CopyAction) {
    let CopyAction { from, sources, dest, owner, mode, parents, exclude, unpack, source_spans: _ } = copy;
    put(map, "copy", json!(sources));
    put(map, "from", from_text(*from));
    put(map, "to", json!(dest));
    put(map, "owner", owner_text(owner.as_ref()));
    put(map, "mode", mode_text(mode.as_ref()));
    put(map, "parents", json!(parents));
    put(map, "exclude", json!(exclude));
    let unpack = match unpack {
        Unpack::Never => Value::Null,
        Unpack::Archives => json!("archives"),
        Unpack::Always => json!("always"),
    };
    put(map, "unpack", unpack);
}

fn from_text(from: Option<VertexId>) -> Value {
    from.map_or_else(|| json!("nothing"), |id| json!(id))
}

fn mode_text(mode: Option<&Mode>) -> Value {
    match mode {
        None => Value::Null,
        Some(Mode::Octal(bits)) => json!(format!("{bits:04o}")),
        Some(Mode::Symbolic(text)) => json!(text),
    }
}

fn owner_text(owner: Option<&Owner>) -> Value {
    match owner {
        None => Value::Null,
        Some(Owner { user, group: None }) => json!(user),
        Some(Owner { user, group: Some(group) }) => json!(format!("{user}:{group}")),
    }
}
