//! Where the credentials lie that a build is given, or would look for.

use super::env::Env;
use super::request::{BuildRequest, Secret, SecretFrom};
use crate::registry::Config;
use crate::source::credential_files;
use std::path::PathBuf;

/// Docker's `config.json` and the files for stores of objects, whether or not they are there.
pub fn of_env(env: &Env) -> Vec<PathBuf> {
    let variable = |name: &str| env.var(name).map(str::to_owned);
    let docker = Config::from_env(&variable).credentials;
    docker.into_iter().chain(credential_files(&variable)).map(|path| env.cwd.join(path)).collect()
}

/// The same, and what the command line names for secrets and keys.
pub fn of_build(request: &BuildRequest, env: &Env) -> Vec<PathBuf> {
    let secret = |secret: &Secret| match &secret.from {
        SecretFrom::File(path) => Some(env.cwd.join(path)),
        SecretFrom::Env(_) => None,
    };
    let keys = request.agents.values().flatten().map(|path| env.cwd.join(path));
    of_env(env).into_iter().chain(request.secrets.iter().filter_map(secret)).chain(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn variables_say_where_credentials_are() {
        let vars = [("HOME", "/h"), ("AWS_CONFIG_FILE", "aws"), ("AZURE_FEDERATED_TOKEN_FILE", "/az")];
        let vars = vars.map(|(name, value)| (name.into(), value.into())).into();
        let env = Env { vars, cwd: "/w".into(), ..Env::default() };
        let files = of_env(&env);
        for expected in [
            "/h/.docker/config.json",
            "/h/.aws/credentials",
            "/w/aws",
            "/h/.config/gcloud/application_default_credentials.json",
            "/az",
        ] {
            assert!(files.iter().any(|file| file == Path::new(expected)), "{expected}: {files:?}");
        }
        assert_eq!(files.len(), 5);
        assert!(of_env(&Env::default()).is_empty());
    }
}
