//! `--output`: what is to be made of a build, as docker buildx reads it.

use super::Error;
use super::annotations::{self, Annotation};
use crate::layer::Compression;
use crate::oci::assemble::Flavor;
use crate::oci::{Reference, ReferenceError};
use crate::report::csv;
use std::path::PathBuf;
use std::str::FromStr;

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What is made, and where it goes.
    pub kind: Kind,
    /// How new layers are compressed; `None` leaves it to `--compression`.
    pub compression: Option<Compression>,
    /// Whose media types the manifests have.
    pub flavor: Flavor,
    /// Annotations of this output alone.
    pub annotations: Vec<Annotation>,
    /// Names of this output; empty leaves it to `--tag`.
    pub names: Vec<Reference>,
}

/// What is made, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An image in the local store, or pushed to its registry, or both.
    Image {
        /// Whether it is pushed: `type=registry`, `push=true`.
        push: bool,
        /// Whether it is pushed by digest alone, without a tag.
        by_digest: bool,
        /// Whether it goes into the local store.
        store: bool,
    },
    /// An OCI image layout.
    Oci(Place),
    /// An archive that `docker load` takes.
    Docker(Place),
    /// The root filesystem's files in a folder.
    Local {
        /// The folder; made where it isn't there.
        dest: PathBuf,
        /// One folder inside for each platform; `None` makes them where there are several.
        platform_split: Option<bool>,
    },
    /// The root filesystem as one tar.
    Tar {
        /// Where it goes.
        dest: Destination,
        /// One folder inside for each platform; `None` makes them where there are several.
        platform_split: Option<bool>,
    },
}

/// The form of an image layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One tar.
    Archive(Destination),
    /// A folder: `tar=false`.
    Folder(PathBuf),
}

/// Where a stream of bytes goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file.
    File(PathBuf),
    /// Standard output: `-`.
    Stdout,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| Error::Spec { text: text.into(), why })
    }
}

impl Spec {
    /// What `--push` stands for.
    pub fn push() -> Self {
        Self::of(Kind::Image { push: true, by_digest: false, store: false })
    }

    /// An output with nothing but defaults.
    pub fn of(kind: Kind) -> Self {
        Self { kind, compression: None, flavor: Flavor::Oci, annotations: Vec::new(), names: Vec::new() }
    }
}

/// The fields of an output, each taken out once; what is left over is unknown.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        // As in a map, the last one counts.
        let found = self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        self.0.retain(|(n, _)| n != name);
        found
    }

    /// A flag by Go's `strconv.ParseBool`; nothing after `=` means yes.
    fn take_bool(&mut self, name: &str) -> Result<Option<bool>, String> {
        self.take(name).map(|value| parse_bool(&value).ok_or(format!("{name}={value}: want true or false"))).transpose()
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Spec, String> {
    if text.is_empty() {
        return shorthand(text);
    }
    let fields = csv::fields(text)?;
    match fields.as_slice() {
        [one] if one.text == text && !text.starts_with("type=") => return shorthand(text),
        _ => {}
    }
    let mut pairs = Vec::new();
    for field in &fields {
        let (name, value) = field.text.split_once('=').ok_or_else(|| format!("{:?} is not NAME=VALUE", field.text))?;
        pairs.push((name.trim().to_lowercase(), value.to_owned()));
    }
    let mut fields = Fields(pairs);
    let kind = fields.take("type").ok_or("type= is missing")?;
    let spec = full(&kind, &mut fields)?;
    match fields.0.first() {
        None => Ok(spec),
        Some((name, _)) => Err(format!("kiln has no option {name:?} for type={kind}")),
    }
}

/// `-o FOLDER` and `-o -`.
fn shorthand(text: &str) -> Result<Spec, String> {
    match text {
        "" => Err("want type=, a folder, or -".into()),
        "-" => Ok(Spec::of(Kind::Tar { dest: Destination::Stdout, platform_split: None })),
        folder => Ok(Spec::of(Kind::Local { dest: folder.into(), platform_split: None })),
    }
}

fn full(kind: &str, fields: &mut Fields) -> Result<Spec, String> {
    match kind {
        "local" => {
            let dest = fields.take("dest").filter(|d| !d.is_empty()).ok_or("dest= is missing")?;
            let platform_split = fields.take_bool("platform-split")?;
            Ok(Spec::of(Kind::Local { dest: dest.into(), platform_split }))
        }
        "tar" => {
            let platform_split = fields.take_bool("platform-split")?;
            Ok(Spec::of(Kind::Tar { dest: destination(fields), platform_split }))
        }
        "oci" => image(Kind::Oci(place(fields)?), fields),
        "docker" => image(Kind::Docker(place(fields)?), fields),
        "image" | "registry" => {
            let push = fields.take_bool("push")?.unwrap_or(kind == "registry");
            let by_digest = fields.take_bool("push-by-digest")?.unwrap_or(false);
            let store = fields.take_bool("store")?.unwrap_or(kind == "image");
            image(Kind::Image { push, by_digest, store }, fields)
        }
        other => Err(format!("{other:?} is none of image, registry, oci, docker, local, tar")),
    }
}

/// The options of everything that has manifests.
fn image(kind: Kind, fields: &mut Fields) -> Result<Spec, String> {
    let mut spec = Spec::of(kind);
    let names = fields.take("name").unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|n| !n.is_empty());
    spec.names = names.map(str::parse).collect::<Result<_, ReferenceError>>().map_err(|e| e.to_string())?;
    let oci = fields.take_bool("oci-mediatypes")?;
    spec.compression = compression(fields)?;
    for (name, value) in std::mem::take(&mut fields.0) {
        match annotations::parse_field(&name, &value) {
            Some(annotation) => spec.annotations.push(annotation?),
            None => fields.0.push((name, value)),
        }
    }
    // What old versions of docker load is theirs by default.
    let oci = oci.unwrap_or(!matches!(spec.kind, Kind::Docker(_)) || !spec.annotations.is_empty());
    spec.flavor = if oci { Flavor::Oci } else { Flavor::Docker };
    if !oci && !spec.annotations.is_empty() {
        return Err("Docker's media types have no annotations: leave out oci-mediatypes=false".into());
    }
    Ok(spec)
}

