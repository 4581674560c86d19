//! `testdata/plan/*.dockerfile` and the plans made of them, `*.plan`. `KILN_BLESS=1` writes the plans anew.
//!
//! Comments of the form `#: --target x --build-arg A=b` are the command line.

use super::{BuildArgs, Context, amd64, bases, fake_image, lower, plan_with};
use crate::dockerfile;
use crate::plan::op::Network;
use crate::plan::{GitUrl, ImageKey, ResolvedImage, context_name, print};
use crate::report::{Diagnostic, Severity};
use std::path::Path;

#[test]
fn plans_are_as_noted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/plan");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "dockerfile"));
    files.sort();
    assert!(files.len() > 10);
    let mut wrong = Vec::new();
    for file in files {
        let got = shown(&std::fs::read_to_string(&file).unwrap());
        let noted = file.with_extension("plan");
        if std::env::var_os("KILN_BLESS").is_some() {
            std::fs::write(&noted, &got).unwrap();
        } else if std::fs::read_to_string(&noted).unwrap_or_default() != got {
            wrong.push(format!("--- {}\n{got}", noted.display()));
        }
    }
    assert!(wrong.is_empty(), "KILN_BLESS=1 writes these:\n{}", wrong.join("\n"));
}

/// The plan with its warnings, or the errors, with the text they point at.
fn shown(text: &str) -> String {
    let args = arguments(text);
    let place = |d: &Diagnostic| {
        let spanned = text.get(d.span.range()).unwrap_or("?").replace('\n', "\\n");
        let hint = d.hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default();
        format!(
            "{}{}: {}{hint} at `{spanned}`\n",
            kind(d),
            d.rule.map(|r| format!(" {r}")).unwrap_or_default(),
            d.message
        )
    };
    let (file, found) = dockerfile::parse(text);
    let errors: Vec<&Diagnostic> = found.iter().filter(|d| d.severity == Severity::Error).collect();
    if !errors.is_empty() {
        return errors.into_iter().map(place).collect();
    }
    let mut known = super::ResolvedBases::default();
    let lowered = loop {
        match bases(&file, &args, &known) {
            Err(errors) => break Err(errors),
            Ok(wanted) if wanted.is_empty() => break lower(&file, &known, &args),
            Ok(wanted) => super::answer(wanted, &mut known, image).unwrap(),
        }
    };
    match lowered {
        Ok((plan, warnings)) => short(&print::text(&plan)) + &warnings.iter().map(place).collect::<String>(),
        Err(errors) => errors.iter().map(place).collect(),
    }
}

fn kind(d: &Diagnostic) -> &'static str {
    if d.severity == Severity::Error { "error" } else { "warning" }
}

/// Digests by their first eight digits.
fn short(text: &str) -> String {
    regex::Regex::new("([0-9a-f]{8})[0-9a-f]{32,56}").unwrap().replace_all(text, "$1").into_owned()
}

/// Images whose names say what their configuration has.
fn image(key: &ImageKey) -> Option<ResolvedImage> {
    let mut image = fake_image(key);
    let config = &mut image.config.config;
    match key.name.to_string().as_str() {
        "docker.io/library/onbuild:latest" => {
            config.on_build = vec!["ARG A".into(), "COPY --from=tools /bin/t /t".into(), "RUN echo $A".into()];
        }
        "docker.io/library/bad-onbuild:latest" => config.on_build = vec!["RUN ok".into(), "CPOY . .".into()],
        "docker.io/library/full:latest" => {
            config.env = vec!["PATH=/p".into(), "HOME=/h".into(), "URL=https://h.invalid/x".into()];
            config.entrypoint = Some(vec!["/e".into()]);
            config.user = "app:www".into();
            config.working_dir = "/srv".into();
            config.shell = Some(vec!["/bin/bash".into(), "-c".into()]);
            config.labels.insert("l".into(), "base".into());
        }
        "docker.io/library/empty:latest" => {
            image.layers.clear();
            image.config.rootfs.diff_ids.clear();
        }
        "docker.io/library/armed:latest" => image.config.architecture = "arm64".into(),
        _ => {}
    }
    Some(image)
}

fn arguments(text: &str) -> BuildArgs {
    let mut args = BuildArgs::new(amd64());
    for line in text.lines().filter_map(|l| l.strip_prefix("#: ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.chunks(2) {
            argument(&mut args, pair[0], pair[1]);
        }
    }
    args
}

fn argument(args: &mut BuildArgs, flag: &str, value: &str) {
    let pair = || value.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
    match flag {
        "--target" => args.target = Some(value.to_owned()),
        "--build-arg" => args.values.extend([pair()]),
        "--platform" => args.platforms = value.split(',').map(|p| p.parse().unwrap()).collect(),
        "--label" => args.labels.push(pair()),
        "--no-cache-filter" => args.no_cache_filter.push(value.to_owned()),
        "--network" => args.network = if value == "host" { Network::Host } else { Network::None },
        "--add-host" => args.extra_hosts.push(value.split_once(':').map(|(k, v)| (k.into(), v.into())).unwrap()),
        "--shm-size" => args.limits.shm_size = Some(value.parse().unwrap()),
        "--allow" => match value {
            "security.insecure" => args.entitlements.insecure = true,
            _ => args.entitlements.network_host = true,
        },
        "--context-time" => args.context_time = Some(value.parse().unwrap()),
        "--build-context" => {
            let (name, value) = pair();
            args.contexts.insert(context_name(&name), context(&value));
        }
        _ => panic!("unknown flag {flag}"),
    }
}

fn context(value: &str) -> Context {
    match value.split_once(':') {
        Some(("docker-image", rest)) => Context::Image(rest.trim_start_matches('/').to_owned()),
        Some(("oci-layout", rest)) => Context::OciLayout(rest.replacen("//", "", 1)),
        Some(("target", rest)) => Context::Target(rest.to_owned()),
        Some((_, _)) if value.contains(".git") => Context::Git(GitUrl::context(value).unwrap().unwrap()),
        Some(("https", _)) => Context::Http(value.to_owned()),
        _ => Context::Local,
    }
}

#[test]
fn a_base_that_is_not_there_is_an_error_of_its_own() {
    let errors = plan_with("FROM nothing", &BuildArgs::new(amd64()), |_| None).unwrap_err();
    assert_eq!(errors, ["docker.io/library/nothing:latest not found"]);
    let (file, _) = dockerfile::parse("FROM nothing");
    let errors = lower(&file, &super::ResolvedBases::default(), &BuildArgs::new(amd64())).unwrap_err();
    assert_eq!(errors[0].message, "docker.io/library/nothing:latest for linux/amd64 is not resolved");
}
