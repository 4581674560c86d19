//! kiln's own rules: practices that people are taught and no builder checks. They look for what is surely meant, and
//! stay silent where the file doesn't say enough.

use super::Findings;
use super::shell::{self, Command};
use crate::dockerfile::ast::{Dockerfile, FileSource, Kind, MountKind, Run, Stage};

pub(super) fn run(file: &Dockerfile, parents: &[Option<usize>], findings: &mut Findings<'_>) {
    for (stage, _) in file.stages.iter().zip(parents).filter(|(_, parent)| parent.is_none()) {
        unpinned_base(stage, findings);
    }
    file.stages.iter().for_each(|stage| copy_before_install(stage, findings));
    let shipped = shipped(file, parents);
    user_never_set(&shipped, findings);
    for stage in shipped {
        toolchain(stage, findings);
        caches(stage, findings);
    }
}

/// The last stage and those that it stands on, from the last.
fn shipped<'f>(file: &'f Dockerfile, parents: &[Option<usize>]) -> Vec<&'f Stage> {
    let last = file.stages.len().checked_sub(1);
    let chain = std::iter::successors(last, |index| parents.get(*index).copied().flatten());
    chain.filter_map(|index| file.stages.get(index)).collect()
}

/// `UnpinnedBase`: no tag, or `latest`.
fn unpinned_base(stage: &Stage, findings: &mut Findings<'_>) {
    let image = &stage.from.image;
    let text = &image.text;
    if text == "scratch" || text.contains(['$', '@']) || text.is_empty() {
        return;
    }
    let tag = text.rsplit('/').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
    let message = match tag {
        None => format!("Base image '{text}' has no tag, so that it is whatever 'latest' is on that day"),
        Some("latest") => format!("Base image '{text}' is whatever 'latest' is on that day"),
        Some(_) => return,
    };
    findings.add("UnpinnedBase", image.span, message);
    findings.hint("name a version, or better a digest: IMAGE:TAG@sha256:…");
}

/// `UserNeverSet`, for images that start something. Bases that say they aren't root's are believed.
fn user_never_set(shipped: &[&Stage], findings: &mut Findings<'_>) {
    let instructions = || shipped.iter().flat_map(|stage| &stage.instructions);
    let starts = instructions().any(|i| matches!(i.kind, Kind::Cmd(_) | Kind::Entrypoint(_)));
    let switches = instructions().any(|i| matches!(i.kind, Kind::User(_)));
    let (Some(last), Some(base)) = (shipped.first(), shipped.last()) else { return };
    let base = &base.from.image.text;
    let told = ["nonroot", "rootless", "unprivileged"].iter().any(|word| base.contains(word)) || base.contains('$');
    if starts && !switches && !told {
        let message = "No USER is set, so that the image's process runs as root unless the base image says otherwise";
        findings.add("UserNeverSet", last.header.span, message);
        findings.hint("add USER with a number or a name that the image knows, before CMD or ENTRYPOINT");
    }
}

/// Packages that compile things.
const TOOLS: [&str; 17] = [
    "build-essential",
    "build-base",
    "gcc",
    "g++",
    "clang",
    "make",
    "cmake",
    "autoconf",
    "golang",
    "golang-go",
    "go",
    "rustc",
    "cargo",
    "rust",
    "maven",
    "gradle",
    "default-jdk",
];

/// Images that compile things.
const TOOL_IMAGES: [&str; 5] = ["golang", "rust", "maven", "gradle", "gcc"];

/// `ToolchainInFinalStage`: the image is one, or a RUN installs one and doesn't take it away again.
fn toolchain(stage: &Stage, findings: &mut Findings<'_>) {
    let image = &stage.from.image;
    let name = image.text.split(['@', ':']).next().unwrap_or_default();
    let official = name.trim_start_matches("docker.io/").trim_start_matches("library/");
    if TOOL_IMAGES.contains(&official) {
        findings.add("ToolchainInFinalStage", image.span, format!("The image is shipped with all of '{}'", image.text));
        findings.hint("build in that stage, and COPY --from it into one with a small base");
    }
    for (run, span) in runs(stage) {
        let commands = shell::commands(run);
        let removes = |c: &Command| {
            shell::arguments(c, &["apk"], &["del"]).is_some()
                || shell::arguments(c, APT, &["purge", "remove", "autoremove"]).is_some()
                || shell::arguments(c, YUM, &["remove", "erase"]).is_some()
        };
        let tool = commands.iter().filter_map(installed).flatten().find(|package| is_tool(package));
        if let Some(tool) = tool.filter(|_| !commands.iter().any(removes)) {
            let message = format!("The image is shipped with the build tool '{}'", bare(tool));
            findings.add("ToolchainInFinalStage", span, message);
            findings.hint("install it in a stage of its own, and COPY --from that stage what it made");
        }
    }
}

const APT: &[&str] = &["apt-get", "apt"];
const YUM: &[&str] = &["yum", "dnf", "microdnf"];

/// The packages that a command installs.
fn installed(command: &Command) -> Option<Vec<&str>> {
    shell::arguments(command, APT, &["install"])
        .or_else(|| shell::arguments(command, &["apk"], &["add"]))
        .or_else(|| shell::arguments(command, YUM, &["install"]))
}

/// A package's name without its version.
fn bare(package: &str) -> &str {
    package.split(['=', '~', '<', '>']).next().unwrap_or_default()
}

fn is_tool(package: &str) -> bool {
    let name = bare(package);
    TOOLS.contains(&name) || (name.starts_with("openjdk-") && name.contains("-jdk"))
}