/// `compression=` and `compression-level=`.
fn compression(fields: &mut Fields) -> Result<Option<Compression>, String> {
    let (name, level) = (fields.take("compression"), fields.take("compression-level"));
    let text = match (name, level) {
        (None, None) => return Ok(None),
        (Some(name), None) => name,
        (name, Some(level)) => format!("{}:{level}", name.as_deref().unwrap_or("gzip")),
    };
    text.parse::<Compression>().map(Some).map_err(|e| e.to_string())
}

fn place(fields: &mut Fields) -> Result<Place, String> {
    if fields.take_bool("tar")?.unwrap_or(true) {
        return Ok(Place::Archive(destination(fields)));
    }
    match destination(fields) {
        Destination::File(folder) => Ok(Place::Folder(folder)),
        Destination::Stdout => Err("tar=false needs dest=, a folder".into()),
    }
}

fn destination(fields: &mut Fields) -> Destination {
    match fields.take("dest").as_deref() {
        None | Some("" | "-") => Destination::Stdout,
        Some(file) => Destination::File(file.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        text.parse::<Spec>().unwrap_or_else(|e| panic!("{e}")).kind
    }

    fn file(path: &str) -> Destination {
        Destination::File(path.into())
    }

    #[test]
    fn kinds() {
        let local = |dest: &str| Kind::Local { dest: dest.into(), platform_split: None };
        let image = |push, store| Kind::Image { push, by_digest: false, store };
        for (text, want) in [
            ("out", local("out")),
            ("dest=out", local("dest=out")),
            ("-", Kind::Tar { dest: Destination::Stdout, platform_split: None }),
            ("type=local,dest=out", local("out")),
            ("type=local,dest=o,platform-split=false", Kind::Local { dest: "o".into(), platform_split: Some(false) }),
            (r#"type=local,"dest=a,b""#, local("a,b")),
            (" TYPE =tar,Dest=a=b", Kind::Tar { dest: file("a=b"), platform_split: None }),
            ("type=tar", Kind::Tar { dest: Destination::Stdout, platform_split: None }),
            ("type=oci,dest=x", Kind::Oci(Place::Archive(file("x")))),
            ("type=oci,dest=-", Kind::Oci(Place::Archive(Destination::Stdout))),
            ("type=oci,dest=x,tar=false", Kind::Oci(Place::Folder("x".into()))),
            ("type=docker,dest=x", Kind::Docker(Place::Archive(file("x")))),
            ("type=image", image(false, true)),
            ("type=image,push=true", image(true, true)),
            ("type=image,push=", image(true, true)),
            ("type=registry", image(true, false)),
            ("type=registry,push=0,store=1", image(false, true)),
        ] {
            assert_eq!(kind(text), want, "{text}");
        }
    }

    #[test]
    fn options() {
        let spec: Spec =
            r#"type=image,"name=a:1, b/c",compression=zstd,compression-level=9,annotation.k=v"#.parse().unwrap();
        let names: Vec<String> = spec.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/a:1", "docker.io/b/c:latest"]);
        assert_eq!(spec.compression, Some(Compression::Zstd(9)));
        assert_eq!(spec.annotations.len(), 1);
        assert_eq!("type=oci,compression-level=1".parse::<Spec>().unwrap().compression, Some(Compression::Gzip(1)));
        for (text, want) in [
            ("type=oci", Flavor::Oci),
            ("type=docker", Flavor::Docker),
            ("type=docker,oci-mediatypes=true", Flavor::Oci),
            ("type=docker,annotation.k=v", Flavor::Oci),
            ("type=oci,oci-mediatypes=false", Flavor::Docker),
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().flavor, want, "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, why) in [
            ("", "want type="),
            ("a,b", "not NAME=VALUE"),
            ("dest=a,b=c", "type= is missing"),
            ("type=local", "dest= is missing"),
            ("type=odd,dest=x", "none of image"),
            ("type=oci,tar=false", "needs dest="),
            ("type=oci,tar=perhaps", "want true or false"),
            ("type=oci,rewrite-timestamp=true", "no option \"rewrite-timestamp\""),
            ("type=image,force-compression=true", "no option"),
            ("type=local,dest=x,compression=gzip", "no option"),
            ("type=image,compression=estargz", "not a compression"),
            ("type=image,name=A", "not an image reference"),
            ("type=image,annotation-odd.k=v", "none of manifest"),
            ("type=image,oci-mediatypes=false,annotation.k=v", "no annotations"),
            ("type=oci,\"dest=x", "extraneous or missing"),
        ] {
            let error = text.parse::<Spec>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
