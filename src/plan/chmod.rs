//! `--chmod`: octal as BuildKit reads it, or symbolic as BSD's `setmode` does.

use super::op::Mode;

/// Reads a mode.
pub(super) fn mode(text: &str) -> Result<Mode, String> {
    let octal = !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let number = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    match number {
        Some(number) if number <= 0o7777 => Ok(Mode::Octal(number)),
        // What begins like a number is meant as one.
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
        }
        _ if is_symbolic(text) => Ok(Mode::Symbolic(text.to_owned())),
        _ => Err("invalid syntax".to_owned()),
    }
}

/// `[ugoa]*([-+=][rwxXstugo]*)+`, joined by commas; a comma at the end is allowed.
fn is_symbolic(text: &str) -> bool {
    let body = text.strip_suffix(',').unwrap_or(text);
    !body.is_empty() && body.split(',').all(is_clause)
}

fn is_clause(clause: &str) -> bool {
    let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    rest.starts_with(['-', '+', '=']) && rest.chars().all(|c| "-+=rwxXstugo".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic() {
        for (text, want) in [("0", 0), ("755", 0o755), ("00644", 0o644), ("7777", 0o7777)] {
            assert_eq!(mode(text), Ok(Mode::Octal(want)));
        }
        for text in ["u=rwX,go-w", "a+x", "+t", "=", "g=u-w", "ug+s-x", "u=rwx,"] {
            assert_eq!(mode(text), Ok(Mode::Symbolic(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn refuses_with_buildkits_words() {
        for text in ["64a", "10000", "9", "8+x", "77777777777777"] {
            let want = format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
            assert_eq!(mode(text), Err(want));
        }
        for text in ["u", "rwx", "u+y", "u=r,,g=r", ",", "u=r;x"] {
            assert_eq!(mode(text), Err("invalid syntax".to_owned()), "{text}");
        }
    }
}
