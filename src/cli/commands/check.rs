//! `kiln check`, `build --check`: the mistakes of a Dockerfile, without building it.

use super::{Done, dockerfile, planning};
use crate::cli::Env;
use crate::cli::progress::{Style, harmless_line};
use crate::cli::request::{CheckFormat, CheckRequest, DockerfileAt, SourceRequest};
use crate::cli::session::{Failure, Session, cannot};
use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::lint::{self, Options, Source, context, fix, format};
use crate::plan::{self, BuildArgs};
use crate::report::{Diagnostic, Kind, Problem, Severity, SourceText};
use crate::source::{DockerfileText, ignore_patterns};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Checks. The exit code is 1 where there are warnings, as buildx has it, and 2 where the file can't be built.
pub fn check(request: &CheckRequest, store: &Path, env: &Env) -> Result<Done, Failure> {
    let mut read = dockerfile::read(&request.source.context, &request.source.dockerfile)?;
    let mended = if request.fix { mend(&mut read, &request.source.dockerfile)? } else { 0 };
    let (file, mut found) = crate::dockerfile::parse(&read.text.text);
    let options = Options::of(&file.directives).unwrap_or_else(|problem| {
        found.push(problem);
        Options::default()
    });
    if !found.iter().any(|d| d.severity == Severity::Error) {
        let session = Session::start(store, &request.registry, Style::Plain, Some(read.text.clone()), env)?;
        let more = session.run(async |session| {
            let args = BuildArgs { all_stages: request.source.target.is_none(), ..planning::args(&request.source) };
            let known = session.stoppable(async { Ok(planning::guessed(session, &file, &args, env).await) }).await?;
            Ok(plan::check(&file, &known, &args))
        });
        found.extend(more?);
    }
    found.extend(of_instructions(&read.text, &file));
    found.extend(of_context(&request.source, &read, &file)?);
    let found = relevant(found, &options, request.practices);
    Ok(Done { text: shown(request.format, &read.text, &file, &found, mended), code: code(&found, request) })
}

/// What a build says of its Dockerfile besides what planning it finds: BuildKit's rules that need no expansion.
pub fn of_build(read: &DockerfileText, file: &Dockerfile, source: &SourceRequest) -> Result<Vec<Diagnostic>, Problem> {
    let mut found = of_instructions(&read.text, file);
    found.extend(of_context(source, read, file)?);
    Ok(found)
}

fn of_instructions(text: &SourceText, file: &Dockerfile) -> Vec<Diagnostic> {
    lint::lint(&text.text, file).into_iter().map(|finding| finding.diagnostic).collect()
}

/// What needs the context's ignore file, and the names at the context's top.
fn of_context(source: &SourceRequest, read: &DockerfileText, file: &Dockerfile) -> Result<Vec<Diagnostic>, Problem> {
    match ignore_patterns(&source.context, read.path.as_deref())? {
        Some(matcher) => Ok(context::ignored_sources(file, &matcher)),
        None => {
            // A context that can't be read is the build's to complain of.
            let top = std::fs::read_dir(&source.context).into_iter().flatten().flatten();
            let names: Vec<String> = top.filter_map(|e| e.file_name().into_string().ok()).collect();
            Ok(context::no_ignore_file(names.iter().map(String::as_str)).into_iter().collect())
        }
    }
}

/// The findings that count, each once, in the order of the file. Rules about `practices` are kiln's own.
pub fn relevant(mut found: Vec<Diagnostic>, options: &Options, practices: bool) -> Vec<Diagnostic> {
    found.retain(|d| match d.rule {
        None => true,
        Some(name) => {
            options.allow(name) && (practices || lint::rule(name).is_none_or(|r| r.source == Source::BuildKit))
        }
    });
    found.sort_by_key(|d| d.span.start);
    let mut once: Vec<Diagnostic> = Vec::with_capacity(found.len());
    for finding in found {
        if !once.contains(&finding) {
            once.push(finding);
        }
    }
    once
}

fn code(found: &[Diagnostic], request: &CheckRequest) -> u8 {
    match found.iter().map(|d| d.severity).max() {
        Some(Severity::Error) => Kind::Usage.exit_code(),
        Some(Severity::Warning) if !request.ignore_status => 1,
        _ => 0,
    }
}

