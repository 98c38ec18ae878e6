//! Formats times for people, in this machine's time zone.

use std::time::Duration;

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use tern_types::Timestamp;

/// Formats the time of day, as in `14:05`.
pub fn time(at: Timestamp) -> String {
    format(at, "%H:%M")
}

/// Formats a date, as in `Monday, 3 March 2025`.
pub fn day(at: Timestamp) -> String {
    format(at, "%A, %-d %B %Y")
}

/// Formats a past time, as in `today 14:05`, `yesterday 09:30`, `3 March` (this year), or `3 March 2025`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let date = |at| format(at, "%F");
    if date(at) == date(now) {
        format(at, "today %H:%M")
    } else if date(at) == date(now - Duration::from_secs(24 * 3600)) {
        format(at, "yesterday %H:%M")
    } else if format(at, "%Y") == format(now, "%Y") {
        format(at, "%-d %B")
    } else {
        format(at, "%-d %B %Y")
    }
}

fn format(at: Timestamp, pattern: &str) -> String {
    let instant = Instant::from_millisecond(at.0).unwrap_or_default();
    instant.to_zoned(TimeZone::system()).strftime(pattern).to_string()
}
