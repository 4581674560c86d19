//! `--cache-from` and `--cache-to`, as docker buildx reads them.

use super::{not_yet, values::Why};
use crate::cli::Env;
use crate::oci::Reference;
use crate::report::Problem;
use crate::report::csv;
use crate::solve::cache::Mode;
use std::path::PathBuf;

/// The longest tag of a cache's name: a dash and a key must fit behind it.
const LONGEST_TAG: usize = 63;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheAt {
    /// A repository; a tag begins the tags of all its keys.
    Registry(Reference),
    /// A folder, absolute.
    Local(PathBuf),
}

/// Reads `--cache-from`: `type=registry,ref=NAME`, `type=local,src=FOLDER`, or a name alone.
pub(super) fn from(texts: &[String], env: &Env) -> Result<Vec<CacheAt>, Problem> {
    let one = |text: &String| read("--cache-from", text, "src", env).map(|(at, _)| at);
    texts.iter().map(one).collect()
}

/// Reads `--cache-to`: `type=registry,ref=NAME[,mode=min|max]`, `type=local,dest=FOLDER[,mode=min|max]`, or a name alone.
pub(super) fn to(texts: &[String], env: &Env) -> Result<Vec<(CacheAt, Mode)>, Problem> {
    texts.iter().map(|text| read("--cache-to", text, "dest", env)).collect()
}

/// The fields of a specification, each taken out once.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn parse(text: &str) -> Result<Self, Why> {
        let fields = csv::fields(text)?;
        if let [one] = fields.as_slice()
            && !one.text.contains('=')
        {
            return Ok(Self(vec![("type".into(), "registry".into()), ("ref".into(), one.text.clone())]));
        }
        let pair = |field: &csv::Field| {
            let (name, value) = field.text.split_once('=').ok_or(format!("the field {:?} has no =", field.text))?;
            Ok((name.trim().to_lowercase(), value.to_owned()))
        };
        fields.iter().map(pair).collect::<Result<_, Why>>().map(Self)
    }

    /// The value of a field, unless it is empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let found = self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        self.0.retain(|(n, _)| n != name);
        found.filter(|value| !value.is_empty())
    }

    /// The name of a field that nobody has taken.
    pub(super) fn first(&self) -> Option<&str> {
        self.0.first().map(|(name, _)| name.as_str())
    }
}

fn read(flag: &str, text: &str, place: &str, env: &Env) -> Result<(CacheAt, Mode), Problem> {
    let wrong = |why: Why| super::wrong(flag, text, &why);
    let mut fields = Fields::parse(text).map_err(wrong)?;
    let kind = fields.take("type").ok_or_else(|| wrong("type= is missing".into()))?;
    if matches!(kind.as_str(), "inline" | "gha" | "s3" | "azblob") {
        return Err(not_yet(&format!("{flag} type={kind}")));
    }
    let at = at(&kind, &mut fields, place, env).map_err(wrong)?;
    let mode = if flag == "--cache-to" { mode(&mut fields).map_err(wrong)? } else { Mode::Min };
    match fields.first() {
        None => Ok((at, mode)),
        Some(name) => Err(wrong(format!("kiln has no option {name:?} for type={kind}"))),
    }
}

/// The place that the fields name; a folder in the field `place`.
pub(super) fn at(kind: &str, fields: &mut Fields, place: &str, env: &Env) -> Result<CacheAt, Why> {
    match kind {
        "registry" => {
            let name: Reference = fields.take("ref").ok_or("ref= is missing")?.parse().map_err(|e| format!("{e}"))?;
            match (&name.tag, &name.digest) {
                (_, Some(_)) => Err("a cache has no digest: its records change".into()),
                (Some(tag), _) if tag.len() > LONGEST_TAG => {
                    Err(format!("a cache's tag has at most {LONGEST_TAG} letters, since keys stand behind it"))
                }
                _ => Ok(CacheAt::Registry(name)),
            }
        }
        "local" => {
            let folder = fields.take(place).ok_or_else(|| format!("{place}= is missing"))?;
            Ok(CacheAt::Local(env.cwd.join(folder)))
        }
        other => Err(format!("{other:?} is neither registry nor local")),
    }
}

fn mode(fields: &mut Fields) -> Result<Mode, Why> {
    match fields.take("mode").as_deref() {
        None | Some("min") => Ok(Mode::Min),
        Some("max") => Ok(Mode::Max),
        Some(other) => Err(format!("mode={other}: want min or max")),
    }
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
        for (text, want) in [
            ("type=registry,ref=127.0.0.1:5000/c", name("127.0.0.1:5000/c")),
            ("type=registry,ref=a/b:main,mode=max", name("a/b:main")),
            ("127.0.0.1:5000/c:x", name("127.0.0.1:5000/c:x")),
            ("type=local,dest=d", CacheAt::Local("/w/d".into())),
            ("type=local,\"dest=/a,b\"", CacheAt::Local("/a,b".into())),
        ] {
            assert_eq!(to(&[text.into()], &env()).unwrap()[0].0, want, "{text}");
        }
        assert_eq!(from(&["type=local,src=d".into()], &env()).unwrap(), [CacheAt::Local("/w/d".into())]);
        let modes = ["a", "type=registry,ref=a,mode=max", "type=local,dest=d,mode=min"].map(String::from);
        let modes: Vec<Mode> = to(&modes, &env()).unwrap().into_iter().map(|(_, m)| m).collect();
        assert_eq!(modes, [Mode::Min, Mode::Max, Mode::Min]);
    }

    #[test]
    fn refusals() {
        let digest = format!("type=registry,ref=a@sha256:{}", "0".repeat(64));
        let long = format!("type=registry,ref=a:{}", "x".repeat(64));
        for (text, why) in [
            ("", "EOF"),
            ("ref=a,mode=max", "type= is missing"),
            ("type=registry", "ref= is missing"),
            ("type=registry,ref=A", "lower-case"),
            (digest.as_str(), "no digest"),
            (long.as_str(), "at most 63"),
            ("type=local", "dest= is missing"),
            ("type=local,src=x,dest=d", "no option \"src\""),
            ("type=registry,ref=a,mode=most", "min or max"),
            ("type=registry,ref=a,compression=zstd", "no option"),
            ("type=floppy,dest=x", "neither registry nor local"),
            ("type=inline", "not supported yet: --cache-to type=inline"),
            ("type=gha", "not supported yet: --cache-to type=gha"),
        ] {
            let problem = to(&[text.into()], &env()).unwrap_err();
            let said = format!("{} {:?}", problem.message, problem.hints);
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(from(&["type=registry,ref=a,mode=max".into()], &env()).is_err(), "an import has no mode");
    }
}
