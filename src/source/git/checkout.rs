//! A commit's files, as a snapshot of the store.

use super::{Git, TIMES, commit_key, is_commit};
use crate::plan::GitKey;
use crate::plan::op::GitOp;
use crate::source::error::{At as _, Error, Result};
use crate::store::{Key, Snapshot, SnapshotInfo};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, chmodat, utimensat};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// Where a fetched commit is kept from being forgotten, in kiln's own repository.
const FETCHED: &str = "refs/kiln/fetched";

impl Git {
    /// The snapshot of an op's tree, fetched if it isn't there.
    pub(super) fn checked_out(&self, op: &GitOp) -> Result<Snapshot> {
        if !is_commit(&op.commit) {
            return Err(self.failed(&op.remote, format!("{:?} is not a commit", op.commit)));
        }
        self.check(&op.remote, &op.reference)?;
        let key = tree_key(op);
        let _lock = self.store.lock(&key, &self.cancel, &mut || ())?;
        if let Some(found) = self.store.snapshot(&key)? {
            return Ok(found);
        }
        let temp = self.store.new_snapshot()?;
        let scratch = temp.work();
        DirBuilder::new().mode(0o700).create(&scratch).at("make the folder", &scratch)?;
        let time = self.fetch_tree(op, &scratch, temp.fs())?;
        self.store.put_record(TIMES, &commit_key(&op.remote, &op.commit), &time)?;
        let note = format!("{}#{}", crate::registry::shown(&op.remote), op.commit);
        Ok(self.store.commit_snapshot(temp, &key, SnapshotInfo { driver: "git".into(), size: None, note })?)
    }

    /// Fetches a commit and puts its files into `fs`. Returns the commit's time in seconds since 1970.
    fn fetch_tree(&self, op: &GitOp, scratch: &Path, fs: &Path) -> Result<i64> {
        let subdir = clean_subdir(&op.subdir).ok_or_else(|| self.bad_subdir(op))?;
        let whole = subdir.as_os_str().is_empty();
        // A repository with a work tree, since submodules want one.
        let tree = scratch.join("tree");
        fs::create_dir(&tree).at("make the folder", &tree)?;
        self.fetched(op, &tree)?;
        self.run(&op.remote, Some(&tree), &["checkout", "-q", "--force", "--detach", &op.commit])?;
        if op.submodules && tree.join(".gitmodules").symlink_metadata().is_ok() {
            let args = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            self.run(&op.remote, Some(&tree), &args)?;
        }
        let time = self.time_in(op, &tree)?;
        let git_dir = tree.join(".git");
        if op.keep_git_dir && whole {
            self.tidy(op, &tree, &git_dir)?;
        } else {
            fs::remove_dir_all(&git_dir).at("remove", &git_dir)?;
        }
        let from = real_folder(&tree, &subdir).ok_or_else(|| self.bad_subdir(op))?;
        for entry in fs::read_dir(&from).at("list", &from)? {
            let entry = entry.at("list", &from)?;
            fs::rename(entry.path(), fs.join(entry.file_name())).at("rename", &entry.path())?;
        }
        settle(fs, time)?;
        Ok(time)
    }

    /// The time of a commit whose files nobody has wanted yet.
    pub(super) fn fetch_time(&self, key: &GitKey, commit: &str) -> Result<i64> {
        let GitKey { remote, reference, .. } = key.clone();
        let (commit, subdir) = (commit.to_owned(), String::new());
        let op = GitOp { remote, reference, commit, subdir, keep_git_dir: false, submodules: false };
        self.check(&op.remote, &op.reference)?;
        let temp = self.store.new_snapshot()?;
        let tree = temp.work();
        DirBuilder::new().mode(0o700).create(&tree).at("make the folder", &tree)?;
        self.fetched(&op, &tree)?;
        let time = self.time_in(&op, &tree)?;
        self.store.put_record(TIMES, &commit_key(&op.remote, &op.commit), &time)?;
        Ok(time)
    }

    /// Makes an empty folder a repository with the commit.
    fn fetched(&self, op: &GitOp, tree: &Path) -> Result<()> {
        let format = if op.commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        self.run(&op.remote, Some(tree), &["init", "-q", "--template=", format])?;
        self.run(&op.remote, Some(tree), &["config", "remote.origin.url", &op.remote])?;
        self.fetch(op, tree)
    }

    /// A fetched commit's time in seconds since 1970.
    fn time_in(&self, op: &GitOp, tree: &Path) -> Result<i64> {
        let time = self.run(&op.remote, Some(tree), &["show", "-s", "--format=%ct", &op.commit])?;
        time.trim().parse().map_err(|_| self.failed(&op.remote, format!("no commit time: {time:?}")))
    }

