//! `--cache-mounts-from` and `--cache-mounts-to`, which only kiln has; the fields are as those of `--cache-to`.

use super::cache::{CacheAt, Fields, at};
use super::values::{self, Why};
use crate::cli::Env;
use crate::layer::{Compression, CompressionError};
use crate::report::Problem;

/// The tag's beginning where the name has none.
const TAG: &str = "mounts";

/// A place of cache mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountsAt {
    /// The place.
    pub at: CacheAt,
    /// Only mounts of these ids; all where there are none.
    pub ids: Vec<String>,
    /// The most bytes that the files of one may have together.
    pub max_size: Option<u64>,
    /// How what is written there is compressed.
    pub compression: Compression,
}

/// Reads `--cache-mounts-from`: `type=registry,ref=NAME`, `type=local,src=FOLDER` or `type=gha`, with `ids=A|B` and `max-size=BYTES`.
pub(super) fn from(texts: &[String], env: &Env) -> Result<Vec<CacheMountsAt>, Problem> {
    super::each("--cache-mounts-from", texts, |text| read(text, "src", env))
}

/// Reads `--cache-mounts-to`: the same with `dest=FOLDER` and `compression=TYPE[:LEVEL]`.
pub(super) fn to(texts: &[String], env: &Env) -> Result<Vec<CacheMountsAt>, Problem> {
    super::each("--cache-mounts-to", texts, |text| read(text, "dest", env))
}

fn read(text: &str, place: &str, env: &Env) -> Result<CacheMountsAt, Why> {
    let mut fields = Fields::parse(text)?;
    let kind = fields.take("type").ok_or("type= is missing")?;
    if kind == "inline" {
        return Err("an image carries no cache mounts: want registry, local or gha".into());
    }
    let mut at = at(&kind, &mut fields, place, env)?;
    if let CacheAt::Registry(name) = &mut at {
        // Apart from steps in the same repository.
        name.tag.get_or_insert_with(|| TAG.to_owned());
    }
    let ids = fields.take("ids").map_or(Vec::new(), |ids| ids.split('|').map(str::to_owned).collect());
    let max_size = fields.take("max-size").map(|size| values::bytes(&size)).transpose()?;
    let written = if place == "dest" { fields.take("compression") } else { None };
    let compression = match written {
        Some(text) => text.parse().map_err(|e: CompressionError| e.to_string())?,
        None => Compression::ZSTD,
    };
    fields.end(&kind)?;
    Ok(CacheMountsAt { at, ids, max_size, compression })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env { cwd: "/w".into(), ..Env::default() }
    }

    #[test]
    fn places() {
        let name = |text: &str| CacheAt::Registry(text.parse().unwrap());
        let plain = |at| CacheMountsAt { at, ids: Vec::new(), max_size: None, compression: Compression::ZSTD };
        for (text, want) in [
            ("type=registry,ref=h:5/c", plain(name("h:5/c:mounts"))),
            ("h:5/c:main", plain(name("h:5/c:main"))),
            ("type=local,dest=d", plain(CacheAt::Local("/w/d".into()))),
            (
                "type=local,dest=d,ids=/root/.cargo|go,max-size=2g,compression=gzip:1",
                CacheMountsAt {
                    at: CacheAt::Local("/w/d".into()),
                    ids: vec!["/root/.cargo".into(), "go".into()],
                    max_size: Some(2 << 30),
                    compression: Compression::Gzip(1),
                },
            ),
        ] {
            assert_eq!(to(&[text.into()], &env()).unwrap(), [want], "{text}");
        }
        let local = from(&["type=local,src=/s,ids=a,max-size=1k".into()], &env()).unwrap();
        assert_eq!((&local[0].at, local[0].max_size), (&CacheAt::Local("/s".into()), Some(1024)));
    }

    #[test]
    fn refusals() {
        for (text, why) in [
            ("", "EOF"),
            ("ids=a,ref=b", "type= is missing"),
            ("type=registry", "ref= is missing"),
            ("type=local", "dest= is missing"),
            ("type=inline", "want registry, local or gha"),
            ("type=floppy", "none of registry"),
            ("type=local,dest=d,mode=max", "no option \"mode\""),
            ("type=local,dest=d,max-size=much", "64m"),
            ("type=local,dest=d,compression=lz4", "not a compression"),
        ] {
            let problem = to(&[text.into()], &env()).unwrap_err();
            let said = format!("{} {:?} {:?}", problem.message, problem.causes, problem.hints);
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(from(&["type=local,src=s,compression=zstd".into()], &env()).is_err(), "nothing is written there");
    }
}
