//! The level `oci`: an installed runtime (crun, runc) makes the process of an OCI bundle.
//!
//! The child that becomes the runtime has a mount namespace of its own, as every sandbox, and all that the process sees is
//! mounted there before: the overlay, `/dev`, `/sys`, the mounts of the RUN, each by descriptors that no link of an image can
//! lead elsewhere, and with the stubs taken away afterwards. What is left to the runtime are the pid, mount and cgroup
//! namespaces, `/proc`, what is hidden of it, and the rights that the process loses. (Messages, names and network are in
//! namespaces of the child, which the runtime leaves alone: `/dev/mqueue` and `/sys` show what they are mounted for.)
//!
//! ```text
//! BUNDLE/              a tmpfs in the child's mount namespace alone, mode 0700
//! BUNDLE/config.json   holds the environment, so perhaps secrets
//! BUNDLE/rootfs/       the root filesystem
//! BUNDLE/dev/          its `/dev`, which the runtime binds, and so leaves as it is
//! BUNDLE/state/        the runtime's own
//! BUNDLE/log           what it complains of, a line of JSON each
//! BUNDLE/0, 1, …       files and devices that are mounted
//! ```
//!
//! crun mounts the root once more and forgets that no device may be opened there (`nodev`), which is all that keeps a process
//! that makes a node, or finds one in its image, from the host's disks: there is no control group to forbid it. So a hook, this
//! program, says it again.
//!
//! The runtime is pid 1 of a pid namespace, and it makes no control group (see `kernel`). So whatever ends it ends everything
//! and leaves nothing: there is no state for `delete --force` to find.

mod said;

use super::host::Host;
use super::program::{Builder, Door, Prepared, c_string};
use super::{Error, Executor, Exit, PrivateNetwork, Spec, Stdio, Stream, command, devices, kernel, seccomp};
use crate::sys::child::step::{Exec, Pointers, Stdio as Streams, Stream as Source};
use crate::sys::child::{Slot, Step};
use crate::sys::{self, Cancel, userns};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Pipe};
use std::sync::Arc;

/// A runtime's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    path: PathBuf,
    /// What its `--version` begins with.
    name: String,
}

/// What a child needs to become a runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hand<'a> {
    runtime: &'a Runtime,
    /// This program, for hooks.
    own: &'a Path,
}

pub(super) use said::complaint;

/// Those that are looked for, the quicker one first.
const KNOWN: [&str; 2] = ["crun", "runc"];

impl Runtime {
    /// The runtime that is `wanted`, a path or a name, or the first known one in the folders of `path` (`$PATH`).
    ///
    /// # Errors
    /// Why there is none.
    pub fn find(wanted: Option<&str>, path: &OsStr) -> Result<Self, String> {
        let found = match wanted {
            Some(wanted) if wanted.contains('/') => Some(PathBuf::from(wanted)),
            Some(wanted) => userns::find(wanted, path),
            None => KNOWN.iter().find_map(|name| userns::find(name, path)),
        };
        let missing = || match wanted {
            Some(wanted) => format!("{wanted} isn't in $PATH"),
            None => "neither crun nor runc is in $PATH; install one or name it with --oci-runtime".to_owned(),
        };
        let path = found.ok_or_else(missing)?;
        let said = |why: &dyn std::fmt::Display| format!("{} --version: {why}", path.display());
        let version =
            Command::new(&path).arg("--version").env_clear().stdin(Pipe::null()).output().map_err(|e| said(&e))?;
        let text = String::from_utf8_lossy(&version.stdout);
        match text.split_whitespace().next() {
            Some(name) if KNOWN.contains(&name) => Ok(Self { path, name: name.to_owned() }),
            _ => Err(said(&"it says neither crun nor runc: kiln knows the options of these")),
        }
    }

