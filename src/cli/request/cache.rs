//! `--cache-from` and `--cache-to`, as docker buildx reads them, and Kaniko's `--cache-repo`.

use super::{not_yet, values::Why};
use crate::cli::Env;
use crate::dockerfile::duration;
use crate::layer::Compression;
use crate::oci::Reference;
use crate::registry::Secret;
use crate::report::csv;
use crate::report::{Kind, Problem};
use crate::solve::cache::{ActionsAt, Mode};
use std::path::PathBuf;
use std::time::Duration;

/// The longest tag of a cache's name: a dash and a key must fit behind it.
const LONGEST_TAG: usize = 63;
/// The longest scope of a cache of GitHub's: its service takes keys of 512 letters, and a key of kiln's stands behind it.
const LONGEST_SCOPE: usize = 400;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheAt {
    /// A repository; a tag begins the tags of all its keys, or is an image that carries its records.
    Registry(Reference),
    /// A folder, absolute.
    Local(PathBuf),
    /// GitHub's cache service.
    Actions(ActionsAt),
    /// A cache that isn't there where this runs, and why.
    Missing(String),
}

/// A cache that results go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Where it is; `None` is within the image itself.
    pub at: Option<CacheAt>,
    /// Which steps it gets.
    pub mode: Mode,
    /// Whether the build fails where it can't be written.
    pub required: bool,
    /// How layers are compressed, where it says so.
    pub compression: Option<Compression>,
}

/// Reads `--cache-from`: `type=registry,ref=NAME`, `type=local,src=FOLDER`, `type=gha`, or a name alone; and `--cache-repo`.
pub(super) fn from(texts: &[String], repository: Option<&str>, env: &Env) -> Result<Vec<CacheAt>, Problem> {
    let flag = "--cache-from";
    let one = |text: &String| {
        let wrong = |why: Why| wrong(flag, text, &why);
        let (kind, mut fields) = parse(flag, text)?;
        if kind == "inline" {
            return Err(wrong("an image's own records are found by its name: type=registry,ref=NAME".into()));
        }
        let at = at(&kind, &mut fields, "src", env).map_err(wrong)?;
        fields.end(&kind).map_err(wrong)?;
        Ok(at)
    };
    texts.iter().map(one).chain(repository.map(self::repository)).collect()
}

/// Reads `--cache-to`: as `--cache-from` with `dest=FOLDER`, or `type=inline`, and what buildx adds to it; and
/// `--cache-repo`, which gets the steps of all stages.
pub(super) fn to(texts: &[String], repository: Option<&str>, env: &Env) -> Result<Vec<CacheTo>, Problem> {
    let flag = "--cache-to";
    let one = |text: &String| {
        let (kind, fields) = parse(flag, text)?;
        target(&kind, fields, env).map_err(|why| wrong(flag, text, &why))
    };
    let of_repository = |text: &str| {
        let at = Some(self::repository(text)?);
        Ok(CacheTo { at, mode: Mode::Max, required: false, compression: None })
    };
    texts.iter().map(one).chain(repository.map(of_repository)).collect()
}

/// A specification that is wrong, without the token that it may hold.
fn wrong(flag: &str, text: &str, why: &str) -> Problem {
    let mut shown = text.to_owned();
    if let Some(at) = text.to_ascii_lowercase().find("token=").map(|at| at + "token=".len()) {
        let end = text.get(at..).and_then(|rest| rest.find([',', '"'])).map_or(text.len(), |n| at + n);
        shown.replace_range(at..end, "***");
    }
    super::wrong(flag, &shown, why)
}

/// Reads `--cache-ttl`: a duration as Go writes them.
pub(super) fn ttl(text: &str) -> Result<Duration, Problem> {
    span(text).map_err(|why| super::wrong("--cache-ttl", text, &why))
}

fn span(text: &str) -> Result<Duration, Why> {
    let nanoseconds = duration::parse(text)?;
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| "it is negative".into())
}

fn repository(text: &str) -> Result<CacheAt, Problem> {
    named(text).map_err(|why| super::wrong("--cache-repo", text, &why))
}

/// A specification's type and its other fields.
fn parse(flag: &str, text: &str) -> Result<(String, Fields), Problem> {
    let wrong = |why: Why| wrong(flag, text, &why);
    let mut fields = Fields::parse(text).map_err(wrong)?;
    let kind = fields.take("type").ok_or_else(|| wrong("type= is missing".into()))?;
    if matches!(kind.as_str(), "s3" | "azblob") {
        return Err(not_yet(&format!("{flag} type={kind}")));
    }
    Ok((kind, fields))
}

