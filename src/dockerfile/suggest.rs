//! "Did you mean …?"

/// The longest name that suggestions are looked for; what is longer isn't a slip of the fingers.
const LONGEST: usize = 40;

/// The one of `known` that is nearest to `name`, if it is near.
pub(super) fn suggestion<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let distance = |k: &'k str| (strsim::damerau_levenshtein(name, k), k);
    known
        .into_iter()
        .map(distance)
        .min_by_key(|(d, _)| *d)
        .filter(|(d, k)| *d <= near(name.len().min(k.len())))
        .map(|(_, k)| k)
}

/// How many slips are near, for a name of that length.
fn near(length: usize) -> usize {
    match length {
        0 => 0,
        1..=4 => 1,
        5..=7 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_only() {
        let known = ["chown", "chmod", "from", "link", "exclude"];
        for (name, want) in [
            ("chwon", Some("chown")),
            ("form", Some("from")),
            ("exlcude", Some("exclude")),
            ("x", None),
            ("parents", None),
            ("", None),
        ] {
            assert_eq!(suggestion(name, known), want, "{name}");
        }
        assert_eq!(suggestion(&"x".repeat(1 << 20), known), None);
    }
}
