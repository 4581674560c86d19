//! What a person is told: where ([`Span`]), what is wrong ([`Diagnostic`], [`Problem`]), and what is happening
//! ([`Event`]). Everything here is data and pure rendering to strings; only `cli` prints. [`csv`] reads the one format that
//! the language and the command line share, and says what is wrong with it, and where.

pub mod csv;
mod diagnostic;
mod event;
mod problem;
mod span;

pub use diagnostic::{Diagnostic, Severity, render};
pub use event::{Event, Reporter, Step};
pub use problem::{Kind, Problem};
pub use span::{Position, SourceText, Span};
