//! The Dockerfile and its ignore file, read.

use super::error::{At as _, Error, Result};
use crate::dockerfile::ignore::{Matcher, Verdict as Matched, patterns};
use crate::layer::EntryPath;
use crate::report::SourceText;
use crate::snapshot::{Ignore, Verdict};
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// The largest Dockerfile and ignore file that are read, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// A Dockerfile and where it was.
#[derive(Debug, Clone)]
pub struct DockerfileText {
    /// Its text, named as the user named it.
    pub text: SourceText,
    /// Its path; `None` if it came from standard input.
    pub path: Option<PathBuf>,
}

/// Reads the Dockerfile: `given` (`-f`; `-` is standard input), else `Dockerfile` in the context, or `dockerfile` where
/// only that is there, as buildx does.
///
/// # Errors
/// [`Error::NoDockerfile`], or [`Error::Dockerfile`] for what isn't text or too large.
pub fn read_dockerfile(context: &Path, given: Option<&Path>, stdin: &mut dyn Read) -> Result<DockerfileText> {
    if given.is_some_and(|g| g.as_os_str() == "-") {
        let text = read_text(stdin, Path::new("-"))?;
        return Ok(DockerfileText { text: SourceText::new("-", text), path: None });
    }
    let path = given.map_or_else(|| context.join("Dockerfile"), Path::to_path_buf);
    let (path, mut file) = open_dockerfile(path)?;
    if file.metadata().at("read", &path)?.is_dir() {
        return Err(Error::Dockerfile { path, why: "is a folder: -f names a file".into() });
    }
    let text = read_text(&mut file, &path)?;
    // In the context it goes by its name alone, as people know it.
    let name = if given.is_some() { path.as_path() } else { path.strip_prefix(context).unwrap_or(&path) };
    Ok(DockerfileText { text: SourceText::new(name.to_string_lossy(), text), path: Some(path) })
}

fn open_dockerfile(path: PathBuf) -> Result<(PathBuf, File)> {
    match File::open(&path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let lower = path.with_file_name("dockerfile");
            match File::open(&lower) {
                Ok(file) if path.file_name().is_some_and(|n| n == "Dockerfile") => Ok((lower, file)),
                _ => Err(Error::NoDockerfile(path)),
            }
        }
        other => other.at("open", &path).map(|file| (path.clone(), file)),
    }
}

