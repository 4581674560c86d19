//! A RUN: an [`ExecOp`] to a process in a sandbox, and its changes to a snapshot.

use super::agent::{self, Forwarded};
use super::cache_mount;
use super::env::Env;
use super::key::Key;
use super::problem::{self, Result};
use super::redact::{Hidden, Redactor};
use crate::plan::op::{ExecOp, Limits, Mount, MountSource, Network};
use crate::report::{Event, Kind, Problem, Step};
use crate::sandbox::{self, MountKind, Spec, Stream};
use crate::snapshot::{Layers, Shown, users};
use crate::store::{self, CacheMount, Store, TempSnapshot};
use crate::sys::RootMount;
use std::path::PathBuf;

/// What a mount reads.
#[derive(Debug, Clone, Default)]
pub struct MountTree {
    /// Its layers; none is an empty tree.
    pub layers: Layers,
    /// What the files are that it takes, whichever folders they are in.
    pub content: Option<Key>,
}

/// Runs the process in a new layer on top of `parents`. `trees` are what its mounts read, by the mount's
/// number.
pub fn run(env: &Env, step: Step, op: &ExecOp, parents: &Layers, trees: &[(usize, MountTree)]) -> Result<TempSnapshot> {
    let layer = env.store.new_snapshot().map_err(problem::from)?;
    let prepared = env.snapshots.prepare(layer.folder(), parents);
    let active = prepared.map_err(|e| problem::of_layers(&env.store, e))?;
    let user = users::exec_user(&parents.view(), &op.user).map_err(problem::snapshot)?;
    let mut held = Held::default();
    let mut spec = Spec::new(active.root_mount(), op.args.clone());
    spec.env = op.env.iter().chain(&op.env_unkeyed).cloned().collect();
    if !spec.env.iter().any(|(name, _)| name == "HOME") {
        spec.env.push(("HOME".into(), user.home));
    }
    spec.env.extend(agent_variable(op));
    spec.cwd = op.cwd.clone().into();
    spec.user = sandbox::User { uid: user.uid, gid: user.gid, groups: user.groups };
    if let Some(name) = &op.hostname {
        spec.hostname.clone_from(name);
    }
    spec.network = network(op.network);
    spec.extra_hosts = op.extra_hosts.clone();
    spec.limits = limits(&op.limits);
    spec.insecure = op.insecure;
    for (index, mount) in op.mounts.iter().enumerate() {
        let tree = trees.iter().find(|(i, _)| *i == index).map(|(_, tree)| tree.clone()).unwrap_or_default();
        add_mount(env, step, mount, &tree, &mut spec, &mut held)?;
    }
    keep_secrets_out_of_cores(env, op, &mut spec.limits);
    let exit = execute(env, step, &spec)?;
    if !exit.success() {
        return Err(problem::command_failed(&op.args, exit));
    }
    active.finish().map_err(problem::snapshot)?;
    Ok(layer)
}

/// The status of a process that SIGKILL has ended.
const KILLED: i32 = 128 + 9;

/// Runs the process; what it writes is told without the build's secrets.
fn execute(env: &Env, step: Step, spec: &Spec) -> Result<sandbox::Exit> {
    let hidden = Hidden::new(env.secrets.values());
    let (mut out, mut err) = (Redactor::new(&hidden), Redactor::new(&hidden));
    let tell = |stderr: bool, bytes: Vec<u8>| {
        if !bytes.is_empty() {
            env.reporter.send(Event::Output { step, stderr, bytes });
        }
    };
    let mut output = |stream: Stream, bytes: &[u8]| match stream {
        Stream::Stdout => tell(false, out.push(bytes)),
        Stream::Stderr => tell(true, err.push(bytes)),
    };
    let kills = env.kills.count();
    let exit = env.executor.run(spec, &mut output, &env.cancel).map_err(problem::from);
    // The limit may be that of the container that kiln runs in. A shell gives its victim's status as its own.
    let exit = exit.map(|exit| match exit.code {
        KILLED if env.kills.count() > kills => sandbox::Exit { out_of_memory: true, ..exit },
        _ => exit,
    });
    tell(false, out.finish());
    tell(true, err.finish());
    exit
}

/// A process that was given a secret leaves no core dump, which would be a file in its layer, unless a core's size was asked
/// for.
fn keep_secrets_out_of_cores(env: &Env, op: &ExecOp, limits: &mut sandbox::Limits) {
    let given = |m: &Mount| matches!(&m.kind, MountSource::Secret { id, .. } if env.secrets.contains_key(id));
    if op.mounts.iter().any(given) && !limits.ulimits.iter().any(|(name, _, _)| name == "core") {
        limits.ulimits.push(("core".into(), 0, 0));
    }
}

