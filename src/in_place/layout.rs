//! What the container has in `/` that cannot be switched: mount points, and kiln's own files.

use crate::layer::EntryPath;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Why an entry stays where it is when a stage is switched in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// The program, the store and what else the build itself needs. No stage can have it, and no process can reach it.
    Own,
    /// `/dev`, `/proc` and `/sys`: processes use those of the container.
    System,
    /// A directory that is a mount point. The part of a stage that belongs there is copied.
    Volume {
        /// Whether it is mounted read-only.
        read_only: bool,
    },
    /// A file that is a mount point.
    MountedFile,
}

/// The entries of `/` that stay, at any depth, by their path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    fixed: BTreeMap<EntryPath, Fixed>,
}

/// A mount of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    read_only: bool,
}

/// The directories that every container has, and that processes use as they are.
const SYSTEM: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The files that a container runtime mounts into every container. Processes get kiln's content in them, or the stage's.
const RUNTIME_FILES: [&[u8]; 3] = [b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"];

impl Layout {
    /// Reads a `/proc/self/mountinfo`. `own` are paths that the build needs, as files and directories of kiln's own; one that is
    /// inside a volume makes the whole volume kiln's.
    pub fn new(mountinfo: &str, own: &[PathBuf], is_dir: impl Fn(&Path) -> bool) -> Self {
        let mounts = mounts(mountinfo);
        let mut layout = Self::default();
        for mount in &mounts {
            let fixed = match is_dir(&mount.path) {
                true => Fixed::Volume { read_only: mount.read_only },
                false => Fixed::MountedFile,
            };
            layout.add(&mount.path, fixed);
        }
        for path in SYSTEM {
            layout.add(Path::new(path), Fixed::System);
        }
        for path in own {
            let volume = path.ancestors().filter(|at| mounts.iter().any(|mount| mount.path == **at)).last();
            layout.add(volume.unwrap_or(path), Fixed::Own);
        }
        layout
    }

    fn add(&mut self, path: &Path, fixed: Fixed) {
        let bytes = path.as_os_str().as_bytes();
        if let Ok(path) = EntryPath::parse(bytes.strip_prefix(b"/").unwrap_or(bytes))
            && !path.is_root()
        {
            self.fixed.insert(path, fixed);
        }
    }

    /// The entries that stay.
    pub fn paths(&self) -> impl Iterator<Item = &EntryPath> {
        self.fixed.keys()
    }

    /// Why an entry stays, if it does.
    pub fn at(&self, path: &EntryPath) -> Option<Fixed> {
        self.fixed.get(path).copied()
    }

    /// Whether something below a directory is kiln's own, so that the directory cannot be renamed.
    pub fn holds_own(&self, dir: &EntryPath) -> bool {
        self.fixed.iter().any(|(path, fixed)| *fixed == Fixed::Own && path != dir && path.starts_with(dir))
    }

    /// The entries that stay in a directory, and why.
    pub fn names_in<'a>(&'a self, dir: &'a EntryPath) -> impl Iterator<Item = (&'a [u8], Fixed)> {
        self.fixed.iter().filter_map(move |(path, fixed)| {
            let name = path.file_name().filter(|_| path.parent().as_ref() == Some(dir))?;
            Some((name, *fixed))
        })
    }

    /// Whether the container runtime mounts this file into every container, so that it is nothing of the user's.
    pub fn is_runtime_file(path: &EntryPath) -> bool {
        RUNTIME_FILES.contains(&path.as_bytes())
    }
}

/// The path of the mount that holds an absolute path.
pub fn mount_of(mountinfo: &str, path: &Path) -> PathBuf {
    let paths = mounts(mountinfo).into_iter().map(|mount| mount.path).filter(|at| path.starts_with(at));
    paths.max_by_key(|at| at.components().count()).unwrap_or_else(|| PathBuf::from("/"))
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).filter(|mount| mount.path != Path::new("/")).collect()
}

/// A line: ID, parent, device, root, mount point, options and more (proc(5)).
fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ').skip(4);
    let path = unescaped(fields.next()?);
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    Some(Mount { path: PathBuf::from(OsStr::from_bytes(&path)), read_only })
}

/// A path as the kernel writes it there: space, tab, newline and backslash are `\` and three octal digits.
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

    const INFO: &str = "73 48 0:40 / / rw - overlay overlay rw\n74 73 0:43 / /proc rw - proc proc rw\n\
        79 73 254:0 /x /etc/resolv.conf rw - ext4 /dev/vda rw\n80 73 0:1 / /my\\040work ro,relatime - ext4 /dev/vda rw\n\
        81 73 0:2 / /var/lib/kiln rw - ext4 /dev/vda rw\n82 73 0:2 / /cache rw - ext4 /dev/vda rw\n";

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes()).unwrap()
    }

    fn layout() -> Layout {
        let own = ["/kiln", "/var/lib/kiln", "/cache/store"].map(PathBuf::from);
        Layout::new(INFO, &own, |path| path != Path::new("/etc/resolv.conf"))
    }

    #[test]
    fn mounts_and_own_files_stay() {
        let layout = layout();
        for (at, expected) in [
            ("proc", Some(Fixed::System)),
            ("dev", Some(Fixed::System)),
            ("etc", None),
            ("etc/resolv.conf", Some(Fixed::MountedFile)),
            ("my work", Some(Fixed::Volume { read_only: true })),
            ("kiln", Some(Fixed::Own)),
            ("var/lib/kiln", Some(Fixed::Own)),
            ("cache", Some(Fixed::Own)),
            ("cache/store", None),
        ] {
            assert_eq!(layout.at(&path(at)), expected, "{at}");
        }
        assert!(layout.holds_own(&path("var")) && layout.holds_own(&path("var/lib")));
        assert!(!layout.holds_own(&path("var/lib/kiln")) && !layout.holds_own(&path("etc")));
        let etc = path("etc");
        let names: Vec<_> = layout.names_in(&etc).collect();
        assert_eq!(names, [(&b"resolv.conf"[..], Fixed::MountedFile)]);
    }

    #[test]
    fn the_mount_of_a_path() {
        for (path, expected) in
            [("/kiln/store", "/"), ("/cache/x/y", "/cache"), ("/var/lib/kiln", "/var/lib/kiln"), ("/var/lib", "/")]
        {
            assert_eq!(mount_of(INFO, Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
