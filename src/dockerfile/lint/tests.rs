use super::context::{ignored_sources, no_ignore_file};
use super::fix::{Edit, apply, fix};
use super::*;
use crate::dockerfile::ignore::Matcher;
use crate::dockerfile::parse;
use crate::report::{Severity, SourceText};

/// The rules that a text breaks, with their messages.
fn found(text: &str) -> Vec<(&'static str, String)> {
    let (file, errors) = parse(text);
    assert!(errors.iter().all(|e| e.severity == Severity::Warning), "{text}: {errors:?}");
    lint(text, &file).into_iter().map(|f| (f.diagnostic.rule.unwrap(), f.diagnostic.message)).collect()
}

fn names(text: &str) -> Vec<&'static str> {
    found(text).into_iter().map(|(rule, _)| rule).collect()
}

/// Rules that need more than the instructions.
const ELSEWHERE: [&str; 9] = [
    "UndefinedArgInFrom",
    "WorkdirRelativePath",
    "UndefinedVar",
    "InvalidBaseImagePlatform",
    "RedundantTargetPlatform",
    "InvalidDefaultArgInFrom",
    "FromPlatformFlagConstDisallowed",
    "CopyIgnoredFile",
    "NoIgnoreFile",
];

/// The Dockerfiles on a rule's page.
fn examples(rule: &Rule) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(rule.page());
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(page.starts_with(&format!("# {}\n", rule.name)));
    let blocks = page.split("```dockerfile\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn every_rule_has_a_page_whose_examples_are_true() {
    for rule in RULES {
        let examples = examples(rule);
        assert_eq!(examples.len(), 2, "{}", rule.name);
        for example in &examples {
            let (_, errors) = parse(example);
            assert!(errors.is_empty(), "{}: {errors:?}", rule.name);
        }
        if !ELSEWHERE.contains(&rule.name) {
            assert!(names(&examples[0]).contains(&rule.name), "{} isn't broken by its example", rule.name);
            assert!(!names(&examples[1]).contains(&rule.name), "{} is broken by its good example", rule.name);
        }
    }
}

#[test]
fn every_page_has_a_rule() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules");
    for page in std::fs::read_dir(pages).unwrap().flatten() {
        let name = page.file_name().to_string_lossy().trim_end_matches(".md").to_owned();
        assert!(rule(&name).is_some(), "{name}");
    }
}

