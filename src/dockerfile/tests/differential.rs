//! Against the crate `parse-dockerfile`, where both accept a file.

use super::*;
use parse_dockerfile as other;
use proptest::prelude::*;

/// A stage as both see it: image, name, and what its instructions copy and run from heredocs.
#[derive(Debug, PartialEq, Eq)]
struct Outline {
    image: String,
    name: Option<String>,
    instructions: usize,
    heredocs: Vec<String>,
    dests: Vec<String>,
}

fn ours(file: &Dockerfile) -> Vec<Outline> {
    let stage = |stage: &Stage| Outline {
        image: stage.from.image.text.clone(),
        name: stage.from.name.as_ref().map(|n| n.text.clone()),
        instructions: stage.instructions.len(),
        heredocs: stage.instructions.iter().flat_map(|i| our_heredocs(&i.kind)).collect(),
        dests: stage.instructions.iter().filter_map(|i| our_dest(&i.kind)).collect(),
    };
    file.stages.iter().map(stage).collect()
}

fn our_heredocs(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Run(run) => run.command.heredocs.iter().map(|h| h.content.clone()).collect(),
        _ => Vec::new(),
    }
}

fn our_dest(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Copy(copy) => Some(copy.files.dest.text.clone()),
        Kind::Add(add) => Some(add.files.dest.text.clone()),
        _ => None,
    }
}

fn theirs(file: &other::Dockerfile<'_>) -> Vec<Outline> {
    let stage = |stage: other::Stage<'_, '_>| Outline {
        image: stage.from.image.value.to_string(),
        name: stage.from.as_.as_ref().map(|(_, name)| name.value.to_string()),
        instructions: stage.instructions.len(),
        heredocs: stage.instructions.iter().flat_map(their_heredocs).collect(),
        dests: stage.instructions.iter().filter_map(their_dest).collect(),
    };
    file.stages().map(stage).collect()
}

fn their_heredocs(instruction: &other::Instruction<'_>) -> Vec<String> {
    match instruction {
        other::Instruction::Run(run) => run.here_docs.iter().map(|h| h.value.to_string()).collect(),
        _ => Vec::new(),
    }
}

fn their_dest(instruction: &other::Instruction<'_>) -> Option<String> {
    match instruction {
        other::Instruction::Copy(copy) => Some(copy.dest.value.to_string()),
        other::Instruction::Add(add) => Some(add.dest.value.to_string()),
        _ => None,
    }
}

/// Compares, if both accept; says whether they did.
fn agree(text: &str) -> bool {
    let (file, errors) = parse(text);
    let Ok(their_file) = other::parse(text) else { return false };
    if errors.iter().any(|e| e.severity == Severity::Error) {
        return false;
    }
    assert_eq!(ours(&file), theirs(&their_file), "{text}");
    true
}

/// Files of the shared cases that the crate reads differently, and wrongly.
const WRONG_THERE: &[&str] = &[];

#[test]
fn shared_cases_are_read_alike() {
    let mut both = 0;
    let cases = shared_cases();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let about = std::fs::read_to_string(case.join("case.json")).unwrap();
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        let text = about["dockerfile"].as_str().and_then(|path| std::fs::read_to_string(case.join(path)).ok());
        let Some(text) = text.filter(|_| !WRONG_THERE.contains(&name.as_str())) else { continue };
        both += usize::from(agree(&text));
    }
    assert!(cases.is_empty() || both > 200, "only {both} files are accepted by both");
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "(FROM|from) [a-z/:]{1,9}( (AS|as) [a-z][a-z0-9_.-]{0,5})?",
        "RUN [a-z][a-z -]{0,9}[a-z]",
        "RUN [a-z]{1,3} \\\\\n  [a-z]{1,3}",
        "RUN [a-z]{1,3} \\\\\n# [a-z]{1,3}\n  [a-z]{1,3}",
        "RUN <<E\n([a-z ]{0,9}\n){0,3}E",
        "(COPY|ADD) (--chown=[0-9]{1,3} )?[a-z./]{1,6}( [a-z./]{1,6}){1,2}",
        "COPY \\[\"[a-z ]{1,5}\", \"[a-z ]{1,5}\"\\]",
        "ENV [A-Z]{1,4}=[a-z]{0,4}",
        "(CMD|ENTRYPOINT) \\[\"[a-z]{1,4}\", \"[a-z]{1,4}\"\\]",
        "(USER|WORKDIR|STOPSIGNAL|EXPOSE|VOLUME) /?[a-z0-9]{1,5}",
        "# [a-z =]{0,9}",
        "",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn plain_files_are_read_alike(lines in prop::collection::vec(line(), 0..12)) {
        let text = format!("FROM a\n{}\n", lines.join("\n"));
        prop_assert!(agree(&text), "one of the two refuses:\n{}", text);
    }
}
