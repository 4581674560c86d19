//! What the mounts of RUN get of the host: secrets and SSH agents.

use super::values::Why;
use crate::cli::Env;
use crate::plan::go_bool;
use crate::report::csv;
use std::path::PathBuf;

/// A secret for `RUN --mount=type=secret`. Its value is read when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub id: String,
    /// Where its value is.
    pub from: SecretFrom,
    /// Whether ONBUILD triggers of base images may mount it.
    pub onbuild: bool,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env][,onbuild=true|false]`; with an id alone, the variable of that name, else the file.
pub(super) fn secret(text: &str, env: &Env) -> Result<Secret, Why> {
    let (mut id, mut file, mut variable, mut kind, mut onbuild) = (None, None, None, None, true);
    for field in csv::fields(text)? {
        let (key, value) = field.text.split_once('=').ok_or_else(|| format!("the field {:?} has no =", field.text))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(format!("the type {value:?} is neither file nor env")),
            "onbuild" => onbuild = go_bool(value).ok_or_else(|| format!("onbuild is {value:?}; want true or false"))?,
            _ => return Err(format!("there is no field {key:?}; known are id, src, env, type and onbuild")),
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
    Ok(Secret { id, from, onbuild })
}

/// `default`, `ID`, `ID=SOCKET` or `ID=KEYFILE[,KEYFILE]`; with a name alone, the socket of `$SSH_AUTH_SOCK`. Which one it
/// is, the disk tells.
pub(super) fn agent(text: &str, env: &Env) -> Result<(String, Vec<PathBuf>), Why> {
    let (id, place) = match text.split_once('=') {
        Some((id, place)) => (id, Some(place)),
        None => (text, None),
    };
    if id.is_empty() {
        return Err("it has no name".into());
    }
    let paths = match place {
        None | Some("") => {
            let socket = env.set_var("SSH_AUTH_SOCK");
            vec![socket.ok_or("$SSH_AUTH_SOCK is not set: is an SSH agent running?")?]
        }
        Some(place) => place.split(',').collect(),
    };
    if paths.contains(&"") {
        return Err("there is nothing between two commas".into());
    }
    Ok((id.to_owned(), paths.into_iter().map(|path| env.cwd.join(path)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_by_name_and_by_socket() {
        let mut env = Env { cwd: "/work".into(), ..Env::default() };
        assert!(agent("default", &env).unwrap_err().contains("SSH_AUTH_SOCK"));
        env.vars.insert("SSH_AUTH_SOCK".into(), "/run/agent".into());
        for (text, id, paths) in [
            ("default", "default", &["/run/agent"][..]),
            ("work", "work", &["/run/agent"]),
            ("work=", "work", &["/run/agent"]),
            ("work=/tmp/s", "work", &["/tmp/s"]),
            ("work=s", "work", &["/work/s"]),
            ("work=a,/k/b", "work", &["/work/a", "/k/b"]),
        ] {
            assert_eq!(agent(text, &env), Ok((id.into(), paths.iter().map(PathBuf::from).collect())), "{text}");
        }
        for text in ["", "=s", "default=a,,b", "default=a,"] {
            assert!(agent(text, &env).is_err(), "{text}");
        }
    }
}
