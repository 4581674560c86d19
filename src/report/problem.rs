//! Why a command failed, in the form that a person is told.

use super::{Diagnostic, Span};

/// What sort of failure it is; the process's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The build itself failed (a RUN, a missing source). Exit code 1.
    Build,
    /// The command line or the Dockerfile is wrong. Exit code 2.
    Usage,
    /// A registry or the network failed. Exit code 3.
    Network,
    /// This place can't do it: isolation, disk, permission. Exit code 4.
    Environment,
    /// The user stopped it. Exit code 130, as shells have it.
    Cancelled,
}

impl Kind {
    /// The exit code of a process that ends with this.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Usage => 2,
            Self::Network => 3,
            Self::Environment => 4,
            Self::Cancelled => 130,
        }
    }
}

/// A failure at the edge: what failed, where, why, and what helps. Each module's error converts into it once.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What sort of failure it is.
    pub kind: Kind,
    /// What failed, in one sentence without a full stop.
    pub message: String,
    /// The place in the Dockerfile, where there is one.
    pub span: Option<Span>,
    /// Why: the causes, outermost first.
    pub causes: Vec<String>,
    /// What the reader can do about it, one sentence each.
    pub hints: Vec<String>,
    /// Whether what helps is said before the causes, since there are many and one remedy.
    pub hints_first: bool,
    /// The exit code of the RUN that failed, where that is the cause.
    pub run_exit_code: Option<i32>,
    /// Further findings shown before this one (all errors of a Dockerfile at once).
    pub diagnostics: Vec<Diagnostic>,
    /// Other failures that happened besides this one, shown after it.
    pub others: Vec<Problem>,
}

impl Problem {
    /// A problem with a kind and a message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            span: None,
            causes: Vec::new(),
            hints: Vec::new(),
            hints_first: false,
            run_exit_code: None,
            diagnostics: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Adds an error and all of its sources as causes.
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(e) = next {
            let text = e.to_string();
            // Many libraries repeat their source in their own text.
            if !self.causes.last().is_some_and(|c| c.contains(&text)) {
                self.causes.push(text);
            }
            next = e.source();
        }
        self
    }

    /// Adds a cause.
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says where in the Dockerfile, unless a deeper place is known already.
    pub fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}
