//! The steps that mount.

use super::interpret::State;
use super::step::{FileSystem, Overlay, OverlayByMount, Slot, Step};
use super::{Done, Named, fail};
use rustix::cstr;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Does a step that mounts, or writes into what is mounted.
pub(super) fn one(step: &Step, state: &mut State) -> Done {
    match step {
        Step::PrivateMounts => {
            let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change(cstr!("/"), flags).fault("mount")
        }
        Step::Overlay(o) => overlay(o).and_then(|fd| state.put(o.out, fd)),
        Step::OverlayByMount(o) => overlay_by_mount(o).and_then(|fd| state.put(o.out, fd)),
        Step::CloneHost { path, out } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let fd = rustix::mount::open_tree(CWD, path.as_c_str(), flags).fault("open_tree")?;
            state.put(*out, fd)
        }
        Step::CloneHostTree { path, out } => host_tree(path).and_then(|fd| state.put(*out, fd)),
        Step::CloneInside { root, path, out } => {
            let fd = clone(beneath_or_in(state.get(*root)?, path)?)?;
            state.put(*out, fd)
        }
        Step::CloneOwn { dir, name, out } => {
            let fd = clone_at(state.get(*dir)?, name)?;
            state.put(*out, fd)
        }
        Step::FileSystem(fs) => file_system(fs).and_then(|fd| state.put(fs.out, fd)),
        Step::SetFlags { mount, flags } => set_flags(state.get(*mount)?, *flags),
        Step::MountOnHost { mount, path } => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(state.get(*mount)?, cstr!(""), CWD, path.as_c_str(), flags).fault("move_mount")
        }
        Step::EnterRoot(slot) => enter_root(state.get(*slot)?),
        Step::CoverRoot(slot) => cover_root(state.get(*slot)?),
        Step::LookFrom(slot) => rustix::process::fchdir(state.get(*slot)?).fault("fchdir"),
        Step::Mount { mount, on, .. } => put_on(state.get(*mount)?, state.get(*on)?),
        Step::MountOwn { mount, dir, name } => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            let (mount, dir) = (state.get(*mount)?, state.get(*dir)?);
            rustix::mount::move_mount(mount, cstr!(""), dir, name.as_c_str(), flags).fault("move_mount")
        }
        Step::CopyMode { from, to } => copy_mode(state, *from, *to),
        Step::Mask { root, path, null, empty } => mask(state, *root, path, *null, *empty),
        Step::Protect { root, path } => protect(state, *root, path),
        _ => files(step, state),
    }
}

fn files(step: &Step, state: &State) -> Done {
    match step {
        Step::Device { dir, name, major, minor, block, mode } => {
            let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
            let device = rustix::fs::makedev(*major, *minor);
            rustix::fs::mknodat(state.get(*dir)?, name.as_c_str(), kind, Mode::from_raw_mode(*mode), device)
                .fault("mknodat")
        }
        Step::Link { dir, name, target } => {
            rustix::fs::symlinkat(target.as_c_str(), state.get(*dir)?, name.as_c_str()).fault("symlinkat")
        }
        Step::Folder { dir, name, mode } => {
            rustix::fs::mkdirat(state.get(*dir)?, name.as_c_str(), Mode::from_raw_mode(*mode)).fault("mkdirat")
        }
        Step::Point { dir, name } => {
            rustix::fs::mknodat(state.get(*dir)?, name.as_c_str(), FileType::RegularFile, Mode::empty(), 0)
                .fault("mknodat")
        }
        Step::File { dir, name, content, mode, uid, gid } => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mode = Mode::from_raw_mode(*mode);
            let fd = rustix::fs::openat(state.get(*dir)?, name.as_c_str(), flags, Mode::RUSR).fault("openat")?;
            let mut rest = content.as_slice();
            while !rest.is_empty() {
                let written = rustix::io::write(&fd, rest).fault("write")?;
                rest = rest.get(written..).unwrap_or_default();
            }
            // The mode last: giving a file away drops its setuid bits.
            rustix::fs::fchown(&fd, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid))).fault("fchown")?;
            rustix::fs::fchmod(&fd, mode).fault("fchmod")
        }
        _ => fail("interpret", Errno::NOSYS),
    }
}

