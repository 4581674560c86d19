//! A limit on what a plan takes in memory.
//!
//! Variables can double with each line, each RUN has all of them in its environment and those of ARG in its history, and each
//! stage begins with the configuration of the one it stands on. So a short Dockerfile, or one on a hostile base image, could
//! fill any memory. What grows is counted here before it is made.

use crate::report::{Diagnostic, Span};

/// The most bytes of a plan, roughly: far more than a Dockerfile of a thousand steps needs.
const MOST: usize = 128 << 20;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    exhausted: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MOST, exhausted: false }
    }
}

impl Budget {
    /// Counts bytes of the instruction at `span`.
    ///
    /// # Errors
    /// Where there are too many, the first time. Nothing is planned after that.
    pub(super) fn take(&mut self, bytes: usize, span: Span) -> Result<(), Diagnostic> {
        if self.exhausted {
            return Ok(());
        }
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.exhausted = true;
                let message = format!("the Dockerfile grows to more than {} MiB, the most that kiln plans", MOST >> 20);
                let hint =
                    "values of variables count wherever they are used, and again in each RUN, which has all of them";
                Err(Diagnostic::error(span, message).hint(hint))
            }
        }
    }

    /// Takes back what is no longer there.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes).min(MOST);
    }

    /// Whether there was too much already: what follows isn't looked at.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}
