//! Documents of images as JSON, with a limit on what they take in memory.

use serde::de::DeserializeOwned;

/// The most values of a document: of the descriptors of a manifest, say, or of the history of a configuration. A value of two
/// bytes takes up to a hundred in memory.
pub const MAX_VALUES: usize = 100_000;

/// Why bytes are no such document.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or another document.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// More than [`MAX_VALUES`].
    #[error("it has more than {MAX_VALUES} values")]
    TooMany,
}

/// Reads a document that somebody else wrote.
///
/// # Errors
/// [`JsonError`]
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    if values(bytes) > MAX_VALUES {
        return Err(JsonError::TooMany);
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// About how many values a JSON text has: each but the first of a list stands behind a comma.
fn values(bytes: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::ImageConfig;

    #[test]
    fn the_number_of_values_is_limited() {
        let history = |n: usize| format!(r#"{{"history":[{}{{}}]}}"#, "{},".repeat(n));
        // Each has a brace and a comma.
        assert_eq!(read_json::<ImageConfig>(history(49_998).as_bytes()).unwrap().history.len(), 49_999);
        for text in [history(50_000), format!("[{}0]", "0,".repeat(MAX_VALUES)), "[".repeat(MAX_VALUES + 1)] {
            let error = read_json::<ImageConfig>(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "it has more than 100000 values");
        }
    }

    #[test]
    fn texts_may_have_any_characters() {
        let text = format!(r#"{{"author":"{}"}}"#, r#",[{\\\",\""#.repeat(MAX_VALUES));
        assert_eq!(values(text.as_bytes()), 1);
        assert!(read_json::<ImageConfig>(text.as_bytes()).is_ok());
        assert!(matches!(read_json::<ImageConfig>(b"{"), Err(JsonError::Syntax(_))));
    }
}
