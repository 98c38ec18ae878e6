//! Times as a person reads them.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;
use tern_types::Timestamp;

/// `14:05`, in this machine's time zone.
pub fn time(at: Timestamp) -> String {
    format(at, "%H:%M")
}

/// `Monday, 3 March 2025`.
pub fn day(at: Timestamp) -> String {
    format(at, "%A, %-d %B %Y")
}

fn format(at: Timestamp, pattern: &str) -> String {
    let instant = Instant::from_millisecond(at.0).unwrap_or_default();
    instant.to_zoned(TimeZone::system()).strftime(pattern).to_string()
}
