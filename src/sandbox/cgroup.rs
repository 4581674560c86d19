//! Limits of memory and processor time by control groups, version 2 and 1, by plain writes to their files.
//!
//! A group is made below kiln's own, or below the nearest group above that has the controllers and lets kiln make one
//! (under version 2 a group with processes can't hand controllers on). It is named `kiln-PID-NUMBER`, so that a later run can
//! tell which ones a killed kiln has left, and removes them.

use super::{Error, Limits};
use crate::sys::Said;
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A group for one step: a folder, or one for each controller under version 1. Removed when dropped.
#[derive(Debug)]
pub struct Group {
    folders: Vec<PathBuf>,
    /// The file that counts kills for want of memory.
    kills: Option<PathBuf>,
}

/// The period of `cpu.max`, microseconds.
const PERIOD: u64 = 100_000;

impl Group {
    /// Makes a group with these limits.
    ///
    /// # Errors
    /// [`Error::Limit`] where no group can be made, or the kernel refuses a limit.
    pub(crate) fn new(place: &[Hierarchy], limits: &Limits, number: u64) -> Result<Self, Error> {
        let name = format!("kiln-{}-{number}", std::process::id());
        let mut group = Self { folders: Vec::new(), kills: None };
        if limits.memory.is_some() {
            let folder = group.join(place, "memory", &name)?;
            group.kills = Some(memory(&folder, limits)?);
        }
        if limits.cpu_shares.is_some() || limits.milli_cpus.is_some() {
            let folder = group.join(place, "cpu", &name)?;
            cpu(&folder, limits)?;
        }
        Ok(group)
    }