fn target(kind: &str, mut fields: Fields, env: &Env) -> Result<CacheTo, Why> {
    let at = if kind == "inline" { None } else { Some(at(kind, &mut fields, "dest", env)?) };
    let mode = mode(&mut fields)?;
    if at.is_none() && mode == Mode::Max {
        return Err("an image carries the records of its own steps alone: mode=min".into());
    }
    let required = at.is_some() && fields.take_bool("ignore-error")? == Some(false);
    let compression = if at.is_some() { compression(&mut fields)? } else { None };
    if matches!(at, Some(CacheAt::Registry(_) | CacheAt::Local(_))) {
        for name in ["oci-mediatypes", "image-manifest"] {
            if fields.take_bool(name)? == Some(false) {
                return Err(format!("{name}=false: a cache's records are OCI image manifests"));
            }
        }
    }
    fields.end(kind)?;
    Ok(CacheTo { at, mode, required, compression })
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

    fn take_bool(&mut self, name: &str) -> Result<Option<bool>, Why> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{name}={other}: want true or false")),
        }
    }

    /// Fails where something is left.
    pub(super) fn end(self, kind: &str) -> Result<(), Why> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("kiln has no option {name:?} for type={kind}")),
        }
    }
}

/// The place that the fields name; a folder in the field `place`.
pub(super) fn at(kind: &str, fields: &mut Fields, place: &str, env: &Env) -> Result<CacheAt, Why> {
    match kind {
        "registry" => named(&fields.take("ref").ok_or("ref= is missing")?),
        "local" => {
            let folder = fields.take(place).ok_or_else(|| format!("{place}= is missing"))?;
            Ok(CacheAt::Local(env.cwd.join(folder)))
        }
        "gha" => actions(fields, env),
        other => Err(format!("{other:?} is none of registry, local, inline and gha")),
    }
}

fn named(text: &str) -> Result<CacheAt, Why> {
    let name: Reference = text.parse().map_err(|e| format!("{e}"))?;
    match (&name.tag, &name.digest) {
        (_, Some(_)) => Err("a cache has no digest: its records change".into()),
        (Some(tag), _) if tag.len() > LONGEST_TAG => {
            Err(format!("a cache's tag has at most {LONGEST_TAG} letters, since keys stand behind it"))
        }
        _ => Ok(CacheAt::Registry(name)),
    }
}

/// GitHub's cache service: what isn't said is in the environment of a workflow's actions. Elsewhere there is no such cache,
/// which is no error: the same command builds on a person's machine.
fn actions(fields: &mut Fields, env: &Env) -> Result<CacheAt, Why> {
    match fields.take("version").as_deref() {
        None | Some("2") => {}
        Some(other) => return Err(format!("version={other}: kiln speaks version 2 of the cache service alone")),
    }
    let (second, first) = (fields.take("url_v2"), fields.take("url"));
    let token = fields.take("token").or_else(|| env.set_var("ACTIONS_RUNTIME_TOKEN").map(str::to_owned));
    let scope = fields.take("scope").unwrap_or_else(|| "buildkit".into());
    if scope.len() > LONGEST_SCOPE || scope.contains(',') {
        return Err(format!("a scope has at most {LONGEST_SCOPE} letters and no comma"));
    }
    let timeout = span(fields.take("timeout").as_deref().unwrap_or("10m"))?;
    let missing = |why: &str| Ok(CacheAt::Missing(format!("the cache type=gha isn't used: {why}")));
    let address = match second.or(first) {
        Some(address) => address,
        None if !is_second(env) => {
            return missing("$ACTIONS_CACHE_SERVICE_V2 isn't true, and kiln speaks version 2 of the service alone");
        }
        None => match env.set_var("ACTIONS_RESULTS_URL") {
            Some(address) => address.to_owned(),
            None => return missing("$ACTIONS_RESULTS_URL isn't set"),
        },
    };
    let Some(token) = token else { return missing("$ACTIONS_RUNTIME_TOKEN isn't set, which only actions get") };
    Ok(CacheAt::Actions(ActionsAt { address, token: Secret::new(token), scope, timeout }))
}

