use super::*;
use std::os::unix::process::ExitStatusExt as _;

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.into(), password: Secret::new(password) }
}

fn places(json: &str, registry: &str) -> Vec<Place> {
    serde_json::from_str::<DockerConfig>(json).unwrap().places(registry)
}

fn helper(name: &str, key: &str) -> Place {
    Place::Helper { name: name.into(), key: key.into() }
}

#[test]
fn credentials_in_the_file() {
    // base64("u:p:q"), base64("u:p\0\0")
    for (json, registry, want) in [
        (r#"{"auths":{"r.io":{"auth":"dTpwOnE="}}}"#, "r.io", Some(basic("u", "p:q"))),
        (r#"{"auths":{"r.io":{"auth":"dTpwOnE"}}}"#, "r.io", Some(basic("u", "p:q"))),
        (r#"{"auths":{"r.io":{"auth":"dTpwAAA="}}}"#, "r.io", Some(basic("u", "p"))),
        (r#"{"auths":{"https://r.io/v2/":{"auth":"dTpwOnE="}}}"#, "r.io", Some(basic("u", "p:q"))),
        (r#"{"auths":{"http://r.io":{"auth":"dTpwOnE="}}}"#, "r.io", Some(basic("u", "p:q"))),
        (r#"{"auths":{"r.io:5000":{"auth":"dTpwOnE="}}}"#, "r.io", None),
        (r#"{"auths":{"r.io":{"username":"u","password":"p"}}}"#, "r.io", Some(basic("u", "p"))),
        (r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="}}}"#, "docker.io", Some(basic("u", "p:q"))),
        (r#"{"auths":{"registry-1.docker.io":{"auth":"dTpwOnE="}}}"#, "docker.io", Some(basic("u", "p:q"))),
        (r#"{"auths":{"evil.io/docker.io":{"auth":"dTpwOnE="}}}"#, "docker.io", None),
        (
            r#"{"auths":{"r.io":{"auth":"dTpwOnE=","identitytoken":"t"}}}"#,
            "r.io",
            Some(Credential::Identity(Secret::new("t"))),
        ),
        (r#"{"auths":{"r.io":{"registrytoken":"t"}}}"#, "r.io", Some(Credential::Registry(Secret::new("t")))),
        (r#"{"auths":{"r.io":{}}}"#, "r.io", None),
        (r#"{"auths":{"r.io":{"auth":"***"}}}"#, "r.io", None),
        (r#"{"auths":null,"credsStore":"","HttpHeaders":{}}"#, "r.io", None),
        ("{}", "r.io", None),
    ] {
        let want: Vec<Place> = want.map(Place::Here).into_iter().collect();
        assert_eq!(places(json, registry), want, "{json}");
    }
}

#[test]
fn helpers_come_first() {
    let json = r#"{"credsStore":"general","credHelpers":{"gcr.io":"gcloud"},"auths":{"r.io":{"auth":"dTpwOnE="}}}"#;
    assert_eq!(places(json, "gcr.io"), [helper("gcloud", "gcr.io")]);
    assert_eq!(places(json, "r.io"), [helper("general", "r.io"), Place::Here(basic("u", "p:q"))]);
    assert_eq!(places(json, "docker.io"), [helper("general", "https://index.docker.io/v1/")]);
    let hub = r#"{"credHelpers":{"https://index.docker.io/v1/":"hub"}}"#;
    assert_eq!(places(hub, "docker.io"), [helper("hub", "https://index.docker.io/v1/")]);
}

#[test]
fn helpers_answer() {
    let (good, bad) = (std::process::ExitStatus::from_raw(0), std::process::ExitStatus::from_raw(256));
    let read = |status, text: &str| read_answer("docker-credential-x", status, text.as_bytes());
    assert_eq!(read(good, r#"{"ServerURL":"s","Username":"u","Secret":"p"}"#), Ok(Some(basic("u", "p"))));
    let token = Credential::Identity(Secret::new("p"));
    assert_eq!(read(good, r#"{"Username":"<token>","Secret":"p"}"#), Ok(Some(token)));
    assert_eq!(read(bad, "credentials not found in native keychain\n"), Ok(None));
    for (status, text) in [(bad, "hunter2"), (good, "hunter2"), (good, r#"{"Username":"hunter2"}"#)] {
        let error = read(status, text).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_broken_file_is_named_but_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    assert!(read(&file).unwrap().places("r.io").is_empty());
    std::fs::write(&file, r#"{"auths":{"r.io":{"auth":hunter2}}}"#).unwrap();
    let error = read(&file).err().unwrap();
    assert!(error.contains("config.json") && error.contains("line 1") && !error.contains("hunter2"), "{error}");
}

#[test]
fn the_environments_credentials_count_but_not_its_helpers() {
    let text = r#"{"auths":{"r.io":{"auth":"dTpw"}},"credsStore":"evil","credHelpers":{"r.io":"evil"}}"#;
    let places = given(&Secret::new(text)).unwrap().places("r.io");
    assert_eq!(places, [Place::Here(basic("u", "p"))]);
    let error = given(&Secret::new("{hunter2}")).err().unwrap();
    assert!(error.contains("$DOCKER_AUTH_CONFIG") && !error.contains("hunter2"), "{error}");
}

#[test]
fn secrets_are_not_printed() {
    let shown = format!("{:?} {:?}", basic("u", "hunter2"), Credential::Identity(Secret::new("hunter2")));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_path_follows_the_environment() {
    for (docker, home, want) in [
        (Some("/d"), Some("/h"), Some("/d/config.json")),
        (Some(""), Some("/h"), Some("/h/.docker/config.json")),
        (None, Some("/h"), Some("/h/.docker/config.json")),
        (None, None, None),
    ] {
        let env = |name: &str| match name {
            "DOCKER_CONFIG" => docker.map(str::to_owned),
            _ => home.map(str::to_owned),
        };
        assert_eq!(path(&env), want.map(PathBuf::from));
    }
}
