//! What a build is asked for besides its Dockerfile.

use super::git::GitUrl;
use super::op::{Limits, Network};
use crate::oci::{Platform, Reference};
use std::collections::{BTreeMap, BTreeSet};

/// The command line of a build as the planner needs it. Environment fallbacks (`--build-arg NAME` without a value,
/// proxy variables, `SOURCE_DATE_EPOCH`) have been looked up by whoever fills it.
#[derive(Debug, Clone)]
pub struct BuildArgs {
    /// `--target`: a stage's name, without regard to case, or its number; `None` is the last stage.
    pub target: Option<String>,
    /// `--build-arg`.
    pub values: BTreeMap<String, String>,
    /// `--platform`: one image each. Empty is the build platform, and a base image of another architecture then
    /// decides the result's.
    pub platforms: Vec<Platform>,
    /// What RUN runs on where nothing else is said: the machine's own platform.
    pub build_platform: Platform,
    /// `--label`: name and value, in order.
    pub labels: Vec<(String, String)>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages, without regard to case.
    pub no_cache_filter: Vec<String>,
    /// `--network`: what RUN gets that doesn't say `--network` itself.
    pub network: Network,
    /// `--add-host`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size`, `--ulimit`, `--memory`, `--cpu-shares`, `--cpus`.
    pub limits: Limits,
    /// `--build-context`, by [`context_name`].
    pub contexts: BTreeMap<String, Context>,
    /// Secrets that no ONBUILD trigger of a base image may mount: `--secret id=ID,onbuild=false`.
    pub not_onbuild: BTreeSet<String>,
    /// What `--allow` allows.
    pub entitlements: Entitlements,
    /// Seconds since 1970 of the main context's commit, where it is a git repository: what `SOURCE_DATE_EPOCH=context`
    /// means.
    pub context_time: Option<i64>,
    /// Plan every stage, whether the target needs it or not: what `--check` without `--target` does.
    pub all_stages: bool,
}

impl BuildArgs {
    /// A build of the last stage for `build_platform`, with nothing else asked for.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: None,
            values: BTreeMap::new(),
            platforms: Vec::new(),
            build_platform,
            labels: Vec::new(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            network: Network::Default,
            extra_hosts: Vec::new(),
            limits: Limits::default(),
            contexts: BTreeMap::new(),
            not_onbuild: BTreeSet::new(),
            entitlements: Entitlements::default(),
            context_time: None,
            all_stages: false,
        }
    }

    /// The platforms to plan for; at least one.
    pub(super) fn targets(&self) -> &[Platform] {
        if self.platforms.is_empty() { std::slice::from_ref(&self.build_platform) } else { &self.platforms }
    }

    /// The named context that stands for `name` on `platform`: `name::os/arch` goes before `name`.
    pub(super) fn context(&self, name: &str, platform: &Platform) -> Option<(&str, &Context)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = context_name(name);
        [format!("{name}::{platform}"), name]
            .into_iter()
            .find_map(|key| self.contexts.get_key_value(&key).map(|(k, v)| (k.as_str(), v)))
    }

    /// Whether the steps of a stage run although the cache may know them.
    pub(super) fn ignores_cache(&self, stage: &str) -> bool {
        self.no_cache || (!stage.is_empty() && self.no_cache_filter.iter().any(|f| f.eq_ignore_ascii_case(stage)))
    }
}

/// The key of a named context: image names in their short form without `:latest`, so that `alpine`,
/// `alpine:latest` and `docker.io/library/alpine` are one; anything else as it is.
pub fn context_name(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.familiar();
            familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
        }
        Err(_) => name.to_owned(),
    }
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// `docker-image://REF`.
    Image(String),
    /// A folder or archive on this machine; which one is the caller's business, who knows it by the context's name.
    Local,
    /// A git repository.
    Git(GitUrl),
    /// A file from a web server.
    Http(String),
    /// `oci-layout://PATH[:TAG|@DIGEST]`, without the scheme.
    OciLayout(String),
    /// `target:STAGE`: another stage of the same Dockerfile.
    Target(String),
}

/// What a build may do beyond the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entitlements {
    /// `security.insecure`: `RUN --security=insecure`.
    pub insecure: bool,
    /// `network.host`: `RUN --network=host`.
    pub network_host: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_names_are_short() {
        for (given, want) in [
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine", "alpine"),
            ("alpine:3", "alpine:3"),
            ("host:5000/x", "host:5000/x"),
            ("Not An Image", "Not An Image"),
        ] {
            assert_eq!(context_name(given), want);
        }
    }

    #[test]
    fn a_platforms_own_context_goes_first() {
        let platform = Platform::new("linux", "arm64", "");
        let mut args = BuildArgs::new(platform.clone());
        args.contexts.insert("x".into(), Context::Local);
        assert_eq!(args.context("x:latest", &platform), Some(("x", &Context::Local)));
        args.contexts.insert("x::linux/arm64".into(), Context::Image("y".into()));
        assert_eq!(args.context("x", &platform).map(|c| c.0), Some("x::linux/arm64"));
        assert_eq!(args.context("scratch", &platform), None);
    }
}
