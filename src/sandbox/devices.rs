//! `/dev`: a tmpfs with the devices that every container has, terminals, shared memory, message queues.

use super::program::{Builder, c_string};
use super::{Error, Spec};
use crate::sys::child::step::TargetKind;
use crate::sys::child::{Slot, Step};
use rustix::mount::MountAttrFlags;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Name and number of the devices; all can be read and written by everybody.
const DEVICES: [(&CStr, u32, u32); 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

/// Those that `--security=insecure` adds: kernel messages, FUSE, virtual machines, tunnels, loop devices.
const INSECURE: [(&CStr, u32, u32); 5] =
    [(c"kmsg", 1, 11), (c"cuse", 10, 203), (c"fuse", 10, 229), (c"kvm", 10, 232), (c"loop-control", 10, 237)];

/// Loop devices that `--security=insecure` adds.
const LOOPS: [&CStr; 8] = [c"loop0", c"loop1", c"loop2", c"loop3", c"loop4", c"loop5", c"loop6", c"loop7"];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// `/dev/shm` without a size of its own.
const SHM: u64 = 64 << 20;

/// What later steps need of `/dev`.
pub(super) struct Mounted {
    /// Its tmpfs.
    pub(super) dir: Slot,
    /// Its terminals.
    pub(super) pts: Slot,
}

/// Makes the devices, while the host's files can be seen, each a mount of its own.
///
/// The process may make device nodes (CAP_MKNOD is in Docker's set, and a layer may hold any), but must not reach the host's
/// disks through them. So no mount that it can write to lets devices be opened, `/dev` neither; what can be opened are these
/// nodes alone, which lie where it can't write. In a user namespace, or without CAP_MKNOD, none can be made: they are mounts of
/// the host's.
pub(super) fn prepare(builder: &mut Builder<'_>, spec: &Spec) -> Result<Vec<(&'static CStr, Slot)>, Error> {
    if spec.insecure {
        return Ok(Vec::new());
    }
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let borrowed = !builder.makes_devices();
    DEVICES
        .iter()
        .map(|(name, major, minor)| {
            let host = Path::new("/dev").join(OsStr::from_bytes(name.to_bytes()));
            let mount = if borrowed { builder.host(&host, flags) } else { builder.device(*major, *minor, flags) };
            Ok((*name, mount?))
        })
        .collect()
}

/// Adds the steps that mount `/dev`.
pub(super) fn mount(
    builder: &mut Builder<'_>,
    spec: &Spec,
    devices: Vec<(&'static CStr, Slot)>,
) -> Result<Mounted, Error> {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    if !spec.insecure {
        flags |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    let dir = builder.file_system(c"tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], flags)?;
    let on = builder.target(c"/dev", TargetKind::Folder, true);
    builder.push(Step::Mount { mount: dir, on, path: c"/dev".to_owned() });
    for (name, mount) in devices {
        builder.push(Step::Point { dir, name: name.to_owned() });
        builder.push(Step::MountOwn { mount, dir, name: name.to_owned() });
    }
    if spec.insecure {
        insecure(builder, dir);
    }
    for (name, target) in LINKS {
        builder.push(Step::Link { dir, name: c_string(name)?, target: c_string(target)? });
    }
    let pts = special(builder, spec, dir)?;
    Ok(Mounted { dir, pts })
}

/// Terminals, shared memory and message queues; gives the first.
fn special(builder: &mut Builder<'_>, spec: &Spec, dir: Slot) -> Result<Slot, Error> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tty = builder.given(5).to_string();
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some(&*tty))];
    // Never those of the host, where the person's terminal is.
    let pts = builder.file_system(c"devpts", &options, quiet)?;
    let size = spec.limits.shm_size.unwrap_or(SHM).to_string();
    let quiet = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
    let shm = builder.file_system(c"tmpfs", &[("mode", Some("1777")), ("size", Some(&size))], quiet)?;
    let mqueue = builder.file_system(c"mqueue", &[], quiet)?;
    for (mount, name) in [(pts, "pts"), (shm, "shm"), (mqueue, "mqueue")] {
        let name = c_string(name)?;
        builder.push(Step::Folder { dir, name: name.clone(), mode: 0o755 });
        builder.push(Step::MountOwn { mount, dir, name });
    }
    Ok(pts)
}

fn insecure(builder: &mut Builder<'_>, dir: Slot) {
    for (name, major, minor) in DEVICES.into_iter().chain(INSECURE) {
        builder.push(Step::Device { dir, name: name.to_owned(), major, minor, block: false, mode: 0o666 });
    }
    for (minor, name) in (0..).zip(LOOPS) {
        builder.push(Step::Device { dir, name: name.to_owned(), major: 7, minor, block: true, mode: 0o666 });
    }
}