fn read_text(from: &mut dyn Read, path: &Path) -> Result<String> {
    let bad = |why: String| Error::Dockerfile { path: path.into(), why };
    let mut bytes = Vec::new();
    from.take(MAX_TEXT + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(bad(format!("has more than {} MiB", MAX_TEXT >> 20)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(e) => match foreign_line(e.as_bytes()) {
            Some(line) => Err(bad(format!("is not UTF-8 text: see line {line}"))),
            None => Ok(String::from_utf8_lossy(e.as_bytes()).into_owned()),
        },
    }
}

/// The first line, counted from 1, that isn't UTF-8 and no comment: other encodings are common in those, and harmless.
fn foreign_line(bytes: &[u8]) -> Option<usize> {
    let is_foreign = |line: &[u8]| !line.trim_ascii_start().starts_with(b"#") && std::str::from_utf8(line).is_err();
    bytes.split(|b| *b == b'\n').position(is_foreign).map(|at| at + 1)
}

/// The ignore rules of a context: of `<Dockerfile>.dockerignore` beside the Dockerfile, else of `.dockerignore` in
/// the context; `None` where there is neither, or they leave nothing out.
///
/// # Errors
/// [`Error::Ignore`] for a pattern that means nothing.
pub fn ignore_rules(context: &Path, dockerfile: Option<&Path>) -> Result<Option<Box<Ignore>>> {
    Ok(ignore_patterns(context, dockerfile)?.filter(|matcher| !matcher.is_empty()).map(rules))
}

/// The patterns of a context's ignore file; `None` where there is none. See [`ignore_rules`].
///
/// # Errors
/// [`Error::Ignore`] for a pattern that means nothing.
pub fn ignore_patterns(context: &Path, dockerfile: Option<&Path>) -> Result<Option<Matcher>> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([context.join(".dockerignore")]) {
        let mut file = match File::open(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            other => other.at("open", &path)?,
        };
        let mut bytes = Vec::new();
        file.by_ref().take(MAX_TEXT).read_to_end(&mut bytes).at("read", &path)?;
        let bad = |why: String| Error::Ignore { path: path.clone(), why };
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 text".into()))?;
        let matcher = Matcher::new(patterns(&text)).map_err(|e| bad(e.to_string()))?;
        return Ok(Some(matcher));
    }
    Ok(None)
}

/// Patterns as a tree's ignore rules. A folder's verdict is kept for what is in it, which is asked for many times.
fn rules(matcher: Matcher) -> Box<Ignore> {
    let folders = RwLock::new(HashMap::new());
    Box::new(move |path, is_dir| {
        let matched = enter(&matcher, &folders, path);
        let name = String::from_utf8_lossy(path.as_bytes());
        match (matched.excluded, is_dir) {
            (false, _) => Verdict::Keep,
            (true, true) if !matcher.can_prune_dir(&name) => Verdict::DropUnlessNeeded,
            (true, _) => Verdict::Drop,
        }
    })
}

/// A path's verdict by that of the folder it is in.
fn enter(matcher: &Matcher, folders: &RwLock<HashMap<EntryPath, Matched>>, path: &EntryPath) -> Matched {
    let name = String::from_utf8_lossy(path.as_bytes());
    let Some(parent) = path.parent().filter(|p| !p.is_root()) else { return matcher.enter(&name, None) };
    if let Some(known) = folders.read().unwrap_or_else(PoisonError::into_inner).get(&parent) {
        return matcher.enter(&name, Some(known));
    }
    // As deep as the path at most, and paths are short: EntryPath sees to that.
    let verdict = enter(matcher, folders, &parent);
    let matched = matcher.enter(&name, Some(&verdict));
    folders.write().unwrap_or_else(PoisonError::into_inner).insert(parent, verdict);
    matched
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Kind, Problem};
    use std::fs;

    fn read(context: &Path, given: Option<&str>) -> Result<DockerfileText> {
        read_dockerfile(context, given.map(Path::new), &mut "FROM stdin".as_bytes())
    }

    #[test]
    fn the_dockerfile_is_found_where_docker_finds_it() {
        let temp = tempfile::tempdir().unwrap();
        let context = temp.path();
        assert!(matches!(read(context, None), Err(Error::NoDockerfile(_))));
        fs::write(context.join("dockerfile"), "FROM lower").unwrap();
        assert_eq!(read(context, None).unwrap().text.text, "FROM lower");
        fs::write(context.join("Dockerfile"), "FROM upper").unwrap();
        let found = read(context, None).unwrap();
        assert_eq!((found.text.text.as_str(), found.text.name.as_str()), ("FROM upper", "Dockerfile"));
        assert_eq!(read(context, Some("-")).unwrap().text.text, "FROM stdin");
        let other = context.join("other");
        fs::write(&other, "").unwrap();
        let found = read(context, other.to_str()).unwrap();
        assert_eq!((found.text.text.as_str(), found.path), ("", Some(other)));
    }

    #[test]
    fn what_can_t_be_read_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let told = Problem::from(read(temp.path(), None).unwrap_err());
        assert_eq!(told.kind, Kind::Usage);
        assert!(told.message.contains("no such file") && told.hints[0].contains("-f"), "{told:?}");
        for given in ["", "missing/Dockerfile"] {
            let path = temp.path().join(given);
            assert_eq!(Problem::from(read(temp.path(), path.to_str()).unwrap_err()).kind, Kind::Usage, "{given}");
        }
    }

    #[test]
    fn other_encodings_are_taken_in_comments_only() {
        let read = |bytes: &[u8]| read_text(&mut &bytes[..], Path::new("D"));
        assert_eq!(read(b"# caf\xe9\nFROM a").unwrap(), "# caf\u{fffd}\nFROM a");
        let said = read(b"# caf\xe9\nFROM a\nRUN \xe9\n").unwrap_err().to_string();
        assert!(said.contains("line 3"), "{said}");
        let endless = read_text(&mut std::io::repeat(b'x'), Path::new("D")).unwrap_err().to_string();
        assert!(endless.contains("64 MiB"), "{endless}");
    }

    fn verdicts(context: &Path, dockerfile: Option<&str>, paths: &[(&str, bool)]) -> Vec<Verdict> {
        let rules = ignore_rules(context, dockerfile.map(|d| context.join(d)).as_deref()).unwrap().unwrap();
        paths.iter().map(|(path, is_dir)| rules(&EntryPath::parse(path.as_bytes()).unwrap(), *is_dir)).collect()
    }

    #[test]
    fn the_dockerfile_s_own_ignore_file_comes_first() {
        let temp = tempfile::tempdir().unwrap();
        assert!(ignore_rules(temp.path(), None).unwrap().is_none());
        fs::write(temp.path().join(".dockerignore"), "a\n").unwrap();
        fs::write(temp.path().join("D.dockerignore"), "b\n").unwrap();
        let paths = [("a", false), ("b", false)];
        assert_eq!(verdicts(temp.path(), None, &paths), [Verdict::Drop, Verdict::Keep]);
        assert_eq!(verdicts(temp.path(), Some("D"), &paths), [Verdict::Keep, Verdict::Drop]);
        assert_eq!(verdicts(temp.path(), Some("E"), &paths), [Verdict::Drop, Verdict::Keep]);
        fs::write(temp.path().join(".dockerignore"), "# nothing\n").unwrap();
        assert!(ignore_rules(temp.path(), None).unwrap().is_none());
        fs::write(temp.path().join(".dockerignore"), "[a\n").unwrap();
        assert!(matches!(ignore_rules(temp.path(), None), Err(Error::Ignore { .. })));
    }

    #[test]
    fn folders_are_entered_only_for_exceptions() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(".dockerignore"), "a\n!a/b/keep\nc\n").unwrap();
        let paths = [
            ("a", true),
            ("a/b", true),
            ("a/b/keep", false),
            ("a/b/x", false),
            ("a/x", false),
            ("c", true),
            ("c/d", true),
            ("e", true),
        ];
        use Verdict::{Drop, DropUnlessNeeded, Keep};
        let want = [DropUnlessNeeded, DropUnlessNeeded, Keep, Drop, Drop, Drop, Drop, Keep];
        assert_eq!(verdicts(temp.path(), None, &paths), want);
    }
}
