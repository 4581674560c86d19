//! The level `rootless`, of ordinary users and of a container's root: kiln itself becomes root of a user namespace, before it
//! has threads, and then does what it does as root: the files of an image's users belong to numbers that are the user's own,
//! so all work on them needs the namespace.

use super::env::Env;
use super::refusal::{Refusal, Settings};
use super::request::{Command, Isolation, Request};
use crate::sandbox::probe::{Way, missing_capabilities, probe};
use crate::sys::program::find;
use crate::sys::userns::{self, Map, Refused};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Whether this process is in a user namespace of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootless {
    /// It is where it was: nothing asked for one.
    #[default]
    Untried,
    /// It is root of one with ranges of numbers, or with all that there are.
    Entered,
    /// It is root of one with its own number alone, for this reason.
    Single(String),
    /// It would be, but for this.
    Refused(String),
}

/// Enters a user namespace where a request of somebody without rights over mounts may need it: to run a process, or to remove
/// what such processes left in the store.
pub fn prepare(request: &Request, env: &Env) -> Rootless {
    if env.executed_again {
        return env.rootless.clone();
    }
    let Some(process) = request.command.runs() else {
        return match &request.command {
            Command::Prune { .. } | Command::Rmi { .. } if env.uid != 0 => enter(env),
            _ => Rootless::Untried,
        };
    };
    match process.isolation {
        Isolation::Root => Rootless::Untried,
        // Root has a level below, which is no good in a namespace: the better one must be sure.
        Isolation::InPlace if env.uid == 0 => Rootless::Untried,
        Isolation::Auto if needs_one(env) && env.uid == 0 => enter_if_it_works(&request.store, env),
        _ => enter(env),
    }
}

/// Enters one, unless the user is root with rights over mounts. Once there are threads the kernel refuses it.
pub fn enter(env: &Env) -> Rootless {
    if !needs_one(env) {
        return Rootless::Untried;
    }
    let widest = if env.uid == 0 {
        userns::enter(Map::Same).map_err(|refused| why(&refused, env))
    } else {
        enter_with_ranges(env)
    };
    let no_ranges = match widest {
        Ok(()) => return Rootless::Entered,
        Err(why) => why,
    };
    let own = Map::Own { uid: env.uid, gid: rustix::process::getegid().as_raw() };
    match userns::enter(own) {
        Ok(()) => Rootless::Single(no_ranges),
        Err(refused) => Rootless::Refused(why(&refused, env)),
    }
}

/// Enters one if a child that did so could run processes: outside of it, root has other levels.
fn enter_if_it_works(store: &Path, env: &Env) -> Rootless {
    let tried = userns::in_child(|| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(store);
        made.map_err(|e| format!("mkdir {}: {e}", store.display()))?;
        match enter(env) {
            Rootless::Untried | Rootless::Entered => {
                let works = |pivot| probe(store, Way { pivot, overlay: false });
                works(true).or_else(|why| works(false).map_err(|_| why))
            }
            // Copies with recorded owners are slower than what root has below this level.
            Rootless::Single(_) => probe(store, Way { pivot: true, overlay: true }),
            Rootless::Refused(why) => Err(why),
        }
    });
    match tried {
        Ok(()) => enter(env),
        Err(why) => Rootless::Refused(why),
    }
}

/// Whether this process has no rights over mounts where it is.
fn needs_one(env: &Env) -> bool {
    env.uid != 0 || !has_rights_over_mounts()
}

/// Whether this process may mount something where it is, if the kernel and its filters allow it.
pub fn has_rights_over_mounts() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether this process, where it is, lacks a capability that each level needs.
pub fn lacks_capabilities() -> bool {
    missing_capabilities().is_some()
}

/// How the level `rootless` works, where there is more to say than that it does; `proc` says why there is no new `/proc`.
pub fn remark(rootless: &Rootless, proc: &dyn Fn() -> Result<(), String>) -> Option<String> {
    let single = match rootless {
        Rootless::Single(why) => Some(format!("with a single number, owners and devices being recorded: {why}")),
        _ => None,
    };
    let shown = proc().err().map(|why| format!("with this place's /proc, and so with its processes in view: {why}"));
    let all: Vec<String> = single.into_iter().chain(shown).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Why root doesn't get the level.
pub const FOR_USERS: &str = "it is for ordinary users, and for root without CAP_SYS_ADMIN; here is the level root";

fn enter_with_ranges(env: &Env) -> Result<(), String> {
    let gid = rustix::process::getegid().as_raw();
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let number = env.uid.to_string();
    let name = user_name(&read("/etc/passwd"), &number).or_else(|| env.var("USER").map(str::to_owned));
    let names: Vec<&str> = name.as_deref().into_iter().chain([number.as_str()]).collect();
    let ranges = |file: &'static str, own| {
        let who = names.first().copied().unwrap_or_default();
        userns::ranges(&read(file), &names, own)
            .ok_or_else(|| format!("{file} gives {who} no range of numbers; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}"))
    };
    let (uids, gids) = (ranges("/etc/subuid", env.uid)?, ranges("/etc/subgid", gid)?);
    let (newuidmap, newgidmap) = (mapper("newuidmap", env)?, mapper("newgidmap", env)?);
    let map = Map::Ranges { programs: [&newuidmap, &newgidmap], uids: &uids, gids: &gids };
    userns::enter(map).map_err(|refused| why(&refused, env))
}

fn user_name(passwd: &str, number: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

/// The program that maps numbers; it has its power by being setuid or by capabilities of its file.
fn mapper(program: &str, env: &Env) -> Result<PathBuf, String> {
    let found = find(program, &env.path())
        .ok_or_else(|| format!("{program} isn't in $PATH; Debian and Ubuntu have it in the package uidmap"))?;
    let setuid = std::fs::metadata(&found).is_ok_and(|m| m.permissions().mode() & 0o4000 != 0);
    let capable = || crate::sys::xattr::get(&found, "security.capability".as_ref()).is_ok_and(|c| c.is_some());
    if setuid || capable() {
        Ok(found)
    } else {
        let capability = if program == "newuidmap" { "cap_setuid" } else { "cap_setgid" };
        let path = found.display();
        Err(format!(
            "{path} is neither setuid nor has capabilities; as root: chmod u+s {path}, or setcap {capability}+ep {path}"
        ))
    }
}

/// What a refusal comes from, as far as the system says.
fn why(refused: &Refused, env: &Env) -> String {
    let settings = Settings::new(&|path| std::fs::read_to_string(path).ok(), env.uid == 0);
    match refused {
        Refused::Call { error, profile } => {
            let refusal = Refusal { call: error.call, errno: error.errno, profile: profile.as_deref() };
            settings.reason(&refusal).map_or_else(|| error.to_string(), |reason| format!("{error}: {reason}"))
        }
        Refused::Program { said, .. } => {
            let reason = settings.reason_of_program(said);
            reason.map_or_else(|| refused.to_string(), |reason| format!("{refused}: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nbad\n";
        assert_eq!(user_name(passwd, "1000").as_deref(), Some("me"));
        assert_eq!(user_name(passwd, "1"), None);
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let env = Env { uid: 1000, ..Env::default() };
        assert!(mapper("newuidmap", &env).unwrap_err().contains("package uidmap"));
    }

    #[test]
    fn root_with_all_rights_needs_none() {
        let env = Env::default();
        assert!(needs_one(&env) || enter(&env) == Rootless::Untried);
        assert!(needs_one(&Env { uid: 1000, ..env }));
    }
}
