//! "Did you mean …?"

/// The option nearest to `value`, if it is nearer than three edits; none when `value` itself is among them, for then
/// the mistake is another. Ties go to the first.
pub(super) fn nearest<'a>(value: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut least = 3;
    for option in options {
        let distance = strsim::levenshtein(value, option);
        if distance == 0 {
            return None;
        }
        if distance < least {
            (best, least) = (Some(option), distance);
        }
    }
    best
}

/// `message`, with ` (did you mean X?)` behind it where one of `options` is near.
pub(super) fn with_suggestion<'a>(message: String, value: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(value, options) {
        Some(option) => format!("{message} (did you mean {option}?)"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near() {
        assert_eq!(nearest("bulid", ["base", "build"]), Some("build"));
        assert_eq!(nearest("build", ["base", "build"]), None);
        assert_eq!(nearest("zzz", ["base", "build"]), None);
        assert_eq!(with_suggestion("m".into(), "MYARCH", ["MY_ARCH"]), "m (did you mean MY_ARCH?)");
    }
}
