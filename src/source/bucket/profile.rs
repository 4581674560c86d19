//! Amazon's files of profiles: `~/.aws/credentials` and `~/.aws/config`.

use crate::sys::input;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

/// The most that such a file may have, bytes.
const MOST: u64 = 1 << 20;

/// The settings of a profile in both files, those of the credentials' first; none where there is no file. `path` says
/// where a file is, by a variable and its usual place in the home.
pub(super) fn read(
    profile: &str,
    path: impl Fn(&str, &str) -> Option<PathBuf>,
) -> Result<BTreeMap<String, String>, String> {
    let section = if profile == "default" { profile.to_owned() } else { format!("profile {profile}") };
    let mut all = text(path("AWS_CONFIG_FILE", ".aws/config"))?.map(|t| of_section(&t, &section)).unwrap_or_default();
    let credentials = text(path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"))?;
    all.extend(credentials.map(|t| of_section(&t, profile)).unwrap_or_default());
    Ok(all)
}

fn text(path: Option<PathBuf>) -> Result<Option<String>, String> {
    let Some(path) = path else { return Ok(None) };
    let failed = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let file = match input::open_given(&path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        other => other.map_err(|e| failed(&e))?,
    };
    let bytes = input::read_all(file, MOST).map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map(Some).map_err(|_| failed(&"it is not UTF-8 text"))
}

/// `name = value` lines below `[section]`; indented ones belong to a setting of their own and are passed over.
fn of_section(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = name.split_whitespace().eq(section.split_whitespace());
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((name, value)) = line.split_once('=')
            && !value.trim().is_empty()
        {
            found.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_both_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("credentials"),
            "# x\n[default]\naws_access_key_id=A\naws_secret_access_key = S=1\n[other]\nAWS_ACCESS_KEY_ID = B\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("config"),
            "[default]\nregion = eu-west-1\ns3 =\n  addressing_style = path\n[profile  other]\nregion=x\naws_access_key_id=Z\n",
        )
        .unwrap();
        let of = |profile: &str| {
            let at = |_: &str, below: &str| Some(dir.path().join(below.strip_prefix(".aws/").unwrap()));
            read(profile, at).unwrap().into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("default"), "aws_access_key_id=A aws_secret_access_key=S=1 region=eu-west-1");
        assert_eq!(of("other"), "aws_access_key_id=B region=x");
        assert_eq!(of("none"), "");
        assert_eq!(read("default", |_, _| None).unwrap(), BTreeMap::new());
        let folder = |_: &str, _: &str| Some(dir.path().to_owned());
        assert!(read("default", folder).unwrap_err().contains("cannot read"));
    }
}
