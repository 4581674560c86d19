//! What the file system lets a layer's files say themselves, and what has to be noted beside them.

use super::error::{At as _, Result};
use super::{Inner, Store, tree};
use rustix::fs::{FileType, Gid, Mode, Uid, XattrFlags, fchmod, fchown, fsetxattr, fstat, mknodat};
use std::fs::File;
use std::path::Path;

/// How the layers that are made here are kept: what is noted in a file beside them, as files can't have it.
///
/// It goes by what this process may do and by the file system, so that it is found out by trying, once for a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form {
    /// Owners, modes, capabilities and devices are noted: without the right to give files to others.
    pub owners: bool,
    /// What is gone from lower layers is noted: on an overlayfs, or without the right to set its attributes.
    pub marks: bool,
}

impl Form {
    /// Whether an overlay can be made of such layers.
    pub fn is_native(self) -> bool {
        self == Self::default()
    }

    /// Whether owners are recorded with the files, too ([`crate::sys::recorded`]): processes see the files in overlays, but as a
    /// single user's.
    pub fn is_recorded(self) -> bool {
        self.owners && !self.marks
    }

    fn probe(folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder).at("make the folder", folder)?;
        let probed = probe(folder);
        tree::remove(folder)?;
        probed
    }
}

impl Store {
    /// The form of the layers that are made here.
    ///
    /// # Errors
    /// Where nothing can be written to the store.
    pub fn form(&self) -> Result<Form> {
        self.inner.form()
    }
}

impl Inner {
    /// The form of the layers that are made here.
    pub(super) fn form(&self) -> Result<Form> {
        if let Some(form) = self.form.get() {
            return Ok(*form);
        }
        self.check_numbers()?;
        let form = Form::probe(&self.temp_path()?)?;
        Ok(*self.form.get_or_init(|| form))
    }

    /// What the names of snapshots of that form end with: what one place can't show as another made it has a name of its own.
    pub(super) fn suffix(&self) -> Result<&'static str> {
        if let Some(suffix) = self.suffix.get() {
            return Ok(suffix);
        }
        let suffix = match self.form()? {
            form if form.is_recorded() => "-recorded",
            form if !form.is_native() => "-by-notes",
            // Overlays of a user namespace have marks of their own.
            _ if crate::sys::userns::is_initial().is_ok_and(|initial| !initial) => "-in-namespace",
            _ => "",
        };
        Ok(self.suffix.get_or_init(|| suffix))
    }
}

fn probe(folder: &Path) -> Result<Form> {
    let path = folder.join("file");
    let file = File::create(&path).at("create", &path)?;
    let dir = File::open(folder).at("open", folder)?;
    Ok(Form { owners: !keeps_owners(&file), marks: !keeps_marks(&dir) })
}

/// Version 2, CAP_NET_RAW permitted.
const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether a file can be another user's, with all bits of a mode and with capabilities.
fn keeps_owners(file: &File) -> bool {
    const MODE: u32 = 0o6755;
    let given = fchown(file, Some(Uid::from_raw(1)), Some(Gid::from_raw(1))).is_ok();
    let capable = || match fsetxattr(file, "security.capability", &CAPABILITY, XattrFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => true,
        Err(_) => false,
    };
    let moded = || fchmod(file, Mode::from_raw_mode(MODE)).is_ok();
    given && capable() && moded() && fstat(file).is_ok_and(|stat| stat.st_mode & 0o7777 == MODE)
}

/// Whether a folder can hold overlayfs's marks.
fn keeps_marks(dir: &File) -> bool {
    let opaque = |name| fsetxattr(dir, name, b"y", XattrFlags::empty()).is_ok();
    let whiteout = || mknodat(dir, "gone", FileType::CharacterDevice, Mode::empty(), 0).is_ok();
    // Overlays of a user namespace look at the second.
    let in_namespace = || crate::sys::userns::is_initial().is_ok_and(|initial| !initial);
    (opaque("trusted.overlay.opaque") || (in_namespace() && opaque("user.overlay.opaque"))) && whiteout()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_on_a_disk_needs_no_notes() {
        let dir = tempfile::tempdir().unwrap();
        let form = Form::probe(&dir.path().join("probe")).unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(form.is_native(), "{form:?}");
        } else {
            assert!(form.owners);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
