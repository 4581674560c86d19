//! `RUN --mount`: defaults, and what each kind becomes.

use super::dispatch::Cx;
use super::op::{Mount, MountSource, Sharing, VertexId};
use super::paths;
use super::run::reads_files;
use super::state::State;
use crate::dockerfile::ast::{self, MountKind, Run, Word};
use crate::dockerfile::mount::ram_in_bytes;
use crate::dockerfile::quote::quoted;
use crate::report::{Diagnostic, Span};

/// The `--build-arg` that keeps the caches of some builds apart from those of others.
const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// The mounts of a RUN, and the names of the variables that secrets are put in.
pub(super) fn mounts(
    cx: &mut Cx<'_, '_>,
    state: &State,
    run: &Run,
    at: Span,
) -> Result<(Vec<Mount>, Vec<String>), Diagnostic> {
    let (mut mounts, mut secrets) = (Vec::new(), Vec::new());
    for (number, raw) in run.mounts.iter().enumerate() {
        let mount = raw.expand(&mut |word: &Word| cx.expand(state, word))?;
        let mut reader = Reader { cx, state, mount: &mount, number, at };
        mounts.push(match mount.kind {
            MountKind::Bind => reader.bind()?,
            MountKind::Cache => reader.cache()?,
            MountKind::Tmpfs => reader.tmpfs()?,
            MountKind::Secret => reader.secret(&mut secrets)?,
            MountKind::Ssh => reader.ssh(&mounts)?,
        });
    }
    Ok((mounts, secrets))
}

struct Reader<'r, 'c, 'a> {
    cx: &'r mut Cx<'c, 'a>,
    state: &'r State,
    mount: &'r ast::Mount,
    number: usize,
    /// The instruction.
    at: Span,
}