/// A package manager, how it leaves nothing behind, and where it would.
struct Manager {
    name: &'static str,
    programs: &'static [&'static str],
    verbs: &'static [&'static str],
    /// Flags that switch its cache off.
    flags: &'static [&'static str],
    /// Where its cache is: a `rm` or a cache mount of one of these is as good.
    places: &'static [&'static str],
    /// What to write.
    hint: &'static str,
}

const MANAGERS: [Manager; 4] = [
    Manager {
        name: "apt",
        programs: APT,
        verbs: &["install"],
        flags: &[],
        places: &["/var/lib/apt", "/var/cache/apt"],
        hint: "end the RUN with `rm -rf /var/lib/apt/lists/*`, or mount a cache there",
    },
    Manager {
        name: "apk",
        programs: &["apk"],
        verbs: &["add"],
        flags: &["--no-cache"],
        places: &["/var/cache/apk", "/etc/apk/cache"],
        hint: "write `apk add --no-cache`",
    },
    Manager {
        name: "pip",
        programs: &["pip", "pip3"],
        verbs: &["install"],
        flags: &["--no-cache-dir"],
        places: &["/root/.cache", "/root/.cache/pip", "~/.cache"],
        hint: "write `pip install --no-cache-dir`, or mount a cache at /root/.cache/pip",
    },
    Manager {
        name: "npm",
        programs: &["npm"],
        verbs: &["install", "ci", "i"],
        flags: &[],
        places: &["/root/.npm", "~/.npm"],
        hint: "end the RUN with `npm cache clean --force`, or mount a cache at /root/.npm",
    },
];

/// `PackageCacheLeft`.
fn caches(stage: &Stage, findings: &mut Findings<'_>) {
    let no_pip_cache = stage.instructions.iter().any(|i| match &i.kind {
        Kind::Env(pairs) => pairs.pairs.iter().any(|(name, _)| name.text == "PIP_NO_CACHE_DIR"),
        _ => false,
    });
    for (run, span) in runs(stage) {
        let commands = shell::commands(run);
        for manager in MANAGERS.iter().filter(|m| !(m.name == "pip" && no_pip_cache)) {
            if leaves_cache(manager, &commands, run) {
                let message = format!("The cache of {} is left in the layer", manager.name);
                findings.add("PackageCacheLeft", span, message);
                findings.hint(manager.hint);
            }
        }
    }
}

fn leaves_cache(manager: &Manager, commands: &[Command], run: &Run) -> bool {
    let installs = |c: &&Command| shell::arguments(c, manager.programs, manager.verbs).is_some();
    let at_place = |text: &str| manager.places.iter().any(|place| text.starts_with(place));
    let cleans = |c: &Command| match c.first().map(String::as_str) {
        Some("rm") => c.iter().any(|word| at_place(word)),
        Some("npm") => c.iter().any(|word| word == "cache"),
        Some("pip" | "pip3") => c.iter().any(|word| word == "purge"),
        _ => false,
    };
    let mounted = run.mounts.iter().any(|mount| {
        matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs)
            && mount.target.as_ref().is_some_and(|target| at_place(&target.text) || target.text.contains('$'))
    });
    commands.iter().filter(installs).any(|c| !shell::has_flag(c, manager.flags))
        && !mounted
        && !commands.iter().any(cleans)
}

/// `CopyBeforeInstall`: every change of any file makes the dependencies be installed again.
fn copy_before_install(stage: &Stage, findings: &mut Findings<'_>) {
    let mut whole = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Copy(copy) if copy.from.is_none() && copies_all(&copy.files.sources) => {
                whole = whole.or(Some(instruction.header.span));
            }
            Kind::Run(run) => {
                let Some(span) = whole else { continue };
                let commands = shell::commands(run);
                if let Some(command) = commands.iter().find(|command| is_dependency_install(command)) {
                    let what: Vec<_> = command.iter().take(2).map(String::as_str).collect();
                    let message = format!(
                        "The whole context is copied before '{}', which so runs after every change",
                        what.join(" ")
                    );
                    findings.add("CopyBeforeInstall", span, message);
                    findings.hint("copy the files that name the dependencies first, install, then copy the rest");
                    return;
                }
            }
            _ => {}
        }
    }
}

fn copies_all(sources: &[FileSource]) -> bool {
    sources
        .iter()
        .any(|source| matches!(source, FileSource::Path(word) if matches!(word.text.as_str(), "." | "./" | "*" | "/")))
}

/// Commands that install what a file of the project names.
fn is_dependency_install(command: &Command) -> bool {
    let plain = |programs: &[&str], verbs: &[&str]| shell::arguments(command, programs, verbs).is_some();
    // Without names of packages these install what package.json names.
    let unnamed =
        |programs: &[&str], verbs: &[&str]| shell::arguments(command, programs, verbs).is_some_and(|a| a.is_empty());
    let from_list = shell::arguments(command, &["pip", "pip3"], &["install"]).is_some()
        && shell::has_flag(command, &["-r", "--requirement"]);
    from_list
        || plain(&["npm"], &["ci"])
        || unnamed(&["npm", "yarn", "pnpm"], &["install", "i"])
        || plain(&["poetry", "bundle", "composer"], &["install"])
        || plain(&["go"], &["mod"])
        || plain(&["cargo"], &["fetch"])
}

/// The RUNs of a stage with their places.
fn runs(stage: &Stage) -> impl Iterator<Item = (&Run, crate::report::Span)> {
    stage.instructions.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Run(run) => Some((run, instruction.header.span)),
        _ => None,
    })
}
