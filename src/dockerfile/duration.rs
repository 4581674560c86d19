//! Durations as Go writes them: `1h30m`, `1.5s`, `-2ms`.

use super::quote::quoted;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The nanoseconds of a duration.
///
/// # Errors
/// Go's message for what is none, or is longer than 292 years.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let (mut rest, mut sum) = (rest, 0_u64);
    while !rest.is_empty() {
        let (value, after) = part(rest, text)?;
        sum = sum.checked_add(value).filter(|sum| *sum <= 1 << 63).ok_or_else(invalid)?;
        rest = after;
    }
    match (negative, i64::try_from(sum)) {
        (false, Ok(sum)) => Ok(sum),
        (true, Ok(sum)) => Ok(-sum),
        (true, Err(_)) => Ok(i64::MIN),
        (false, Err(_)) => Err(invalid()),
    }
}

/// One number with its unit, and what follows.
fn part<'t>(rest: &'t str, text: &str) -> Result<(u64, &'t str), String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(invalid());
    }
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err(format!("time: missing unit in duration {}", quoted(text)));
    }
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("time: unknown unit {} in duration {}", quoted(unit), quoted(text)));
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let value = whole.checked_mul(*scale).and_then(|v| v.checked_add(fraction_of(fraction, *scale)));
    Ok((value.ok_or_else(invalid)?, rest))
}

/// `.fraction` of `scale`; digits beyond what a nanosecond can show are cut off.
fn fraction_of(fraction: &str, scale: u64) -> u64 {
    let (mut value, mut unit) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        unit *= 10;
    }
    u64::try_from(value * u128::from(scale) / unit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("0", Ok(0)),
            ("30s", Ok(30_000_000_000)),
            ("1h2m3s", Ok(3_723_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            (".5ms", Ok(500_000)),
            ("5.s", Ok(5_000_000_000)),
            ("1us1ns", Ok(1_001)),
            ("-1s", Ok(-1_000_000_000)),
            ("+1s", Ok(1_000_000_000)),
            ("", Err("time: invalid duration \"\"")),
            ("-", Err("time: invalid duration \"-\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("x", Err("time: invalid duration \"x\"")),
            ("1.2.3s", Err("time: invalid duration \"1.2.3s\"")),
            ("30", Err("time: missing unit in duration \"30\"")),
            ("30d", Err("time: unknown unit \"d\" in duration \"30d\"")),
            ("9223372036854775808ns", Err("time: invalid duration \"9223372036854775808ns\"")),
            ("-9223372036854775808ns", Ok(i64::MIN)),
            ("99999999999999999999h", Err("time: invalid duration \"99999999999999999999h\"")),
        ] {
            assert_eq!(parse(text), want.map_err(str::to_owned), "{text}");
        }
    }
}
