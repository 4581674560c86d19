//! The level `in-place`: whether this is a container whose `/` may be taken, and what stays in it.

use super::env::Env;
use super::isolation::{Last, Needs, Place, Together};
use super::request::{Isolation, Request};
use crate::in_place::{self, HiddenFiles, HostRoot, InPlaceExecutor, InPlaceSnapshotter, Layout, Protection, layout};

use crate::sandbox::probe::missing_capabilities;
use crate::store::Store;
use rustix::thread::CapabilitySet;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The file beside the program that says that this is kiln's own image.
const MARK: &str = ".in-place";

/// What kiln's own images have in `/` besides.
const OWN: [&[u8]; 2] = [b"busybox", b"kaniko"];

/// The mounts that this process sees.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Before there are threads: makes a process that may let strange files stand in `/` take no program and no library of theirs
/// for the container's own. What is looked up by `$PATH` later (git, credential helpers) is only found beside kiln, and names
/// of hosts are resolved by what is built in.
pub fn guard(request: &Request, env: Env) -> Env {
    let Some(process) = request.command.process() else { return env };
    if !is_here(process.force_in_place, &env) && process.isolation != Isolation::InPlace {
        return env;
    }
    let own = top(&env.program);
    let path = env.path();
    let kept = std::env::split_paths(&path).filter(|folder| top(folder).is_some_and(|t| is_kilns(&t, own.as_deref())));
    let path = std::env::join_paths(kept).unwrap_or_default();
    crate::sys::set_variable("PATH", &path);
    crate::sys::resolve_without_plugins();
    let mut env = env;
    env.vars.insert("PATH".into(), path);
    env
}

/// Whether this is a container whose `/` may be taken, and that has no better level than this.
pub fn is_here(forced: bool, env: &Env) -> bool {
    may_be_taken(forced, env) && !mounts()
}

/// Kiln's work directory: on the file system of `/`, where it can rename what lies in `/` to. It is in the store, unless the store is
/// on a volume.
pub fn work_directory(store: &Path, env: &Env) -> PathBuf {
    let store = absolute(store, env);
    let mountinfo = std::fs::read_to_string(MOUNTINFO).unwrap_or_default();
    if layout::mount_of(&mountinfo, &store) == Path::new("/") {
        return store.join("in-place");
    }
    match env.program.parent() {
        Some(dir) if is_own_image(env) => dir.join("in-place"),
        _ => PathBuf::from("/.kiln"),
    }
}

/// A path without symbolic links, as far as it exists.
fn absolute(path: &Path, env: &Env) -> PathBuf {
    let path = env.cwd.join(path);
    path.canonicalize().unwrap_or(path)
}

/// Whether a folder of `/` is one of kiln's own image's.
fn is_kilns(name: &[u8], own: Option<&[u8]>) -> bool {
    Some(name) == own || OWN.contains(&name)
}

/// Whether this process might mount something: then better levels than this one are there.
fn mounts() -> bool {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    effective.is_ok_and(|e| e.contains(CapabilitySet::SYS_ADMIN))
}

/// Runs processes in `/`. Everything that a RUN needs of `/` is tried.
///
/// # Errors
/// Why that cannot be.
pub fn place(store: &Store, needs: &Needs<'_>, env: &Env) -> Result<Place, String> {
    why_not(store, needs.process.force_in_place, env)?;
    // A core dump would have the credentials that are in this process's memory.
    crate::sys::leave_no_core_dump().map_err(|e| e.to_string())?;
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"));
    let layout = layout(store.root(), needs.contexts, &read(MOUNTINFO)?, env);
    let protection = Protection::find();
    if let Some(why) = protection.refusal(needs.process.force_in_place) {
        return Err(why);
    }
    let Walled { withheld, together, warning, last } =
        Walled::behind(&protection, needs.credentials, needs.process.force_in_place, env);
    let host = HostRoot::new(Path::new("/"), &work_directory(store.root(), env), layout).map_err(|e| unusable(&e))?;
    let host = Arc::new(host.hiding(withheld));
    let network = ["/etc/resolv.conf", "/etc/hosts"].map(|path| read(path).unwrap_or_default());
    let executor = InPlaceExecutor::new(network, host.clone(), protection).map_err(|e| said(&e))?;
    host.probe(|| executor.probe().map_err(ProbeError::Executor)).map_err(|e| match e {
        ProbeError::Root(e) => unusable(&e),
        ProbeError::Executor(e) => said(&e),
    })?;
    let threads = NonZeroUsize::new(env.cores).unwrap_or(NonZeroUsize::MIN);
    let form = store.form().map_err(|e| e.to_string())?;
    let snapshots = InPlaceSnapshotter::new(host, form, threads).map_err(|e| said(&e))?;
    Ok(Place { snapshots: Arc::new(snapshots), executor: Arc::new(executor), together, warning, last })
}

