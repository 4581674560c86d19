//! Extended headers (POSIX.1-2001): records of `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.

use crate::layer::Timestamp;
use std::collections::BTreeMap;

/// Records by key. Where a key comes twice the last one counts.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The bytes of records, in the order of their keys.
pub(super) fn format(records: &Records) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        // A blank, an equals sign and a line end.
        let rest = key.len() + value.len() + 3;
        bytes.extend_from_slice(record_length(rest).to_string().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(key);
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// The length of a record whose length counts its own digits.
fn record_length(rest: usize) -> usize {
    let length = rest + digits(rest);
    // The digits themselves may have carried it over a power of ten.
    rest + digits(length)
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Takes one record off the front of `bytes`: key, value and the rest; `None` if there is no valid one.
///
/// The length is what counts, not line ends: a value may have any bytes, but paths may have no NUL.
pub(super) fn take(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
    is_valid(key, value).then_some((key, value, rest))
}

/// Whether a record can be written and read again.
pub(super) fn is_valid(key: &[u8], value: &[u8]) -> bool {
    match key {
        b"" => false,
        b"path" | b"linkpath" | b"uname" | b"gname" => !value.contains(&0),
        _ => !key.contains(&0) && !key.contains(&b'='),
    }
}

/// A decimal number of any sign; nothing but digits after it.
pub(super) fn decimal(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Seconds with as many digits after the point as it needs, as Go writes them.
pub(super) fn format_time(time: Timestamp) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let text = if time.secs < 0 {
        // -1 s and 700 ms after it is -0.3 s.
        format!("-{}.{:09}", -(time.secs + 1), 1_000_000_000 - time.nanos)
    } else {
        format!("{}.{:09}", time.secs, time.nanos)
    };
    text.trim_end_matches('0').to_owned()
}

/// The time of `SECONDS[.FRACTION]`; digits beyond nanoseconds are dropped.
pub(super) fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let mut parts = text.splitn(2, |b| *b == b'.');
    let whole = parts.next()?;
    let fraction = parts.next().unwrap_or_default();
    let secs = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + fraction.get(i).map_or(0, |b| u32::from(b - b'0')));
    if whole.starts_with(b"-") && nanos > 0 {
        Some(Timestamp { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos })
    } else {
        Some(Timestamp { secs, nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for (key, value, want) in [
            (&b"k"[..], &b"v"[..], &b"6 k=v\n"[..]),
            (b"path", b"/etc/hosts", b"19 path=/etc/hosts\n"),
            (b"a", b"name", b"9 a=name\n"),
            (b"aa", b"name", b"11 aa=name\n"),
            (b"aaa", b"name", b"12 aaa=name\n"),
            (b"k", b"", b"5 k=\n"),
            (b"x", b"a\nb\0c=d", b"13 x=a\nb\0c=d\n"),
        ] {
            let bytes = format(&Records::from([(key.to_vec(), value.to_vec())]));
            assert_eq!(bytes, want, "{}", bytes.escape_ascii());
            assert_eq!(take(&bytes), Some((key, value, &b""[..])));
        }
    }

    #[test]
    fn lengths_are_right_around_each_power_of_ten() {
        for size in (0..1200).chain(9_900..10_100) {
            let records = Records::from([(b"k".to_vec(), vec![b'x'; size])]);
            let bytes = format(&records);
            let (_, value, rest) = take(&bytes).unwrap();
            assert!(value.len() == size && rest.is_empty(), "{size}");
        }
    }

    #[test]
    fn refuses_broken_records() {
        for bad in [
            &b""[..],
            b"6 k=v",
            b"6 k=v ",
            b"7 k=v\n",
            b"5 k=v\n",
            b"6k=v\n",
            b" 6 k=v\n",
            b"0 k=v\n",
            b"-6 k=v\n",
            b"+6 k=v\n",
            b"4 =v\n",
            b"5 =v\n",
            b"4 kv\n",
            b"2 \n",
            b"1\n",
            b"99999999999999999999 k=v\n",
            b"18446744073709551615 k=v\n",
            b"9 path=\0\n",
            b"13 linkpath=\0\n",
            b"7 k\0=v\n",
        ] {
            assert_eq!(take(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times() {
        for (secs, nanos, want) in [
            (0, 0, "0"),
            (1350244992, 23960108, "1350244992.023960108"),
            (1350244992, 300000000, "1350244992.3"),
            (-1, 0, "-1"),
            (-1, 700000000, "-0.3"),
            (-2, 500000000, "-1.5"),
            (-2, 1, "-1.999999999"),
            (i64::MAX, 999999999, "9223372036854775807.999999999"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            let time = Timestamp { secs, nanos };
            assert_eq!(format_time(time), want);
            assert_eq!(parse_time(want.as_bytes()), Some(time), "{want}");
        }
        for (text, secs, nanos) in [("1.", 1, 0), ("1.0000000009", 1, 0), ("-0.5", -1, 500000000), ("-1.0", -1, 0)] {
            assert_eq!(parse_time(text.as_bytes()), Some(Timestamp { secs, nanos }), "{text}");
        }
        for bad in ["", ".", ".5", "-", "1.-1", "1.5s", "1e3", "+1", " 1", "-9223372036854775808.5", "1..5"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }
}