fn shown(format: CheckFormat, source: &SourceText, file: &Dockerfile, found: &[Diagnostic], mended: usize) -> String {
    match format {
        CheckFormat::Text => text(source, found, mended),
        CheckFormat::Json => format!("{:#}\n", format::json(source, file, found)),
        CheckFormat::Sarif => format!("{:#}\n", format::sarif(source, found)),
    }
}

/// The findings, and buildx's last line.
fn text(source: &SourceText, found: &[Diagnostic], mended: usize) -> String {
    let mut text = format::text(source, &found.iter().map(harmless).collect::<Vec<_>>());
    let has = |n: usize, what: &str| if n == 1 { format!("1 {what} has") } else { format!("{n} {what}s have") };
    if mended > 0 {
        let _ = writeln!(text, "{} been mended in {}", has(mended, "finding"), source.name);
    }
    let errors = found.iter().filter(|d| d.severity == Severity::Error).count();
    let warnings = found.len() - errors;
    let _ = match (errors, warnings) {
        (0, 0) => writeln!(text, "Check complete, no warnings found."),
        (0, _) => writeln!(text, "Check complete, {} been found!", has(warnings, "warning")),
        _ => writeln!(text, "Check failed, {} been found!", has(errors, "error")),
    };
    text
}

/// A finding without what a terminal would obey.
fn harmless(finding: &Diagnostic) -> Diagnostic {
    let message = harmless_line(&finding.message);
    Diagnostic { message, hint: finding.hint.as_deref().map(harmless_line), ..finding.clone() }
}

/// Mends what has one safe mend, in the file itself; says how many findings that were.
fn mend(read: &mut DockerfileText, at: &DockerfileAt) -> Result<usize, Problem> {
    let path = match (at, &read.real) {
        (DockerfileAt::Path { .. }, Some(path)) => path.clone(),
        _ => return Err(Problem::new(Kind::Usage, "--fix mends a file, and standard input is none")),
    };
    let (file, _) = crate::dockerfile::parse(&read.text.text);
    let options = Options::of(&file.directives).unwrap_or_default();
    let (text, mended) = fix::fix(&read.text.text, |rule| options.allow(rule));
    if mended > 0 {
        replace(&path, &text).map_err(|e| cannot(&format!("write {}", path.display()), &e))?;
        read.text = SourceText::new(read.text.name.clone(), text);
    }
    Ok(mended)
}

/// Puts a text into the place of a file, whole or not at all, with the file's permissions.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mode = path.metadata()?.permissions().mode();
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Span;

    fn found(rule: &'static str, at: usize) -> Diagnostic {
        Diagnostic::warning(rule, Span::new(at, at + 1), "m")
    }

    #[test]
    fn what_counts_is_shown_once_and_in_order() {
        let options = Options::parse("skip=StageNameCasing").unwrap();
        let all = vec![
            found("FromAsCasing", 5),
            found("UserNeverSet", 1),
            found("StageNameCasing", 0),
            found("FromAsCasing", 5),
        ];
        let rules = |practices| -> Vec<_> {
            relevant(all.clone(), &options, practices).iter().filter_map(|d| d.rule).collect()
        };
        assert_eq!(rules(true), ["UserNeverSet", "FromAsCasing"]);
        assert_eq!(rules(false), ["FromAsCasing"]);
    }

    #[test]
    fn the_last_line_counts() {
        let source = SourceText::new("Dockerfile", "FROM a\n");
        let error = Diagnostic::error(Span::default(), "e");
        for (findings, want) in [
            (vec![], "Check complete, no warnings found.\n"),
            (vec![found("FromAsCasing", 0)], "Check complete, 1 warning has been found!\n"),
            (vec![found("FromAsCasing", 0), found("FromAsCasing", 1)], "Check complete, 2 warnings have been found!\n"),
            (vec![error, found("FromAsCasing", 0)], "Check failed, 1 error has been found!\n"),
        ] {
            let text = text(&source, &findings, 0);
            assert!(text.ends_with(want), "{text}");
        }
        assert!(text(&source, &[], 3).starts_with("3 findings have been mended in Dockerfile\n"));
    }
}
