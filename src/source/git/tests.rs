use super::*;
use crate::layer::EntryPath;
use crate::snapshot::Tree as _;
use std::path::Path;
use std::process::Command;

fn git_here(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-c", "tag.gpgsign=false"])
        .args(args)
        .current_dir(folder)
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("these tests need git");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with a branch, a lightweight and an annotated tag, a folder, a link and a program.
struct Fixture {
    temp: tempfile::TempDir,
    first: String,
    second: String,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let repo = temp.path().join("repo");
        std::fs::create_dir_all(repo.join("sub/deep")).unwrap();
        std::fs::write(repo.join("file"), "one").unwrap();
        std::fs::write(repo.join("sub/deep/file"), "deep").unwrap();
        let program = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(repo.join("sub/deep/file"), program).unwrap();
        std::os::unix::fs::symlink("/etc", repo.join("out")).unwrap();
        git_here(&repo, &["init", "-q"]);
        git_here(&repo, &["add", "."]);
        git_here(&repo, &["commit", "-qm", "one"]);
        git_here(&repo, &["tag", "light"]);
        git_here(&repo, &["tag", "-am", "x", "annotated"]);
        let first = git_here(&repo, &["rev-parse", "HEAD"]);
        std::fs::write(repo.join("file"), "two").unwrap();
        git_here(&repo, &["commit", "-qam", "two"]);
        git_here(&repo, &["branch", "light-not"]);
        let second = git_here(&repo, &["rev-parse", "HEAD"]);
        Self { temp, first, second }
    }

    fn remote(&self) -> String {
        format!("file://{}/repo", self.temp.path().display())
    }

    fn git(&self) -> Git {
        let store = Store::open(&self.temp.path().join("store")).unwrap();
        let env = |name: &str| (name == "PATH").then(|| std::env::var_os("PATH")).flatten();
        Git::new(store, Cancel::new().unwrap(), &env).with_protocols("file")
    }

    fn op(&self, reference: &str, commit: &str) -> GitOp {
        let (reference, commit) = (reference.to_owned(), commit.to_owned());
        GitOp { remote: self.remote(), reference, commit, subdir: String::new(), keep_git_dir: false, submodules: true }
    }

    async fn resolve(&self, reference: &str) -> Result<String> {
        let key = GitKey { remote: self.remote(), reference: reference.into(), timed: false };
        self.git().resolve(&key).await.map(|r| r.commit)
    }
}

fn names(tree: &FolderTree) -> Vec<String> {
    let entries = tree.read_dir(&EntryPath::root()).unwrap();
    entries.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
}

