//! Columns, ages and sizes as the docker command prints them.

use crate::cli::progress::harmless_line;
use jiff::Timestamp;

/// Columns three spaces apart; the first row is the heading. What images say about themselves can't move the cursor.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| harmless_line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `2 hours`, by the rules of docker's go-units.
pub fn duration(seconds: i64) -> String {
    let several = |n: i64, unit: &str| format!("{n} {unit}");
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => several(seconds, "seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => several(minutes, "minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => several(hours, "hours"),
        _ if hours < 24 * 7 * 2 => several(hours / 24, "days"),
        _ if hours < 24 * 30 * 2 => several(hours / 24 / 7, "weeks"),
        _ if hours < 24 * 365 * 2 => several(hours / 24 / 30, "months"),
        _ => several(hours / 24 / 365, "years"),
    }
}

/// How long ago an RFC 3339 time was; `N/A` for a text that is none.
pub fn age(created: Option<&str>, now: Timestamp) -> String {
    match created.and_then(|c| c.parse::<Timestamp>().ok()) {
        Some(then) => format!("{} ago", duration(now.as_second() - then.as_second())),
        None => "N/A".into(),
    }
}

/// A time as docker's JSON has it: `2026-01-02 03:04:05 +0000 UTC`.
pub fn time(created: Option<&str>) -> String {
    match created.and_then(|c| c.parse::<Timestamp>().ok()) {
        Some(then) => then.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        None => "N/A".into(),
    }
}

/// Bytes in decimal units with three digits: `4.26MB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB"].into_iter().peekable();
    // What would be rounded to four digits is one of the next unit.
    while value >= 999.5 && units.len() > 1 {
        value /= 1000.0;
        units.next();
    }
    let digits = if value >= 99.95 { 0 } else { if value >= 9.995 { 1 } else { 2 } };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units.next().unwrap_or("B"))
}

/// The first twelve digits of an id.
pub fn short(digest: &crate::oci::Digest) -> String {
    digest.hex().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows = [
            vec!["A".into(), "BB".into()],
            vec!["longer".into(), "é\u{1b}[2J".into()],
            vec!["x".into(), String::new()],
        ];
        assert_eq!(table(&rows), "A        BB\nlonger   é\nx\n");
    }

    #[test]
    fn sizes_are_dockers() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (4_260_000, "4.26MB"),
            (99_949_000, "99.9MB"),
            (123_456_789, "123MB"),
            (999_600_000, "1GB"),
            (u64::MAX, "18447PB"),
        ];
        for (bytes, want) in cases {
            assert_eq!(size(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn ages_are_dockers() {
        let cases = [
            (-5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (125, "2 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (3 * 86400, "3 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ];
        for (seconds, want) in cases {
            assert_eq!(duration(seconds), want, "{seconds}");
        }
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(age(Some("2026-01-02T03:04:00.5Z"), now), "5 seconds ago");
        assert_eq!(age(Some("once"), now), "N/A");
        assert_eq!(time(Some("2026-01-02T03:04:05.123+01:00")), "2026-01-02 02:04:05 +0000 UTC");
    }
}
