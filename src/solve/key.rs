//! Cache keys: one pure function over the whole [`Op`].
//!
//! Every struct is destructured without `..`, so a new field doesn't compile until somebody has decided whether it is
//! keyed. A key says what a step *does*, never what it costs or how it is shown: names, spans, secrets' values, proxy
//! settings and limits of memory and processor are left out, each by name.
//!
//! A step has two keys. The *definition* key follows from the plan and the context alone and is known before anything
//! runs. The *content* key takes what a stage really made: the digest of the files that are copied or mounted, and the
//! identity of the root filesystem below. Where no stage is read the two are the same.

use crate::oci::{Digest, Platform};
pub use crate::store::Key;

pub use super::keyer::{Keyer, Part, Sort};
use crate::plan::op::{
    CopyAction, ExecOp, FileAction, FileOp, GitOp, HttpOp, ImageOp, Limits, LocalOp, Mode, Mount, MountSource, Network,
    Op, Owner, Sharing, Unpack,
};

/// Changed whenever a step's meaning changes without a change in its fields, so that older records never hit.
const VERSION: u64 = 1;

/// The key of a single text, for identities that come from elsewhere (a chain id, a random number).
pub fn named(kind: &str, text: &str) -> Key {
    let mut k = Keyer::new(kind);
    k.text(text);
    k.finish()
}

/// Two keys as one, in order.
pub fn pair(first: Key, second: Key) -> Key {
    let mut k = Keyer::new("pair");
    k.key(first);
    k.key(second);
    k.finish()
}

/// What is known of a tree that a step reads (a copy's source, a mount).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadKey {
    /// The files themselves: names, modes, owners, contents.
    Content(Key),
    /// Only what makes them: the definition key of the vertex.
    Definition(Key),
    /// An empty tree.
    Nothing,
}

/// The key of `op` on top of `base`; `reads` are its other inputs in the order of [`reads`](super::reads).
///
/// A `--link` layer doesn't depend on what is below it, so its base isn't keyed.
pub fn key(op: &Op, base: Option<Key>, reads: &[ReadKey]) -> Key {
    keyed(Keyer::new("op"), op, base, reads).finish()
}

/// What goes into a step's key but for its inputs, part by part: for whoever asks later which of them was new.
pub fn parts(op: &Op) -> Vec<Part> {
    let reads = vec![ReadKey::Definition(Key::new([0; 32])); super::reads(op).len()];
    keyed(Keyer::with_parts("op"), op, None, &reads).into_parts()
}

fn keyed(mut k: Keyer, op: &Op, base: Option<Key>, reads: &[ReadKey]) -> Keyer {
    k.number(VERSION);
    let mut reads = Reads(reads.iter());
    match op {
        Op::Image(image) => image_key(&mut k, image),
        Op::Local(LocalOp { name }) => {
            k.tag("local");
            k.part(Sort::Context, "", Some(name), |k| k.text(name));
        }
        Op::Git(git) => git_key(&mut k, git),
        Op::Http(http) => http_key(&mut k, http),
        Op::Exec(exec) => exec_key(&mut k, exec, base, &mut reads),
        Op::File(file) => file_key(&mut k, file, base, &mut reads),
    }
    k
}

/// What a base image's layers are together: the chain id of the OCI image specification over their diff ids.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let mut chain: Option<Digest> = None;
    for diff in diff_ids {
        chain = Some(match chain {
            None => diff.clone(),
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        });
    }
    chain
}

fn image_key(k: &mut Keyer, op: &ImageOp) {
    // The same layers under another name or manifest are the same root filesystem; the image's configuration
    // reaches the steps above through their own fields (env, cwd, user).
    let ImageOp { reference, layout: _, manifest: _, platform, layers } = op;
    k.tag("image");
    platform_key(k, platform);
    let name = reference.to_string();
    k.part(Sort::Image, "", Some(&name), |k| k.list(layers, |k, layer| k.text(layer.diff_id.as_str())));
}

fn git_key(k: &mut Keyer, op: &GitOp) {
    // A commit names its tree, wherever it was fetched from and whatever name it was found by.
    let GitOp { remote, reference: _, commit, subdir, keep_git_dir, submodules } = op;
    k.tag("git");
    k.part(Sort::Git, "", Some(commit), |k| {
        k.text(commit);
        k.text(subdir);
        k.flag(*keep_git_dir);
        k.flag(*submodules);
        // .git/config names the remote, and relative submodules hang on it.
        k.option(((*keep_git_dir || *submodules).then_some(remote)).as_ref(), |k, r| k.text(r));
    });
}

