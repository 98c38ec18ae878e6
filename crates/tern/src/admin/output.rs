//! Prints results: tables for people, JSON for machines.

use std::fmt::Write as _;

use jiff::Timestamp as Instant;
use serde::Serialize;
use tern_types::Timestamp;

use super::print;

/// Prints `value` as JSON if `json` is set, otherwise as the text that `text` returns for it.
pub fn show<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    if json {
        print(&serde_json::to_string_pretty(value)?)
    } else {
        print(&text(value))
    }
}

/// Returns a table with a header line. Each column is as wide as its widest cell, in characters.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let mut widths = head.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let _never = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(head);
    for row in &rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

/// Returns one line per fact: its name, padded to the longest name, and its value.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let line = |(name, fact): &(&str, String)| format!("{name:width$}  {fact}\n");
    facts.iter().map(line).collect()
}

/// Formats milliseconds since the Unix epoch in UTC, as in `2026-03-05T14:05:07.250Z`.
fn time(ms: i64) -> String {
    let at = Instant::from_millisecond(ms).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Formats a time in milliseconds with its age, as in `2026-03-05T14:05:07.250Z (2.0 s ago)`. 0 means "never": `-`.
pub fn when(ms: i64, now: Timestamp) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    format!("{} ({} ago)", time(ms), span((now.0 - ms).max(0)))
}

/// Formats a duration in milliseconds in the unit that fits its size, as in `250 ms`, `1.5 s` or `10 days`.
pub fn span(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [
            ["a".to_owned(), "long cell".to_owned()],
            ["ünïcode".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["NAME", "X"], rows),
            "NAME     X\na        long cell\nünïcode\n"
        );
        assert_eq!(table(["NAME", "X"], []), "NAME  X\n");
        assert_eq!(
            facts(&[("a", "1".into()), ("long", "2".into())]),
            "a     1\nlong  2\n"
        );
    }

    #[test]
    fn times_and_spans_read_well() {
        let cases = [
            (0, "0 ms"),
            (1500, "1.5 s"),
            (61_000, "1 min"),
            (7_200_000, "2 h"),
            (864_000_000, "10 days"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
        assert_eq!(when(0, Timestamp(5)), "-");
        let at = 1_741_183_507_250;
        assert_eq!(
            when(at, Timestamp(at + 2000)),
            "2025-03-05T14:05:07.250Z (2.0 s ago)"
        );
    }
}