/// What a RUN would fail with here.
enum ProbeError {
    Root(crate::snapshot::Error),
    Executor(crate::sandbox::Error),
}

impl From<crate::snapshot::Error> for ProbeError {
    fn from(error: crate::snapshot::Error) -> Self {
        Self::Root(error)
    }
}

/// What stays in `/` while a stage is switched in.
fn layout(store: &Path, contexts: &[PathBuf], mountinfo: &str, env: &Env) -> Layout {
    let on_volume = |path: &Path| layout::mount_of(mountinfo, path) != Path::new("/");
    let (store, contexts) = (absolute(store, env), contexts.iter().map(|path| absolute(path, env)));
    let tops = [env.program.clone(), store.clone(), work_directory(&store, env)];
    let tops = tops.iter().filter(|path| !on_volume(path)).filter_map(|path| top(path));
    let mut own: Vec<PathBuf> = tops.map(|name| at_top(&name)).collect();
    own.extend(OWN.iter().map(|name| at_top(name)).filter(|path| path.exists()));
    own.extend(contexts.chain([store]).filter(|path| on_volume(path)));
    Layout::new(mountinfo, &own, Path::is_dir)
}

fn at_top(name: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(name))
}

/// Why `/` cannot be switched, and what helps where that is known.
fn unusable(error: &crate::snapshot::Error) -> String {
    let text = said(error);
    match error {
        crate::snapshot::Error::Call { source, .. } if source.raw_os_error() == Some(libc::EROFS) => {
            format!("{text}; a RUN needs a container whose root filesystem is writable")
        }
        _ => text,
    }
}

/// What a wall makes necessary.
struct Walled {
    withheld: HiddenFiles,
    together: Together,
    warning: Option<String>,
    last: Option<Last>,
}

impl Walled {
    fn behind(wall: &Protection, credentials: &[PathBuf], forced: bool, env: &Env) -> Self {
        let Protection::Removal { why } = wall else {
            let withheld = HiddenFiles::default();
            return Self { withheld, together: Together::OneProcess, warning: None, last: None };
        };
        let copy = env.supervisor.as_ref().map(|supervisor| supervisor.hidden.clone());
        let withheld = HiddenFiles::new(credentials.iter().cloned(), forced, copy);
        let left = if forced { ", and credentials that can't be taken away" } else { "" };
        let warning = format!(
            "warning: there is no Landlock here ({why}): kiln keeps the credentials that it was given in memory alone while a RUN \
             executes, but a RUN can read and change everything else in this container: kiln's program, the store with other stages and \
             caches, and what is mounted{left}"
        );
        let away = withheld.clone();
        let last = move || {
            // Nobody is left to be told what fails; the files are for those alone who come after the processes.
            if in_place::end_all().is_ok() {
                let _ = away.put_back_for_good();
            }
        };
        Self { withheld, together: Together::OneStep, warning: Some(warning), last: Some(Arc::new(last)) }
    }
}

/// An error and what it comes from.
fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn may_be_taken(forced: bool, env: &Env) -> bool {
    rustix::process::geteuid().is_root() && (forced || is_own_image(env))
}

/// Whether this container's image is kiln's own, which has nothing in `/` that a build could harm.
fn is_own_image(env: &Env) -> bool {
    env.program.with_file_name(MARK).exists()
}

fn why_not(store: &Store, forced: bool, env: &Env) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".into());
    }
    if !may_be_taken(forced, env) {
        return Err(
            "it takes the whole root directory for the build, so it is only for containers of kiln's own image; \
                    --force-in-place allows it in another one"
                .into(),
        );
    }
    if let Some(text) = missing_capabilities() {
        return Err(text);
    }
    // In a user namespace with few IDs, files cannot have their owners in spite of all capabilities.
    match store.form().map_err(|e| e.to_string())?.owners {
        true => Err("files cannot have their owners here: the user namespace of this container has too few IDs".into()),
        false => Ok(()),
    }
}

/// The first name of an absolute path.
fn top(path: &Path) -> Option<Vec<u8>> {
    path.components().find_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_path() {
        assert_eq!(top(Path::new("/kiln/store")), Some(b"kiln".to_vec()));
        assert_eq!(top(Path::new("/")), None);
    }
}