/// Options that keep the upper folder readable without the mount: no redirects, no metadata-only copies, no index. With
/// `volatile`, `fsync` in the sandbox costs nothing: what a build leaves is synced once, at its end.
const OVERLAY_OPTIONS: [(&CStr, &CStr); 3] =
    [(c"redirect_dir", c"nofollow"), (c"metacopy", c"off"), (c"index", c"off")];

fn overlay(o: &Overlay) -> Done<OwnedFd> {
    rustix::process::chdir(o.base.as_c_str()).fault("chdir")?;
    let fs = rustix::mount::fsopen(cstr!("overlay"), FsOpenFlags::FSOPEN_CLOEXEC).fault("fsopen")?;
    for lower in &o.lowers {
        rustix::mount::fsconfig_set_string(fs.as_fd(), cstr!("lowerdir+"), lower.as_c_str()).fault("fsconfig")?;
    }
    if let Some((upper, work)) = &o.upper {
        rustix::mount::fsconfig_set_string(fs.as_fd(), cstr!("upperdir"), upper.as_c_str()).fault("fsconfig")?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), cstr!("workdir"), work.as_c_str()).fault("fsconfig")?;
        rustix::mount::fsconfig_set_flag(fs.as_fd(), cstr!("volatile")).fault("fsconfig")?;
    }
    if o.user_attributes {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), cstr!("userxattr")).fault("fsconfig")?;
    }
    for (name, value) in OVERLAY_OPTIONS {
        rustix::mount::fsconfig_set_string(fs.as_fd(), name, value).fault("fsconfig")?;
    }
    rustix::mount::fsconfig_create(fs.as_fd()).fault("mount(overlay)")?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(fs.as_fd(), flags, MountAttrFlags::empty()).fault("fsmount")
}

fn overlay_by_mount(o: &OverlayByMount) -> Done<OwnedFd> {
    rustix::process::chdir(o.base.as_c_str()).fault("chdir")?;
    let (at, options) = (o.at.as_c_str(), o.options.as_c_str());
    rustix::mount::mount(cstr!("overlay"), at, cstr!("overlay"), MountFlags::empty(), options).fault("mount")?;
    // Opened after mounting: this is the root of what is mounted there.
    rustix::fs::openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).fault("open")
}

fn host_tree(path: &CStr) -> Done<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags).fault("open_tree")
}

fn file_system(fs: &FileSystem) -> Done<OwnedFd> {
    match (new_file_system(fs), &fs.otherwise) {
        (Err(fault), Some(path)) if matches!(fault.errno, Errno::PERM | Errno::ACCESS | Errno::NODEV) => {
            let mount = host_tree(path)?;
            // What is there is others', too: the host's processes in /proc have files that any process of their user may write to.
            set_flags(&mount, fs.flags | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
            Ok(mount)
        }
        (made, _) => made,
    }
}

fn new_file_system(fs: &FileSystem) -> Done<OwnedFd> {
    let fd = rustix::mount::fsopen(fs.kind, FsOpenFlags::FSOPEN_CLOEXEC).fault("fsopen")?;
    for (name, value) in &fs.options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(fd.as_fd(), name.as_c_str(), value.as_c_str()),
            None => rustix::mount::fsconfig_set_flag(fd.as_fd(), name.as_c_str()),
        }
        .fault("fsconfig")?;
    }
    rustix::mount::fsconfig_create(fd.as_fd()).fault("mount")?;
    rustix::mount::fsmount(fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, fs.flags).fault("fsmount")
}

/// A mount of what a descriptor names.
fn clone(fd: impl AsFd) -> Done<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, cstr!(""), flags).fault("open_tree")
}

