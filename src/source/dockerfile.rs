//! The Dockerfile and its ignore file, read.

use super::error::{At as _, Error, Result};
use crate::dockerfile::ignore::{Matcher, Verdict as Matched, patterns};
use crate::layer::EntryPath;
use crate::report::SourceText;
use crate::snapshot::{Ignore, Verdict};
use crate::sys::file::{open_dir, open_in_root, path_of};
use crate::sys::input;
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// The largest Dockerfile that is read, in bytes: BuildKit's limit.
const MAX_TEXT: u64 = 16 << 20;
/// The largest ignore file.
const MAX_IGNORE: u64 = 1 << 20;
/// How many matches of patterns are remembered for the directories of a context.
const MAX_REMEMBERED: usize = 1 << 20;

/// A Dockerfile and where it was.
#[derive(Debug, Clone)]
pub struct DockerfileText {
    /// Its text, named as the user named it.
    pub text: SourceText,
    /// Its path; `None` if it came from standard input.
    pub path: Option<PathBuf>,
    /// The path of the file itself, to which `path` may be a link; `None` if it can only be read once.
    pub real: Option<PathBuf>,
}

/// Reads the Dockerfile: `given` (`-f`; `-` is standard input), else `Dockerfile` in the context, or `dockerfile` where
/// only that is there, as buildx does.
///
/// A context may be somebody else's work, so links in it lead to its own files only.
///
/// # Errors
/// [`Error::NoDockerfile`], [`Error::Outside`], or [`Error::Dockerfile`] for what isn't text or too large.
pub fn read_dockerfile(context: &Path, given: Option<&Path>, stdin: &mut dyn Read) -> Result<DockerfileText> {
    if given.is_some_and(|g| g.as_os_str() == "-") {
        let text = read_text(stdin, Path::new("-"))?;
        return Ok(DockerfileText { text: SourceText::new("-", text), path: None, real: None });
    }
    let path = given.map_or_else(|| context.join("Dockerfile"), Path::to_path_buf);
    let (path, mut file) = open_dockerfile(context, path)?;
    let text = read_text(&mut file, &path)?;
    let real = if input::is_own_descriptor(&path) { None } else { Some(path_of(&file)?) };
    // In the context it goes by its name alone, as people know it.
    let name = if given.is_some() { path.as_path() } else { path.strip_prefix(context).unwrap_or(&path) };
    Ok(DockerfileText { text: SourceText::new(name.to_string_lossy(), text), path: Some(path), real })
}

fn open_dockerfile(context: &Path, path: PathBuf) -> Result<(PathBuf, File)> {
    if input::is_own_descriptor(&path) {
        return input::open_given(&path).at("open", &path).map(|file| (path, file));
    }
    if let Some(file) = open(context, &path)? {
        return Ok((path, file));
    }
    let lower = path.with_file_name("dockerfile");
    if path.file_name().is_some_and(|n| n == "Dockerfile")
        && let Some(file) = open(context, &lower)?
    {
        return Ok((lower, file));
    }
    Err(Error::NoDockerfile(path))
}

/// Opens a file that a build reads beside the files that its steps copy; `None` where there is none. One that is in the
/// context is confined to it; any other one is the user's own.
fn open(context: &Path, path: &Path) -> Result<Option<File>> {
    let Some((root, name)) = in_context(context, path) else {
        return found(input::open_regular(path)).at("open", path);
    };
    let Some(root_fd) = found(open_dir(&root).map_err(Into::into)).at("open", &root)? else { return Ok(None) };
    match found(open_confined(&root_fd, &name)).at("open", path)? {
        Some(file) => Ok(Some(file)),
        None => match input::broken_link(&root_fd, &name) {
            Some(link) => Err(Error::Outside { path: root.join(link) }),
            None => Ok(None),
        },
    }
}

