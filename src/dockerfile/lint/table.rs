//! The rules.

/// A rule. Each has a page, `docs/rules/NAME.md`, with an example that breaks it and one that doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as `check=skip=` takes it.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// Who made it, and so whether it can make a build fail.
    pub source: Source,
    /// Whether it runs only where `check=experimental=` asks for it.
    pub experimental: bool,
}

/// Who made a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// BuildKit.
    BuildKit,
    /// kiln.
    Kiln,
}

impl Rule {
    /// Its page, from the top of the repository.
    pub fn page(&self) -> String {
        format!("docs/rules/{}.md", self.name)
    }
}

/// The rule of that name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

const fn buildkit(name: &'static str, description: &'static str) -> Rule {
    Rule { name, description, source: Source::BuildKit, experimental: false }
}

const fn experimental(name: &'static str, description: &'static str) -> Rule {
    Rule { experimental: true, ..buildkit(name, description) }
}

const fn kiln(name: &'static str, description: &'static str) -> Rule {
    Rule { name, description, source: Source::Kiln, experimental: false }
}

/// All rules, BuildKit's first.
pub const RULES: &[Rule] = &[
    buildkit("StageNameCasing", "Stage names should be lowercase"),
    buildkit("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword"),
    buildkit("NoEmptyContinuation", "Empty continuation lines will become errors in a future release"),
    buildkit(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    buildkit("DuplicateStageName", "Stage names should be unique"),
    buildkit("ReservedStageName", "Reserved words should not be used as stage names"),
    buildkit(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    buildkit(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    buildkit("UndefinedArgInFrom", "FROM command must use declared ARGs"),
    buildkit(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the \
         base image changes",
    ),
    buildkit("UndefinedVar", "Variables should be defined before their use"),
    buildkit(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    buildkit("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used"),
    buildkit("InvalidBaseImagePlatform", "Base image platform does not match expected target platform"),
    buildkit(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    buildkit("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands"),
    buildkit("InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name"),
    buildkit("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value"),
    buildkit("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase"),
    buildkit(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a \
         future release",
    ),
    experimental("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore"),
    experimental(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is \
         not intended to be a description comment, add an empty line or comment between the instruction and the \
         comment.",
    ),
    kiln("UnpinnedBase", "A base image should be named with a tag or digest, so that every build starts from the same"),
    kiln("ToolchainInFinalStage", "Compilers and build tools should stay in a stage that isn't shipped"),
    kiln("NoIgnoreFile", "A context with .git or node_modules in it should have a .dockerignore file"),
    kiln("UserNeverSet", "An image's process should not run as root"),
    kiln("PackageCacheLeft", "What a package manager keeps for its next run should not be left in a layer"),
    kiln("CopyBeforeInstall", "Dependencies should be installed before the whole context is copied"),
];
