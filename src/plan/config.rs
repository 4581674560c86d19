//! The instructions that change an image's configuration, and WORKDIR.

use super::dispatch::Cx;
use super::env::set_in_list;
use super::globals::{ArgInfo, comment_on};
use super::op::{FileAction, FileOp, Op, Owner};
use super::state::State;
use super::{expose, history, lint, names, paths, words};
use crate::dockerfile::ast::{ArgPair, CommandLine, Form, Healthcheck, Instruction, Pairs, Word};
use crate::dockerfile::expand::Lex;
use crate::oci;
use crate::report::Diagnostic;

type Result = std::result::Result<(), Diagnostic>;

/// `ARG`: `--build-arg` goes before the default, the default before the global ARG of the name.
pub(super) fn arg(cx: &mut Cx<'_, '_>, state: &mut State, instruction: &Instruction, pairs: &[ArgPair]) -> Result {
    let mut created_by = "ARG".to_owned();
    for pair in pairs {
        let name = pair.name.text.clone();
        cx.shared.declared.insert(name.clone());
        let value = match (cx.globals.given(cx.shared.args, &name), &pair.default) {
            (Some(given), _) => Some(given.to_owned()),
            (None, Some(default)) => Some(cx.expand(state, default)?),
            (None, None) => cx.globals.env.get(&name).map(str::to_owned),
        };
        let inherited = pair.default.is_none() && !cx.shared.args.values.contains_key(&name) && value.is_some();
        let info = ArgInfo {
            value: value.clone().unwrap_or_default(),
            description: comment_on(&instruction.header.comments, &name),
            span: instruction.header.span,
            ..ArgInfo::default()
        };
        cx.outline.arg(&name, Some(info).filter(|_| !inherited));
        created_by.push(' ');
        created_by.push_str(&name);
        if let Some(value) = &value {
            created_by.push('=');
            created_by.push_str(value);
            if !lint::is_scan_argument(&name) {
                state.env.set(name.as_str(), value.as_str());
            }
        }
        state.args.push((name, value));
    }
    state.add_change(created_by);
    Ok(())
}

/// Keys and values of ENV and LABEL, all expanded before the first is set.
fn expanded(
    cx: &mut Cx<'_, '_>,
    state: &State,
    pairs: &Pairs,
) -> std::result::Result<Vec<(String, String)>, Diagnostic> {
    pairs.pairs.iter().map(|(k, v)| Ok((cx.expand(state, k)?, cx.expand(state, v)?))).collect()
}

/// `ENV`
pub(super) fn env(cx: &mut Cx<'_, '_>, state: &mut State, pairs: &Pairs) -> Result {
    let mut created_by = "ENV".to_owned();
    for (name, value) in expanded(cx, state, pairs)? {
        created_by.push_str(&format!(" {name}={value}"));
        set_in_list(&mut state.image.config.env, &name, &value);
        state.env.set(name, value);
    }
    state.add_change(created_by);
    Ok(())
}

/// `LABEL`
pub(super) fn label(cx: &mut Cx<'_, '_>, state: &mut State, pairs: &Pairs) -> Result {
    let mut created_by = "LABEL".to_owned();
    for (name, value) in expanded(cx, state, pairs)? {
        created_by.push_str(&format!(" {name}={value}"));
        state.image.config.labels.insert(name, value);
    }
    state.add_change(created_by);
    Ok(())
}

/// `WORKDIR`: makes the folder, which is a layer, but for `/`.
pub(super) fn workdir(cx: &mut Cx<'_, '_>, state: &mut State, instruction: &Instruction, path: &Word) -> Result {
    let text = cx.expand(state, path)?;
    let hidden = state.guessed && path.text.contains('$');
    if !state.workdir_set && !text.starts_with('/') && !hidden {
        lint::relative_workdir(&text, path.span, &mut cx.shared.findings);
    }
    state.workdir_set = true;
    state.set_workdir(&text);
    let dir = &state.image.config.working_dir;
    let created_by = format!("WORKDIR {dir}");
    if dir == "/" {
        state.add_change(created_by);
        return Ok(());
    }
    let owner = owner(&state.image.config.user);
    let action = FileAction::Mkdir { path: paths::join("/", dir), mode: 0o755, owner };
    let base = state.layers(&mut cx.shared.vertices);
    let op = Op::File(FileOp { base, actions: vec![action], link: false, workdir: true });
    let line = words::shown(&instruction.header.original, Lex::new(cx.escape().char()), &state.env);
    let name = state.names.next(&names::upper_keyword(&line), cx.onbuild, &state.env);
    let layer = cx.shared.vertices.add(state.vertex(op, name, instruction.header.span));
    state.add_layer(layer, created_by);
    Ok(())
}

/// `user[:group]`; nothing where no user is named.
pub(super) fn owner(text: &str) -> Option<Owner> {
    if text.is_empty() {
        return None;
    }
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group.to_owned())),
        None => (text, None),
    };
    Some(Owner { user: user.to_owned(), group })
}

/// `USER`
pub(super) fn user(cx: &mut Cx<'_, '_>, state: &mut State, user: &Word) -> Result {
    let user = cx.expand(state, user)?;
    state.add_change(format!("USER {user}"));
    state.image.config.user = user;
    Ok(())
}

