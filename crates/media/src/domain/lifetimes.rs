//! When uploads and media end.

use std::time::Duration;

use tern_node::ticket::TICKET_TTL;
use tern_types::Timestamp;

/// An upload that is not finalised by then is given up; its request_id counts that long.
pub const UPLOAD_TTL: Duration = Duration::from_secs(24 * 3600);

/// Beyond the end of a URL: a transfer that began before it, and clocks that differ.
pub const URL_GRACE: Duration = Duration::from_secs(15 * 60);

/// Beyond the end of a ticket: a commit that a chat node had checked before it, and clocks that differ.
pub const TICKET_GRACE: Duration = Duration::from_secs(3600);

/// Between marking a media and the second look for references: any statement that was under way has ended.
pub const CONDEMNED_FOR: Duration = Duration::from_secs(60);

/// Usage of days before is forgotten.
pub const USAGE_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);

/// Media whose last ticket was given before has none that counts.
pub fn ticketed_before(now: Timestamp) -> Timestamp {
    now - TICKET_TTL - TICKET_GRACE
}

/// The seconds until the day (UTC) ends.
pub fn rest_of_day(now: Timestamp) -> Duration {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    Duration::from_millis((DAY_MS - now.0.rem_euclid(DAY_MS)).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight() {
        assert_eq!(rest_of_day(Timestamp(0)), Duration::from_secs(24 * 3600));
        assert_eq!(
            rest_of_day(Timestamp(24 * 3600 * 1000 - 1)),
            Duration::from_millis(1)
        );
        assert_eq!(
            rest_of_day(Timestamp(36 * 3600 * 1000)),
            Duration::from_secs(12 * 3600)
        );
    }
}