impl Reader<'_, '_, '_> {
    fn bind(&mut self) -> Result<Mount, Diagnostic> {
        let from = match self.from()? {
            Some(tree) => tree,
            None => Some(self.cx.context(self.state)),
        };
        let source = paths::join("/", text(&self.mount.source));
        let readonly = self.mount.readonly.unwrap_or(true);
        Ok(Mount { target: self.target()?, kind: MountSource::Bind { from, source, readonly } })
    }

    fn cache(&mut self) -> Result<Mount, Diagnostic> {
        let target = self.target()?;
        let mut from = self.from()?.flatten();
        let source = paths::join("/", text(&self.mount.source));
        let (mode, uid, gid) = (number(&self.mount.mode, 8), number(&self.mount.uid, 10), number(&self.mount.gid, 10));
        let owned = source == "/" && (mode, uid, gid) != (None, None, None);
        if owned {
            // With an owner or a mode, the folder is a new one, whatever `from` says.
            from = None;
        }
        let kind = MountSource::Cache {
            id: self.cache_id(),
            from,
            source,
            readonly: self.mount.readonly.unwrap_or(false),
            sharing: sharing(text(&self.mount.sharing)),
            mode: mode.filter(|_| owned).unwrap_or(0o755),
            uid: uid.filter(|_| owned).unwrap_or(0),
            gid: gid.filter(|_| owned).unwrap_or(0),
        };
        Ok(Mount { target, kind })
    }

    /// `id`, or the target as it was written; behind the namespace that the build wants its caches in.
    fn cache_id(&self) -> String {
        let target = text(&self.mount.target);
        let id = match text(&self.mount.id) {
            "" if target.starts_with('/') => paths::join("/", target),
            "" => paths::join("/", target).replacen('/', "", 1),
            id => id.to_owned(),
        };
        match self.cx.shared.args.values.get(NAMESPACE) {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
            _ => id,
        }
    }

    fn tmpfs(&mut self) -> Result<Mount, Diagnostic> {
        let size = self.mount.size.as_ref().and_then(|s| ram_in_bytes(&s.text)).filter(|size| *size > 0);
        Ok(Mount { target: self.target()?, kind: MountSource::Tmpfs { size } })
    }

    fn secret(&mut self, names: &mut Vec<String>) -> Result<Mount, Diagnostic> {
        let target = text(&self.mount.target);
        let named = [text(&self.mount.source), text(&self.mount.id), paths::base(target)];
        let id = named.into_iter().find(|n| !n.is_empty()).unwrap_or_default().to_owned();
        let env = self.mount.env.as_ref().map(|e| e.text.clone());
        names.extend(env.clone());
        let place = match target {
            "" => format!("/run/secrets/{}", paths::base(&id)),
            target => paths::join(&self.state.dir(), target),
        };
        self.cx.outline.secret(&id, self.mount.required.unwrap_or(false), self.at);
        self.refuse_foreign(&id)?;
        self.warn_of_foreign("the secret", &id);
        let kind = MountSource::Secret {
            file: env.is_none() || !target.is_empty(),
            env,
            required: self.mount.required.unwrap_or(false),
            mode: number(&self.mount.mode, 8).unwrap_or(0o400),
            uid: number(&self.mount.uid, 10).unwrap_or(0),
            gid: number(&self.mount.gid, 10).unwrap_or(0),
            id,
        };
        Ok(Mount { target: place, kind })
    }

    fn ssh(&mut self, before: &[Mount]) -> Result<Mount, Diagnostic> {
        if let Some(source) = self.mount.source.as_ref().filter(|s| !s.text.is_empty()) {
            return Err(Diagnostic::error(source.span, "ssh does not support source"));
        }
        let sockets = before.iter().filter(|m| matches!(m.kind, MountSource::Ssh { .. })).count();
        let target = match text(&self.mount.target) {
            "" => format!("/run/buildkit/ssh_agent.{sockets}"),
            target => paths::join(&self.state.dir(), target),
        };
        let id = Some(text(&self.mount.id)).filter(|id| !id.is_empty()).unwrap_or("default").to_owned();
        self.cx.outline.ssh(&id, self.mount.required.unwrap_or(false), self.at);
        self.warn_of_foreign("the SSH agent", &id);
        let kind = MountSource::Ssh {
            id,
            required: self.mount.required.unwrap_or(false),
            mode: number(&self.mount.mode, 8).unwrap_or(0o600),
            uid: number(&self.mount.uid, 10).unwrap_or(0),
            gid: number(&self.mount.gid, 10).unwrap_or(0),
        };
        Ok(Mount { target, kind })
    }

    /// Refuses a trigger of a base image a secret that isn't for such.
    fn refuse_foreign(&self, id: &str) -> Result<(), Diagnostic> {
        match &self.cx.foreign {
            Some(image) if self.cx.shared.args.not_onbuild.contains(id) => {
                let message = format!(
                    "an ONBUILD trigger of the base image {image} mounts the secret {}, which --secret id={id},onbuild=false \
                     forbids",
                    quoted(id)
                );
                let hint = "take another base image, or leave out onbuild=false if the image may see the secret";
                Err(Diagnostic::error(self.at, message).hint(hint))
            }
            _ => Ok(()),
        }
    }

    /// Tells of a trigger of a base image that is given something secret: it isn't seen in this file.
    fn warn_of_foreign(&mut self, what: &str, id: &str) {
        let Some(image) = &self.cx.foreign else { return };
        let message = format!("an ONBUILD trigger of the base image {image} is given {what} {}", quoted(id));
        let warning = Diagnostic { rule: None, ..Diagnostic::warning("", self.at, message) };
        let hint = match what {
            "the secret" => format!("to refuse it: --secret id={id},onbuild=false"),
            _ => "build without --ssh if the image may not use the agent".into(),
        };
        self.cx.shared.findings.warn_once(warning.hint(hint));
    }

    /// Where it is mounted; never on the root.
    fn target(&self) -> Result<String, Diagnostic> {
        let target = paths::join(&self.state.dir(), text(&self.mount.target));
        if target == "/" {
            return Err(Diagnostic::error(self.span(), format!("invalid mount target {}", quoted(&target))));
        }
        Ok(target)
    }

    /// The tree that `from` names; `None` without one.
    fn from(&self) -> Result<Option<Option<VertexId>>, Diagnostic> {
        if !reads_files(self.mount.kind) {
            return Ok(None);
        }
        match self.cx.sources.get(self.number).cloned().flatten() {
            None => Ok(None),
            Some(Ok(tree)) => Ok(Some(tree)),
            Some(Err(stage)) => {
                let message = format!(
                    "cannot mount from stage {} to {}, stage needs to be defined before current command",
                    quoted(&stage),
                    quoted(text(&self.mount.target))
                );
                Err(Diagnostic::error(self.span(), message))
            }
        }
    }

    fn span(&self) -> Span {
        self.mount.span
    }
}

fn text(word: &Option<Word>) -> &str {
    word.as_ref().map_or("", |w| w.text.as_str())
}

/// A number that the parser has checked.
fn number(word: &Option<Word>, radix: u32) -> Option<u32> {
    word.as_ref().and_then(|w| u32::from_str_radix(&w.text, radix).ok())
}

fn sharing(text: &str) -> Sharing {
    match text {
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => Sharing::Shared,
    }
}
