//! Where bytes go: a file that appears whole or not at all, or a stream that somebody else opened.

use super::Error;
use super::error::At as _;
use super::spec::Destination;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How much is gathered before it is written.
const BUFFER: usize = 1 << 18;

/// An open [`Destination`]. Dropped without [`Output::finish`], a file that would be new or replaced is as before.
pub struct Output(BufWriter<Sink>);

enum Sink {
    /// Written beside its place, then renamed.
    New { file: NamedTempFile, path: PathBuf },
    /// A device or pipe that is written to where it stands.
    Device { file: File, path: PathBuf },
    /// Standard output.
    Stream(Box<dyn Write + Send>),
}

impl Output {
    /// Opens `destination`; for standard output, `stdout` is taken.
    ///
    /// # Errors
    /// [`Error::Io`] where there can be no such file, or a folder stands there.
    pub fn open(destination: &Destination, stdout: Box<dyn Write + Send>) -> Result<Self, Error> {
        let sink = match destination {
            Destination::Stdout => Sink::Stream(stdout),
            Destination::File(path) => match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() => {
                    return Err(io::Error::from(io::ErrorKind::IsADirectory)).at("write", path);
                }
                Ok(meta) if !meta.is_file() => {
                    let file = File::options().write(true).open(path).at("write", path)?;
                    Sink::Device { file, path: path.clone() }
                }
                _ => Sink::New { file: beside(path)?, path: path.clone() },
            },
        };
        Ok(Self(BufWriter::with_capacity(BUFFER, sink)))
    }

    /// Writes what is gathered and puts the file into its place.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Stdout`].
    pub fn finish(mut self) -> Result<(), Error> {
        if let Err(e) = self.0.flush() {
            return Err(self.failed(e));
        }
        match self.0.into_inner() {
            Ok(Sink::New { file, path }) => file.persist(&path).map(|_| ()).at("write", &path),
            Ok(Sink::Device { .. } | Sink::Stream(_)) => Ok(()),
            Err(e) => Err(Error::Stdout(e.into_error())),
        }
    }

    /// Names the place in an error of a write.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        match self.0.get_ref() {
            Sink::New { path, .. } | Sink::Device { path, .. } => {
                Error::Io { what: "write", path: path.clone(), source: error }
            }
            Sink::Stream(_) => Error::Stdout(error),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::New { file, .. } => file.as_file_mut().write(bytes),
            Self::Device { file, .. } => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::New { .. } | Self::Device { .. } => Ok(()),
            Self::Stream(stream) => stream.flush(),
        }
    }
}

/// A temporary file that can be renamed to `path`, with the permissions that a new file has.
pub(crate) fn beside(path: &Path) -> Result<NamedTempFile, Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".kiln-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .at("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Output, Error> {
        Output::open(&Destination::File(path.into()), Box::new(io::sink()))
    }

    #[test]
    fn whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "old").unwrap();
        let mut output = open(&path).unwrap();
        output.write_all(b"new").unwrap();
        drop(output);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut output = open(&path).unwrap();
        output.write_all(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o600, 0o600);
        assert_eq!(mode & 0o111, 0);
    }

    #[test]
    fn places_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path()).is_err());
        let error = open(&folder.path().join("no/such")).err().unwrap().to_string();
        assert!(error.contains("no/such"), "{error}");
    }

    #[test]
    fn devices_stay_devices() {
        let mut output = open(Path::new("/dev/null")).unwrap();
        output.write_all(b"x").unwrap();
        output.finish().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
