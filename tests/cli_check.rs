//! `kiln check`, `plan`, `build --check` and `--call`, `info`: nothing is built, no registry is needed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use world::{Run, World};

/// Two findings of BuildKit's rules that can be mended, and one of kiln's own.
const UNTIDY: &str = "FROM scratch as Base\nCOPY f /\n";
const TIDY: &str = "FROM scratch AS base\nCOPY f /\nUSER 1000\n";

fn world(dockerfile: &str) -> World {
    let world = World::new();
    world.dockerfile(dockerfile).file("context/f", "x");
    world
}

fn json(run: Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn findings_show_in_the_exit_code() {
    let found = world(UNTIDY).kiln(["check", "context"]);
    assert_eq!(found.code, Some(1));
    let found = found.prints("warning[FromAsCasing]").prints("1 | FROM scratch as Base").prints("docs/rules/");
    assert!(found.stdout.ends_with(" warnings have been found!\n"), "{}", found.stdout);
    let tidy = world(TIDY).kiln(["check", "context"]).ok();
    assert_eq!(tidy.stdout, "Check complete, no warnings found.\n");
}

#[test]
fn a_builds_check_has_buildkits_rules_alone() {
    let world = world("FROM scratch\nCOPY f /\nCMD [\"/f\"]\n");
    assert_eq!(world.kiln(["check", "context"]).prints("UserNeverSet").code, Some(1));
    world.kiln(["build", "--check", "context"]).ok().prints("no warnings found");
    world.dockerfile(UNTIDY);
    assert_eq!(world.kiln(["build", "--check", "context"]).prints("StageNameCasing").code, Some(1));
    world.kiln(["build", "--call=check,ignorestatus=true", "context"]).ok().prints("StageNameCasing");
    let found = json(world.kiln(["build", "--call=check,format=json", "context"]));
    assert_eq!(found["warnings"][0]["ruleName"], "FromAsCasing");
    assert!(!world.path("store/names/docker.io").exists());
}

#[test]
fn errors_are_all_told_at_once() {
    let world = world("FROM scratch\nCOPPY a b\nRUNN x\n");
    let found = world.kiln(["check", "context"]);
    assert_eq!(found.code, Some(2));
    found.prints("unknown instruction: COPPY").prints("unknown instruction: RUNN").prints("did you mean COPY?");
    let found = world.kiln(["check", "--format", "json", "context"]);
    assert_eq!(found.code, Some(2));
    assert!(json(found)["buildError"]["message"].as_str().unwrap().contains("COPPY"));
    world.kiln(["check", "--target", "nope", "-f", "context/Dockerfile", "context"]).prints("COPPY");
}

#[test]
fn sarif_is_for_code_scanning() {
    let found = json(world(UNTIDY).kiln(["check", "--format", "sarif", "context"]));
    let run = &found["runs"][0];
    assert_eq!((found["version"].as_str(), run["tool"]["driver"]["name"].as_str()), (Some("2.1.0"), Some("kiln")));
    let place = &run["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "context/Dockerfile");
    assert_eq!(place["region"]["startLine"], 1);
}

#[test]
fn what_has_one_safe_mend_is_mended() {
    let world = world("FROM scratch as Base\ncopy f /\nUSER 1\nCMD [\"/f\"]\n");
    let path = world.path("context/Dockerfile");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    world.kiln(["check", "--fix", "context"]).ok().prints("3 findings have been mended in context/Dockerfile");
    assert_eq!(fs::read_to_string(&path).unwrap(), "FROM scratch AS base\nCOPY f /\nUSER 1\nCMD [\"/f\"]\n");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o640);
    assert_eq!(fs::read_dir(world.path("context")).unwrap().count(), 2);
    world.kiln(["check", "--fix", "context"]).ok().prints("no warnings found");
    world.kiln(["check", "--fix", "-f", "-", "context"]).fails(2).says("standard input");
}

#[test]
fn the_directive_says_what_counts() {
    let world = world("# check=skip=FromAsCasing,StageNameCasing,UserNeverSet\nFROM scratch as Base\nCOPY f /\n");
    world.kiln(["check", "context"]).ok();
    world.dockerfile(&format!("# check=error=true\n{UNTIDY}"));
    world.kiln(["build", "context"]).fails(2).says("lint violation found for rules: FromAsCasing, StageNameCasing");
    world.dockerfile(&format!("# check=skip=all;error=true\n{UNTIDY}"));
    world.kiln(["build", "context"]).ok().doesnt_say("warning[");
    world.dockerfile(&format!("# check=sikp=all\n{UNTIDY}"));
    world.kiln(["build", "context"]).fails(2).says("invalid check option");
    assert_eq!(world.kiln(["check", "context"]).prints("invalid check option").code, Some(2));
}

#[test]
fn a_base_that_nobody_can_ask_for_stops_no_check() {
    let world = world("FROM 127.0.0.1:1/base:1\nUSER 1\nCOPY --from=nope:1 f /\nCOPY --chwon=1 f /\n");
    let found = world.kiln(["check", "context"]);
    assert_eq!(found.code, Some(2));
    found.prints("--chwon");
    world.dockerfile("FROM 127.0.0.1:1/base:1\nUSER 1\nCMD [\"x\"]\n");
    world.kiln(["check", "context"]).ok().says("127.0.0.1:1/base:1 can't be looked at");
}

#[test]
fn a_dockerfile_on_standard_input_is_checked() {
    let world = world("");
    let mut child = world.command(["check", "-f", "-", "context"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(UNTIDY.as_bytes()).unwrap();
    assert_eq!(Run::of(child).prints(" --> -:1:14").code, Some(1));
}

#[test]
fn a_plan_is_shown_and_not_carried_out() {
    let world = world("FROM scratch AS one\nCOPY f /one\nFROM scratch\nCOPY --from=one /one /two\n");
    let text = world.kiln(["plan", "context"]).ok().prints("COPY f /one").prints("COPY --from=one /one /two").stdout;
    assert!(text.contains("image linux/"), "{text}");
    let only = world.kiln(["plan", "--target", "one", "context"]).ok().stdout;
    assert!(!only.contains("/two"), "{only}");
    let plan = json(world.kiln(["plan", "--format", "json", "context"]).ok());
    assert_eq!(plan["images"].as_array().map(Vec::len), Some(1));
    world.kiln(["plan", "--format", "dot", "context"]).ok().prints("digraph plan {");
    world.kiln(["plan", "--format", "mermaid", "context"]).ok().prints("flowchart");
    world.kiln(["plan", "--format", "svg", "context"]).fails(2).says("mermaid");
    world.kiln(["plan", "--target", "nope", "context"]).fails(2).says("nope");
    assert_eq!(fs::read_dir(world.path("store/snapshots")).unwrap().count(), 0);
}

#[test]
fn what_a_build_can_be_given() {
    let world = world(
        "# the version\nARG VERSION=1\n# app makes it\nFROM scratch AS app\nARG VERSION\n\
         COPY f /$VERSION\nFROM app AS last\nCOPY f /\n",
    );
    let outline = world.kiln(["build", "--call", "outline", "context"]).ok();
    outline.prints("BUILD ARG").prints("VERSION");
    let targets = world.kiln(["build", "--call", "targets", "context"]).ok();
    targets.prints("TARGET").prints("last (default)").prints("app");
    let targets = json(world.kiln(["build", "--call", "targets,format=json", "context"]).ok());
    assert_eq!(targets["targets"][1]["name"], "last");
    let outline = json(world.kiln(["build", "--call", "outline,format=json", "--target", "app", "context"]).ok());
    assert_eq!(outline["args"][0]["name"], "VERSION");
}

#[test]
fn this_place_is_described() {
    let world = World::new();
    world.file("docker/config.json", r#"{"auths":{"reg.example":{"auth":"c2VjcmV0OnNlY3JldA=="}}}"#);
    let text = world.kiln(["info"]).ok().prints("Isolation:").prints("reg.example").stdout;
    assert!(text.contains(world.path("store").to_str().unwrap()) && !text.contains("c2Vj"), "{text}");
    let info = json(world.kiln(["info", "--format", "json"]).ok());
    assert_eq!(info["store"]["images"], 0);
    let root = &info["isolation"][0];
    assert_eq!((root["name"].as_str(), root["works"].as_bool()), (Some("root"), Some(root["whyNot"].is_null())));
    world.nothing_is_left();
}