/// `VOLUME`
pub(super) fn volume(cx: &mut Cx<'_, '_>, state: &mut State, paths: &[Word]) -> Result {
    let mut volumes = Vec::new();
    for word in paths {
        let volume = cx.expand(state, word)?;
        if volume.is_empty() {
            return Err(Diagnostic::error(word.span, "VOLUME specified can not be an empty string"));
        }
        volumes.push(volume);
    }
    state.add_change(format!("VOLUME {}", history::list(&volumes)));
    state.image.config.volumes.extend(volumes.into_iter().map(|v| (v, serde_json::Map::new())));
    Ok(())
}

/// What a port takes of memory, in bytes.
const PORT: usize = 40;

/// `EXPOSE`
pub(super) fn expose(cx: &mut Cx<'_, '_>, state: &mut State, words: &[Word]) -> Result {
    let mut ports = Vec::new();
    for word in words {
        for spec in cx.expand_words(state, word)? {
            let more = expose::ports(&spec).map_err(|e| Diagnostic::error(word.span, e))?;
            cx.shared.budget.take(more.len() * PORT, word.span)?;
            ports.extend(more);
        }
    }
    state.add_change(format!("EXPOSE {}", history::list(&ports)));
    state.image.config.exposed_ports.extend(ports.into_iter().map(|p| (p, serde_json::Map::new())));
    Ok(())
}

/// `STOPSIGNAL`
pub(super) fn stopsignal(cx: &mut Cx<'_, '_>, state: &mut State, signal: &Word) -> Result {
    let text = cx.expand(state, signal)?;
    if !is_signal(&text) {
        return Err(Diagnostic::error(signal.span, format!("invalid signal: {text}")));
    }
    state.add_change(format!("STOPSIGNAL {text}"));
    state.image.config.stop_signal = text;
    Ok(())
}

/// A number other than 0, or a name that Linux knows, with or without `SIG`.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
        "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
    ];
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |prefix: &str, max: u8| {
        name.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=max).contains(&n))
    };
    NAMES.contains(&name) || name == "RTMAX" || realtime("RTMIN+", 15) || realtime("RTMAX-", 14)
}

/// A command with the shell in front where it is in shell form.
pub(super) fn arguments(state: &State, form: &Form) -> Vec<String> {
    match form {
        Form::Exec(args) => args.clone(),
        Form::Shell(line) => with_shell(state, line.clone()),
    }
}

/// The stage's shell, or the usual one, and a command line for it.
pub(super) fn with_shell(state: &State, line: String) -> Vec<String> {
    let usual = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
    let mut args = state.image.config.shell.clone().filter(|s| !s.is_empty()).unwrap_or_else(usual);
    args.push(line);
    args
}

/// `CMD`
pub(super) fn cmd(state: &mut State, command: &CommandLine) -> Result {
    let args = arguments(state, &command.form);
    state.add_change(format!("CMD {}", history::quoted_list(&args)));
    state.image.config.cmd = Some(args).filter(|a| !a.is_empty());
    state.image.config.args_escaped = true;
    state.cmd_set = true;
    Ok(())
}

/// `ENTRYPOINT`: drops a CMD that the stage inherited.
pub(super) fn entrypoint(state: &mut State, command: &CommandLine) -> Result {
    let args = arguments(state, &command.form);
    state.add_change(format!("ENTRYPOINT {}", history::quoted_list(&args)));
    state.image.config.entrypoint = Some(args).filter(|a| !a.is_empty());
    if !state.cmd_set {
        state.image.config.cmd = None;
    }
    Ok(())
}

/// `SHELL`
pub(super) fn shell(state: &mut State, words: &[Word]) -> Result {
    let shell: Vec<String> = words.iter().map(|w| w.text.clone()).collect();
    state.add_change(format!("SHELL {}", history::list(&shell)));
    state.image.config.shell = Some(shell);
    Ok(())
}

/// `HEALTHCHECK`
pub(super) fn healthcheck(state: &mut State, check: &Healthcheck) -> Result {
    let test = match check.command.as_ref().map(|c| &c.0.form) {
        None => vec!["NONE".to_owned()],
        Some(Form::Exec(args)) => [&["CMD".to_owned()], args.as_slice()].concat(),
        Some(Form::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
    };
    let health = oci::Healthcheck {
        test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    };
    state.add_change(format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        history::list(&health.test),
        history::duration(health.interval),
        history::duration(health.timeout),
        history::duration(health.start_period),
        history::duration(health.start_interval),
        health.retries,
    ));
    state.image.config.healthcheck = Some(health);
    Ok(())
}

/// `MAINTAINER`
pub(super) fn maintainer(state: &mut State, name: &Word) -> Result {
    state.image.author.clone_from(&name.text);
    state.add_change(format!("MAINTAINER {}", name.text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for good in ["9", "SIGTERM", "term", "sigKill", "RTMIN+3", "SIGRTMAX-14", "-5"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "SIGFOO", "RTMIN+16", "RTMIN+", "SIGSIGTERM"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
