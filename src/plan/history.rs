//! Go's ways to print values, which the history of an image shows.

use crate::dockerfile::quote::quoted;

/// A list of strings as `%v`: `[a b]`.
pub(super) fn list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.as_ref().to_owned()).collect();
    format!("[{}]", items.join(" "))
}

/// A list of strings as `%q`: `["a" "b"]`.
pub(super) fn quoted_list(items: &[String]) -> String {
    list(items.iter().map(|i| quoted(i)))
}

/// A duration as Go's `time.Duration` prints it: `1m30s`, `1.5s`, `250ms`.
pub(super) fn duration(nanoseconds: i64) -> String {
    let n = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => decimal(n, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(n, 1_000_000, "ms"),
        _ => long(n),
    };
    format!("{sign}{text}")
}

/// From a second on: hours and minutes where there are any.
fn long(n: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let (hours, minutes) = (n / (3600 * SECOND), n / (60 * SECOND) % 60);
    let seconds = decimal(n % (60 * SECOND), SECOND, "s");
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

/// `n / unit` without trailing zeros.
fn decimal(n: u64, unit: u64, name: &str) -> String {
    let digits = unit.to_string().len() - 1;
    let fraction = format!("{:0digits$}", n % unit);
    match fraction.trim_end_matches('0') {
        "" => format!("{}{name}", n / unit),
        fraction => format!("{}.{fraction}{name}", n / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (n, want) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(duration(n), want);
        }
    }

    #[test]
    fn lists_print_as_in_go() {
        assert_eq!(list(["a", "b c"]), "[a b c]");
        assert_eq!(quoted_list(&["/bin/sh".into(), "a \"b\"".into()]), r#"["/bin/sh" "a \"b\""]"#);
    }
}
