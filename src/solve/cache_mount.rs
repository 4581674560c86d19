//! The folder behind `RUN --mount=type=cache`.

use super::env::Env;
use super::key::{Keyer, named};
use super::problem::{self, Result};
use super::selecting;
use crate::plan::op::{CopyAction, FileAction, FileOp, MountSource, Sharing};
use crate::report::{Kind, Problem};
use crate::snapshot::{self, EmptyTree, FolderWriter};
use crate::store::{CacheMount, Use};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Opens it, made by what the mount says where it isn't there yet. `layers` are those of its `from`, topmost first.
pub fn open(env: &Env, mount: &MountSource, layers: Option<&[PathBuf]>) -> Result<CacheMount> {
    let MountSource::Cache { id, sharing, mode, uid, gid, source, .. } = mount else {
        return Err(Problem::new(Kind::Build, "not a cache mount"));
    };
    let usage = match sharing {
        Sharing::Shared => Use::Shared,
        Sharing::Locked => Use::Locked,
        Sharing::Private => Use::Private,
    };
    // What it starts with is part of what it is: its files, and whose the folder is.
    let mut key = Keyer::new("cache mount");
    key.key(named("id", id));
    for number in [*mode, *uid, *gid] {
        key.number(u64::from(number));
    }
    key.option(layers.as_ref(), |key, layers| {
        key.list(layers, |key, layer| key.bytes(layer.as_os_str().as_encoded_bytes()));
        key.text(source);
    });
    let fill = |folder: &Path| -> Result<()> {
        if let Some(layers) = layers {
            copy_into(env, folder, layers, source)?;
        }
        let refused =
            |e| Problem::new(Kind::Environment, format!("can't make the cache {}", folder.display())).because(&e);
        chown(folder, Some(*uid), Some(*gid)).map_err(refused)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(*mode)).map_err(refused)
    };
    env.store.cache_mount::<Problem>(&key.finish(), usage, &env.cancel, &fill)
}

/// Copies what a new cache starts with.
fn copy_into(env: &Env, folder: &Path, layers: &[PathBuf], source: &str) -> Result<()> {
    let tree = snapshot::view(layers).map_err(problem::snapshot)?;
    let copy = CopyAction { dest: "/".into(), ..selecting::mounted(source) };
    let source = selecting::ReadTree::Other(std::sync::Arc::new(tree));
    let selection = source.select(&copy)?;
    let op = FileOp { base: None, actions: vec![FileAction::Copy(copy)], link: false, workdir: false };
    let mut writer = FolderWriter::plain(folder, env.options.time()).map_err(problem::snapshot)?;
    let input = super::file::Input { tree: source.tree(), selection: &selection };
    super::file::write(&op, &EmptyTree, &[input], env.options.time(), &mut writer).map_err(problem::from)?;
    writer.finish().map_err(problem::snapshot)
}
