//! A rough look at the commands of a RUN: enough to see what they install.

use crate::dockerfile::ast::{Form, Run};

/// One command: its words, without the variables set before it, `sudo` and the like.
pub(super) type Command = Vec<String>;

/// The commands of a RUN, in order, as if the shell's control flow did nothing.
pub(super) fn commands(run: &Run) -> Vec<Command> {
    let mut all = match &run.command.form {
        Form::Exec(words) => return vec![words.clone()],
        Form::Shell(text) => split(text),
    };
    for heredoc in &run.command.heredocs {
        all.extend(split(&heredoc.content));
    }
    all
}

fn split(text: &str) -> Vec<Command> {
    let joined = text.replace("\\\n", " ");
    let pieces = joined.split(['\n', ';', '|', '&', '(', ')', '{', '}']);
    pieces.map(words).filter(|command| !command.is_empty()).collect()
}

fn words(text: &str) -> Command {
    const BEFORE: [&str; 9] = ["sudo", "exec", "time", "env", "then", "do", "else", "!", "set"];
    let is_setting = |word: &str| word.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
    let unquoted = text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned());
    unquoted.skip_while(|word| is_setting(word) || BEFORE.contains(&word.as_str())).collect()
}

/// The arguments of a command that aren't flags, after its program and `verbs`, if it begins so.
pub(super) fn arguments<'c>(command: &'c Command, programs: &[&str], verbs: &[&str]) -> Option<Vec<&'c str>> {
    let (program, rest) = command.split_first()?;
    let program = program.rsplit('/').next().unwrap_or_default();
    let mut words = rest.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
    let fits = programs.contains(&program) && words.next().is_some_and(|verb| verbs.contains(&verb));
    fits.then(|| words.collect())
}

/// Whether a command has one of these flags.
pub(super) fn has_flag(command: &Command, flags: &[&str]) -> bool {
    command.iter().any(|word| flags.contains(&word.as_str()))
}
