//! The Dockerfile of a command, read and parsed.

use crate::cli::request::DockerfileAt;
use crate::cli::session::{Failure, dockerfile_problem, failure};
use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::{self, ast_dump};
use crate::report::{Diagnostic, Severity, SourceText};
use crate::source::{DockerfileText, read_dockerfile};
use std::path::Path;

/// Reads a Dockerfile.
pub fn read(context: &Path, at: &DockerfileAt) -> Result<DockerfileText, Failure> {
    let (given, shown) = match at {
        DockerfileAt::Stdin => (Path::new("-"), "-"),
        DockerfileAt::Path { path, shown } => (path.as_path(), shown.as_str()),
    };
    let mut read = read_dockerfile(context, Some(given), &mut std::io::stdin()).map_err(failure)?;
    shown.clone_into(&mut read.text.name);
    Ok(read)
}

/// Parses it; findings that are no errors are returned beside it.
pub fn parse(text: &SourceText) -> Result<(Dockerfile, Vec<Diagnostic>), Failure> {
    let (file, found) = dockerfile::parse(&text.text);
    if found.iter().any(|d| d.severity == Severity::Error) {
        return Err(at(text, found));
    }
    Ok((file, found))
}

/// What was found in a Dockerfile, as the failure that it is.
pub fn at(text: &SourceText, found: Vec<Diagnostic>) -> Failure {
    Failure::of(dockerfile_problem(found), text.clone())
}

/// `kiln debug ast`.
pub fn ast(at: &DockerfileAt) -> Result<String, Failure> {
    let read = read(Path::new("."), at)?;
    let (tree, found) = ast_dump(&read.text.text);
    if found.is_empty() { Ok(tree) } else { Err(self::at(&read.text, found)) }
}
