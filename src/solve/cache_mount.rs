//! The folder behind `RUN --mount=type=cache`.

use super::env::Env;
use super::exec::MountTree;
use super::key::{Key, Keyer, named};
use super::mounts::Named;
use super::problem::{self, Result};
use super::selecting;
use crate::plan::op::{CopyAction, FileAction, FileOp, MountSource, Sharing};
use crate::report::{Kind, Problem, Step};
use crate::snapshot::{EmptyTree, FolderWriter, Layers};
use crate::store::{CacheMount, Use};
use crate::sys::recorded;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Opens it for a step. Where it isn't there yet, it gets what another machine left, or else is made as the mount says;
/// `from` is what that starts with.
pub fn open(env: &Env, step: Step, mount: &MountSource, from: Option<&MountTree>) -> Result<CacheMount> {
    let MountSource::Cache { id, sharing, mode, uid, gid, source, .. } = mount else {
        return Err(Problem::new(Kind::Build, "not a cache mount"));
    };
    let usage = match sharing {
        Sharing::Shared => Use::Shared,
        Sharing::Locked => Use::Locked,
        Sharing::Private => Use::Private,
    };
    let named = Named { key: key(mount, from), id: id.clone() };
    let can_be_had = env.cache_mounts.can_have(id);
    let fill = |folder: &Path| -> Result<()> {
        let refused =
            |e| Problem::new(Kind::Environment, format!("can't make the cache {}", folder.display())).because(&e);
        if can_be_had && let Some(fetched) = env.cache_mounts.fetch(env, step, &named) {
            return std::fs::rename(fetched.fs(), folder).map_err(refused);
        }
        if let Some(from) = from {
            copy_into(env, folder, &from.layers, source)?;
        }
        recorded::give(folder, *uid, *gid).map_err(|e| refused(e.into()))?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(*mode)).map_err(refused)
    };
    // What is fetched is fetched once, by the first of all that want it at the same time.
    let turn = match can_be_had {
        true => Some(env.store.lock(&fetching(named.key), &env.cancel, &mut || ()).map_err(problem::from)?),
        false => None,
    };
    if can_be_had {
        env.store.forget_empty_cache(&named.key).map_err(problem::from)?;
    }
    let opened = env.store.cache_mount::<Problem>(&named.key, usage, &env.cancel, &fill)?;
    drop(turn);
    env.cache_mounts.note(&named, usage);
    Ok(opened)
}

/// What a cache is known by, here and elsewhere: its id, whose the folder is, and what it starts with.
fn key(mount: &MountSource, from: Option<&MountTree>) -> Key {
    let mut key = Keyer::new("cache mount");
    if let MountSource::Cache { id, mode, uid, gid, source, from: _, readonly: _, sharing: _ } = mount {
        key.key(named("id", id));
        for number in [*mode, *uid, *gid] {
            key.number(u64::from(number));
        }
        key.option(from, |key, from| {
            key.option(from.content.as_ref(), |key, content| key.key(*content));
            key.text(source);
        });
    }
    key.finish()
}

/// The lock of whoever fetches a cache.
fn fetching(key: Key) -> Key {
    super::key::pair(named("cache mount", "fetching"), key)
}

/// Copies what a new cache starts with.
fn copy_into(env: &Env, folder: &Path, layers: &Layers, source: &str) -> Result<()> {
    let tree = layers.view();
    let copy = CopyAction { dest: "/".into(), ..selecting::mounted(source) };
    let source = selecting::ReadTree::Other(std::sync::Arc::new(tree));
    let selection = source.select(&copy)?;
    let op = FileOp { base: None, actions: vec![FileAction::Copy(copy)], link: false, workdir: false };
    let mut writer = FolderWriter::plain(folder, env.options.time()).map_err(problem::snapshot)?;
    let input = super::file::Input { tree: source.tree(), selection: &selection };
    super::file::write(&op, &EmptyTree, &[input], env.options.time(), &mut writer).map_err(problem::from)?;
    writer.finish().map_err(problem::snapshot)
}
