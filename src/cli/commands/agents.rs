//! What `--ssh` names: agents of this machine, and keys that kiln is the agent of. Keys are read before anything is built.

use crate::cli::session::cannot;
use crate::report::{Kind, Problem};
use crate::solve::{Agent, Keys, Unusable};
use crate::sys::input;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest key file, in bytes: BuildKit's.
const LARGEST: u64 = 100 << 10;

/// Looks at what there is, and reads keys; from then on this process leaves no core dump that would hold them.
///
/// # Errors
/// Where a key can't be read or used, or an agent stands among keys.
pub fn read(agents: &BTreeMap<String, Vec<PathBuf>>) -> Result<BTreeMap<String, Agent>, Problem> {
    agents.iter().map(|(id, paths)| Ok((id.clone(), agent(id, paths)?))).collect()
}

fn agent(id: &str, paths: &[PathBuf]) -> Result<Agent, Problem> {
    match paths {
        // One that isn't there is told by the step that wants it.
        [path] if !path.is_file() => return Ok(Agent::Socket(path.clone())),
        _ => crate::sys::leave_no_core_dump().map_err(|e| cannot("keep keys out of core dumps", &e))?,
    }
    let mut keys = Keys::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = text(id, path)?;
        keys.add(&text, &name).map_err(|why| unusable(id, path, &why))?;
    }
    Ok(Agent::Keys(Arc::new(keys)))
}

fn text(id: &str, path: &Path) -> Result<String, Problem> {
    let wrong = |why: &str| Problem::new(Kind::Usage, format!("ssh {id}: {} {why}", path.display()));
    let meta = path.metadata().map_err(|e| cannot(&format!("read ssh {id} from {}", path.display()), &e))?;
    if !meta.is_file() {
        return Err(wrong("is no file of a key").hint("an agent's socket stands alone: --ssh ID=SOCKET"));
    }
    let read = input::open_regular(path).and_then(|file| input::read_all(file, LARGEST));
    let bytes = match read {
        Err(e) if e.kind() == ErrorKind::FileTooLarge => {
            return Err(wrong(&format!("is larger than {} KiB", LARGEST >> 10)));
        }
        read => read.map_err(|e| cannot(&format!("read ssh {id} from {}", path.display()), &e))?,
    };
    String::from_utf8(bytes).map_err(|_| wrong("is no file of a key: it is no text"))
}

fn unusable(id: &str, path: &Path, why: &Unusable) -> Problem {
    let problem = Problem::new(Kind::Usage, format!("ssh {id}: the key {} can't be used: {why}", path.display()));
    match why {
        Unusable::Encrypted | Unusable::Kind(_) => problem.hint(format!(
            "add it to an agent, `ssh-add {}`, and forward that: --ssh {id} with $SSH_AUTH_SOCK set",
            path.display()
        )),
        Unusable::NoKey => problem.hint("the private key is wanted, which has no .pub at the end of its name"),
        Unusable::Broken | Unusable::Rejected(_) => problem,
    }
}