    /// Its program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its arguments. Neither makes a control group.
    fn args(&self, bundle: &Path) -> Vec<OsString> {
        let inside = |name: &str| bundle.join(name).into_os_string();
        let mut args: Vec<OsString> = vec![self.name.clone().into(), "--root".into(), inside("state")];
        args.extend(["--log-format".into(), "json".into(), "--log".into(), inside("log")]);
        let own = if self.name == "crun" { ["--cgroup-manager", "disabled"] } else { ["--rootless", "true"] };
        args.extend(own.map(OsString::from));
        args.extend(["run".into(), "--bundle".into(), bundle.into(), "kiln".into()]);
        args
    }
}

impl Hand<'_> {
    /// The error where the runtime can't be executed.
    pub(super) fn cannot_start(&self, error: &sys::Error) -> Error {
        let why = std::io::Error::from(error.errno).to_string();
        Error::Runtime { runtime: self.runtime.path.display().to_string(), said: why }
    }
}

/// Runs processes by an OCI runtime. One serves a whole build; threads share it.
#[derive(Debug)]
pub struct OciExecutor {
    host: Host,
    runtime: Runtime,
    own: PathBuf,
}

/// What a runtime calls as a hook, in the mount namespace of the process: forbids devices in a mount.
///
/// # Errors
/// Where nothing is mounted there, or the kernel refuses it.
pub fn forbid_devices(mount: &Path) -> Result<(), Error> {
    Ok(sys::child::forbid_devices(mount)?)
}

impl OciExecutor {
    /// Looks at the place once. `resolv_conf` is the host's `/etc/resolv.conf`, empty if there is none; `own` is the path of
    /// this program, which a runtime calls as a hook.
    ///
    /// # Errors
    /// If `/proc` isn't mounted.
    pub fn new(resolv_conf: String, runtime: Runtime, own: PathBuf) -> Result<Self, Error> {
        Ok(Self { host: Host::new(resolv_conf)?, runtime, own })
    }

    /// Puts processes that don't ask for a network on this one.
    pub fn on(self, network: Option<Arc<PrivateNetwork>>) -> Self {
        Self { host: self.host.on(network), ..self }
    }
}

impl Executor for OciExecutor {
    fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, Error> {
        let hand = Hand { runtime: &self.runtime, own: &self.own };
        let mut last = said::Last::new(output);
        let ended = self.host.run(spec, Door::Runtime(hand), &mut |stream, bytes| last.hand_on(stream, bytes), cancel);
        let failed = ended.as_ref().is_ok_and(|exit| !exit.success());
        match last.end(failed, spec) {
            Some(error) => Err(error),
            None => ended.map_err(|e| e.at_level("oci")),
        }
    }
}

const ROOT: &str = "rootfs";
const DEV: &str = "dev";

/// Puts the root filesystem into the bundle.
pub(super) fn enter(builder: &mut Builder<'_>, root: Slot) -> Result<(), Error> {
    let path = builder.beside(ROOT)?;
    builder.push(Step::MountOnHost { mount: root, path });
    builder.push(Step::LookFrom(root));
    Ok(())
}

fn bundle(builder: &Builder<'_>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(builder.scratch.to_bytes()))
}

