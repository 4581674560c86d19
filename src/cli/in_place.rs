//! The level `in-place`: whether this is a container whose `/` may be taken, and what stays in it.

use super::env::Env;
use super::isolation::Place;
use super::session::{Session, cannot};
use crate::report::{Kind, Problem};
use crate::sandbox::{InPlaceExecutor, Level};
use crate::snapshot::{Ground, InPlace};
use crate::store::Store;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The file beside the program that says that this is kiln's own image.
const MARK: &str = ".in-place";

/// What belongs to every container and is shown to processes as it is.
const SHOWN: [&[u8]; 3] = [b"dev", b"proc", b"sys"];

/// Whether only this level is left for root: a container without CAP_SYS_ADMIN, in which nothing can be mounted.
pub fn is_the_place() -> bool {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    rustix::process::geteuid().is_root()
        && effective.is_ok_and(|e| !e.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// The level, tried; `forced` is `--force-in-place`.
pub fn level(store: &Store, forced: bool) -> Level {
    let why_not = why_not(store, forced);
    Level { name: "in-place", works: why_not.is_none(), why_not }
}

/// Lets processes run in `/`.
///
/// # Errors
/// Why that can't be.
pub fn place(session: &Session, forced: bool, env: &Env) -> Result<Place, Problem> {
    if let Some(why) = why_not(&session.store, forced) {
        return Err(Problem::new(Kind::Environment, format!("--isolation in-place: {why}")));
    }
    // What is in this process's memory is nobody's business.
    crate::sys::leave_no_core_dump().map_err(|e| cannot("keep this process from being read", &e))?;
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mounts =
        std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| cannot("read /proc/self/mountinfo", &e))?;
    let held = held(session.store.root(), env)?;
    let mut stay = mounted(&mounts);
    stay.extend(held.iter().cloned());
    let closed: BTreeSet<Vec<u8>> = stay.iter().filter(|n| !SHOWN.contains(&n.as_slice())).cloned().collect();
    let folder = session.store.root().join("in-place");
    let ground = Ground::new(Path::new("/"), &folder, stay, held).map_err(|e| cannot("use / for stages", &e))?;
    let executor = InPlaceExecutor::new(resolv_conf, folder, closed)?;
    if let Some(why) = executor.why_open() {
        let note = format!("warning: {why}: a RUN can read this container's files, those of the store among them");
        session.reporter.send(crate::report::Event::Note(note));
    }
    let threads = NonZeroUsize::new(env.cores).unwrap_or(NonZeroUsize::MIN);
    let snapshots =
        InPlace::new(ground, session.store.new_snapshot()?, threads).map_err(|e| cannot("use / for stages", &e))?;
    Ok(Place { snapshots: Arc::new(snapshots), executor: Arc::new(executor) })
}

fn why_not(store: &Store, forced: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".into());
    }
    if !forced && !mark().is_some_and(|mark| mark.exists()) {
        return Some(
            "it takes the whole root directory for the build, so it is only for a container of kiln's own image; in another \
             container that nothing else needs, --force-in-place allows it"
                .into(),
        );
    }
    match store.form() {
        Ok(form) if form.owners => {
            return Some(
                "it needs the capabilities CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP, which Docker gives by default".into(),
            );
        }
        Err(error) => return Some(error.to_string()),
        Ok(_) => {}
    }
    moves(store.root()).err()
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

fn mark() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.with_file_name(MARK))
}

/// The names in `/` that hold what this build needs: no stage may have them.
fn held(store: &Path, env: &Env) -> Result<BTreeSet<Vec<u8>>, Problem> {
    let exe = std::env::current_exe().map_err(|e| cannot("find the program", &e))?;
    let store = env.cwd.join(store);
    Ok([exe, store].iter().filter_map(|path| top(path)).collect())
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
        .filter_map(|p| top(Path::new(std::ffi::OsStr::from_bytes(&p))))
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
