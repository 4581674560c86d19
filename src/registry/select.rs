//! Which image of an index is for a platform, by the rules of containerd's `platforms.Only`.

use crate::oci::{Descriptor, Platform};

/// The descriptors of an index that can serve `wanted`, best first: the very platform, then variants that it runs as
/// well, newest first. Descriptors that name no platform come last; what they are, their configuration says.
pub fn best<'a>(wanted: &Platform, descriptors: &'a [Descriptor]) -> Vec<&'a Descriptor> {
    let compatible = compatible(wanted);
    let rank = |d: &Descriptor| match platform(d) {
        Some(p) => compatible.iter().position(|c| *c == p),
        None => Some(usize::MAX),
    };
    let mut found: Vec<(usize, &Descriptor)> = descriptors.iter().filter_map(|d| Some((rank(d)?, d))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, d)| d).collect()
}

/// The platform that a descriptor names.
pub(crate) fn platform(descriptor: &Descriptor) -> Option<Platform> {
    let p = descriptor.platform().as_ref()?;
    let variant = p.variant().as_deref().unwrap_or_default();
    Some(Platform::new(&p.os().to_string(), &p.architecture().to_string(), variant))
}

/// The platforms whose programs run on `wanted`, best first.
fn compatible(wanted: &Platform) -> Vec<Platform> {
    let with = |arch: &str, variant: String| Platform::new(&wanted.os, arch, &variant);
    let mut all = vec![wanted.clone()];
    match wanted.arch.as_str() {
        "amd64" => {
            let level = number(&wanted.variant).unwrap_or(1);
            all.extend((1..level).rev().map(|v| with("amd64", format!("v{v}"))));
            all.push(with("386", String::new()));
        }
        "arm" => all.extend(older_arm(number(&wanted.variant).unwrap_or(7)).map(|v| with("arm", v))),
        "arm64" => {
            all.extend(older_arm64(&wanted.variant).into_iter().map(|v| with("arm64", v)));
            all.push(with("arm", "v8".into()));
            all.extend(older_arm(8).map(|v| with("arm", v)));
        }
        _ => {}
    }
    all
}

/// `3` of `v3`.
fn number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok().filter(|n| *n <= 9)
}

fn older_arm(version: u32) -> impl Iterator<Item = String> {
    (5..version).rev().map(|v| format!("v{v}"))
}

/// What a 64-bit Arm of a later version runs: each earlier minor version, and what version 8 had by then (9.0 has 8.5's).
fn older_arm64(variant: &str) -> Vec<String> {
    let Some((major, minor)) = variant.strip_prefix('v').map(|v| v.split_once('.').unwrap_or((v, "0"))) else {
        return Vec::new();
    };
    let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return Vec::new() };
    let dotted = |major: u32, minor: u32| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") };
    let minor = minor.min(9);
    let mut older: Vec<String> = (0..minor).rev().map(|m| dotted(major, m)).collect();
    if major == 9 {
        older.extend((0..=(minor + 5).min(9)).rev().map(|m| dotted(8, m)));
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{MediaType, describe};

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let one = |text: &&str| {
            let mut d = describe(MediaType::ImageManifest, text.as_bytes());
            let mut parts = text.split('/');
            if let (Some(os), Some(arch)) = (parts.next(), parts.next()) {
                let mut p = oci_spec::image::Platform::default();
                p.set_os(os.into());
                p.set_architecture(arch.into());
                p.set_variant(parts.next().map(str::to_owned));
                d.set_platform(Some(p));
            }
            d
        };
        platforms.iter().map(one).collect()
    }

    #[test]
    fn containerds_rules() {
        for (wanted, there, want) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], &["linux/amd64"][..]),
            ("linux/amd64", &["linux/386", "linux/amd64/v2"], &["linux/386"]),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
                &["linux/amd64/v2", "linux/amd64"],
            ),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], &["linux/arm64", "linux/arm/v7"]),
            ("linux/arm64", &["linux/arm", "linux/arm/v6"], &["linux/arm/v7", "linux/arm/v6"]),
            (
                "linux/arm64/v9",
                &["linux/arm64", "linux/arm64/v8.5", "linux/arm64/v8.6"],
                &["linux/arm64/v8.5", "linux/arm64"],
            ),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"], &["linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm/v6", &["linux/arm/v7"], &[]),
            ("linux/s390x", &["linux/amd64", "windows/s390x", "unknown/unknown"], &[]),
            ("linux/amd64", &["none", "linux/amd64"], &["linux/amd64", "none"]),
        ] {
            let (wanted, index) = (wanted.parse().unwrap(), index(there));
            let got: Vec<String> =
                best(&wanted, &index).iter().map(|d| platform(d).map_or("none".into(), |p| p.to_string())).collect();
            assert_eq!(got, want, "{wanted} in {there:?}");
        }
    }
}
