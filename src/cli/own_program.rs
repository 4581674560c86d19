//! Executes this program a second time where processes of images will be run, by a form of its file that they cannot change
//! ([`sys::own_program`]). It comes after the change of user namespace, which gives an ordinary user the rights over mounts that the
//! cheaper form needs, so what is known of that is handed over, in a variable.

use super::env::Env;
use super::request::{Isolation, Request};
use super::rootless::{self, Rootless};
use crate::sys::{self, own_program};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// The variable that holds [`State`] between the two. No process that this one starts gets it.
const VARIABLE: &str = "_KILN_EXECUTED_AGAIN";

/// What the first execution found out and the second cannot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The path of this program: `/proc/self/exe` does not tell it any more.
    pub program: OsString,
    /// The effective user outside of the user namespace.
    pub uid: u32,
    /// Whether there is a user namespace.
    pub rootless: Rootless,
}

/// What an execution before this one found out, taken from the environment. To be called before there are threads.
pub fn state_before(vars: &mut BTreeMap<OsString, OsString>) -> Option<State> {
    let text = vars.remove(OsStr::new(VARIABLE))?;
    sys::remove_variable(VARIABLE);
    let state: State = serde_json::from_slice(text.as_bytes()).ok()?;
    // The kernel names the process after the descriptor that was executed.
    let name = Path::new(&state.program).file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    if let Some(name) = name {
        // A process without its name works as well.
        let _ = rustix::thread::set_name(&name);
    }
    Some(state)
}

/// Executes this program again, unless nothing can be changed through `/proc/self/exe` or no level that mounts can be had. Comes back
/// where that is so, and where it failed: then [`Env::exposed`] says why.
pub fn protect(request: &Request, env: Env) -> Env {
    if !concerns(request) || own_program::is_protected().unwrap_or(false) {
        return env;
    }
    let exposed = match env.executed_again {
        true => "its second execution is as unprotected as its first".to_owned(),
        false => execute(&env),
    };
    Env { exposed: Some(exposed), ..env }
}

/// Why this program's file could not be protected here, where that is so; it stays as it is.
pub fn why_exposed(env: &Env) -> Option<String> {
    if own_program::is_protected().unwrap_or(false) { None } else { own_program::protected(&env.program).err() }
}

/// Whether a command may run processes at a level that mounts. In place, the program's file is protected by other means.
fn concerns(request: &Request) -> bool {
    let process = request.command.runs();
    process.is_some_and(|p| p.isolation != Isolation::InPlace) && rootless::has_rights_over_mounts()
}

/// Comes back only where it failed, with the reason.
fn execute(env: &Env) -> String {
    let program = match own_program::protected(&env.program) {
        Ok(program) => program,
        Err(why) => return why,
    };
    let state = State { program: env.program.clone().into(), uid: env.uid, rootless: env.rootless.clone() };
    let Ok(state) = serde_json::to_string(&state) else { return "its state cannot be written down".to_owned() };
    let string = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
    let variable = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let vars = std::env::vars_os().chain([(VARIABLE.into(), state.into())]).map(variable);
    let args = std::env::args_os().map(OsString::into_vec);
    own_program::execute(&program, args.map(string).collect(), vars.map(string).collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_taken_from_the_environment() {
        let state = State {
            program: OsString::from_vec(b"/opt/\xff/kiln".to_vec()),
            uid: 1000,
            rootless: Rootless::Single("no ranges".into()),
        };
        let text = serde_json::to_string(&state).unwrap();
        let mut vars: BTreeMap<OsString, OsString> = [(VARIABLE.into(), text.into()), ("A".into(), "b".into())].into();
        assert_eq!(serde_json::from_str::<State>(&vars[OsStr::new(VARIABLE)].to_string_lossy()).unwrap(), state);
        vars.insert(VARIABLE.into(), "{".into());
        assert_eq!(state_before(&mut vars), None, "not kiln's");
        assert_eq!(vars.keys().collect::<Vec<_>>(), ["A"]);
    }
}
