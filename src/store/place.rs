//! Where the store is.

use super::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The store's folder: `flag` (`--root`), else `$KILN_ROOT`, else `/var/lib/kiln` for root, else `kiln` in the XDG
/// data folder (`$XDG_DATA_HOME`, which must be absolute, or `$HOME/.local/share`). Empty variables count as unset.
///
/// # Errors
/// [`Error::NoPlace`] for a user without a home.
pub fn place(flag: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>, uid: u32) -> Result<PathBuf> {
    let var = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(given) = flag.map(Path::to_path_buf).or_else(|| var("KILN_ROOT")) {
        return Ok(given);
    }
    if uid == 0 {
        return Ok("/var/lib/kiln".into());
    }
    var("XDG_DATA_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| var("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("kiln"))
        .ok_or(Error::NoPlace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_wins() {
        type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], u32, Option<&'a str>);
        let cases: &[Case<'_>] = &[
            (Some("r"), &[("KILN_ROOT", "/k"), ("HOME", "/h")], 0, Some("r")),
            (None, &[("KILN_ROOT", "/k"), ("HOME", "/h")], 0, Some("/k")),
            (None, &[("KILN_ROOT", ""), ("HOME", "/h")], 0, Some("/var/lib/kiln")),
            (None, &[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], 7, Some("/x/kiln")),
            (None, &[("XDG_DATA_HOME", "x"), ("HOME", "/h")], 7, Some("/h/.local/share/kiln")),
            (None, &[], 7, None),
        ];
        for (flag, vars, uid, want) in cases {
            let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            let got = place(flag.map(Path::new), &env, *uid).ok();
            assert_eq!(got.as_deref(), want.map(Path::new), "{flag:?} {vars:?} {uid}");
        }
    }
}
