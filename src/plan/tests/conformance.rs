//! Every shared build case is parsed and planned; configuration and history must be BuildKit's, and what BuildKit refuses
//! before it runs anything must be refused.

use super::op::{HistoryEntry, Target};
use super::{BuildArgs, amd64, plan_with};
use crate::oci::{ContainerConfig, ImageConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Cases that BuildKit refuses for reasons that show only when something runs or is copied.
const LATER: &[&str] = &[
    "buildah-bud-run-mounts-dockerfile.secret-required",
    "buildah-copy-multiple-missing-file-with-glob",
    "buildah-copy-multiple-some-missing",
    "buildkit-cache-mount-source-escape",
    "buildkit-dockerignore-invalid",
    "buildkit-errors-source-map-3",
    "buildkit-errors-source-map-7",
    "buildkit-history-error",
    "buildkit-invalid-json-commands-1",
];

fn cases() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["../shared/conformance/cases", "../../shared/conformance/cases"]
        .map(|p| root.join(p))
        .into_iter()
        .find(|p| p.is_dir())
}

#[test]
fn shared_build_cases_give_buildkits_config_and_history() {
    let Some(cases) = cases() else {
        println!("skipped: ../shared/conformance/cases is not there");
        return;
    };
    let mut entries: Vec<PathBuf> = std::fs::read_dir(cases).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in entries {
        let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(entry.join(name)).unwrap()).unwrap() };
        let case = read("case.json");
        if case["kind"] != "build" {
            continue;
        }
        count += 1;
        let name = entry.file_name().unwrap().to_str().unwrap();
        if let Err(why) = check(name, &entry, &case, &read("expected.json")) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert!(count > 100, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

fn check(name: &str, folder: &Path, case: &Value, expected: &Value) -> Result<(), String> {
    let bytes = std::fs::read(folder.join(case["dockerfile"].as_str().unwrap())).unwrap();
    let mut args = BuildArgs::new(amd64());
    args.target = case["target"].as_str().map(str::to_owned);
    for (name, value) in case["build_args"].as_object().unwrap() {
        args.values.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    let planned = plan_with(&String::from_utf8_lossy(&bytes), &args, |key| Some(super::fake_image(key)));
    match (expected["outcome"].as_str(), planned) {
        (Some("ok"), Ok((plan, _))) => compare(&plan.targets[0], expected),
        (Some("ok"), Err(errors)) => Err(format!("refused: {errors:?}")),
        (_, Ok(_)) if LATER.contains(&name) => Ok(()),
        (_, Ok(_)) => Err(format!("not refused: {}", expected["error"])),
        (_, Err(errors)) if LATER.contains(&name) => Err(format!("refused too early: {errors:?}")),
        (_, Err(errors)) => same_error(&errors, expected["error"].as_str().unwrap()),
    }
}

/// The messages are BuildKit's but for its prefix and the suggestions.
fn same_error(errors: &[String], expected: &str) -> Result<(), String> {
    let expected =
        expected.split_once(": ").filter(|(p, _)| p.starts_with("dockerfile parse error")).map_or(expected, |(_, m)| m);
    // The rule for components of platforms has other words in kiln.
    let expected = expected.split(": platform specifier").next().unwrap_or(expected);
    let bare = |text: &str| text.split(" (did you mean").next().unwrap_or_default().to_lowercase().replace('"', "");
    let known = errors.iter().any(|e| bare(e).contains(&bare(expected)) || bare(expected).contains(&bare(e)));
    if known { Ok(()) } else { Err(format!("other error: {errors:?} instead of {expected}")) }
}

fn compare(target: &Target, expected: &Value) -> Result<(), String> {
    let config = normal(&target.config);
    if config != expected["config"] {
        return Err(format!("config {config} instead of {}", expected["config"]));
    }
    let created_by: Vec<&str> = target
        .history
        .iter()
        .map(|entry| match entry {
            HistoryEntry::Base(base) => base.created_by.as_str(),
            HistoryEntry::Instruction { created_by, .. } => created_by,
        })
        .collect();
    if json!(created_by) != expected["history"]["created_by"] {
        return Err(format!("history {created_by:?} instead of {}", expected["history"]["created_by"]));
    }
    let empty = target.history.iter().filter(|e| matches!(e, HistoryEntry::Instruction { layer: None, .. })).count();
    if json!(empty) != expected["history"]["empty"] || json!(created_by.len()) != expected["history"]["total"] {
        return Err(format!("{empty} of {} entries are empty: {}", created_by.len(), expected["history"]));
    }
    Ok(())
}

/// The form of `config` in expected.json.
fn normal(image: &ImageConfig) -> Value {
    let ContainerConfig {
        env, cmd, entrypoint, working_dir, user, exposed_ports, volumes, labels, stop_signal, ..
    } = &image.config;
    let mut env = env.clone();
    env.sort();
    let health = image.config.healthcheck.as_ref().map(|h| serde_json::to_value(h).unwrap());
    let all = BTreeMap::from([
        ("Env", json!(env)),
        ("Cmd", json!(cmd)),
        ("Entrypoint", json!(entrypoint)),
        ("WorkingDir", json!(if working_dir.is_empty() { "/" } else { working_dir })),
        ("User", json!(user)),
        ("ExposedPorts", json!(exposed_ports.keys().collect::<Vec<_>>())),
        ("Volumes", json!(volumes.keys().collect::<Vec<_>>())),
        ("Labels", json!(labels)),
        ("StopSignal", json!(stop_signal)),
        ("Shell", json!(image.config.shell)),
        ("Healthcheck", health.unwrap_or_default()),
        ("OnBuild", json!(image.config.on_build)),
        ("Platform", json!(format!("{}/{}", image.os, image.architecture))),
    ]);
    let is_set = |v: &Value| !matches!(v, Value::Null) && *v != json!("") && *v != json!([]) && *v != json!({});
    json!(all.into_iter().filter(|(_, v)| is_set(v)).collect::<BTreeMap<_, _>>())
}
