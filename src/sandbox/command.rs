//! The command of a spec, and the names of its limits.

use super::program::c_string;
use super::{Error, Spec};
use crate::sys::child::step::{Exec, Pointers};
use rustix::process::Resource;
use std::ffi::CString;
use std::path::Path;

/// The last step.
pub(super) fn exec(spec: &Spec) -> Result<Exec, Error> {
    exec_of(&spec.args, spec)
}

/// The same with other arguments.
pub(crate) fn exec_of(args: &[String], spec: &Spec) -> Result<Exec, Error> {
    let Some(program) = args.first().filter(|p| !p.is_empty()) else {
        return Err(Error::Spec("there is no command to run".into()));
    };
    let args = args.iter().map(c_string).collect::<Result<_, _>>()?;
    let mut env: Vec<(&str, &str)> = Vec::new();
    for (name, value) in &spec.env {
        env.retain(|(n, _)| n != name);
        env.push((name, value));
    }
    let path = env.iter().find(|(name, _)| *name == "PATH").map_or("", |(_, value)| value);
    let candidates = candidates(program, path)?;
    let env = env.iter().map(|(name, value)| c_string(format!("{name}={value}"))).collect::<Result<_, _>>()?;
    Ok(Exec { candidates, args: Pointers::new(args), env: Pointers::new(env) })
}

/// What a program's name may mean: itself if it has a slash, else a file in each folder of `PATH`. Relative folders there
/// don't count, as in Go's lookup, which runc uses.
fn candidates(program: &str, path: &str) -> Result<Vec<CString>, Error> {
    if program.contains('/') {
        return Ok(vec![c_string(program)?]);
    }
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| c_string(Path::new(dir).join(program))).collect()
}

/// A resource by the name that Docker's `--ulimit` has for it.
pub(crate) fn resource(name: &str) -> Result<Resource, Error> {
    Ok(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return Err(Error::Spec(format!("there is no limit named {name}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RootMount;

    fn exec_of(args: &[&str], env: &[(&str, &str)]) -> Exec {
        let mut spec = Spec::new(RootMount::Dir("/".into()), args.iter().map(|a| (*a).to_owned()).collect());
        spec.env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        exec(&spec).unwrap()
    }

    fn text(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|s| s.to_str().unwrap()).collect()
    }

    #[test]
    fn names_are_looked_up_in_path() {
        let env = [("PATH", "/a:rel::/b/:.")];
        assert_eq!(text(&exec_of(&["x", "-y"], &env).candidates), ["/a/x", "/b/x"]);
        assert_eq!(text(&exec_of(&["./x"], &env).candidates), ["./x"]);
        assert!(exec_of(&["x"], &[]).candidates.is_empty());
    }

    #[test]
    fn a_later_variable_wins() {
        let exec = exec_of(&["/x", "y z"], &[("A", "1"), ("B", ""), ("A", "2=3")]);
        assert_eq!(text(exec.env.strings()), ["B=", "A=2=3"]);
        assert_eq!(text(exec.args.strings()), ["/x", "y z"]);
    }

    #[test]
    fn limits_have_dockers_names() {
        assert!(resource("nofile").is_ok() && resource("rtprio").is_ok());
        assert!(resource("NOFILE").is_err() && resource("as").is_err());
    }
}