/// `SSH_AUTH_SOCK`, as BuildKit sets it: the first agent's socket, unless the Dockerfile says otherwise, even where the
/// agent isn't required and isn't there.
fn agent_variable(op: &ExecOp) -> Option<(String, String)> {
    const NAME: &str = "SSH_AUTH_SOCK";
    let first = op.mounts.iter().find(|m| matches!(m.kind, MountSource::Ssh { .. }))?;
    let set = op.env.iter().chain(&op.env_unkeyed).any(|(name, _)| name == NAME);
    (!set).then(|| (NAME.into(), first.target.clone()))
}

/// What must live as long as the process: folders that are thrown away afterwards, and locks.
#[derive(Default)]
struct Held {
    discarded: Vec<TempSnapshot>,
    caches: Vec<CacheMount>,
    agents: Vec<Forwarded>,
}

impl Held {
    /// An empty folder.
    fn folder(&mut self, store: &Store) -> store::Result<PathBuf> {
        let temp = store.new_snapshot()?;
        let folder = temp.folder().to_owned();
        self.discarded.push(temp);
        Ok(folder)
    }
}

/// A network in the sandbox's terms.
pub fn network(network: Network) -> sandbox::Network {
    match network {
        Network::Default => sandbox::Network::Default,
        Network::Host => sandbox::Network::Host,
        Network::None => sandbox::Network::None,
    }
}

/// Limits in the sandbox's terms.
pub fn limits(limits: &Limits) -> sandbox::Limits {
    let Limits { shm_size, ulimits, memory, cpu_shares, milli_cpus } = limits.clone();
    sandbox::Limits { shm_size, ulimits, memory, cpu_shares, milli_cpus }
}

fn add_mount(env: &Env, step: Step, mount: &Mount, tree: &MountTree, spec: &mut Spec, held: &mut Held) -> Result<()> {
    let kind = match &mount.kind {
        MountSource::Bind { source, readonly, .. } => {
            let mut scratch = || held.folder(&env.store);
            let shown = env.snapshots.show(&tree.layers, &mut scratch, !readonly);
            match shown.map_err(|e| problem::of_layers(&env.store, e))? {
                Shown::Layers(lowers) => MountKind::Layers { lowers, path: source.into() },
                Shown::Root(root) => MountKind::Tree { root, path: source.into(), readonly: *readonly },
            }
        }
        MountSource::Cache { from, readonly, .. } => {
            let cache = cache_mount::open(env, step, &mount.kind, from.is_some().then_some(tree))?;
            let root = RootMount::Dir(cache.folder().to_owned());
            held.caches.push(cache);
            MountKind::Tree { root, path: PathBuf::new(), readonly: *readonly }
        }
        MountSource::Tmpfs { size } => MountKind::Tmpfs { size: *size },
        MountSource::Text { content, mode } => {
            MountKind::File { content: content.clone().into_bytes(), mode: *mode, uid: 0, gid: 0 }
        }
        MountSource::Secret { id, env: variable, file, required, mode, uid, gid } => {
            let Some(value) = env.secrets.get(id) else {
                return if *required { Err(no_secret(id)) } else { Ok(()) };
            };
            if let Some(name) = variable {
                spec.env.push((name.clone(), secret_text(id, value)?));
            }
            if !file {
                return Ok(());
            }
            MountKind::File { content: value.clone(), mode: *mode, uid: *uid, gid: *gid }
        }
        MountSource::Ssh { id, required, mode, uid, gid } => {
            let Some(agent) = env.agents.get(id) else {
                return if *required { Err(no_agent(id)) } else { Ok(()) };
            };
            let folder = held.folder(&env.store).map_err(problem::from)?;
            held.agents.push(agent::forward(id, agent, &folder, *mode, (*uid, *gid))?);
            MountKind::Tree { root: RootMount::Dir(folder), path: agent::SOCKET.into(), readonly: false }
        }
    };
    spec.mounts.push(sandbox::Mount { target: mount.target.clone().into(), kind });
    Ok(())
}

fn no_secret(id: &str) -> Problem {
    Problem::new(Kind::Build, format!("secret {id}: not found"))
        .hint(format!("give it with --secret id={id},src=FILE or --secret id={id},env=NAME"))
}

fn no_agent(id: &str) -> Problem {
    Problem::new(Kind::Build, format!("ssh {id}: there is no agent to forward"))
        .hint(format!("give it with --ssh {id}, which forwards the agent of $SSH_AUTH_SOCK, or --ssh {id}=SOCKET, or --ssh {id}=KEYFILE"))
}

fn secret_text(id: &str, value: &[u8]) -> Result<String> {
    String::from_utf8(value.to_vec())
        .map_err(|_| Problem::new(Kind::Build, format!("secret {id} is not UTF-8, so it can't be a variable")))
}
