//! `RUN`

use super::config::with_shell;
use super::dispatch::Cx;
use super::op::{ExecOp, Mount, MountSource, Network, Op};
use super::state::State;
use super::{mounts, names, words};
use crate::dockerfile::ast::{CommandLine, Form, Instruction, MountKind, Run, Word};
use crate::dockerfile::expand::{Lex, Variables};
use crate::dockerfile::quote::quoted;
use crate::report::Diagnostic;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// The `--build-arg` that names the machine that processes see.
const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// Where the heredocs of RUN lie.
const PIPES: &str = "/dev/pipes";

/// Plans a process.
pub(super) fn run(
    cx: &mut Cx<'_, '_>,
    state: &mut State,
    instruction: &Instruction,
    run: &Run,
) -> Result<(), Diagnostic> {
    let command = command(state, &run.command);
    let mut list: Vec<Mount> = command.script.into_iter().collect();
    let (mounts, secret_names) = mounts::mounts(cx, state, run, instruction.header.span)?;
    list.extend(mounts);
    if let Some(device) = run.devices.first() {
        let error = Diagnostic::error(device.span, "RUN --device is not supported");
        return Err(error.hint("kiln gives no devices to build steps"));
    }
    let network = network(cx, run.network.as_ref())?;
    let insecure = insecure(cx, run.security.as_ref())?;
    let name = name(cx, state, instruction, &command.shown, &secret_names);
    // Once in the step, and what ARG declared once in the history.
    cx.shared.budget.take(2 * state.env.weight(), instruction.header.span)?;
    let args = cx.shared.args;
    let op = ExecOp {
        base: state.layers(&mut cx.shared.vertices),
        args: command.args.clone(),
        env: state.env.pairs(),
        env_unkeyed: proxies(&args.values),
        cwd: state.dir(),
        user: state.image.config.user.clone(),
        mounts: list,
        network,
        insecure,
        platform: state.platform.clone(),
        hostname: args.values.get(HOSTNAME).filter(|name| !name.is_empty()).cloned(),
        extra_hosts: args.extra_hosts.clone(),
        limits: args.limits.clone(),
    };
    let mut vertex = state.vertex(Op::Exec(op), name, instruction.header.span);
    vertex.no_cache = state.no_cache;
    let layer = cx.shared.vertices.add(vertex);
    state.add_layer(layer, format!("RUN {} # buildkit", history(state, &command.args)));
    Ok(())
}

/// What a RUN runs.
struct Command {
    args: Vec<String>,
    /// The heredoc that is a program of its own.
    script: Option<Mount>,
    /// What is shown behind the line: the first line of a heredoc.
    shown: String,
}

fn command(state: &State, line: &CommandLine) -> Command {
    let simple = |args| Command { args, script: None, shown: String::new() };
    let text = match &line.form {
        Form::Exec(args) => return simple(args.clone()),
        Form::Shell(text) => text,
    };
    let [first, ..] = line.heredocs.as_slice() else { return simple(with_shell(state, text.clone())) };
    if !line.is_heredoc() {
        // The shell reads the heredocs itself.
        let whole = line.heredocs.iter().fold(text.clone(), |all, h| format!("{all}\n{}{}", h.raw, h.name));
        return simple(with_shell(state, whole));
    }
    let shown = format!(" ({})", names::summary(&first.raw));
    if !first.content.starts_with("#!") {
        return Command { shown, ..simple(with_shell(state, first.content.clone())) };
    }
    let target = format!("{PIPES}/{}", first.name);
    let kind = MountSource::Text { content: first.content.clone(), mode: 0o755 };
    // BuildKit puts the shell in front of the script's path, too.
    let args = with_shell(state, target.clone());
    Command { args, script: Some(Mount { target, kind }), shown }
}

/// `--network`, or the build's.
fn network(cx: &Cx<'_, '_>, word: Option<&Word>) -> Result<Network, Diagnostic> {
    let Some(word) = word else { return Ok(cx.shared.args.network) };
    match word.text.as_str() {
        "" | "default" => Ok(cx.shared.args.network),
        "none" => Ok(Network::None),
        "host" if cx.shared.args.entitlements.network_host || cx.shared.args.network == Network::Host => {
            Ok(Network::Host)
        }
        "host" => {
            Err(Diagnostic::error(word.span, "network.host is not allowed").hint("allow it with --allow network.host"))
        }
        other => Err(Diagnostic::error(word.span, format!("invalid network mode {}", quoted(other)))),
    }
}

/// `--security`
fn insecure(cx: &Cx<'_, '_>, word: Option<&Word>) -> Result<bool, Diagnostic> {
    let Some(word) = word else { return Ok(false) };
    match word.text.as_str() {
        "" | "sandbox" => Ok(false),
        "insecure" if cx.shared.args.entitlements.insecure => Ok(true),
        "insecure" => {
            let error = Diagnostic::error(word.span, "security.insecure is not allowed");
            Err(error.hint("allow it with --allow security.insecure"))
        }
        other => Err(Diagnostic::error(word.span, format!("security {} is not valid", quoted(other)))),
    }
}

/// Variables of which some stand for secrets: those are never shown.
struct Masked<'a> {
    state: &'a State,
    secrets: &'a [String],
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if self.secrets.iter().any(|s| s == name) {
            return Some(Cow::Borrowed("****"));
        }
        self.state.env.get(name).map(Cow::Borrowed)
    }
}

fn name(cx: &Cx<'_, '_>, state: &mut State, instruction: &Instruction, heredoc: &str, secrets: &[String]) -> String {
    let lex = Lex { raw_quotes: true, skip_unset: true, ..Lex::new(cx.escape().char()) };
    let line = format!("{}{heredoc}", instruction.header.original);
    let line = words::shown(&line, lex, &Masked { state, secrets });
    state.names.next(&names::upper_keyword(&line), cx.onbuild, &state.env)
}

/// The proxies that `--build-arg` sets, in both spellings; they reach processes without being part of any key.
fn proxies(values: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for lower in ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"] {
        // Capitals sort first: the lower-case spelling wins.
        let value = values.iter().filter(|(name, _)| name.eq_ignore_ascii_case(lower)).map(|(_, v)| v).next_back();
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            found.push((lower.to_uppercase(), value.clone()));
            found.push((lower.to_owned(), value.clone()));
        }
    }
    found
}

/// The arguments as the history shows them: `|2 A=1 B= /bin/sh -c make`, with the ARGs that were in force.
fn history(state: &State, args: &[String]) -> String {
    // A name stands where it was declared first, with what was declared last.
    let (mut parts, mut places) = (Vec::new(), HashMap::new());
    for (name, declared) in &state.args {
        let value = state.env.get(name).or(declared.as_deref()).unwrap_or_default();
        let place = *places.entry(name).or_insert(parts.len());
        match parts.get_mut(place) {
            Some(part) => *part = format!("{name}={value}"),
            None => parts.push(format!("{name}={value}")),
        }
    }
    if !parts.is_empty() {
        parts.insert(0, format!("|{}", parts.len()));
    }
    parts.extend(args.iter().cloned());
    parts.join(" ")
}

/// Whether a mount is one that a stage or image can stand behind.
pub(super) fn reads_files(kind: MountKind) -> bool {
    matches!(kind, MountKind::Bind | MountKind::Cache)
}