    /// Makes the folder for a controller, unless an earlier controller's is the same.
    fn join(&mut self, place: &[Hierarchy], controller: &'static str, name: &str) -> Result<PathBuf, Error> {
        let refuse = |why: String| Error::Limit { what: controller, why };
        let Some(hierarchy) = find(place, controller) else {
            return Err(refuse(format!("no control group hierarchy with the controller {controller} is mounted")));
        };
        let mut why = String::from("no group can be made");
        for parent in hierarchy.parents() {
            let folder = parent.join(name);
            if self.folders.contains(&folder) {
                return Ok(folder);
            }
            sweep(&parent);
            if hierarchy.unified {
                // Refused where the group has processes itself; then one above may do.
                let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            match std::fs::create_dir(&folder) {
                Err(e) => why = format!("mkdir {}: {e}", folder.display()),
                Ok(()) if folder.join(hierarchy.sign(controller)).exists() => {
                    self.folders.push(folder.clone());
                    return Ok(folder);
                }
                Ok(()) => {
                    why = format!("the controller {controller} isn't enabled in {}", parent.display());
                    let _ = std::fs::remove_dir(&folder);
                }
            }
        }
        Err(refuse(why))
    }

    /// The files that a process joins by, open, with their names.
    pub(crate) fn procs(&self) -> Result<Vec<(OwnedFd, CString)>, Error> {
        self.folders
            .iter()
            .map(|folder| {
                let path = folder.join("cgroup.procs");
                let fd = rustix::fs::openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                Ok((fd.said("open", &path)?, super::program::c_string(&path)?))
            })
            .collect()
    }

    /// Whether the kernel killed a process of the group for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let text = self.kills.as_ref().and_then(|f| std::fs::read_to_string(f).ok());
        kills(&text.unwrap_or_default()) > 0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The kernel lets a group go a moment after its last process.
            for _ in 0..100 {
                match std::fs::remove_dir(folder) {
                    Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Removes groups of processes that aren't there any more; those that are in use can't be removed anyway.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix("kiln-")?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Writes the limit of memory; gives the file that counts kills.
fn memory(folder: &Path, limits: &Limits) -> Result<PathBuf, Error> {
    let bytes = limits.memory.unwrap_or(u64::MAX);
    let set = |file: &str, value: u64| write(folder, file, "memory", &value.to_string());
    if folder.join("memory.max").exists() {
        set("memory.max", bytes)?;
        // As much swap as memory, which is Docker's default; not every kernel accounts for it.
        let _ = set("memory.swap.max", bytes);
        return Ok(folder.join("memory.events"));
    }
    set("memory.limit_in_bytes", bytes)?;
    let _ = set("memory.memsw.limit_in_bytes", bytes.saturating_mul(2));
    Ok(folder.join("memory.oom_control"))
}

fn cpu(folder: &Path, limits: &Limits) -> Result<(), Error> {
    let unified = folder.join("cpu.weight").exists();
    let set = |file: &str, value: String| write(folder, file, "cpu", &value);
    if let Some(shares) = limits.cpu_shares {
        if unified { set("cpu.weight", weight(shares).to_string())? } else { set("cpu.shares", shares.to_string())? }
    }
    if let Some(milli) = limits.milli_cpus {
        let quota = (milli * PERIOD / 1000).max(1000);
        if unified {
            set("cpu.max", format!("{quota} {PERIOD}"))?;
        } else {
            set("cpu.cfs_period_us", PERIOD.to_string())?;
            set("cpu.cfs_quota_us", quota.to_string())?;
        }
    }
    Ok(())
}

/// Version 2's weight (1 to 10,000) for version 1's shares (2 to 262,144), as runc converts it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn write(folder: &Path, file: &str, what: &'static str, value: &str) -> Result<(), Error> {
    let path = folder.join(file);
    std::fs::write(&path, value).map_err(|e| Error::Limit { what, why: format!("write {}: {e}", path.display()) })
}

/// The kills for want of memory in kiln's own group, whose limit somebody else has set: a container's, a service's. Another
/// process of the group may have been the victim.
#[derive(Debug)]
pub struct Kills {
    /// The file that counts them, where there is one.
    file: Option<File>,
}

impl Kills {
    /// Finds out where they are counted.
    pub fn find() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let place = hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let file = find(&place, "memory").and_then(Hierarchy::kills);
        Self { file: file.and_then(|f| File::open(f).ok()) }
    }

    /// How many there were up to now.
    pub fn count(&self) -> u64 {
        // The kernel's text is some lines long.
        let mut text = [0; 1024];
        let read = self.file.as_ref().and_then(|f| f.read_at(&mut text, 0).ok());
        read.map_or(0, |n| kills(&String::from_utf8_lossy(text.get(..n).unwrap_or_default())))
    }
}

/// The number behind `oom_kill` in `memory.events` (version 2) or `memory.oom_control` (version 1).
fn kills(text: &str) -> u64 {
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// A mounted hierarchy and kiln's own group in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where its root, or the part of it that can be seen, is mounted.
    mount: PathBuf,
    /// Kiln's own group, below that.
    own: PathBuf,
    /// Its controllers, or `name=…`; none under version 2.
    controllers: Vec<String>,
    /// Whether it is version 2.
    unified: bool,
}

/// A group that a process sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// The name of its hierarchy in `/sys/fs/cgroup`; empty under version 2, which has one.
    pub(super) name: String,
    /// The host's folder.
    pub(super) folder: PathBuf,
}

impl Hierarchy {
    /// The groups to try, kiln's own first.
    fn parents(&self) -> Vec<PathBuf> {
        self.own.ancestors().map(|a| self.mount.join(a)).collect()
    }

    /// The file that counts kills in kiln's own group, or in the nearest one above that has it.
    fn kills(&self) -> Option<PathBuf> {
        let name = if self.unified { "memory.events" } else { "memory.oom_control" };
        self.parents().into_iter().map(|group| group.join(name)).find(|file| file.exists())
    }

    /// A file that is there if the controller is at work.
    fn sign(&self, controller: &str) -> &'static str {
        match (self.unified, controller) {
            (true, "memory") => "memory.max",
            (true, _) => "cpu.max",
            (false, "memory") => "memory.limit_in_bytes",
            (false, _) => "cpu.shares",
        }
    }
}

/// The hierarchies that are mounted, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(crate) fn hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    mountinfo.lines().filter_map(|line| hierarchy(line, own)).collect()
}

