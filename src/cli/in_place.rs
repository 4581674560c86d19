//! The level `in-place`: whether this is a container whose `/` may be taken, and what stays in it.

use super::env::Env;
use super::isolation::{Last, Place, Together};
use super::request::{Isolation, Request};
use crate::in_place::{self, HiddenFiles, HostRoot, InPlaceExecutor, InPlaceSnapshotter, Protection, SplitDirectory};

use crate::store::Store;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The file beside the program that says that this is kiln's own image.
const MARK: &str = ".in-place";

/// What kiln's own images have in `/` besides.
const OWN: [&[u8]; 2] = [b"busybox", b"kaniko"];

/// What belongs to every container and is shown to processes as it is.
const SHOWN: [&[u8]; 3] = [b"dev", b"proc", b"sys"];

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

/// The folder of kiln's own for what belongs to `/`.
pub fn folder(store: &Path) -> PathBuf {
    store.join("in-place")
}

/// Whether a folder of `/` is one of kiln's own image's.
fn is_kilns(name: &[u8], own: Option<&[u8]>) -> bool {
    Some(name) == own || OWN.contains(&name)
}

/// Whether this process might mount something: then better levels than this one are there.
fn mounts() -> bool {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    effective.is_ok_and(|e| e.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// Lets processes run in `/`, where they don't see the files of `credentials`; `forced` is `--force-in-place`.
///
/// # Errors
/// Why that can't be.
pub fn place(store: &Store, forced: bool, credentials: &[PathBuf], env: &Env) -> Result<Place, String> {
    why_not(store, forced, env)?;
    // What is in this process's memory is nobody's business.
    crate::sys::leave_no_core_dump().map_err(|e| e.to_string())?;
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"));
    let held = held(store.root(), env);
    let mut stay = mounted(&read("/proc/self/mountinfo")?);
    stay.extend(held.iter().cloned());
    let closed: BTreeSet<Vec<u8>> = stay.iter().filter(|n| !SHOWN.contains(&n.as_slice())).cloned().collect();
    let folder = folder(store.root());
    let wall = Protection::find();
    let Walled { withheld, together, warning, last } = Walled::behind(&wall, credentials, forced);
    let ground = HostRoot::new(Path::new("/"), &folder, stay, held).map_err(|e| said(&e))?.without(withheld);
    let network = ["/etc/resolv.conf", "/etc/hosts"].map(|path| read(path).unwrap_or_default());
    let split = vec![SplitDirectory { path: "/".into(), hidden: closed, pool: folder.join("pool") }];
    let executor = InPlaceExecutor::new(network, folder, split, wall).map_err(|e| said(&e))?;
    let threads = NonZeroUsize::new(env.cores).unwrap_or(NonZeroUsize::MIN);
    let roots = store.new_snapshot().map_err(|e| e.to_string())?;
    let snapshots = InPlaceSnapshotter::new(ground, roots, threads).map_err(|e| said(&e))?;
    Ok(Place { snapshots: Arc::new(snapshots), executor: Arc::new(executor), together, warning, last })
}

/// What a wall makes necessary.
struct Walled {
    withheld: HiddenFiles,
    together: Together,
    warning: Option<String>,
    last: Option<Last>,
}

impl Walled {
    fn behind(wall: &Protection, credentials: &[PathBuf], forced: bool) -> Self {
        let Protection::Removal { why } = wall else {
            let withheld = HiddenFiles::default();
            return Self { withheld, together: Together::OneProcess, warning: None, last: None };
        };
        let withheld = HiddenFiles::new(credentials.iter().cloned(), forced);
        let left = if forced { ", and credentials that can't be taken away" } else { "" };
        let warning = format!(
            "warning: there is no Landlock here ({why}): kiln keeps the credentials that it was given in memory alone while a RUN \
             runs, but a RUN can read what else is in this container: the store with other stages and caches, and what is \
             mounted{left}"
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
    rustix::process::geteuid().is_root() && (forced || env.program.with_file_name(MARK).exists())
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
    if store.form().map_err(|e| e.to_string())?.owners {
        return Err(
            "it needs the capabilities CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP, as Docker gives them".into()
        );
    }
    moves(store.root())
}

/// Whether what stands in `/` can be moved to the store and back.
fn moves(store: &Path) -> Result<(), String> {
    let name = format!(".kiln-{}", std::process::id());
    let (top, inside) = (Path::new("/").join(&name), store.join(&name));
    std::fs::create_dir(&top).map_err(|e| format!("mkdir in /: {e}"))?;
    let moved = std::fs::rename(&top, &inside);
    let removed = std::fs::remove_dir(if moved.is_ok() { &inside } else { &top });
    moved.map_err(|e| {
        format!(
            "rename from / to {}: {e}; the store must be on the container's own file system (--root)",
            store.display()
        )
    })?;
    removed.map_err(|e| format!("rmdir {}: {e}", store.display()))
}

/// The names in `/` that hold what this build needs: no stage may have them.
fn held(store: &Path, env: &Env) -> BTreeSet<Vec<u8>> {
    let store = env.cwd.join(store);
    let own = OWN.iter().map(|name| name.to_vec()).filter(|name| Path::new("/").join(OsStr::from_bytes(name)).exists());
    [env.program.as_path(), &store].into_iter().filter_map(top).chain(own).collect()
}

/// The first name of an absolute path.
fn top(path: &Path) -> Option<Vec<u8>> {
    path.components().find_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        _ => None,
    })
}

/// The names in `/` that something is mounted on.
fn mounted(mountinfo: &str) -> BTreeSet<Vec<u8>> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    points
        .filter(|p| p.iter().filter(|b| **b == b'/').count() == 1)
        .filter_map(|p| top(Path::new(OsStr::from_bytes(&p))))
        .collect()
}

/// A path of `/proc/self/mountinfo`: space, tab, newline and backslash are `\` and three octal digits.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten().and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_at_the_top_stay() {
        let info = "73 48 0:40 / / rw - overlay overlay rw\n74 73 0:43 / /proc rw - proc proc rw\n\
                    79 73 254:0 /x /etc/resolv.conf rw - ext4 /dev/vda rw\n80 73 0:1 / /my\\040work rw - ext4 /dev/vda rw\n";
        let names: Vec<Vec<u8>> = mounted(info).into_iter().collect();
        assert_eq!(names, [b"my work".to_vec(), b"proc".to_vec()]);
    }

    #[test]
    fn the_first_name_of_a_path() {
        assert_eq!(top(Path::new("/kiln/store")), Some(b"kiln".to_vec()));
        assert_eq!(top(Path::new("/")), None);
    }
}
