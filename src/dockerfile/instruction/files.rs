//! COPY and ADD.

use super::Reader;
use crate::dockerfile::ast::{Add, Copy, FileSource, Files, Heredoc, Kind, Word};
use crate::dockerfile::heredoc;

impl Reader<'_> {
    pub(super) fn copy(&mut self) -> Option<Kind> {
        let files = self.files()?;
        let parents = self.flags.switch("parents").unwrap_or(false);
        Some(Kind::Copy(Copy { from: self.flags.text("from"), files, parents }))
    }

    pub(super) fn add(&mut self) -> Option<Kind> {
        let files = self.files()?;
        Some(Kind::Add(Add {
            files,
            checksum: self.flags.text("checksum"),
            keep_git_dir: self.flags.switch("keep-git-dir"),
            unpack: self.flags.switch("unpack"),
        }))
    }

    fn files(&mut self) -> Option<Files> {
        let name = self.keyword.name();
        let [sources @ .., dest] = self.words() else {
            self.too_few(name);
            return None;
        };
        if sources.is_empty() {
            self.too_few(name);
        }
        if matches!(heredoc::marker(&dest.text), Ok(Some(_))) {
            self.error(dest.span, format!("{name} cannot accept a heredoc as a destination"));
        }
        Some(Files {
            sources: sources.iter().map(|word| self.source(word)).collect(),
            dest: dest.clone(),
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            link: self.flags.switch("link").unwrap_or(false),
            exclude: self.flags.texts("exclude"),
        })
    }

    fn too_few(&mut self, name: &str) {
        let message = format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        );
        self.error(self.span, message);
    }

    /// A source; of several heredocs with one name the last counts for all.
    fn source(&self, word: &Word) -> FileSource {
        let Ok(Some(marker)) = heredoc::marker(&word.text) else { return FileSource::Path(word.clone()) };
        let body = self.heredocs.iter().rev().find(|h| h.name == marker.name).cloned();
        let heredoc::Marker { name, fd, chomp, expand } = marker;
        // A marker that the line doesn't have (part of a quoted word) is an empty file.
        FileSource::Heredoc(body.map_or_else(
            || Heredoc { name, fd, content: String::new(), raw: String::new(), expand, chomp, span: word.span },
            |body| Heredoc { expand, ..body },
        ))
    }
}
