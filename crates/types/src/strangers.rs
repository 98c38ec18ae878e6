//! New strangers of one person: how many they may begin to watch, or to write to and add to groups, within a day. Whoever
//! keeps a list of the last day's decides by it, in a transaction for that person alone.

use std::collections::HashSet;
use std::time::Duration;

use crate::{Timestamp, UserId};

/// A stranger met once is no new one for so long.
pub const STRANGER_FOR: Duration = Duration::from_secs(24 * 3600);

/// Which strangers are new, and may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// New ones, to be remembered.
    pub new: Vec<UserId>,
    /// One too many each.
    pub limited: Vec<UserId>,
    /// With `limited`: until one more may be.
    pub retry_after: Duration,
}

/// `day`: those of the last day and since when; of `asked`, the first have precedence.
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

/// How long until `more` strangers fit at once; the whole time where they never do.
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
        // A limit that was lowered since.
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
