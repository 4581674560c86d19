//! What ONBUILD triggers of base images are given.

use super::*;

/// Plans a file whose base `a` has these triggers, with what was found: severity, message, and the text that it points at.
fn found(text: &str, triggers: &[&str], args: &BuildArgs) -> Vec<(Severity, String, String)> {
    let (file, parsed) = dockerfile::parse(text);
    assert_eq!(parsed, []);
    let mut known = ResolvedBases::default();
    let image = |key: &ImageKey| {
        let mut image = fake_image(key);
        image.config.config.on_build = triggers.iter().map(|t| (*t).to_owned()).collect();
        Some(image)
    };
    let found = loop {
        let wanted = match bases(&file, args, &known) {
            Ok(wanted) => wanted,
            Err(found) => break found,
        };
        if wanted.is_empty() {
            break lower(&file, &known, args).map_or_else(|found| found, |(_, warnings)| warnings);
        }
        answer(wanted, &mut known, image).unwrap();
    };
    let told = |d: Diagnostic| {
        let hint = d.hint.unwrap_or_default();
        (d.severity, format!("{} [{hint}]", d.message), text[d.span.range()].to_owned())
    };
    found.into_iter().map(told).collect()
}

#[test]
fn secrets_of_a_base_images_triggers_are_told() {
    let text = "FROM scratch AS other\nFROM a\nRUN --mount=type=secret,id=own x\n";
    for (trigger, parts) in [
        ("RUN --mount=type=secret,id=token x", ["image a is given the secret \"token\"", "id=token,onbuild=false"]),
        ("RUN --mount=type=secret,target=/x/token x", ["the secret \"token\"", "onbuild=false"]),
        ("RUN --mount=type=ssh x", ["image a is given the SSH agent \"default\"", "--ssh"]),
    ] {
        let found = found(text, &[trigger, "RUN x"], &BuildArgs::new(amd64()));
        let [(Severity::Warning, message, place)] = found.as_slice() else { panic!("{found:?}") };
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(place, "FROM a");
    }
    // Triggers of this very file can be seen in it.
    let own = "FROM scratch AS base\nONBUILD RUN --mount=type=secret,id=token x\nFROM base\n";
    assert_eq!(found(own, &[], &BuildArgs::new(amd64())), []);
}

#[test]
fn a_secret_can_be_kept_from_triggers_of_base_images() {
    let args = BuildArgs { not_onbuild: ["token".to_owned()].into(), ..BuildArgs::new(amd64()) };
    for trigger in [
        "RUN --mount=type=secret,id=token x",
        "RUN --mount=type=secret,target=/x/token x",
        "RUN --mount=type=secret,id=to$KEN,env=A x",
    ] {
        let found = found("FROM a\nRUN x\n", &["ENV KEN=ken", trigger], &args);
        let [(Severity::Error, message, place)] = found.as_slice() else { panic!("{trigger}: {found:?}") };
        assert!(message.contains("base image a mounts the secret \"token\"") && message.contains("[take another"));
        assert_eq!(place, "FROM a");
    }
    let others = ["RUN --mount=type=secret,id=other x"];
    let own = "FROM a\nRUN --mount=type=secret,id=token x\nONBUILD RUN --mount=type=secret,id=token x\n";
    let found = found(own, &others, &args);
    assert!(matches!(found.as_slice(), [(Severity::Warning, message, _)] if message.contains("other")), "{found:?}");
}
