//! What a name that isn't a stage's means: `scratch`, a named context or an image.

use super::args::{BuildArgs, Context};
use super::git::GitUrl;
use super::resolved::{HttpKey, ImageKey, ImageName};
use super::stages::{External, Stages};
use crate::dockerfile::quote::quoted;
use crate::oci::{Platform, Reference};
use crate::report::Diagnostic;

/// What a name means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Origin {
    /// Nothing at all.
    Scratch,
    /// An image, perhaps in the place of another: then the context's name.
    Image(ImageKey, Option<String>),
    /// A local tree.
    Local(String),
    /// A git repository.
    Git(GitUrl, String),
    /// A file from a web server.
    Http(HttpKey, String),
}

/// Finds out what `external` means to a stage on `platform`.
pub(super) fn origin(
    external: &External,
    platform: &Platform,
    stages: &Stages<'_>,
    args: &BuildArgs,
) -> Result<Origin, Diagnostic> {
    if external.text == "scratch" {
        return Ok(Origin::Scratch);
    }
    // A name that is no reference is an error even if a context has it, unless a stage does.
    let reference = external.text.parse::<Reference>();
    if let Some((name, context)) = args.context(&external.text, platform) {
        return of_context(name, context, external, platform);
    }
    match reference {
        Ok(reference) => {
            Ok(Origin::Image(ImageKey { name: ImageName::Registry(reference), platform: platform.clone() }, None))
        }
        Err(_) => Err(not_a_reference(external, stages)),
    }
}

/// Whether `external` could be an image's name; asked of every FROM, needed or not.
pub(super) fn check_name(external: &External, stages: &Stages<'_>, args: &BuildArgs) -> Result<(), Diagnostic> {
    let known =
        external.text == "scratch" || args.contexts.keys().any(|key| key.split("::").next() == Some(&external.text));
    match external.text.parse::<Reference>() {
        Err(_) if !known => Err(not_a_reference(external, stages)),
        _ => Ok(()),
    }
}

fn not_a_reference(external: &External, stages: &Stages<'_>) -> Diagnostic {
    let text = &external.text;
    let why = match text.to_lowercase().parse::<Reference>() {
        Ok(_) => "invalid reference format: repository name must be lowercase",
        Err(_) => "invalid reference format",
    };
    let error = Diagnostic::error(external.span, format!("failed to parse stage name {}: {why}", quoted(text)));
    match stages.find(text) {
        Some(id) => {
            error.hint(format!("did you mean the stage {}? FROM takes its name in lower case", stages.shown_name(id)))
        }
        None => error,
    }
}

fn of_context(name: &str, context: &Context, external: &External, platform: &Platform) -> Result<Origin, Diagnostic> {
    let wrong = |why: String| Diagnostic::error(external.span, format!("build context {name}: {why}"));
    Ok(match context {
        Context::Image(text) if text == "scratch" => Origin::Scratch,
        Context::Image(text) => {
            let reference = text.parse::<Reference>().map_err(|e| wrong(e.to_string()))?;
            let key = ImageKey { name: ImageName::Registry(reference), platform: platform.clone() };
            Origin::Image(key, Some(name.to_owned()))
        }
        Context::OciLayout(path) => {
            let key = ImageKey { name: ImageName::Layout(path.clone()), platform: platform.clone() };
            Origin::Image(key, Some(name.to_owned()))
        }
        Context::Local => Origin::Local(name.to_owned()),
        Context::Git(url) => Origin::Git(url.clone(), name.to_owned()),
        Context::Http(url) => Origin::Http(HttpKey { url: url.clone(), checksum: None }, name.to_owned()),
        // Where the stage exists, `Stages` has put it in the context's place.
        Context::Target(stage) => return Err(wrong(format!("target stage {} could not be found", quoted(stage)))),
    })
}