/// Whether the runner says that its cache service is the second version.
fn is_second(env: &Env) -> bool {
    matches!(env.set_var("ACTIONS_CACHE_SERVICE_V2"), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn mode(fields: &mut Fields) -> Result<Mode, Why> {
    match fields.take("mode").as_deref() {
        None | Some("min") => Ok(Mode::Min),
        Some("max") => Ok(Mode::Max),
        Some(other) => Err(format!("mode={other}: want min or max")),
    }
}

/// `compression=` and `compression-level=`.
fn compression(fields: &mut Fields) -> Result<Option<Compression>, Why> {
    let text = match (fields.take("compression"), fields.take("compression-level")) {
        (None, None) => return Ok(None),
        (Some(name), None) => name,
        (name, Some(level)) => format!("{}:{level}", name.as_deref().unwrap_or("gzip")),
    };
    text.parse::<Compression>().map(Some).map_err(|e| e.to_string())
}

/// What the caches' compressions come to: layers are packed once.
///
/// # Errors
/// Where they contradict each other.
pub fn one_compression(wanted: impl Iterator<Item = Compression>) -> Result<Option<Compression>, Problem> {
    let mut wanted = wanted;
    let first = wanted.next();
    if wanted.any(|c| Some(c) != first) {
        let why = "outputs with different compressions are not supported: layers are packed once";
        return Err(Problem::new(Kind::Usage, why).hint("a cache has the layers of the images"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env { cwd: "/w".into(), ..Env::default() }
    }

    fn runner(vars: &[(&str, &str)]) -> Env {
        Env { vars: vars.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(), ..env() }
    }

    fn one(text: &str, env: &Env) -> CacheTo {
        to(&[text.into()], None, env).unwrap().remove(0)
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
            assert_eq!(one(text, &env()).at, Some(want), "{text}");
        }
        assert_eq!(one("type=inline", &env()).at, None);
        assert_eq!(from(&["type=local,src=d".into()], None, &env()).unwrap(), [CacheAt::Local("/w/d".into())]);
        let repository = to(&[], Some("a/b"), &env()).unwrap();
        assert_eq!((repository[0].at.clone(), repository[0].mode), (Some(name("a/b")), Mode::Max));
        assert_eq!(from(&[], Some("a/b"), &env()).unwrap(), [name("a/b")]);
    }

    #[test]
    fn what_buildx_adds() {
        let modes = ["a", "type=registry,ref=a,mode=max", "type=local,dest=d,mode=min"];
        assert_eq!(modes.map(|t| one(t, &env()).mode), [Mode::Min, Mode::Max, Mode::Min]);
        for (text, required) in
            [("ignore-error=false", true), ("ignore-error=true", false), ("image-manifest=true", false)]
        {
            assert_eq!(one(&format!("type=registry,ref=a,{text}"), &env()).required, required, "{text}");
        }
        let zstd = one("type=local,dest=d,compression=zstd,compression-level=9", &env()).compression;
        assert_eq!(zstd, Some(Compression::Zstd(9)));
        assert!(one_compression([Compression::Gzip(6), Compression::Zstd(3)].into_iter()).is_err());
    }

    #[test]
    fn the_service_is_where_the_runner_says() {
        let all = [
            ("ACTIONS_CACHE_SERVICE_V2", "True"),
            ("ACTIONS_RESULTS_URL", "http://r/"),
            ("ACTIONS_RUNTIME_TOKEN", "t"),
        ];
        let at = |text: &str, env: &Env| match one(text, env).at {
            Some(CacheAt::Actions(at)) => Ok((at.address, at.scope, at.timeout.as_secs())),
            Some(CacheAt::Missing(why)) => Err(why),
            other => panic!("{other:?}"),
        };
        let said = |a: &str, s: &str, t| Ok((a.to_owned(), s.to_owned(), t));
        assert_eq!(at("type=gha", &runner(&all)), said("http://r/", "buildkit", 600));
        assert_eq!(at("type=gha,scope=x,timeout=1m30s,mode=max", &runner(&all)), said("http://r/", "x", 90));
        assert_eq!(
            at("type=gha,url=http://one/,url_v2=http://two/,token=x", &env()),
            said("http://two/", "buildkit", 600)
        );
        for missing in 0..3 {
            let vars: Vec<_> = all.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, v)| *v).collect();
            assert!(at("type=gha", &runner(&vars)).unwrap_err().contains(all[missing].0));
        }
        let shown = format!("{:?}", one("type=gha,url=http://h/,token=hunter2", &env()));
        assert!(!shown.contains("hunter2"), "{shown}");
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
            ("type=registry,ref=a,force-compression=true", "no option"),
            ("type=registry,ref=a,compression=estargz", "not a compression"),
            ("type=registry,ref=a,oci-mediatypes=false", "OCI image manifests"),
            ("type=registry,ref=a,ignore-error=maybe", "true or false"),
            ("type=floppy,dest=x", "none of registry"),
            ("type=inline,mode=max", "mode=min"),
            ("type=inline,ref=x", "no option"),
            ("type=gha,version=1", "version 2"),
            ("type=gha,scope=\"a", "--cache-to"),
            ("type=gha,timeout=soon", "duration"),
            ("type=gha,ghtoken=x", "no option"),
            ("type=s3,bucket=x", "not supported yet"),
        ] {
            let problem = to(&[text.into()], None, &env()).unwrap_err();
            let said = format!("{} {:?}", problem.message, problem.hints);
            assert!(said.contains(why), "{text}: {said}");
        }
        let secret = to(&["type=gha,token=hunter2,timeout=soon".into()], None, &env()).unwrap_err();
        assert!(!format!("{secret:?}").contains("hunter2"), "{secret:?}");
        for text in ["type=registry,ref=a,mode=max", "type=inline", "type=local,src=x,ignore-error=true"] {
            assert!(from(&[text.into()], None, &env()).is_err(), "{text}");
        }
        assert!(to(&[], Some("A"), &env()).is_err());
        assert!(ttl("-1h").is_err() && ttl("2 weeks").is_err());
        assert_eq!(ttl("336h").unwrap(), Duration::from_secs(14 * 86_400));
    }
}