fn text(tree: &FolderTree, path: &str) -> String {
    std::io::read_to_string(tree.open(&EntryPath::parse(path.as_bytes()).unwrap()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_become_commits() {
    let f = Fixture::new();
    for (name, want) in [
        ("", &f.second),
        ("main", &f.second),
        ("refs/heads/main", &f.second),
        ("light", &f.first),
        ("annotated", &f.first),
        ("refs/tags/annotated", &f.first),
        ("tags/light", &f.first),
        (&f.first.clone(), &f.first),
    ] {
        assert_eq!(f.resolve(name).await.ok().as_ref(), Some(want), "{name}");
    }
    let said = f.resolve("missing").await.unwrap_err().to_string();
    assert!(said.contains("missing") && said.contains("repo"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_s_files_come_out_with_its_time() {
    let f = Fixture::new();
    let git = f.git();
    for (name, commit, content) in [("main", &f.second, "two"), ("annotated", &f.first, "one"), ("", &f.first, "one")] {
        let tree = git.tree(&f.op(name, commit)).await.unwrap();
        assert_eq!(names(&tree), ["file", "out", "sub"], "{name}");
        assert_eq!(text(&tree, "file"), content, "{name}");
        let program = tree.stat(&EntryPath::parse(b"sub/deep/file").unwrap()).unwrap().unwrap();
        assert_eq!((program.mode, program.uid, program.mtime.secs), (0o755, 0, 1_700_000_000));
        let file = tree.stat(&EntryPath::parse(b"file").unwrap()).unwrap().unwrap();
        assert_eq!(file.mode, 0o644);
    }
    let key = GitKey { remote: f.remote(), reference: "main".into(), timed: false };
    assert_eq!(git.resolve(&key).await.unwrap().time, Some(1_700_000_000));
    // What was fetched once isn't fetched again.
    std::fs::remove_dir_all(f.temp.path().join("repo")).unwrap();
    assert_eq!(text(&git.tree(&f.op("main", &f.second)).await.unwrap(), "file"), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_it_is_confined() {
    let f = Fixture::new();
    let git = f.git();
    let of = |subdir: &str| GitOp { subdir: subdir.into(), ..f.op("", &f.second) };
    assert_eq!(names(&git.tree(&of("sub")).await.unwrap()), ["deep"]);
    assert_eq!(names(&git.tree(&of("/sub/deep/")).await.unwrap()), ["file"]);
    for bad in ["out", "out/ssl", "..", "sub/../..", "file", "missing", ".git"] {
        let said = git.tree(&of(bad)).await.unwrap_err().to_string();
        assert!(said.contains("not a folder"), "{bad}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_git_folder_stays_where_it_is_wanted() {
    let f = Fixture::new();
    let op = GitOp { keep_git_dir: true, ..f.op("annotated", &f.first) };
    let git = f.git();
    let tree = git.tree(&op).await.unwrap();
    assert_eq!(names(&tree), [".git", "file", "out", "sub"]);
    assert_eq!(text(&tree, ".git/HEAD").trim(), f.first);
    let config = text(&tree, ".git/config");
    assert!(config.contains(&f.remote()), "{config}");
    for gone in [".git/logs", ".git/FETCH_HEAD", ".git/hooks"] {
        assert_eq!(tree.stat(&EntryPath::parse(gone.as_bytes()).unwrap()).unwrap(), None, "{gone}");
    }
    let of_folder = GitOp { keep_git_dir: true, subdir: "sub".into(), ..f.op("", &f.first) };
    assert_eq!(names(&git.tree(&of_folder).await.unwrap()), ["deep"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_come_unless_they_are_not_wanted() {
    let f = Fixture::new();
    let (repo, inner) = (f.temp.path().join("repo"), f.temp.path().join("inner"));
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("inside"), "x").unwrap();
    git_here(&inner, &["init", "-q"]);
    git_here(&inner, &["add", "."]);
    git_here(&inner, &["commit", "-qm", "inner"]);
    git_here(&repo, &["submodule", "--quiet", "add", "../inner", "module"]);
    git_here(&repo, &["commit", "-qm", "three"]);
    let third = git_here(&repo, &["rev-parse", "HEAD"]);
    let git = f.git();
    let with = git.tree(&f.op("main", &third)).await.unwrap();
    assert_eq!(text(&with, "module/inside"), "x");
    let without = git.tree(&GitOp { submodules: false, ..f.op("main", &third) }).await.unwrap();
    assert!(without.read_dir(&EntryPath::parse(b"module").unwrap()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_becomes_an_option_or_a_program() {
    let f = Fixture::new();
    let marker = f.temp.path().join("ran");
    let touch = format!("touch {}", marker.display());
    let git = f.git().with_protocols(PROTOCOLS);
    for remote in [
        format!("--upload-pack={touch}"),
        format!("-u{touch}"),
        format!("ext::sh -c {touch}"),
        format!("file://{}/repo", f.temp.path().display()),
        f.temp.path().join("repo").display().to_string(),
        "ssh://-oProxyCommand=x/y".into(),
        "https://h/\nx".into(),
        "ftp://h/x".into(),
    ] {
        let key = GitKey { remote: remote.clone(), reference: String::new(), timed: false };
        assert!(git.resolve(&key).await.is_err(), "{remote}");
    }
    let git = f.git();
    for reference in [format!("--upload-pack={touch}"), "-x".into(), "a\u{7}b".into()] {
        assert!(f.resolve(&reference).await.is_err(), "{reference}");
        assert!(git.tree(&f.op(&reference, &f.first)).await.is_err(), "{reference}");
    }
    assert!(git.tree(&f.op("", "--upload-pack=x")).await.is_err());
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_repository_runs_nothing() {
    let f = Fixture::new();
    let (repo, marker) = (f.temp.path().join("repo"), f.temp.path().join("ran"));
    let modules = format!("[submodule \"m\"]\n\tpath = m\n\turl = ext::sh -c 'touch {}'\n", marker.display());
    std::fs::write(repo.join(".gitmodules"), modules).unwrap();
    git_here(&repo, &["add", ".gitmodules"]);
    git_here(&repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{},m", f.first)]);
    git_here(&repo, &["commit", "-qm", "hostile"]);
    let commit = git_here(&repo, &["rev-parse", "HEAD"]);
    let said = f.git().tree(&f.op("main", &commit)).await.unwrap_err().to_string();
    assert!(said.contains("not allowed"), "{said}");
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_without_secrets() {
    let f = Fixture::new();
    let git = f.git();
    let said = git.tree(&f.op("", &"0".repeat(40))).await.unwrap_err().to_string();
    assert!(said.contains("cannot fetch"), "{said}");
    let http = git.clone().with_protocols("http");
    let key = GitKey { remote: "http://me:hush@127.0.0.1:1/x.git".into(), reference: String::new(), timed: false };
    let said = http.resolve(&key).await.unwrap_err().to_string();
    assert!(said.contains("127.0.0.1") && !said.contains("hush"), "{said}");
    let none = Git { program: Some("/nowhere/git".into()), ..git };
    assert!(matches!(
        none.resolve(&GitKey { remote: f.remote(), reference: String::new(), timed: false }).await,
        Err(Error::NoGit(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_build_stops_git() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let f = Fixture::new();
    let git = f.git().with_protocols("http");
    let remote = format!("http://{}/x.git", listener.local_addr().unwrap());
    let cancel = git.cancel.clone();
    let waiting =
        tokio::spawn(async move { git.resolve(&GitKey { remote, reference: String::new(), timed: false }).await });
    // Git is there, and waits for an answer that never comes.
    let _connection = spawn_blocking(move || listener.accept()).await.unwrap().unwrap();
    cancel.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Cancelled)));
}

#[test]
fn branches_come_before_tags() {
    let [a, b, c] = ["a", "b", "c"].map(|x| x.repeat(40));
    let listed = format!("{a}\trefs/heads/x\n{b}\trefs/tags/x\n{c}\trefs/tags/x^{{}}\n{b}\trefs/heads/f/x\n");
    let commit = |name| advertised(&listed, name).map(|f| (f.commit, f.full_name));
    assert_eq!(commit("x"), Some((a, "refs/heads/x".into())));
    assert_eq!(commit("tags/x"), Some((c.clone(), "refs/tags/x".into())));
    assert_eq!(commit("refs/tags/x"), Some((c, "refs/tags/x".into())));
    assert_eq!(commit("f"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_s_time_is_known_before_its_files_are_fetched() {
    let f = Fixture::new();
    let git = f.git();
    for (reference, timed, want) in
        [("main", false, None), ("main", true, Some(1_700_000_000)), ("main", false, Some(1_700_000_000))]
    {
        let key = GitKey { remote: f.remote(), reference: reference.into(), timed };
        assert_eq!(git.resolve(&key).await.unwrap().time, want, "{timed}");
    }
    let none = GitKey { remote: f.remote(), reference: "0".repeat(40), timed: true };
    assert!(git.resolve(&none).await.is_err());
}
