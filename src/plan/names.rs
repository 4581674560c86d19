//! What steps are called: `[builder 2/5] RUN make`.

use super::env::Env;
use crate::oci::Platform;

/// Numbers the steps of a stage as they come.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter {
    /// The stage's name, where the file has more than one.
    pub(super) stage: Option<String>,
    /// How many steps it has; none are numbered when it is 0.
    pub(super) total: usize,
    /// The platform it runs on, where images for several are made.
    pub(super) platform: Option<Platform>,
    /// How many have been named.
    pub(super) done: usize,
}

impl Counter {
    /// The name of the next step. `onbuild` says that a trigger of the base does it.
    pub(super) fn next(&mut self, step: &str, onbuild: bool, env: &Env) -> String {
        if self.total == 0 {
            return step.to_owned();
        }
        self.done += 1;
        let platform = self.platform.as_ref().map(|p| format!("{p}{} ", cross_target(p, env))).unwrap_or_default();
        let stage = self.stage.as_ref().map(|s| format!("{s} ")).unwrap_or_default();
        let width = self.total.to_string().len();
        let trigger = if onbuild { "ONBUILD " } else { "" };
        format!("[{platform}{stage}{:width$}/{}] {trigger}{step}", self.done, self.total)
    }
}

/// `->arm64` where ARGs of the stage name another platform than it runs on: a cross compiler's stage.
fn cross_target(platform: &Platform, env: &Env) -> String {
    let target = match env.get("TARGETPLATFORM").and_then(|t| t.parse::<Platform>().ok()) {
        Some(target) => target,
        None => {
            let part = |name, default: &str| env.get(name).filter(|v| !v.is_empty()).unwrap_or(default).to_owned();
            let (os, arch) = (part("TARGETOS", &platform.os), part("TARGETARCH", &platform.arch));
            Platform::new(&os, &arch, env.get("TARGETVARIANT").unwrap_or_default())
        }
    };
    if target.os != platform.os {
        return format!("->{target}");
    }
    match (target.arch == platform.arch, target.variant.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("->{}", target.arch),
        (false, false) => format!("->{}/{}", target.arch, target.variant),
    }
}

/// `run make` as `RUN make`.
pub(super) fn upper_keyword(line: &str) -> String {
    match line.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => line.to_uppercase(),
    }
}

/// The first line of a heredoc, with `...` where there are more.
pub(super) fn summary(body: &str) -> String {
    let body = body.trim();
    match body.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned() {
        let mut counter = Counter { stage: Some("a".into()), total: 12, ..Counter::default() };
        assert_eq!(counter.next("X", false, &Env::default()), "[a  1/12] X");
        assert_eq!(counter.next("X", true, &Env::default()), "[a  2/12] ONBUILD X");
        assert_eq!(Counter::default().next("X", false, &Env::default()), "X");
    }

    #[test]
    fn a_cross_compiling_stage_names_both_platforms() {
        let amd = Platform::new("linux", "amd64", "");
        let mut env = Env::default();
        for (target, want) in [("linux/amd64", "linux/amd64"), ("linux/arm/v7", "linux/amd64->arm/v7")] {
            env.set("TARGETPLATFORM", target);
            let mut counter = Counter { total: 1, platform: Some(amd.clone()), ..Counter::default() };
            assert_eq!(counter.next("X", false, &env), format!("[{want} 1/1] X"));
        }
    }
}