    /// Gets the commit with as little of the history as the server can be asked for.
    fn fetch(&self, op: &GitOp, tree: &Path) -> Result<()> {
        let by_commit = format!("+{}:{FETCHED}", op.commit);
        let attempt = |depth: Option<&str>, specs: &[&str]| {
            let mut args = vec!["fetch", "-q", "--no-tags", "--no-recurse-submodules"];
            args.extend(depth);
            args.extend(["--", op.remote.as_str()]);
            args.extend(specs);
            self.run(&op.remote, Some(tree), &args).and_then(|_| self.has_commit(op, tree))
        };
        match attempt(Some("--depth=1"), &[&by_commit]) {
            Err(Error::Git { .. }) => {}
            done => return done,
        }
        // Servers that give no commit by its name give the branch or tag, if that is still where it was.
        if !is_commit(&op.reference)
            && let Ok(named) = self.look_up(&op.remote, &op.reference)
            && named.commit == op.commit
            && attempt(Some("--depth=1"), &[&format!("+{}:{FETCHED}", named.full_name)]).is_ok()
        {
            return Ok(());
        }
        attempt(None, &["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"])
    }

    fn has_commit(&self, op: &GitOp, tree: &Path) -> Result<()> {
        let object = format!("{}^{{commit}}", op.commit);
        match self.run(&op.remote, Some(tree), &["cat-file", "-e", &object]) {
            Err(Error::Git { .. }) => Err(self.failed(&op.remote, format!("it has no commit {}", op.commit))),
            other => other.map(drop),
        }
    }

    /// Makes a `.git` that stays in the tree one that holds no secret and no trace of this machine.
    fn tidy(&self, op: &GitOp, tree: &Path, git_dir: &Path) -> Result<()> {
        let shown = crate::registry::shown(&op.remote);
        self.run(&op.remote, Some(tree), &["config", "remote.origin.url", &shown])?;
        if !op.reference.is_empty() && !is_commit(&op.reference) {
            // So that `git describe` and the like know where they are.
            if let Ok(named) = self.look_up(&op.remote, &op.reference) {
                self.run(&op.remote, Some(tree), &["update-ref", &named.full_name, &op.commit])?;
            }
        }
        self.run(&op.remote, Some(tree), &["update-ref", "-d", FETCHED])?;
        for name in ["FETCH_HEAD", "ORIG_HEAD"] {
            let _ = fs::remove_file(git_dir.join(name));
        }
        let _ = fs::remove_dir_all(git_dir.join("logs"));
        Ok(())
    }

    fn bad_subdir(&self, op: &GitOp) -> Error {
        self.failed(&op.remote, format!("{:?} is not a folder in the repository", op.subdir))
    }
}

fn tree_key(op: &GitOp) -> Key {
    let GitOp { remote, reference, commit, subdir, keep_git_dir, submodules } = op;
    // The name only shows in a `.git` that stays.
    let name = if *keep_git_dir { reference.as_str() } else { "" };
    Key::of(format!("git\0{remote}\0{name}\0{commit}\0{subdir}\0{keep_git_dir}\0{submodules}").as_bytes())
}

/// A folder inside the repository as a path below it; empty for the whole.
fn clean_subdir(subdir: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(subdir).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if name != ".git" => clean.push(name),
            _ => return None,
        }
    }
    Some(clean)
}

/// The folder at `below`, if no part of the way is a link.
fn real_folder(top: &Path, below: &Path) -> Option<PathBuf> {
    let mut path = top.to_path_buf();
    for part in below.components() {
        path.push(part);
        if !path.symlink_metadata().ok()?.is_dir() {
            return None;
        }
    }
    Some(path)
}

/// Gives all files the time of the commit, and group and others the rights of the owner but for writing.
fn settle(folder: &Path, time: i64) -> Result<()> {
    let mut folders = vec![folder.to_path_buf()];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let entry = entry.at("list", &folder)?;
            let meta = entry.metadata().at("look at", &entry.path())?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                all.push((entry.path(), (!meta.is_symlink()).then_some(meta.mode())));
            }
        }
        let mode = fs::symlink_metadata(&folder).at("look at", &folder)?.mode();
        all.push((folder, Some(mode)));
    }
    let time = Timespec { tv_sec: time, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for (path, mode) in all {
        if let Some(mode) = mode {
            let own = mode & 0o700;
            let shared = (own & 0o500) >> 3 | (own & 0o500) >> 6;
            chmodat(CWD, &path, Mode::from_raw_mode(own | shared), AtFlags::empty()).at("set the mode of", &path)?;
        }
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", &path)?;
    }
    Ok(())
}
