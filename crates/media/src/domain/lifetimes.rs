//! When uploads and media end.

use std::time::Duration;

use tern_identity::ticket::TICKET_TTL;
use tern_types::Timestamp;

/// An upload that is not finalised within this time is given up. Its request_id counts for as long.
pub const UPLOAD_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long after the end of a URL somebody may still write by it: a transfer may have begun before, and clocks
/// differ.
pub const URL_GRACE: Duration = Duration::from_secs(15 * 60);

/// How long after the end of a ticket it may still be used: a chat node may have checked it before its end and commit
/// later, and clocks differ.
pub const TICKET_GRACE: Duration = Duration::from_secs(3600);

/// The time between marking a media and the second check for references. Any statement that was under way at the
/// first check has ended by then.
pub const CONDEMNED_FOR: Duration = Duration::from_secs(60);

/// How long the usage of a day is kept.
pub const USAGE_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);

/// The time before which the last ticket of a media has to have been given for none of its tickets to count any more.
pub fn ticketed_before(now: Timestamp) -> Timestamp {
    now - TICKET_TTL - TICKET_GRACE
}

/// The time that is left of the day (UTC).
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
