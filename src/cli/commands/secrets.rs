//! The values of `--secret`: read once, before anything is built.

use crate::cli::Env;
use crate::cli::request::{Secret, SecretFrom};
use crate::cli::session::cannot;
use crate::report::{Kind, Problem};
use crate::sys::input;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// The largest secret, in bytes: BuildKit's.
const LARGEST: u64 = 500 << 10;

/// Reads them. From then on this process leaves no core dump that would hold them.
///
/// # Errors
/// Where one can't be read, isn't set or is too large.
pub fn read(secrets: &[Secret], env: &Env) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    if !secrets.is_empty() {
        crate::sys::leave_no_core_dump().map_err(|e| cannot("keep secrets out of core dumps", &e))?;
    }
    secrets.iter().map(|secret| Ok((secret.id.clone(), value(secret, env)?))).collect()
}

fn value(secret: &Secret, env: &Env) -> Result<Vec<u8>, Problem> {
    let id = &secret.id;
    let value = match &secret.from {
        SecretFrom::File(path) => {
            let read = input::open_given(path).and_then(|file| input::read_all(file, LARGEST));
            match read {
                Err(e) if e.kind() == ErrorKind::FileTooLarge => return Err(too_large(id)),
                read => read.map_err(|e| cannot(&format!("read secret {id} from {}", path.display()), &e))?,
            }
        }
        SecretFrom::Env(name) => {
            let value = env.vars.get(std::ffi::OsStr::new(name));
            let unset = || Problem::new(Kind::Usage, format!("secret {id}: the variable {name} is not set"));
            value.ok_or_else(unset)?.as_encoded_bytes().to_vec()
        }
    };
    if value.len() as u64 > LARGEST {
        return Err(too_large(id));
    }
    Ok(value)
}

fn too_large(id: &str) -> Problem {
    Problem::new(Kind::Usage, format!("secret {id} is larger than {} KiB", LARGEST >> 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_500_kib_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let (fits, large) = (dir.path().join("fits"), dir.path().join("large"));
        std::fs::write(&fits, vec![b'x'; 512_000]).unwrap();
        std::fs::write(&large, vec![b'x'; 512_001]).unwrap();
        let mut env = Env::default();
        env.vars.insert("LARGE".into(), "x".repeat(512_001).into());
        let ask = |from| value(&Secret { id: "s".into(), from, onbuild: true }, &env);
        assert_eq!(ask(SecretFrom::File(fits)).unwrap().len(), 512_000);
        for from in [SecretFrom::File(large), SecretFrom::Env("LARGE".into())] {
            assert!(ask(from).unwrap_err().message.contains("500 KiB"));
        }
        assert!(ask(SecretFrom::Env("UNSET".into())).unwrap_err().message.contains("UNSET"));
    }
}
