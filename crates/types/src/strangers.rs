//! The daily limit on strangers: how many new people one person may begin to watch, or to write to and add to groups,
//! within a day. The caller stores whom the person met in the last day. It decides in a transaction, and runs no two
//! decisions about the same person at the same time.

use std::collections::HashSet;
use std::time::Duration;

use crate::{Timestamp, UserId};

/// The time for which a stranger, once met, counts towards the limit and is not counted as a new one again: a day.
pub const STRANGER_FOR: Duration = Duration::from_secs(24 * 3600);

/// The decision of [`admit`]: the new strangers within the limit, and those that exceed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The new strangers within the limit; the caller has to remember them.
    pub new: Vec<UserId>,
    /// The new strangers that exceed the limit.
    pub limited: Vec<UserId>,
    /// If `limited` is not empty, the time until the oldest stranger of the last day counts no longer. One more
    /// stranger fits then, unless the limit was lowered below the number of those who count already.
    pub retry_after: Duration,
}

/// Decides which of `asked` the limit allows. `day` has the strangers of the last day, each with the time at
/// which they were met. `asked` must name each person once. People in `day` are neither new nor limited; the
/// others are allowed in the order of `asked`.
pub fn admit(day: &[(UserId, Timestamp)], asked: &[UserId], limit: usize, now: Timestamp) -> Admission {
    let known: HashSet<UserId> = day.iter().map(|(user, _)| *user).collect();
    let mut new: Vec<UserId> = asked
        .iter()
        .copied()
        .filter(|user| !known.contains(user))
        .collect();
    let room = limit.saturating_sub(day.len());
    let limited = new.split_off(new.len().min(room));
    let oldest = day.iter().map(|(_, since)| *since).min().unwrap_or(now);
    Admission {
        new,
        limited,
        retry_after: (oldest + STRANGER_FOR).since(now),
    }
}

/// Returns how long it takes until `more` new strangers fit at once, or [`STRANGER_FOR`] if they never do. For example,
/// with a limit of 4 and 3 strangers in `day`, two more fit once the oldest of the three was met a day ago.
pub fn until_room(day: &[(UserId, Timestamp)], more: usize, limit: usize, now: Timestamp) -> Duration {
    let mut since: Vec<Timestamp> = day.iter().map(|(_, since)| *since).collect();
    since.sort_unstable();
    match (since.len() + more).saturating_sub(limit) {
        0 => Duration::ZERO,
        gone => since
            .get(gone - 1)
            .map_or(STRANGER_FOR, |since| (*since + STRANGER_FOR).since(now)),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_first_strangers_of_a_day_are_watched_and_the_rest_told_when() {
        let user = |n: u128| UserId(Uuid::from_u128(n));
        let now = Timestamp(1_000_000_000);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let day = [(user(1), now - hours(20)), (user(2), now - hours(1))];
        let asked = [user(5), user(2), user(4), user(3)];
        let admitted = |limit| admit(&day, &asked, limit, now);
        assert_eq!(
            admitted(4),
            Admission {
                new: vec![user(5), user(4)],
                limited: vec![user(3)],
                retry_after: hours(4)
            }
        );
        assert_eq!(admitted(5).limited, []);
        // The limit was lowered after the two were admitted.
        assert_eq!((admitted(1).new, admitted(1).limited.len()), (vec![], 3));
        let none = admit(&[], &asked, 0, now);
        assert_eq!((none.limited.len(), none.retry_after), (4, STRANGER_FOR));
    }

    #[test]
    fn there_is_room_for_several_when_as_many_are_a_day_ago() {
        let user = |n: u128| UserId(Uuid::from_u128(n));
        let now = Timestamp(1_000_000_000);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let day = [
            (user(1), now - hours(1)),
            (user(2), now - hours(20)),
            (user(3), now - hours(10)),
        ];
        let wait = |more| until_room(&day, more, 4, now);
        assert_eq!(
            [0, 1, 2, 3, 4].map(wait),
            [hours(0), hours(0), hours(4), hours(14), hours(23)]
        );
        assert_eq!(wait(5), STRANGER_FOR, "never at once");
    }
}
