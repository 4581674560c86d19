//! Instructions, arguments and resolved bases to a [`BuildPlan`]. Pure: no file is read, no registry is asked.

pub mod op;
pub use op::BuildPlan;
