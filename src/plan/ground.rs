//! What stages and sources stand on that isn't in the file: images and named contexts.

use super::dispatch;
use super::lint;
use super::names::Counter;
use super::op::{ImageOp, Op};
use super::origin::Origin;
use super::resolved::{ImageKey, ImageName, ResolvedImage};
use super::stages::External;
use super::state::{Root, State};
use super::walk::Walk;
use crate::oci::{Platform, Reference};
use crate::report::{Diagnostic, Span};

impl Walk<'_, '_> {
    /// A stage or a source that stands on something outside of the file.
    pub(super) fn on_external(&mut self, external: &External, counter: &mut Counter) -> State {
        let platform = external.platform.clone().unwrap_or_else(|| self.platform.clone());
        let origin = match self.origin(external) {
            Ok(origin) => origin,
            Err(error) => {
                self.shared.findings.error(error);
                Origin::Scratch
            }
        };
        match origin {
            // BuildKit forgets the platform of `FROM --platform=… scratch`.
            Origin::Scratch => State::scratch(self.platform),
            Origin::Image(key, context) => self.on_image(&key, context.as_deref(), external, counter),
            Origin::Local(name) => self.on_tree(dispatch::local(&name), &platform),
            Origin::Git(git, name) => {
                let found = dispatch::git(self.shared, &git, git.keep_git_dir.unwrap_or(false), external.span);
                self.on_found(found, format!("[context {name}] {}", git.remote), &platform)
            }
            Origin::Http(key, name) => {
                let found = dispatch::http(self.shared, &key, "context", external.span);
                self.on_found(found, format!("[context {name}] {}", key.url), &platform)
            }
        }
    }

    fn on_found(&mut self, found: Result<Op, Diagnostic>, name: String, platform: &Platform) -> State {
        match found {
            Ok(op) => self.on_tree((op, name), platform),
            Err(error) => {
                self.shared.findings.error(error);
                State::scratch(platform)
            }
        }
    }

    fn on_tree(&mut self, (op, name): (Op, String), platform: &Platform) -> State {
        let mut state = State::scratch(platform);
        let id = self.shared.vertices.add(state.vertex(op, name, Span::default()));
        state.root = Root::Tree(id);
        state
    }

    fn on_image(&mut self, key: &ImageKey, context: Option<&str>, external: &External, counter: &mut Counter) -> State {
        let Some(image) = self.shared.known.images.get(key) else {
            self.want_image(key.clone(), external.span);
            return State { guessed: true, ..State::scratch(&key.platform) };
        };
        if context.is_none() {
            let actual = image.config.platform();
            lint::base_platform(&external.text, &key.platform, &actual, external.span, &mut self.shared.findings);
        }
        counter.platform = counter.platform.take().map(|_| key.platform.clone());
        let state = State::new(Root::Empty, image.config.clone(), &key.platform);
        if image.layers.is_empty() {
            return state;
        }
        let reference = shown(key, image);
        let name = match context {
            Some(context) => format!("[context {context}] {reference}"),
            None => counter.next(&format!("FROM {reference}"), false, &state.env),
        };
        let op = Op::Image(image_op(key, image));
        let id = self.shared.vertices.add(state.vertex(op, name, external.span));
        State { root: Root::Layers(id), ..state }
    }
}

/// An image as it is shown: its digest, and the tag that was asked for.
fn shown(key: &ImageKey, image: &ResolvedImage) -> Reference {
    let tag = match &key.name {
        ImageName::Registry(asked) => asked.tag_or_latest().map(str::to_owned),
        ImageName::Layout(_) => None,
    };
    Reference { tag, ..image.reference.clone() }
}

fn image_op(key: &ImageKey, image: &ResolvedImage) -> ImageOp {
    let layout = match &key.name {
        ImageName::Layout(path) => Some(path.clone()),
        ImageName::Registry(_) => None,
    };
    ImageOp {
        reference: image.reference.clone(),
        layout,
        manifest: image.manifest.clone(),
        platform: key.platform.clone(),
        layers: image.layers.clone(),
    }
}
