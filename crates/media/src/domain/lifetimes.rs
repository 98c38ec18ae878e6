//! The times after which uploads and media end.

use std::time::Duration;

use tern_identity::ticket::TICKET_TTL;
use tern_types::Timestamp;

/// The time after which an upload that was not finalised is given up. For at least this time, the upload's
/// request_id stands for it.
pub(crate) const UPLOAD_TTL: Duration = Duration::from_secs(24 * 3600);

/// The time after the end of a URL for which somebody may still write by it, because a transfer may have begun before
/// the end, and clocks differ.
pub(crate) const URL_GRACE: Duration = Duration::from_secs(15 * 60);

/// The time after the end of a ticket for which it may still take effect, because a chat node may have checked it
/// before its end and commit later, and clocks differ.
pub const TICKET_GRACE: Duration = Duration::from_secs(3600);

/// The time between marking a media and the second check for references. Any statement that was under way at the
/// first check has ended by then.
pub const CONDEMNED_FOR: Duration = Duration::from_secs(60);

/// The time for which the usage of a day is kept.
pub(crate) const USAGE_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);

/// Returns the time of issue before which all tickets have ended by `now`. If the last ticket of a media was issued
/// before this time, none of its tickets can be used any more.
pub(crate) fn ticketed_before(now: Timestamp) -> Timestamp {
    now - TICKET_TTL - TICKET_GRACE
}

/// Returns the time from `now` to the end of the day (UTC).
pub(crate) fn rest_of_day(now: Timestamp) -> Duration {
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
