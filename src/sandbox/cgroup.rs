//! Limits of memory and processor time by control groups, version 2 and 1, by plain writes to their files.
//!
//! A group is made below kiln's own, or below the nearest group above that has the controllers and lets kiln make one
//! (under version 2 a group with processes can't hand controllers on). It is named `kiln-PID-NUMBER`, so that a later run can
//! tell which ones a killed kiln has left, and removes them.

use super::{Error, Limits};
use crate::sys::Said;
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What tells where groups can be made.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `/proc/self/mountinfo`.
    pub mountinfo: &'a str,
    /// `/proc/self/cgroup`.
    pub own: &'a str,
}

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
    pub(super) fn new(place: &Place<'_>, limits: &Limits, number: u64) -> Result<Self, Error> {
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
    fn join(&mut self, place: &Place<'_>, controller: &'static str, name: &str) -> Result<PathBuf, Error> {
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
    pub(super) fn procs(&self) -> Result<Vec<(OwnedFd, CString)>, Error> {
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
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let text = self.kills.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        kills(&text) > 0
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

/// The number behind `oom_kill` in `memory.events` (version 2) or `memory.oom_control` (version 1).
fn kills(text: &str) -> u64 {
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Where a controller's groups are.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Where its root, or the part of it that can be seen, is mounted.
    mount: PathBuf,
    /// Kiln's own group, below that.
    own: PathBuf,
    /// Whether it is version 2.
    unified: bool,
}

impl Hierarchy {
    /// The groups to try, kiln's own first.
    fn parents(&self) -> Vec<PathBuf> {
        self.own.ancestors().map(|a| self.mount.join(a)).collect()
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

/// The hierarchy of a controller: version 1's if it is in one, else version 2's.
fn find(place: &Place<'_>, controller: &str) -> Option<Hierarchy> {
    let groups = || place.own.lines().filter_map(|l| l.splitn(3, ':').nth(1).zip(l.splitn(3, ':').nth(2)));
    let version_1 = groups().find(|(names, _)| names.split(',').any(|n| n == controller));
    let (_, own) = version_1.or_else(|| groups().find(|(names, _)| names.is_empty()))?;
    let unified = version_1.is_none();
    place.mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut fields = front.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        let fits =
            if unified { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == controller) };
        // In a container the mount may show only a part of the hierarchy.
        let own = Path::new(own).strip_prefix(root).or_else(|_| Path::new(own).strip_prefix("/")).ok()?;
        fits.then(|| Hierarchy { mount: target.into(), own: own.to_owned(), unified })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_1_is_found_by_controller() {
        let place = Place { mountinfo: V1, own: "4:memory:/a/b\n0::/\n" };
        let found = find(&place, "memory").unwrap();
        assert_eq!(found, Hierarchy { mount: "/sys/fs/cgroup/memory".into(), own: "a/b".into(), unified: false });
        assert_eq!(found.parents().len(), 3);
        assert_eq!(found.parents()[1], Path::new("/sys/fs/cgroup/memory/a"));
    }

    #[test]
    fn version_2_has_the_others() {
        let place = Place { mountinfo: V1, own: "4:memory:/a/b\n0::/c:d\n" };
        let found = find(&place, "cpu").unwrap();
        assert_eq!(found, Hierarchy { mount: "/sys/fs/cgroup/unified".into(), own: "c:d".into(), unified: true });
    }

    #[test]
    fn a_container_sees_a_part() {
        let mountinfo = "1 2 0:3 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let place = Place { mountinfo, own: "4:memory:/docker/x/sub\n" };
        assert_eq!(find(&place, "memory").unwrap().own, Path::new("sub"));
        assert_eq!(find(&Place { mountinfo: "", own: "" }, "memory"), None);
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