/// A mount of a name in a folder that only the maker has written to.
fn clone_at(dir: impl AsFd, name: &CStr) -> Done<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(dir, name, flags).fault("open_tree")
}

/// Mounts by descriptors alone: no path is looked up, so nobody can redirect it.
fn put_on(mount: impl AsFd, on: impl AsFd) -> Done {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, cstr!(""), on, cstr!(""), flags).fault("move_mount")
}

/// `mount_setattr(2)`, which rustix doesn't have.
fn set_flags(mount: impl AsFd, flags: MountAttrFlags) -> Done {
    set(mount, flags, libc::AT_RECURSIVE)
}

/// [`set_flags`] of a mount alone, without those below it.
pub(super) fn set_own_flags(mount: impl AsFd, flags: MountAttrFlags) -> Done {
    set(mount, flags, 0)
}

fn set(mount: impl AsFd, flags: MountAttrFlags, how: libc::c_int) -> Done {
    let attributes = libc::mount_attr { attr_set: flags.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the structure lives across the call and has the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | how,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { fail("mount_setattr", super::identity::last_errno()) }
}

/// `pivot_root(".", ".")` puts the old root on top of the new one, from where it is unmounted, with all that hangs on it.
fn enter_root(root: impl AsFd) -> Done {
    rustix::process::fchdir(root).fault("fchdir")?;
    rustix::process::pivot_root(cstr!("."), cstr!(".")).fault("pivot_root")?;
    rustix::mount::unmount(cstr!("."), UnmountFlags::DETACH).fault("umount2")?;
    rustix::process::chdir(cstr!("/")).fault("chdir")
}

/// As `switch_root` does it where the old root can't be put anywhere. The old one stays mounted below, where no path leads.
fn cover_root(root: impl AsFd) -> Done {
    rustix::process::fchdir(&root).fault("fchdir")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root, cstr!(""), CWD, cstr!("/"), flags).fault("move_mount")?;
    rustix::process::chroot(cstr!(".")).fault("chroot")?;
    rustix::process::chdir(cstr!("/")).fault("chdir")
}

/// Opens a path inside a mount; links stay inside it, magic ones are refused.
pub(super) fn beneath_or_in(root: impl AsFd, path: &CStr) -> Done<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { c"." } else { path };
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).fault("openat2")
}

/// Opens a path of a kernel's file system, which has nothing to hide behind links.
fn plain(root: impl AsFd, path: &CStr) -> Done<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => fail("openat2", errno),
    }
}

fn is_folder(fd: impl AsFd) -> Done<bool> {
    let stat = rustix::fs::fstat(fd).fault("fstat")?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn mask(state: &mut State, root: Slot, path: &CStr, null: Slot, empty: Slot) -> Done {
    let Some(target) = plain(state.get(root)?, path)? else { return Ok(()) };
    if !is_folder(&target)? {
        return put_on(clone_at(state.get(null)?, cstr!("null"))?, target);
    }
    // The first folder gets the tmpfs itself, the others copies: a mount must be mounted to be copied.
    if state.masked_folder {
        return put_on(clone(state.get(empty)?)?, target);
    }
    state.masked_folder = true;
    put_on(state.get(empty)?, &target)
}

fn protect(state: &State, root: Slot, path: &CStr) -> Done {
    let Some(target) = plain(state.get(root)?, path)? else { return Ok(()) };
    let mount = clone(&target)?;
    set_flags(&mount, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    put_on(mount, target)
}

fn copy_mode(state: &State, from: Slot, to: Slot) -> Done {
    let fd = state.get(from)?;
    if state.stubs.iter().any(|stub| stub.is(fd)) {
        return Ok(());
    }
    let mode = rustix::fs::fstat(fd).fault("fstat")?.st_mode;
    let flags = AtFlags::empty();
    rustix::fs::chmodat(state.get(to)?, cstr!("."), Mode::from_raw_mode(mode), flags).fault("fchmodat")
}
