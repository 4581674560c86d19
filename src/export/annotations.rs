//! Annotations as people give them, and where each of them goes.

use super::Error;
use crate::oci::Platform;
use crate::oci::assemble::Annotations;

/// Which part of the result an annotation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The manifest of an image.
    Manifest,
    /// The descriptor that leads to it.
    ManifestDescriptor,
    /// The index over several images.
    Index,
    /// The descriptor that leads to it.
    IndexDescriptor,
}

/// An annotation to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Which part of the result it is of.
    pub level: Level,
    /// The one image it is of; all where there is none.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "manifest" => Some(Self::Manifest),
            "manifest-descriptor" => Some(Self::ManifestDescriptor),
            "index" => Some(Self::Index),
            "index-descriptor" => Some(Self::IndexDescriptor),
            _ => None,
        }
    }
}

/// The annotations of a `--annotation [LEVEL[PLATFORM][,...]:]KEY=VALUE`: one for each level. Without a level it is the
/// manifest's.
///
/// # Errors
/// [`Error::Spec`].
pub fn parse_flag(text: &str) -> Result<Vec<Annotation>, Error> {
    let bad = |why: String| Error::Spec { text: text.into(), why };
    let (key, value) = text.split_once('=').ok_or_else(|| bad("want KEY=VALUE".into()))?;
    let Some((levels, key)) = key.split_once(':') else {
        return Ok(vec![annotation(Level::Manifest, None, key, value)]);
    };
    let parse = |level: &str| {
        let (level, platform) = level_and_platform(level).map_err(&bad)?;
        Ok(annotation(level, platform, key, value))
    };
    levels.split(',').map(parse).collect()
}

/// The annotation of an output's field `annotation[-LEVEL][\[PLATFORM\]].KEY=VALUE`; `None` if `field` is another one.
pub(crate) fn parse_field(field: &str, value: &str) -> Option<Result<Annotation, String>> {
    let rest = field.strip_prefix("annotation")?;
    let (level, rest) = match rest.strip_prefix('-') {
        Some(rest) => rest.split_at(rest.find(['[', '.'])?),
        None => ("manifest", rest),
    };
    let (platform, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(platform, rest)| (Some(platform), rest))?,
        None => (None, rest),
    };
    let key = rest.strip_prefix('.').filter(|key| !key.is_empty())?;
    Some(place(level, platform).map(|(level, platform)| annotation(level, platform, key, value)))
}

fn annotation(level: Level, platform: Option<Platform>, key: &str, value: &str) -> Annotation {
    Annotation { level, platform, key: key.into(), value: value.into() }
}

fn level_and_platform(text: &str) -> Result<(Level, Option<Platform>), String> {
    match text.split_once('[') {
        Some((level, rest)) => {
            place(level, Some(rest.strip_suffix(']').ok_or_else(|| format!("{text:?} has no closing bracket"))?))
        }
        None => place(text, None),
    }
}

fn place(level: &str, platform: Option<&str>) -> Result<(Level, Option<Platform>), String> {
    let platform = platform.map(|p| p.parse::<Platform>().map_err(|e| e.to_string())).transpose()?;
    let unknown = || format!("{level:?} is none of manifest, manifest-descriptor, index, index-descriptor");
    let level = Level::parse(level).ok_or_else(unknown)?;
    if platform.is_some() && matches!(level, Level::Index | Level::IndexDescriptor) {
        return Err("an index is not of one platform".into());
    }
    Ok((level, platform))
}

/// What the image for `platform` gets.
pub fn of_image(all: &[Annotation], platform: &Platform) -> Annotations {
    pick(all, Level::Manifest, Level::ManifestDescriptor, Some(platform))
}

/// What the index gets.
///
/// # Errors
/// [`Error::NoIndex`] if something is meant for an index, and there is none.
pub fn of_index(all: &[Annotation], images: usize) -> Result<Annotations, Error> {
    let picked = pick(all, Level::Index, Level::IndexDescriptor, None);
    if images < 2 && picked != Annotations::default() {
        return Err(Error::NoIndex);
    }
    Ok(picked)
}

/// Annotations for all platforms first, so that those of one platform win.
fn pick(all: &[Annotation], document: Level, descriptor: Level, platform: Option<&Platform>) -> Annotations {
    let mut picked = Annotations::default();
    let general = all.iter().filter(|a| a.platform.is_none());
    let special = all.iter().filter(|a| a.platform.is_some() && a.platform.as_ref() == platform);
    for annotation in general.chain(special) {
        let (key, value) = (annotation.key.clone(), annotation.value.clone());
        if annotation.level == document {
            picked.document.insert(key, value);
        } else if annotation.level == descriptor {
            picked.descriptor.insert(key, value);
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm() -> Option<Platform> {
        Some(Platform::new("linux", "arm64", ""))
    }

    #[test]
    fn flags() {
        for (text, want) in [
            ("k=v=w", vec![annotation(Level::Manifest, None, "k", "v=w")]),
            ("index:k=v", vec![annotation(Level::Index, None, "k", "v")]),
            (
                "manifest[linux/arm64],index-descriptor:a.b=",
                vec![
                    annotation(Level::Manifest, arm(), "a.b", ""),
                    annotation(Level::IndexDescriptor, None, "a.b", ""),
                ],
            ),
        ] {
            assert_eq!(parse_flag(text), Ok(want), "{text}");
        }
        for bad in ["k", "odd:k=v", "manifest[x:k=v", "index[linux/arm64]:k=v", "manifest[no]:k=v"] {
            assert!(parse_flag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_of_outputs() {
        for (field, want) in [
            ("annotation.org.a/b", annotation(Level::Manifest, None, "org.a/b", "v")),
            ("annotation-index.k", annotation(Level::Index, None, "k", "v")),
            ("annotation[linux/arm64].k.l", annotation(Level::Manifest, arm(), "k.l", "v")),
            ("annotation-manifest-descriptor[linux/arm64].k", annotation(Level::ManifestDescriptor, arm(), "k", "v")),
        ] {
            assert_eq!(parse_field(field, "v"), Some(Ok(want)), "{field}");
        }
        assert_eq!(parse_field("name", "v"), None);
        assert_eq!(parse_field("annotation", "v"), None);
        assert!(parse_field("annotation-odd.k", "v").unwrap().is_err());
        assert!(parse_field("annotation-index[linux/arm64].k", "v").unwrap().is_err());
        for other in ["annotations.k", "annotation.", "annotation[linux/arm64", "annotation-index"] {
            assert_eq!(parse_field(other, "v"), None, "{other}");
        }
    }

    #[test]
    fn each_to_its_place() {
        let all: Vec<Annotation> = ["k=1", "manifest[linux/arm64]:k=2", "manifest-descriptor:d=3", "index:i=4"]
            .iter()
            .flat_map(|t| parse_flag(t).unwrap())
            .collect();
        let arm = of_image(&all, &arm().unwrap());
        assert_eq!((arm.document["k"].as_str(), arm.descriptor["d"].as_str()), ("2", "3"));
        assert_eq!(of_image(&all, &Platform::new("linux", "amd64", "")).document["k"], "1");
        assert_eq!(of_index(&all, 2).unwrap().document["i"], "4");
        assert_eq!(of_index(&all, 1), Err(Error::NoIndex));
        assert_eq!(of_index(&all[..3], 1), Ok(Annotations::default()));
    }
}
