//! Tests of the whole way from text to plan.

mod conformance;
mod limits;
mod printing;
mod properties;
mod rounds;
mod snapshots;
mod triggers;

use super::*;
use crate::dockerfile;
use crate::oci::{ContainerConfig, Digest, History, ImageConfig, Platform, Reference, RootFs};
use crate::report::{Diagnostic, Severity};
use op::BaseLayer;

/// The platform that tests run on.
fn amd64() -> Platform {
    Platform::new("linux", "amd64", "")
}

/// Plans with [`fake_image`]s as bases; errors as their messages.
fn plan(text: &str, args: &BuildArgs) -> Result<(BuildPlan, Vec<Diagnostic>), Vec<String>> {
    plan_with(text, args, |key| Some(fake_image(key)))
}

/// Resolves with `image` for as long as something is wanted, then plans.
fn plan_with(
    text: &str,
    args: &BuildArgs,
    image: impl Fn(&ImageKey) -> Option<ResolvedImage>,
) -> Result<(BuildPlan, Vec<Diagnostic>), Vec<String>> {
    let messages = |list: Vec<Diagnostic>| -> Vec<String> {
        list.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.message).collect()
    };
    let (file, found) = dockerfile::parse(text);
    let errors = messages(found);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut known = ResolvedBases::default();
    for _ in 0..10 {
        let wanted = bases(&file, args, &known).map_err(messages)?;
        if wanted.is_empty() {
            break;
        }
        answer(wanted, &mut known, &image).map_err(|missing| vec![missing])?;
    }
    lower(&file, &known, args).map_err(messages)
}

/// Answers everything that is wanted; an error names the image that `image` doesn't have.
fn answer(
    wanted: Wanted,
    known: &mut ResolvedBases,
    image: impl Fn(&ImageKey) -> Option<ResolvedImage>,
) -> Result<(), String> {
    for (key, _) in wanted.images {
        let found = image(&key).ok_or_else(|| format!("{} not found", key.name))?;
        known.images.insert(key, found);
    }
    for (key, _) in wanted.git {
        let commit = Digest::of(key.reference.as_bytes()).hex()[..40].to_owned();
        known.git.insert(key, ResolvedGit { commit, time: Some(1_700_000_000) });
    }
    for (key, _) in wanted.http {
        let content = key.checksum.clone().unwrap_or_else(|| Digest::of(key.url.as_bytes()));
        known.http.insert(key, ResolvedHttp { content, time: None });
    }
    Ok(())
}

/// An image with one layer and PATH; alpine has a WORKDIR too.
fn fake_image(key: &ImageKey) -> ResolvedImage {
    let text = key.name.to_string();
    let reference = match &key.name {
        ImageName::Registry(reference) => reference.clone(),
        ImageName::Layout(_) => "layout.invalid/image".parse::<Reference>().unwrap(),
    };
    let manifest = Digest::of(format!("{text} {}", key.platform).as_bytes());
    let diff_id = Digest::of(text.as_bytes());
    let layer = crate::oci::describe(crate::oci::MediaType::ImageLayerGzip, text.as_bytes());
    let config = ContainerConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cmd: Some(vec![
            if text.contains("alpine") {
                "/bin/sh"
            } else if text.contains("busybox") {
                "sh"
            } else {
                "bash"
            }
            .into(),
        ]),
        working_dir: if text.contains("alpine") { "/".into() } else { String::new() },
        ..ContainerConfig::default()
    };
    ResolvedImage {
        reference: reference.pinned(manifest.clone()),
        manifest,
        config: ImageConfig {
            config,
            rootfs: RootFs { diff_ids: vec![diff_id.clone()], ..RootFs::default() },
            history: vec![History { created_by: "make-bases".into(), ..History::default() }],
            ..ImageConfig::scratch(&key.platform)
        },
        layers: vec![BaseLayer { descriptor: layer, diff_id }],
    }
}