/// As BuildKit has it, the directory of the file is the root directory of absolute links and `..` in links. Links from there
/// to elsewhere in the context are taken, too.
fn open_confined(context: &OwnedFd, path: &Path) -> std::io::Result<File> {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(beside) = open_in_root(context, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        && let Ok(file) = input::open_inside(beside, Path::new(name))
    {
        return Ok(file);
    }
    input::open_inside(context, path)
}

/// A file that isn't there is none.
fn found<T>(opened: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match opened {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

/// The context that a path leads into, by its text or by the directory that it leads to, and the path below that.
fn in_context(context: &Path, path: &Path) -> Option<(PathBuf, PathBuf)> {
    if let Some(name) = path.strip_prefix(context).ok().filter(|name| stays_below(name)) {
        return Some((context.to_owned(), name.to_owned()));
    }
    let (parent, context) = (std::fs::canonicalize(path.parent()?).ok()?, std::fs::canonicalize(context).ok()?);
    let name = parent.strip_prefix(&context).ok()?.join(path.file_name()?);
    Some((context, name))
}

/// Whether no `..` of a relative path leads above where it starts.
fn stays_below(path: &Path) -> bool {
    let deeper = |depth: usize, part: Component<'_>| match part {
        Component::ParentDir => depth.checked_sub(1),
        Component::Normal(_) => Some(depth + 1),
        _ => Some(depth),
    };
    path.components().try_fold(0, deeper).is_some()
}

/// All of a file, if it isn't too large.
fn read_limited(from: &mut dyn Read, limit: u64, path: &Path) -> Result<Option<Vec<u8>>> {
    match input::read_all(from, limit) {
        Err(e) if e.kind() == ErrorKind::FileTooLarge => Ok(None),
        other => other.at("read", path).map(Some),
    }
}

fn too_large(limit: u64) -> String {
    format!("is larger than {} MiB", limit >> 20)
}

fn read_text(from: &mut dyn Read, path: &Path) -> Result<String> {
    let bad = |why: String| Error::Dockerfile { path: path.into(), why };
    let bytes = read_limited(from, MAX_TEXT, path)?.ok_or_else(|| bad(too_large(MAX_TEXT)))?;
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
/// [`Error::Ignore`] for a pattern that means nothing, [`Error::Outside`] for a link that leads out of the context.
pub fn ignore_patterns(context: &Path, dockerfile: Option<&Path>) -> Result<Option<Matcher>> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([context.join(".dockerignore")]) {
        let Some(mut file) = open(context, &path)? else { continue };
        let bad = |why: String| Error::Ignore { path: path.clone(), why };
        let bytes = read_limited(&mut file, MAX_IGNORE, &path)?;
        let bytes = bytes.ok_or_else(|| bad(format!("it {}", too_large(MAX_IGNORE))))?;
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 text".into()))?;
        let matcher = Matcher::new(patterns(&text)).map_err(|e| bad(e.to_string()))?;
        return Ok(Some(matcher));
    }
    Ok(None)
}

/// Patterns as a tree's ignore rules. A folder's verdict is kept for what is in it, which is asked for many times.
fn rules(matcher: Matcher) -> Box<Ignore> {
    let folders = RwLock::new(Folders::default());
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

/// The verdicts of folders, and how many matches they remember together.
#[derive(Default)]
struct Folders {
    verdicts: HashMap<EntryPath, Matched>,
    weight: usize,
}

impl Folders {
    fn insert(&mut self, path: EntryPath, verdict: Matched) {
        if self.weight > MAX_REMEMBERED {
            *self = Self::default();
        }
        self.weight += verdict.weight();
        self.verdicts.insert(path, verdict);
    }
}

/// A path's verdict by that of the folder it is in.
fn enter(matcher: &Matcher, folders: &RwLock<Folders>, path: &EntryPath) -> Matched {
    let name = String::from_utf8_lossy(path.as_bytes());
    let Some(parent) = path.parent().filter(|p| !p.is_root()) else { return matcher.enter(&name, None) };
    if let Some(known) = folders.read().unwrap_or_else(PoisonError::into_inner).verdicts.get(&parent) {
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
    fn links_in_a_context_lead_to_its_own_files_only() {
        use std::os::unix::fs::symlink;
        let temp = tempfile::tempdir().unwrap();
        let context = temp.path().join("context");
        fs::create_dir_all(context.join("sub")).unwrap();
        fs::write(temp.path().join("secret"), "TOKEN=hush").unwrap();
        fs::write(context.join("real"), "FROM inside").unwrap();
        let secret = temp.path().join("secret");
        for (link, target) in [
            ("near", Path::new("real")),
            ("absolute", Path::new("/real")),
            ("sub/up", Path::new("../real")),
            ("out", Path::new("../secret")),
            ("host", &secret),
            ("sub/proc", Path::new("/proc/self/environ")),
            ("nothing", Path::new("nowhere")),
            ("elsewhere", temp.path()),
        ] {
            symlink(target, context.join(link)).unwrap();
        }
        for name in ["near", "absolute", "sub/up", "sub/../near"] {
            let found = read(&context, context.join(name).to_str()).unwrap();
            assert_eq!((found.text.text.as_str(), found.real), ("FROM inside", Some(context.join("real"))), "{name}");
        }
        // Also where the path leads into the context by another name.
        symlink(&context, temp.path().join("other")).unwrap();
        let others = temp.path().join("other");
        for (context, name) in [
            (&context, context.join("out")),
            (&context, context.join("host")),
            (&context, context.join("sub/proc")),
            (&context, context.join("nothing")),
            (&context, context.join("elsewhere/secret")),
            (&context, others.join("sub/proc")),
            (&others, context.join("sub/proc")),
        ] {
            let told = Problem::from(read(context, name.to_str()).unwrap_err());
            assert!(
                told.kind == Kind::Usage && told.message.contains("leads out of the context"),
                "{name:?}: {told:?}"
            );
        }
        // One that the user names outside of the context is the user's own.
        let user = temp.path().join("user");
        symlink("secret", &user).unwrap();
        assert_eq!(read(&context, user.to_str()).unwrap().text.text, "TOKEN=hush");
        assert!(read(&context, context.join("../secret").to_str()).is_ok());
        for (ignore, dockerfile) in [(".dockerignore", None), ("D.dockerignore", Some("D"))] {
            for target in ["/proc/self/environ", "../secret", "nowhere"] {
                symlink(target, context.join(ignore)).unwrap();
                let dockerfile = dockerfile.map(|name| context.join(name));
                let told = ignore_patterns(&context, dockerfile.as_deref()).unwrap_err();
                assert!(matches!(told, Error::Outside { .. }), "{ignore} {target}: {told:?}");
                fs::remove_file(context.join(ignore)).unwrap();
            }
        }
        fs::write(context.join("rules"), "x").unwrap();
        symlink("rules", context.join(".dockerignore")).unwrap();
        assert!(ignore_patterns(&context, None).unwrap().is_some());
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
        assert!(endless.contains("16 MiB"), "{endless}");
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
