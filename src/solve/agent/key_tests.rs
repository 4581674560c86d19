//! kiln as an agent, asked by OpenSSH's own programs.

use super::wire::{Wire, strings};
use super::{Agent, FAILURE, Keys, SOCKET, Unusable, forward};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// Runs a program in a folder, with the socket there as its agent; `None`, and a line that says why, where it is missing.
fn run(folder: &Path, program: &str, args: &[&str], input: &str) -> Option<Output> {
    std::fs::write(folder.join("input"), input).unwrap();
    let ran = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env("SSH_AUTH_SOCK", folder.join(SOCKET))
        .stdin(Stdio::from(std::fs::File::open(folder.join("input")).unwrap()))
        .output();
    if ran.is_err() {
        #[allow(clippy::print_stdout)]
        {
            println!("skipped: {program} is not installed (apt-get install openssh-client)");
        }
    }
    ran.ok()
}

fn ok(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A key made by `ssh-keygen`, as text; its public half is beside it.
fn generate(folder: &Path, name: &str, args: &[&str]) -> Option<String> {
    let comment = format!("{name}@test");
    let args = [&["-q", "-f", name, "-C", &comment], args].concat();
    ok(&run(folder, "ssh-keygen", &args, "")?);
    Some(std::fs::read_to_string(folder.join(name)).unwrap())
}

const KINDS: [(&str, &[&str]); 7] = [
    ("ed", &["-t", "ed25519", "-N", ""]),
    ("rsa2", &["-t", "rsa", "-b", "2048", "-N", ""]),
    ("rsa3", &["-t", "rsa", "-b", "3072", "-N", ""]),
    ("p256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
    ("p384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
    ("pkcs1", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"]),
    ("pkcs8", &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PKCS8"]),
];

#[test]
fn openssh_takes_the_signatures_of_every_kind_of_key() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let mut keys = Keys::new();
    for (name, args) in KINDS {
        let Some(text) = generate(folder, name, args) else { return };
        keys.add(&text, name).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Only the public half is left to sign with.
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let _forwarded = forward("default", &Agent::Keys(Arc::new(keys)), folder, 0o600, owner).unwrap();
    let listed = ok(&run(folder, "ssh-add", &["-L"], "").unwrap());
    let blob = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    for ((name, _), line) in KINDS.iter().zip(listed.lines()) {
        let public = std::fs::read_to_string(folder.join(format!("{name}.pub"))).unwrap();
        assert_eq!(blob(line), blob(&public), "{name}");
        std::fs::write(folder.join("signers"), format!("me {public}")).unwrap();
        let half = format!("{name}.pub");
        let signature = ok(&run(folder, "ssh-keygen", &["-Y", "sign", "-n", "t", "-f", &half], "text").unwrap());
        std::fs::write(folder.join("signature"), signature).unwrap();
        let verify = ["-Y", "verify", "-n", "t", "-f", "signers", "-I", "me", "-s", "signature"];
        ok(&run(folder, "ssh-keygen", &verify, "text").unwrap());
        assert!(!run(folder, "ssh-keygen", &verify, "another").unwrap().status.success(), "{name}");
    }
    assert!(listed.contains(" ed@test") && listed.contains(" pkcs8"), "{listed}");
    // Nothing can be changed, and what is there doesn't go.
    std::fs::write(folder.join("more"), "").unwrap();
    for args in [&["-D"][..], &["-x"], &["-d", "ed.pub"]] {
        assert!(!run(folder, "ssh-add", args, "x\nx\n").unwrap().status.success(), "{args:?}");
    }
    assert_eq!(ok(&run(folder, "ssh-add", &["-L"], "").unwrap()), listed);
}

#[test]
fn keys_that_cannot_be_used_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let why = |name: &str, args: &[&str]| Some(Keys::new().add(&generate(dir.path(), name, args)?, name).unwrap_err());
    let Some(encrypted) = why("enc", &["-t", "ed25519", "-N", "passphrase"]) else { return };
    assert!(matches!(encrypted, Unusable::Encrypted) && encrypted.to_string().contains("passphrase"));
    assert!(matches!(why("enc1", &["-t", "rsa", "-N", "passphrase", "-m", "PEM"]).unwrap(), Unusable::Encrypted));
    assert!(matches!(why("enc8", &["-t", "rsa", "-N", "passphrase", "-m", "PKCS8"]).unwrap(), Unusable::Encrypted));
    let p521 = why("p521", &["-t", "ecdsa", "-b", "521", "-N", ""]).unwrap();
    assert!(p521.to_string().contains("nistp521"), "{p521}");
    let public = std::fs::read_to_string(dir.path().join("enc.pub")).unwrap();
    assert!(matches!(Keys::new().add(&public, "x"), Err(Unusable::NoKey)));
}

#[test]
fn questions_without_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(text) = generate(dir.path(), "ed", KINDS[0].1) else { return };
    let mut keys = Keys::new();
    keys.add(&text, "ed").unwrap();
    let ask = |kind: u8, body: &[u8]| keys.answer(&[&[0, 0, 0, 0, kind], body].concat());
    let listed = ask(11, b"");
    let mut wire = Wire(&listed[9..]);
    let public = wire.string().unwrap();
    let question = [strings(&[public, b"text"]), vec![0; 4]].concat();
    assert_eq!(ask(13, &question)[4], 14);
    let other = [strings(&[b"other", b"text"]), vec![0; 4]].concat();
    for (kind, body) in [
        (13, &b""[..]),
        (13, &question[..question.len() - 1]),
        (13, &other),
        (17, &question),
        (18, b""),
        (19, b""),
        (27, b""),
    ] {
        assert_eq!(ask(kind, body), FAILURE, "{kind}");
    }
    assert_eq!(keys.answer(&[]), FAILURE);
    assert!(!format!("{keys:?}").contains("ed@test"));
}