/// Adds the steps that make the child the runtime.
pub(super) fn hand_over(
    mut builder: Builder<'_>,
    spec: &Spec,
    dev: &devices::Mounted,
    (hand, capabilities): (Hand<'_>, CapabilitySet),
    streams: [Source; 3],
) -> Result<Prepared, Error> {
    let dir = builder.memory()?;
    let folder = bundle(&builder);
    let content = config(spec, capabilities, &folder, hand.own)?.to_string().into_bytes();
    if spec.stdio == Stdio::Terminal {
        // crun mounts the terminal on it and doesn't make it.
        let (name, content) = (c"console".to_owned(), Vec::new());
        builder.push(Step::File { dir: dev.dir, name, content, mode: 0o600, uid: 0, gid: 0 });
    }
    let path = builder.beside(DEV)?;
    builder.push(Step::MountOnHost { mount: dev.dir, path });
    builder.push(Step::File { dir, name: c"config.json".to_owned(), content, mode: 0o600, uid: 0, gid: 0 });
    builder.work_in(spec)?;
    let inherit = [Source::Inherit(0), Source::Inherit(1), Source::Inherit(2)];
    let streams = if spec.stdio == Stdio::Terminal { inherit } else { streams };
    builder.push(Step::Stdio(Streams { streams, terminal: false }));
    builder.push(Step::Umask(0o022));
    builder.keep_apart(spec);
    let args = hand.runtime.args(&folder).into_iter().map(|a| CString::new(a.into_vec()));
    let args = args.collect::<Result<_, _>>().map_err(|_| Error::Spec("the store's path holds a zero byte".into()))?;
    let candidates = vec![c_string(&hand.runtime.path)?];
    let env = Pointers::new(vec![c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]);
    builder.push(Step::Exec(Exec { candidates: candidates.clone(), args: Pointers::new(args), env }));
    let Builder { program, parts, .. } = builder;
    Ok(Prepared { program, parts, terminal: None, listener: None, candidates, bundle: Some(dir) })
}

/// `config.json`, by the OCI runtime specification 1.0.2.
fn config(spec: &Spec, kept: CapabilitySet, bundle: &Path, own: &Path) -> Result<Value, Error> {
    let exec = command::exec(spec)?;
    let env: Vec<_> = exec.env.strings().iter().map(|s| s.to_string_lossy()).collect();
    let names: Vec<String> = kept.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let inherited = if spec.insecure { names.clone() } else { Vec::new() };
    let quiet = ["nosuid", "noexec", "nodev"];
    let root = bundle.join(ROOT);
    let dev = bundle.join(DEV);
    let nodev = if spec.insecure { "dev" } else { "nodev" };
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": spec.stdio == Stdio::Terminal,
            "user": { "uid": spec.user.uid, "gid": spec.user.gid, "umask": 0o022, "additionalGids": spec.user.groups },
            "args": spec.args,
            "env": env,
            "cwd": super::spec::clean(&spec.cwd, "working directory")?.to_string_lossy(),
            "capabilities": {
                "bounding": names, "effective": names, "permitted": names, "inheritable": inherited, "ambient": inherited,
            },
            "rlimits": limits(spec)?,
            "noNewPrivileges": false,
        },
        "root": { "path": ROOT, "readonly": false },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": quiet },
            { "destination": "/dev", "type": "bind", "source": dev.to_string_lossy(), "options": ["rbind", "nosuid", nodev] },
        ],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "cgroup" }] },
    });
    if !spec.insecure {
        let args = [own.to_string_lossy(), "debug".into(), "forbid-devices".into(), root.to_string_lossy()];
        config["hooks"] = json!({ "createContainer": [{ "path": own.to_string_lossy(), "args": args }] });
        config["linux"]["maskedPaths"] = kernel::masked().into();
        config["linux"]["readonlyPaths"] = kernel::protected().into();
        config["linux"]["seccomp"] = seccomp::oci::profile(kept);
    }
    Ok(config)
}

/// The limits of the spec. That of open files is always there: Go raises its own, and so that of what runc starts.
fn limits(spec: &Spec) -> Result<Vec<Value>, Error> {
    let own = getrlimit(Resource::Nofile);
    let own = ("nofile".to_owned(), own.current.unwrap_or(u64::MAX), own.maximum.unwrap_or(u64::MAX));
    let named = spec.limits.ulimits.iter().any(|(name, ..)| name == "nofile");
    let all = spec.limits.ulimits.iter().chain((!named).then_some(&own));
    // A later one of a name wins, but a runtime takes each only once.
    let mut limits: Vec<(String, Value)> = Vec::new();
    for (name, soft, hard) in all {
        command::resource(name)?;
        let name = format!("RLIMIT_{}", name.to_uppercase());
        limits.retain(|(n, _)| *n != name);
        limits.push((name.clone(), json!({ "type": name, "soft": soft, "hard": hard })));
    }
    Ok(limits.into_iter().map(|(_, limit)| limit).collect())
}
