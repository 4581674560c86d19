//! Platforms: `os[/arch[/variant]]`, normalised as containerd's `platforms` package does.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An operating system, an architecture and its variant, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// Go's name: `amd64`, `arm64`.
    #[serde(rename = "architecture")]
    pub arch: String,
    /// `v7` of `linux/arm/v7`; empty for most.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A part has other characters than letters, digits, `_`, `.` and `-`, or is empty.
    #[error("{part:?} is an invalid component of {platform:?}: letters, digits, _, . and - are allowed")]
    Component {
        /// The part.
        part: String,
        /// The whole.
        platform: String,
    },
    /// More than three parts, or one that names neither an operating system nor an architecture.
    #[error("{0:?} is not a platform: want os/arch or os/arch/variant, as in linux/amd64")]
    Shape(String),
}

const KNOWN_OS: &[&str] =
    &["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "android", "wasip1"];
const KNOWN_ARCH: &[&str] = &[
    "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le", "riscv64", "s390x",
    "loong64", "wasm",
];

impl Platform {
    /// The machine that kiln runs on.
    pub fn host() -> Self {
        Self { os: "linux".into(), ..Self::new("linux", std::env::consts::ARCH, "") }
    }

    /// A normalised platform.
    pub fn new(os: &str, arch: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (arch, variant) = normalise(&arch.to_ascii_lowercase(), &variant.to_ascii_lowercase());
        Self { os, arch, variant }
    }

    /// Whether an image of platform `other` runs where `self` is asked for.
    pub fn accepts(&self, other: &Self) -> bool {
        self.os == other.os && self.arch == other.arch && (self.variant == other.variant || other.variant.is_empty())
    }
}

/// containerd's `normalizeArch`.
fn normalise(arch: &str, variant: &str) -> (String, String) {
    let (arch, variant) = match (arch, variant) {
        ("i386" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (arch.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = s.split('/').collect();
        if let Some(bad) = parts
            .iter()
            .find(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')))
        {
            return Err(PlatformError::Component { part: (*bad).into(), platform: s.into() });
        }
        match parts.as_slice() {
            [one] => {
                let p = Self::new("linux", one, "");
                if KNOWN_OS.contains(&one.to_ascii_lowercase().as_str()) {
                    Ok(Self { os: Self::new(one, "", "").os, ..Self::host() })
                } else if KNOWN_ARCH.contains(&p.arch.as_str()) {
                    Ok(p)
                } else {
                    Err(PlatformError::Shape(s.into()))
                }
            }
            [os, arch] => Ok(Self::new(os, arch, "")),
            [os, arch, variant] => Ok(Self::new(os, arch, variant)),
            _ => Err(PlatformError::Shape(s.into())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        for (given, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(given.parse::<Platform>().map(|p| p.to_string()), Ok(want.to_owned()), "{given}");
        }
    }

    #[test]
    fn refuses() {
        for bad in ["", "linux/", "a/b/c/d", "nonsense", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