#[test]
fn messages_are_buildkits() {
    for (text, rule, message) in [
        ("FROM a:1 AS Foo", "StageNameCasing", "Stage name 'Foo' should be lowercase"),
        ("FROM a:1 as b", "FromAsCasing", "'as' and 'FROM' keywords' casing do not match"),
        ("FROM a:1\nRUN b \\\n\n c", "NoEmptyContinuation", "Empty continuation line"),
        (
            "FROM a:1\nrun b",
            "ConsistentInstructionCasing",
            "Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "from a:1\nrun b\nUSER c",
            "ConsistentInstructionCasing",
            "Command 'USER' should match the case of the command majority (lowercase)",
        ),
        (
            "FROM a:1 AS b\nFROM a:1 AS b",
            "DuplicateStageName",
            "Duplicate stage name \"b\", stage names should be unique",
        ),
        (
            "FROM a:1 AS context",
            "ReservedStageName",
            "Stage name should not use the same name as reserved stage \"context\"",
        ),
        (
            "FROM a:1\nUSER b\nENTRYPOINT c",
            "JSONArgsRecommended",
            "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
        ),
        (
            "FROM a:1\nMAINTAINER b",
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label",
        ),
        (
            "FROM a:1\nUSER b\nCMD [\"c\"]\nCMD [\"d\"]",
            "MultipleInstructionsDisallowed",
            "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        ),
        (
            "FROM a:1\nLABEL b c",
            "LegacyKeyValueFormat",
            "\"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ),
        (
            "FROM a:1\nENV DB_PASSWORD=x",
            "SecretsUsedInArgOrEnv",
            "Do not use ARG or ENV instructions for sensitive data (ENV \"DB_PASSWORD\")",
        ),
        (
            "FROM a:1\nEXPOSE 80/TcP",
            "ExposeProtoCasing",
            "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
        ),
        (
            "FROM a:1\nEXPOSE 127.0.0.1:80:80",
            "ExposeInvalidFormat",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
        ),
        (
            "# it\nFROM a:1 AS b",
            "InvalidDefinitionDescription",
            "Comment for FROM should follow the format: `# b <description>`",
        ),
        (
            "FROM a:1\n# it\nARG b c",
            "InvalidDefinitionDescription",
            "Comment for ARG should follow the format: `# <arg_key> <description>`",
        ),
    ] {
        assert_eq!(found(text), [(rule, message.to_owned())], "{text}");
    }
}

#[test]
fn what_breaks_no_rule() {
    for text in [
        "FROM a:1 AS b\nRUN c",
        "from a:1 as b\nrun c",
        "ARG a\nFROM b:1",
        "FROM a:1\nSHELL [\"b\"]\nUSER 1\nCMD c",
        "FROM a:1 AS b\nSHELL [\"b\"]\nFROM b\nUSER 1\nCMD c",
        "FROM a:1\nENV PUBLIC_KEY=x TOKEN_FILE=y KEYBOARD=z MONKEY=m",
        "FROM a:1\nARG b\nEXPOSE $b 80/udp",
        "# b is it\nFROM a:1 AS b",
        "# it\n\nFROM a:1 AS b",
        "# it\n#\nFROM a:1 AS b",
        "# it\nFROM a:1",
    ] {
        assert_eq!(names(text), [""; 0], "{text}");
    }
}

#[test]
fn practices() {
    for (text, want) in [
        ("FROM a", vec!["UnpinnedBase"]),
        ("FROM r.io:5000/a", vec!["UnpinnedBase"]),
        ("FROM a:latest", vec!["UnpinnedBase"]),
        ("FROM a@sha256:0", vec![]),
        ("FROM scratch", vec![]),
        ("ARG v\nFROM $v", vec![]),
        ("FROM a:1 AS b\nFROM B", vec![]),
        ("FROM a:1\nCMD [\"b\"]", vec!["UserNeverSet"]),
        ("FROM a:1\nRUN b", vec![]),
        ("FROM a:1-nonroot\nCMD [\"b\"]", vec![]),
        ("FROM a:1 AS b\nUSER 1\nFROM b\nCMD [\"c\"]", vec![]),
        ("FROM a:1\nRUN apk add --no-cache gcc", vec!["ToolchainInFinalStage"]),
        ("FROM a:1\nRUN apk add --no-cache --virtual .b gcc=13.2 && make && apk del .b", vec![]),
        ("FROM a:1 AS b\nRUN apk add gcc\nFROM c:1\nCOPY --from=b /x /x", vec![]),
        ("FROM rust:1", vec!["ToolchainInFinalStage"]),
        ("FROM docker.io/library/golang:1.22@sha256:0", vec!["ToolchainInFinalStage"]),
        ("FROM my/golang:1", vec![]),
        ("FROM a:1\nRUN sudo DEBIAN_FRONTEND=x apt-get -y install b", vec!["PackageCacheLeft"]),
        ("FROM a:1\nRUN <<E\napt-get update\napt-get install b\nE", vec!["PackageCacheLeft"]),
        ("FROM a:1\nRUN <<E\napt-get install b\nrm -rf /var/lib/apt/lists/*\nE", vec![]),
        ("FROM a:1\nRUN --mount=type=cache,target=/var/lib/apt apt-get install b", vec![]),
        ("FROM a:1\nRUN apk add b", vec!["PackageCacheLeft"]),
        ("FROM a:1\nRUN apk --no-cache add b", vec![]),
        ("FROM a:1\nRUN pip install b", vec!["PackageCacheLeft"]),
        ("FROM a:1\nENV PIP_NO_CACHE_DIR=1\nRUN pip install b", vec![]),
        ("FROM a:1\nRUN echo apt-get install b", vec![]),
        ("FROM a:1\nRUN [\"apk\", \"add\", \"b\"]", vec!["PackageCacheLeft"]),
        ("FROM a:1\nCOPY . .\nRUN pip install --no-cache-dir -r r.txt", vec!["CopyBeforeInstall"]),
        ("FROM a:1\nCOPY . .\nRUN go mod download", vec!["CopyBeforeInstall"]),
        ("FROM a:1 AS b\nCOPY . .\nFROM a:1\nRUN go mod download", vec![]),
        ("FROM a:1\nCOPY --from=b . .\nRUN go mod download", vec![]),
        ("FROM a:1\nCOPY r.txt .\nRUN pip install --no-cache-dir -r r.txt\nCOPY . .", vec![]),
    ] {
        assert_eq!(names(text), want, "{text}");
    }
}

#[test]
fn safe_mends() {
    for (text, want) in [
        ("FROM a:1 AS Foo", "FROM a:1 AS foo"),
        ("FROM a:1 as Foo", "FROM a:1 AS foo"),
        ("from a:1 AS b", "from a:1 as b"),
        // The keyword is written as the others are, and then its AS was right.
        ("from a:1 AS b\nRUN c\nRUN d", "FROM a:1 AS b\nRUN c\nRUN d"),
        ("FROM a:1\nrun b \\\n\n  \\\n \n c\n", "FROM a:1\nRUN b \\\n  \\\n c\n"),
        ("FROM a:1\r\nRUN b \\\r\n\r\n c\r\n", "FROM a:1\r\nRUN b \\\r\n c\r\n"),
        ("FROM a:1\nENV b c d", "FROM a:1\nENV b=\"c d\""),
        ("FROM a:1\nLABEL b  c$d", "FROM a:1\nLABEL b=c$d"),
        ("FROM a:1\nENV b \"c\"", "FROM a:1\nENV b \"c\""),
        ("FROM a:1\nENV b c \\\n d", "FROM a:1\nENV b c \\\n d"),
        ("FROM a:1\nONBUILD ENV b c", "FROM a:1\nONBUILD ENV b=c"),
        ("FROM a:1\nEXPOSE 80/TCP 81/tcp", "FROM a:1\nEXPOSE 80/tcp 81/tcp"),
        ("FROM a:1\nMAINTAINER b", "FROM a:1\nMAINTAINER b"),
    ] {
        let (mended, count) = fix(text, |_| true);
        assert_eq!(mended, want, "{text}");
        assert_eq!(fix(&mended, |_| true).1, 0, "mending twice: {text}");
        assert_eq!(count == 0, text == want);
        let before: Vec<_> = parse(text).0.stages.into_iter().map(|s| s.instructions.len()).collect();
        let after: Vec<_> = parse(&mended).0.stages.into_iter().map(|s| s.instructions.len()).collect();
        assert_eq!(before, after);
    }
    assert_eq!(fix("FROM a:1 AS Foo", |rule| rule != "StageNameCasing").1, 0);
}

#[test]
fn edits_dont_overlap() {
    let edit = |start, end, text: &str| Edit::new(crate::report::Span::new(start, end), text);
    assert_eq!(apply("abcd", &[edit(2, 3, "X"), edit(0, 1, "Y")]), "YbXd");
    assert_eq!(apply("abcd", &[edit(0, 3, "X"), edit(1, 2, "Y")]), "Xd");
    assert_eq!(apply("é", &[edit(0, 1, "X")]), "é");
    assert_eq!(apply("ab", &[edit(9, 12, "X")]), "ab");
}

#[test]
fn context_rules() {
    let (file, _) = parse("FROM a\nCOPY a.log b /\nADD --chown=1 ./b/../c.log /\nCOPY --from=x c.log $v.log /");
    let ignore = Matcher::new(["*.log"]).unwrap();
    let got: Vec<_> = ignored_sources(&file, &ignore).into_iter().map(|d| d.message).collect();
    assert_eq!(
        got,
        [
            "Attempting to Copy file \"a.log\" that is excluded by .dockerignore",
            "Attempting to Add file \"c.log\" that is excluded by .dockerignore",
        ]
    );
    assert!(no_ignore_file(["src", ".git"]).unwrap().message.contains(".git"));
    assert_eq!(no_ignore_file(["src"]), None);
}

fn report(text: &str) -> (SourceText, Dockerfile, Vec<Diagnostic>) {
    let (file, mut all) = parse(text);
    all.extend(lint(text, &file).into_iter().map(|f| f.diagnostic));
    (SourceText::new("Dockerfile", text), file, all)
}

#[test]
fn as_text() {
    let (source, _, found) = report("FROM a:1 AS Foo\nRUNN x");
    assert_eq!(
        format::text(&source, &found),
        "error: unknown instruction: RUNN\n --> Dockerfile:2:1\n  |\n2 | RUNN x\n  | ^^^^\n  = help: did you mean RUN?\n\n\
         warning[StageNameCasing]: Stage name 'Foo' should be lowercase\n --> Dockerfile:1:13\n  |\n1 | FROM a:1 AS Foo\n  \
         |             ^^^\n  = see: docs/rules/StageNameCasing.md\n\n"
    );
}

#[test]
fn as_json() {
    let (source, file, found) = report("FROM a:1 AS Foo\nENV b \\\n  c\nRUNN\nRUN d \\\n\n  e");
    let json = format::json(&source, &file, &found);
    assert_eq!(json["warnings"][0]["ruleName"], "StageNameCasing");
    assert_eq!(json["warnings"][0]["description"], "Stage names should be lowercase");
    assert_eq!(json["warnings"][1]["ruleName"], "LegacyKeyValueFormat");
    let ranges = serde_json::json!([
        { "start": { "line": 2 }, "end": { "line": 2 } },
        { "start": { "line": 3 }, "end": { "line": 3 } },
    ]);
    assert_eq!(json["warnings"][1]["location"]["ranges"], ranges);
    assert_eq!(json["warnings"][2]["location"]["ranges"][0]["start"]["line"], 7, "the last line, as in BuildKit");
    assert_eq!(json["buildError"]["message"], "unknown instruction: RUNN");
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
}

#[test]
fn as_sarif() {
    let (source, _, found) = report("FROM a:1 AS Foo\nRUNN");
    let sarif = format::sarif(&source, &found);
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    assert_eq!(run["results"][0]["level"], "error");
    let second = &run["results"][1];
    assert_eq!(second["ruleId"], "StageNameCasing");
    let index = usize::try_from(second["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "StageNameCasing");
    let region = &second["locations"][0]["physicalLocation"]["region"];
    assert_eq!((region["startLine"].as_u64(), region["startColumn"].as_u64()), (Some(1), Some(13)));
}
