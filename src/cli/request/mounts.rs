//! What the mounts of RUN get of the host: secrets and SSH agents.

use super::values::Why;
use crate::cli::Env;
use crate::report::csv;
use std::path::PathBuf;

/// A secret for `RUN --mount=type=secret`. Its value is read when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub id: String,
    /// Where its value is.
    pub from: SecretFrom,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`; with an id alone, the variable of that name, else the file.
pub(super) fn secret(text: &str, env: &Env) -> Result<Secret, Why> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in csv::fields(text)? {
        let (key, value) = field.text.split_once('=').ok_or_else(|| format!("the field {:?} has no =", field.text))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(format!("the type {value:?} is neither file nor env")),
            _ => return Err(format!("there is no field {key:?}; known are id, src, env and type")),
        }
    }
    let id = id.filter(|i| !i.is_empty()).ok_or("it has no id=")?;
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let from = match (variable, file) {
        (Some(_), Some(_)) => return Err("it has both a file and a variable".into()),
        (Some(variable), None) => SecretFrom::Env(variable),
        (None, Some(file)) => SecretFrom::File(env.cwd.join(file)),
        (None, None) if env.var(&id).is_some() => SecretFrom::Env(id.clone()),
        (None, None) => SecretFrom::File(env.cwd.join(&id)),
    };
    Ok(Secret { id, from })
}

/// `default`, `ID` or `ID=SOCKET`; without a socket, that of `$SSH_AUTH_SOCK`.
pub(super) fn agent(text: &str, env: &Env) -> Result<(String, PathBuf), Why> {
    let (id, place) = match text.split_once('=') {
        Some((id, place)) => (id, Some(place)),
        None => (text, None),
    };
    if id.is_empty() {
        return Err("it has no name".into());
    }
    let socket = match place {
        None | Some("") => env.set_var("SSH_AUTH_SOCK").ok_or("$SSH_AUTH_SOCK is not set: is an SSH agent running?")?,
        Some(place) => place,
    };
    let path = env.cwd.join(socket);
    if place.is_some() && (socket.contains(',') || path.is_file()) {
        return Err("kiln reads no key files; add the keys to an agent (ssh-add KEY) and give its socket".into());
    }
    Ok((id.to_owned(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_by_name_and_by_socket() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("id_ed25519"), "key").unwrap();
        let mut env = Env { cwd: dir.path().to_owned(), ..Env::default() };
        assert!(agent("default", &env).unwrap_err().contains("SSH_AUTH_SOCK"));
        env.vars.insert("SSH_AUTH_SOCK".into(), "/run/agent".into());
        for (text, id, path) in [
            ("default", "default", PathBuf::from("/run/agent")),
            ("work", "work", "/run/agent".into()),
            ("work=", "work", "/run/agent".into()),
            ("work=/tmp/s", "work", "/tmp/s".into()),
            ("work=s", "work", dir.path().join("s")),
        ] {
            assert_eq!(agent(text, &env), Ok((id.into(), path)), "{text}");
        }
        for text in ["", "=s", "default=id_ed25519", "default=a,b"] {
            assert!(agent(text, &env).is_err(), "{text}");
        }
        assert!(agent("default=id_ed25519", &env).unwrap_err().contains("ssh-add"));
    }
}
