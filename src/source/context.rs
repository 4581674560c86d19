//! Main contexts that are no folder: a tar, a Dockerfile alone, a git repository, a file of a web server.
//!
//! Each becomes a folder of the store: a repository the snapshot that it is anyway, the others a temporary one that goes
//! with its [`Fetched`]. What is in it is hostile: a tar is unpacked confined.

use super::error::{At as _, Error, Result};
use super::{Remotes, http, stopped};
use crate::layer::{self, Decoder, EntryKind, EntrySink as _, Format, TarReader, Timestamp};
use crate::plan::{GitKey, GitUrl, HttpKey};
use crate::registry::shown;
use crate::snapshot::{Layers, NewLayer};
use crate::store::{Store, TempSnapshot};
use crate::sys::Cancel;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Component, Path, PathBuf};
use tokio::task::spawn_blocking;

/// What a context is told by, bytes: a tar's first header.
const START: u64 = 512;
/// The name of a file that is no tar, beside its empty context.
const ALONE: &str = "Dockerfile";

/// A context that was fetched or unpacked.
#[derive(Debug)]
pub struct Fetched {
    /// Its folder.
    pub folder: PathBuf,
    /// Where it is a Dockerfile and nothing else: that file.
    pub dockerfile: Option<PathBuf>,
    /// Seconds since 1970 of its commit, where it is a repository.
    pub time: Option<i64>,
    /// Removes the folder.
    _temp: Option<TempSnapshot>,
}

impl Fetched {
    /// The path of a file inside. It must not be opened but by what follows no link out of the context.
    ///
    /// # Errors
    /// [`Error::Outside`] for a name that leads out itself.
    pub fn file(&self, name: &Path) -> Result<PathBuf> {
        let inside =
            |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir | Component::RootDir);
        if !name.components().all(|part| inside(&part)) {
            return Err(Error::Outside { path: name.into() });
        }
        Ok(self.folder.join(name.strip_prefix("/").unwrap_or(name)))
    }
}

impl Remotes {
    /// A repository at the commit that its reference means now. Its server is sent `$GIT_AUTH_TOKEN`, where that is set.
    ///
    /// # Errors
    /// [`Error::Git`], [`Error::NoGit`].
    pub async fn git_context(&self, url: &GitUrl, keep_git_dir: bool) -> Result<Fetched> {
        let git = self.git.clone().trusting(&url.remote);
        let found = git.resolve(&url.key()).await?;
        let op = url.at(&found.commit, url.keep_git_dir.unwrap_or(keep_git_dir));
        let op = op.map_err(|why| Error::Git { remote: shown(&url.remote), why })?;
        let folder = git.folder(&op).await?;
        // Known now, if it wasn't before.
        let commit = GitKey { remote: op.remote, reference: op.commit, timed: true };
        let time = git.resolve(&commit).await?.time;
        Ok(Fetched { folder, dockerfile: None, time, _temp: None })
    }

    /// A tar, or a Dockerfile alone, from a web server; `store` keeps what it is unpacked to.
    ///
    /// # Errors
    /// What the connection says; as [`unpacked`].
    pub async fn http_context(&self, store: &Store, url: &str) -> Result<Fetched> {
        let key = HttpKey { url: url.to_owned(), checksum: None };
        let found = tokio::select! {
            found = http::resolve(&self.store, &self.client, &key) => found?,
            () = stopped(&self.cancel) => return Err(Error::Cancelled),
        };
        let gone = || Error::Http { url: shown(url), why: "it has been pruned from the store meanwhile".into() };
        let blob = self.store.blob(&found.content, None)?.ok_or_else(gone)?;
        let (store, cancel, name) = (store.clone(), self.cancel.clone(), shown(url));
        spawn_blocking(move || unpacked(&store, blob.verified(), &name, &cancel)).await?
    }
}

/// A tar, compressed or not, or a Dockerfile alone, told by its content; `name` is what errors call it.
///
/// # Errors
/// [`Error::Tar`] where it can't be read to its end or unpacked.
pub fn unpacked(store: &Store, mut input: impl Read, name: &str, cancel: &Cancel) -> Result<Fetched> {
    let mut start = Vec::new();
    input.by_ref().take(START).read_to_end(&mut start).at("read", Path::new(name))?;
    let tar = Format::sniff(&start) != Format::Plain || layer::is_archive(&start[..]);
    let mut input = Cursor::new(start).chain(input);
    let temp = store.new_snapshot()?;
    let dockerfile = if tar {
        unpack(input, &temp, name, cancel)?;
        None
    } else {
        let path = temp.folder().join(ALONE);
        let mut file = fs::File::create(&path).at("write", &path)?;
        io::copy(&mut input, &mut file).at("read", Path::new(name))?;
        Some(path)
    };
    Ok(Fetched { folder: temp.fs().to_path_buf(), dockerfile, time: None, _temp: Some(temp) })
}

/// Unpacks a tar; devices and pipes are left out, as BuildKit does.
fn unpack(input: impl Read, temp: &TempSnapshot, name: &str, cancel: &Cancel) -> Result<()> {
    let bad = |source| Error::Tar { name: name.to_owned(), source };
    let unread = |source| bad(layer::Error::Read { offset: 0, source });
    let mut tar = TarReader::archive(Decoder::new(input).map_err(unread)?);
    let mut writer = NewLayer::prepare(temp.folder(), Layers::default(), temp.form())?.writer(Timestamp::default())?;
    while let Some(mut entry) = tar.next_entry().map_err(bad)? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if matches!(entry.kind, EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) | EntryKind::Fifo) {
            continue;
        }
        // A context's files are root's; here they must be kiln's, whoever runs it.
        (entry.uid, entry.gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        writer.add(&entry, &mut tar).map_err(bad)?;
    }
    // What is behind the end may hold the checksum.
    tar.drain().map_err(bad)?;
    Ok(writer.finish()?)
}
