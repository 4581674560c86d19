//! The system calls that the other modules need and `rustix` alone doesn't make easy; the only `unsafe` of the crate.
//!
//! | file | what |
//! |---|---|
//! | [`error`](Error) | a failed call, with its name and its path |
//! | [`cancel`](Cancel) | a flag that can be polled |
//! | [`signals`](Signals) | signals to hand on, which can be polled |
//! | [`file`] | confined opening, nodes, owners, times, copying, locks |
//! | [`xattr`] | extended attributes, never following a link |
//! | [`child`] | a process in new namespaces, prepared as data and made by `clone` |
//!
//! `rustix` is used directly wherever it is enough (its `RawDir` reads folders, for one); what stands here adds the
//! path to the error, the confinement, or the call itself. Nothing here keeps state between calls, and nothing reads
//! the environment.

mod cancel;
pub mod child;
mod error;
pub mod file;
mod root;
mod signals;
pub mod xattr;

pub use cancel::Cancel;
pub use error::{Error, Result, Said};
pub use root::RootMount;
pub use signals::Signals;

use std::path::Path;

/// The identity of this boot, from `/proc/sys/kernel/random/boot_id`: what was written under another one may have been
/// lost by a power cut.
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(e) => Err(Error::from_io("read", path, &e)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn boot_id_is_a_uuid() {
        let id = super::boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id, super::boot_id().unwrap());
    }
}
