//! Overlays in a form that the kernel takes: paths relative to a common folder, since its options are short (255 bytes
//! for each by `fsconfig`, 4095 for all by `mount`).

use super::Error;
use super::program::c_string;
use crate::sys::RootMount;
use crate::sys::child::step::{Overlay, OverlayByMount};
use crate::sys::child::{Slot, Step};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How overlays are made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// By which calls.
    pub(super) calls: Calls,
    /// Whether overlayfs keeps its notes in `user.overlay.*`: outside of the first user namespace nobody may set
    /// `trusted.overlay.*`. Linux 5.11.
    pub(super) user_attributes: bool,
}

/// The calls that make overlays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// `fsconfig` with one `lowerdir+` for each layer (Linux 6.5): any number up to the kernel's own limit of 500.
    Fsconfig,
    /// `mount(2)` with all layers in one option: as many as fit into a page.
    Mount,
}

/// The step that makes a root filesystem or another tree a mount in `out`; by [`Calls::Mount`], mounted on `at`.
pub(super) fn mount(root: &RootMount, way: Way, at: &CStr, out: Slot) -> Result<Step, Error> {
    match root {
        RootMount::Dir(dir) => Ok(Step::CloneHost { path: c_string(dir)?, out }),
        // Without layers there is nothing to be laid over: the upper folder is the tree.
        RootMount::Overlay { lowers, upper, .. } if lowers.is_empty() => {
            Ok(Step::CloneHost { path: c_string(upper)?, out })
        }
        RootMount::Overlay { lowers, upper, work } => overlay(lowers, Some((upper, work)), way, at, out),
    }
}

/// The step that makes a read-only tree of layers, likewise.
pub(super) fn layers(lowers: &[PathBuf], way: Way, at: &CStr, out: Slot) -> Result<Step, Error> {
    match lowers {
        [] => Err(Error::Spec("a tree of no layers can't be mounted".into())),
        [one] => Ok(Step::CloneHost { path: c_string(one)?, out }),
        _ => overlay(lowers, None, way, at, out),
    }
}

fn overlay(
    lowers: &[PathBuf],
    upper: Option<(&PathBuf, &PathBuf)>,
    way: Way,
    at: &CStr,
    out: Slot,
) -> Result<Step, Error> {
    let all = || lowers.iter().chain(upper.iter().flat_map(|(upper, work)| [*upper, *work]));
    let base = common(all().map(PathBuf::as_path));
    let base_path = c_string(&base)?;
    let short = |path: &PathBuf| path.strip_prefix(&base).unwrap_or(path).to_owned();
    if way.calls == Calls::Mount {
        let upper = upper.map(|(upper, work)| (short(upper), short(work)));
        let options = options(lowers.iter().map(short), upper, way.user_attributes);
        return Ok(Step::OverlayByMount(OverlayByMount {
            base: base_path,
            options: text(&options)?,
            at: at.to_owned(),
            out,
        }));
    }
    let short = |path: &PathBuf| c_string(short(path));
    let lowers = lowers.iter().map(short).collect::<Result<_, _>>()?;
    let upper = upper.map(|(upper, work)| Ok::<_, Error>((short(upper)?, short(work)?))).transpose()?;
    Ok(Step::Overlay(Overlay { base: base_path, lowers, upper, user_attributes: way.user_attributes, out }))
}

/// The options of `mount(2)`, with what separates them escaped.
fn options(
    lowers: impl Iterator<Item = PathBuf>,
    upper: Option<(PathBuf, PathBuf)>,
    user_attributes: bool,
) -> OsString {
    let mut options = OsString::from("redirect_dir=nofollow,metacopy=off,index=off");
    if user_attributes {
        options.push(",userxattr");
    }
    for (number, lower) in lowers.enumerate() {
        options.push(if number == 0 { ",lowerdir=" } else { ":" });
        options.push(escaped(&lower));
    }
    if let Some((upper, work)) = upper {
        options.push(",volatile,upperdir=");
        options.push(escaped(&upper));
        options.push(",workdir=");
        options.push(escaped(&work));
    }
    options
}

fn escaped(path: &Path) -> OsString {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    OsStr::from_bytes(&out).to_owned()
}

fn text(text: &OsStr) -> Result<CString, Error> {
    c_string(Path::new(text))
}

/// The longest folder that all paths lie in, none being that folder itself.
fn common<'a>(mut paths: impl Iterator<Item = &'a Path>) -> PathBuf {
    let mut common = paths.next().and_then(Path::parent).unwrap_or(Path::new("/"));
    for path in paths {
        while !(path.starts_with(common) && path != common) {
            common = common.parent().unwrap_or(Path::new("/"));
            if common == Path::new("/") {
                break;
            }
        }
    }
    common.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Program;

    const FSCONFIG: Way = Way { calls: Calls::Fsconfig, user_attributes: false };

    fn root(lowers: &[&str]) -> RootMount {
        RootMount::Overlay {
            lowers: lowers.iter().map(PathBuf::from).collect(),
            upper: "/store/snapshots/u/fs".into(),
            work: "/store/snapshots/u/work".into(),
        }
    }

    #[test]
    fn the_common_folder_contains_all() {
        let common = |paths: &[&str]| super::common(paths.iter().map(Path::new));
        assert_eq!(common(&["/a/b/c", "/a/b/d", "/a/e"]), Path::new("/a"));
        assert_eq!(common(&["/a/b"]), Path::new("/a"));
        assert_eq!(common(&["/a/b", "/a"]), Path::new("/"));
        assert_eq!(common(&["/a", "/b"]), Path::new("/"));
    }

    #[test]
    fn paths_are_short() {
        let out = Program::default().slot();
        match mount(&root(&["/store/snapshots/2/fs", "/store/snapshots/1/fs"]), FSCONFIG, c"/at", out).unwrap() {
            Step::Overlay(o) => {
                assert_eq!(o.base.as_c_str(), c"/store/snapshots");
                assert_eq!(o.lowers, [c"2/fs".to_owned(), c"1/fs".to_owned()]);
                assert_eq!(o.upper, Some((c"u/fs".to_owned(), c"u/work".to_owned())));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn by_mount_everything_is_one_escaped_option() {
        let out = Program::default().slot();
        match mount(&root(&["/store/a:b/fs", "/store/c,d\\/fs"]), Way { calls: Calls::Mount, ..FSCONFIG }, c"/at", out)
            .unwrap()
        {
            Step::OverlayByMount(o) => assert_eq!(
                o.options.to_str().unwrap(),
                "redirect_dir=nofollow,metacopy=off,index=off,lowerdir=a\\:b/fs:c\\,d\\\\/fs,volatile,\
                 upperdir=snapshots/u/fs,workdir=snapshots/u/work"
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_layers_is_the_upper_folder_itself() {
        let out = Program::default().slot();
        match mount(&root(&[]), FSCONFIG, c"/at", out).unwrap() {
            Step::CloneHost { path, .. } => assert_eq!(path.as_c_str(), c"/store/snapshots/u/fs"),
            other => panic!("{other:?}"),
        }
    }
}
