//! Times as images write them.

use crate::layer::Timestamp;

/// RFC 3339 in UTC, with as many digits after the second as are needed.
pub fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::new(time.secs, i32::try_from(time.nanos).unwrap_or(0))
        .map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        for (secs, nanos, want) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_577_836_800, 500_000_000, "2020-01-01T00:00:00.5Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
            (i64::MAX, 0, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Timestamp { secs, nanos }), want);
        }
    }
}
