//! The level `rootless`: kiln itself becomes root of a user namespace, before it has threads, and then does what it does as
//! root: the files of an image's users belong to numbers that are the user's own, so all work on them needs the namespace.

use super::env::Env;
use super::request::{Command, Isolation, Method, Request};
use crate::sys::userns::{self, Map, Refused};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// Whether this process is in a user namespace of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rootless {
    /// It is where it was: nothing asked for one.
    #[default]
    Untried,
    /// It is root of one with ranges of numbers.
    Entered,
    /// It is root of one with its own number alone, for this reason.
    Single(String),
    /// It would be, but for this.
    Refused(String),
}

/// Enters a user namespace where a request of an ordinary user may need it: to run a process, or to remove what such
/// processes left in the store.
pub fn prepare(request: &Request, env: &Env) -> Rootless {
    let wants = match &request.command {
        Command::Build(build) => build.call.method == Method::Build && build.process.isolation != Isolation::Root,
        Command::Run(run) => run.process.isolation != Isolation::Root,
        Command::Prune { .. } | Command::Rmi { .. } => true,
        _ => false,
    };
    if wants { enter(env) } else { Rootless::Untried }
}

/// Enters one, unless the user is root. Once there are threads the kernel refuses it.
pub fn enter(env: &Env) -> Rootless {
    if env.uid == 0 {
        return Rootless::Untried;
    }
    let no_ranges = match enter_with_ranges(env) {
        Ok(()) => return Rootless::Entered,
        Err(why) => why,
    };
    let own = Map::Own { uid: env.uid, gid: rustix::process::getegid().as_raw() };
    match userns::enter(own) {
        Ok(()) => Rootless::Single(no_ranges),
        Err(refused) => Rootless::Refused(why(&refused)),
    }
}

/// How the level `rootless` works, where there is more to say than that it does.
pub fn remark(rootless: &Rootless) -> Option<String> {
    match rootless {
        Rootless::Single(why) => Some(format!("with a single number, owners and devices being recorded: {why}")),
        _ => None,
    }
}

/// Why root doesn't get the level.
pub const FOR_USERS: &str = "it is for ordinary users; root has the level root";

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
    userns::enter(map).map_err(|refused| why(&refused))
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
    let path = env.vars.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    let found = userns::find(program, &path)
        .ok_or_else(|| format!("{program} isn't in $PATH; Debian and Ubuntu have it in the package uidmap"))?;
    let setuid = std::fs::metadata(&found).is_ok_and(|m| m.permissions().mode() & 0o4000 != 0);
    let capable = || crate::sys::xattr::get(&found, "security.capability".as_ref()).is_ok_and(|c| c.is_some());
    if setuid || capable() {
        Ok(found)
    } else {
        Err(format!("{} is neither setuid nor has capabilities; as root: chmod u+s {0}", found.display()))
    }
}

/// What a refusal comes from, as far as the system says.
fn why(refused: &Refused) -> String {
    let Refused::Call(call) = refused else { return refused.to_string() };
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    match reason(&is) {
        Some(reason) => format!("{call}: {reason}"),
        None => format!("{call}: a seccomp profile or security module forbids user namespaces"),
    }
}

/// The setting that forbids user namespaces; `is` says whether a file has this text.
fn reason(is: &dyn Fn(&str, &str) -> bool) -> Option<&'static str> {
    let settings = [
        (
            "/proc/sys/user/max_user_namespaces",
            "0",
            "user namespaces are off; as root: sysctl -w user.max_user_namespaces=10000",
        ),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "user namespaces are for root alone; as root: sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor lets only programs with a profile have user namespaces; as root: give kiln one with \"userns,\" in \
             /etc/apparmor.d, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    settings.into_iter().find(|(path, value, _)| is(path, value)).map(|(.., reason)| reason)
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
    fn what_forbids_namespaces_is_named_with_its_remedy() {
        for (file, value, remedy) in [
            ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
            ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ] {
            let found = reason(&|path, is| path.ends_with(file) && is == value).unwrap();
            assert!(found.contains(remedy), "{found}");
        }
        assert_eq!(reason(&|_, _| false), None);
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let env = Env { uid: 1000, ..Env::default() };
        assert!(mapper("newuidmap", &env).unwrap_err().contains("package uidmap"));
    }

    #[test]
    fn root_needs_none() {
        assert_eq!(enter(&Env::default()), Rootless::Untried);
    }
}
