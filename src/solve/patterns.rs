//! Ignore patterns in the form that trees take.

use super::file::Error;
use crate::dockerfile::ignore::Matcher;
use crate::layer::EntryPath;
use crate::snapshot::{Ignore, Verdict};

/// What patterns (of .dockerignore, `--exclude`, `--parents`) say about paths.
pub fn ignore(patterns: &[String]) -> Result<Box<Ignore>, Error> {
    let matcher = Matcher::new(patterns).map_err(|e| Error::Pattern(e.to_string()))?;
    Ok(Box::new(move |path: &EntryPath, is_dir| verdict(&matcher, path, is_dir)))
}

fn verdict(matcher: &Matcher, path: &EntryPath, is_dir: bool) -> Verdict {
    let path = String::from_utf8_lossy(path.as_bytes());
    if !matcher.matches(&path) {
        Verdict::Keep
    } else if is_dir && !matcher.can_prune_dir(&path) {
        Verdict::DropUnlessNeeded
    } else {
        Verdict::Drop
    }
}