fn hierarchy(line: &str, own: &str) -> Option<Hierarchy> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, target) = (front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (kind, options) = (back.next()?, back.nth(1)?);
    let unified = kind == "cgroup2";
    if !unified && kind != "cgroup" {
        return None;
    }
    let offered: Vec<&str> = options.split(',').collect();
    // ID:CONTROLLERS:PATH, where version 2 has no controllers.
    let (controllers, group) = own.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let fits = if unified {
            names.is_empty()
        } else {
            !names.is_empty() && names.split(',').all(|n| offered.contains(&n))
        };
        fits.then_some((names, Path::new(path)))
    })?;
    // In a container the mount may show only a part of the hierarchy.
    let own = group.strip_prefix(root).or_else(|_| group.strip_prefix("/")).ok()?;
    let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
    Some(Hierarchy { mount: target.into(), own: own.to_owned(), controllers, unified })
}

/// The hierarchy of a controller: version 1's if it is in one, else version 2's.
fn find<'a>(place: &'a [Hierarchy], controller: &str) -> Option<&'a Hierarchy> {
    let version_1 = place.iter().find(|h| h.controllers.iter().any(|c| c == controller));
    version_1.or_else(|| place.iter().find(|h| h.unified))
}

/// What a process sees in `/sys/fs/cgroup`: kiln's own groups, or those made for it.
pub(super) fn shown(place: &[Hierarchy], group: Option<&Group>) -> Vec<Shown> {
    let root = Path::new("/sys/fs/cgroup");
    place
        .iter()
        .filter_map(|h| {
            let name = h.mount.strip_prefix(root).ok()?.to_str()?.to_owned();
            // A hierarchy of version 2 beside some of version 1 has no controllers.
            if h.unified != name.is_empty() || name.contains('/') {
                return None;
            }
            let made = group.and_then(|g| g.folders.iter().find(|f| f.starts_with(&h.mount)));
            Some(Shown { name, folder: made.cloned().unwrap_or_else(|| h.mount.join(&h.own)) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                      nonsense\n";
    const OWN: &str = "5:name=systemd:/\n4:memory:/a/b\n3:cpu,cpuacct:/x\n0::/c:d\n";

    #[test]
    fn version_1_is_found_by_controller() {
        let place = hierarchies(V1, OWN);
        assert_eq!(place.len(), 4);
        let found = find(&place, "memory").unwrap();
        assert_eq!((found.mount.to_str(), found.own.to_str()), (Some("/sys/fs/cgroup/memory"), Some("a/b")));
        assert_eq!(found.parents()[1], Path::new("/sys/fs/cgroup/memory/a"));
        assert_eq!(find(&place, "cpu").unwrap().own, Path::new("x"));
        let pids = find(&place, "pids").unwrap();
        assert!(pids.unified && pids.own == Path::new("c:d"));
    }

    #[test]
    fn version_1_is_shown_by_name() {
        let shown = shown(&hierarchies(V1, OWN), None);
        let names: Vec<&str> = shown.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "systemd"]);
        assert_eq!(shown[1].folder, Path::new("/sys/fs/cgroup/memory/a/b"));
    }

    #[test]
    fn version_2_is_one() {
        let place = hierarchies("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/a\n");
        let expected = [Shown { name: String::new(), folder: "/sys/fs/cgroup/a".into() }];
        assert_eq!(shown(&place, None), expected);
        assert!(find(&place, "memory").is_some());
    }

    #[test]
    fn a_container_sees_a_part() {
        let mountinfo = "1 2 0:3 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let place = hierarchies(mountinfo, "4:memory:/docker/x/sub\n");
        assert_eq!(find(&place, "memory").unwrap().own, Path::new("sub"));
        assert_eq!(find(&[], "memory"), None);
    }

    #[test]
    fn shares_become_weights_as_in_runc() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), expected);
        }
    }

    #[test]
    fn kills_are_counted() {
        assert_eq!(kills("low 0\noom 1\noom_kill 3\n"), 3);
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), 1);
        assert_eq!(kills(""), 0);
    }
}