fn http_key(k: &mut Keyer, op: &HttpOp) {
    let HttpOp { url, checksum, filename, content } = op;
    k.tag("http");
    let digest = content.as_ref().or(checksum.as_ref());
    k.part(Sort::Http, "", digest.map(|d| d.as_str()), |k| {
        k.text(filename);
        match digest {
            Some(digest) => k.text(digest.as_str()),
            None => k.text(url),
        }
    });
}

fn exec_key(k: &mut Keyer, op: &ExecOp, base: Option<Key>, reads: &mut Reads<'_>) {
    let ExecOp {
        base: _,
        args,
        env,
        env_unkeyed: _,
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
    k.tag("exec");
    k.option(base.as_ref(), |k, b| k.key(*b));
    k.part(Sort::Command, "", None, |k| k.list(args, |k, a| k.text(a)));
    // Values may be what somebody takes for a secret.
    k.list(env, |k, (name, value)| {
        k.part(Sort::Variable, name, None, |k| {
            k.text(name);
            k.text(value);
        })
    });
    k.part(Sort::Folder, "", Some(cwd), |k| k.text(cwd));
    k.part(Sort::User, "", Some(user), |k| k.text(user));
    k.list(mounts, |k, m| k.part(Sort::Mount, &m.target, None, |k| mount_key(k, m, reads)));
    let network = match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    };
    k.part(Sort::Network, "", Some(network), |k| k.tag(network));
    let security = if *insecure { "insecure" } else { "sandbox" };
    k.part(Sort::Security, "", Some(security), |k| k.flag(*insecure));
    platform_key(k, platform);
    k.part(Sort::Hostname, "", hostname.as_deref(), |k| k.option(hostname.as_ref(), |k, name| k.text(name)));
    k.list(extra_hosts, |k, (name, address)| {
        k.part(Sort::Host, name, Some(address), |k| {
            k.text(name);
            k.text(address);
        })
    });
    k.part(Sort::Limits, "", None, |k| limits_key(k, limits));
}

fn limits_key(k: &mut Keyer, limits: &Limits) {
    // A process can't be told to give another result by the memory and processors it gets; it can by the others.
    let Limits { shm_size, ulimits, memory: _, cpu_shares: _, milli_cpus: _ } = limits;
    k.option(shm_size.as_ref(), |k, n| k.number(*n));
    k.list(ulimits, |k, (name, soft, hard)| {
        k.text(name);
        k.number(*soft);
        k.number(*hard);
    });
}

fn mount_key(k: &mut Keyer, mount: &Mount, reads: &mut Reads<'_>) {
    let Mount { target, kind } = mount;
    k.text(target);
    match kind {
        MountSource::Bind { from, source, readonly } => {
            k.tag("bind");
            k.flag(*readonly);
            k.apart(|k| read_key(k, from.is_some().then(|| reads.take()), source));
        }
        MountSource::Cache { id, from, source, readonly, sharing, mode, uid, gid } => {
            k.tag("cache");
            k.text(id);
            k.flag(*readonly);
            k.tag(match sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
                Sharing::Locked => "locked",
            });
            k.number(u64::from(*mode));
            k.number(u64::from(*uid));
            k.number(u64::from(*gid));
            k.apart(|k| read_key(k, from.is_some().then(|| reads.take()), source));
        }
        MountSource::Tmpfs { size } => {
            k.tag("tmpfs");
            k.option(size.as_ref(), |k, n| k.number(*n));
        }
        MountSource::Secret { id, env, file, required, mode, uid, gid } => {
            k.tag("secret");
            k.text(id);
            k.option(env.as_ref(), |k, e| k.text(e));
            k.flag(*file);
            k.flag(*required);
            k.number(u64::from(*mode));
            k.number(u64::from(*uid));
            k.number(u64::from(*gid));
        }
        MountSource::Ssh { id, required, mode, uid, gid } => {
            k.tag("ssh");
            k.text(id);
            k.flag(*required);
            k.number(u64::from(*mode));
            k.number(u64::from(*uid));
            k.number(u64::from(*gid));
        }
        MountSource::Text { content, mode } => {
            k.tag("text");
            k.text(content);
            k.number(u64::from(*mode));
        }
    }
}

fn file_key(k: &mut Keyer, op: &FileOp, base: Option<Key>, reads: &mut Reads<'_>) {
    let FileOp { base: _, actions, link, workdir } = op;
    k.tag("file");
    k.option(base.filter(|_| !link).as_ref(), |k, b| k.key(*b));
    k.part(Sort::Link, "", Some(&link.to_string()), |k| k.flag(*link));
    k.part(Sort::Workdir, "", Some(&workdir.to_string()), |k| k.flag(*workdir));
    k.list(actions, |k, action| match action {
        FileAction::Copy(copy) => copy_key(k, copy, reads),
        FileAction::Mkdir { path, mode, owner } => {
            k.tag("mkdir");
            k.part(Sort::MadeFolder, path, None, |k| {
                k.text(path);
                k.number(u64::from(*mode));
            });
            owner_key(k, owner.as_ref());
        }
        FileAction::Mkfile { path, name, content, mode, owner } => {
            k.tag("mkfile");
            k.part(Sort::MadeFile, &format!("{path}{name}"), None, |k| {
                k.text(path);
                k.text(name);
                k.bytes(content);
            });
            mode_key(k, mode.as_ref());
            owner_key(k, owner.as_ref());
        }
    });
}

fn copy_key(k: &mut Keyer, copy: &CopyAction, reads: &mut Reads<'_>) {
    let CopyAction { from, sources, dest, owner, mode, parents, exclude, unpack, source_spans: _ } = copy;
    k.tag("copy");
    k.part(Sort::Destination, "", Some(dest), |k| k.text(dest));
    owner_key(k, owner.as_ref());
    mode_key(k, mode.as_ref());
    k.part(Sort::Parents, "", Some(&parents.to_string()), |k| k.flag(*parents));
    let unpack = match unpack {
        Unpack::Never => "never",
        Unpack::Archives => "archives",
        Unpack::Always => "always",
    };
    k.part(Sort::Unpack, "", Some(unpack), |k| k.tag(unpack));
    // The selection's digest says which files come under which names; how they were asked for is then no matter.
    match from.map(|_| reads.take()) {
        Some(ReadKey::Content(content)) => {
            k.tag("content");
            k.key(content);
        }
        read => {
            read_key(k, read, "");
            k.part(Sort::Sources, "", None, |k| {
                k.list(sources, |k, s| k.text(s));
                k.list(exclude, |k, e| k.text(e));
            });
        }
    }
}

/// A tree and the path in it; content is the digest of what is at the path already.
fn read_key(k: &mut Keyer, read: Option<ReadKey>, source: &str) {
    match read.unwrap_or(ReadKey::Nothing) {
        ReadKey::Content(content) => {
            k.tag("content");
            k.key(content);
        }
        ReadKey::Definition(definition) => {
            k.tag("definition");
            k.key(definition);
            match source {
                "" => k.text(source),
                path => k.part(Sort::Sources, path, None, |k| k.text(path)),
            }
        }
        ReadKey::Nothing => k.tag("nothing"),
    }
}

fn owner_key(k: &mut Keyer, owner: Option<&Owner>) {
    let said = owner.map(|Owner { user, group }| match group {
        Some(group) => format!("{user}:{group}"),
        None => user.clone(),
    });
    k.part(Sort::Owner, "", said.as_deref(), |k| {
        k.option(owner, |k, owner| {
            let Owner { user, group } = owner;
            k.text(user);
            k.option(group.as_ref(), |k, g| k.text(g));
        });
    });
}

fn mode_key(k: &mut Keyer, mode: Option<&Mode>) {
    let said = mode.map(|mode| match mode {
        Mode::Octal(bits) => format!("{bits:o}"),
        Mode::Symbolic(clauses) => clauses.clone(),
    });
    k.part(Sort::Mode, "", said.as_deref(), |k| {
        k.option(mode, |k, mode| match mode {
            Mode::Octal(bits) => {
                k.tag("octal");
                k.number(u64::from(*bits));
            }
            Mode::Symbolic(clauses) => {
                k.tag("symbolic");
                k.text(clauses);
            }
        });
    });
}

fn platform_key(k: &mut Keyer, platform: &Platform) {
    let Platform { os, arch, variant } = platform;
    k.part(Sort::Platform, "", Some(&platform.to_string()), |k| {
        k.text(os);
        k.text(arch);
        k.text(variant);
    });
}

/// The reads of an op, taken one by one in the order of its fields.
struct Reads<'a>(std::slice::Iter<'a, ReadKey>);

impl Reads<'_> {
    fn take(&mut self) -> ReadKey {
        self.0.next().copied().unwrap_or(ReadKey::Nothing)
    }
}
