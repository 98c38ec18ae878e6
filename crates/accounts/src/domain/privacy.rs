//! Whose presence somebody may see.

use std::collections::HashSet;
use std::time::Duration;

use tern_types::{Timestamp, UserId};

/// People that one user may block: more than anybody meets, and still counted in a moment.
pub const MAX_BLOCKED: usize = 10_000;
/// Contacts of one user: a large address book.
pub const MAX_CONTACTS: usize = 10_000;
/// A stranger watched once is no new one for so long.
pub const STRANGER_FOR: Duration = Duration::from_secs(24 * 3600);

/// `tern.v1.Audience`; the number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Audience {
    Everyone = 1,
    Contacts = 2,
    Nobody = 3,
}

impl Audience {
    /// The number as stored. One that this version does not know shows nothing to anybody.
    pub fn from_stored(number: i16) -> Self {
        [Self::Everyone, Self::Contacts]
            .into_iter()
            .find(|audience| *audience as i16 == number)
            .unwrap_or(Self::Nobody)
    }
}

/// A user's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privacy {
    pub audience: Audience,
    pub read_receipts_off: bool,
}

/// What the watched person has to do with the watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    pub audience: Audience,
    /// One of the two has blocked the other.
    pub blocked: bool,
    /// The watcher is among the watched person's contacts.
    pub contact: bool,
    /// The watcher watched them within the last day, when they were strangers.
    pub watched: bool,
    /// They have written to the watcher; `None`: not asked yet.
    pub written: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Visible,
    Hidden,
    /// Visible, and counts towards the day's new strangers.
    Stranger,
    /// Depends on [`Relation::written`].
    Unknown,
}

/// Whether a watcher who shares with `own` sees somebody else.
pub fn sight(own: Audience, them: Relation) -> Sight {
    if own == Audience::Nobody || them.blocked || them.audience == Audience::Nobody {
        return Sight::Hidden;
    }
    let everyone = them.audience == Audience::Everyone;
    if them.contact || (everyone && them.watched) {
        return Sight::Visible;
    }
    match them.written {
        None => Sight::Unknown,
        Some(true) => Sight::Visible,
        Some(false) if everyone => Sight::Stranger,
        Some(false) => Sight::Hidden,
    }
}

/// Which strangers are watched from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// New ones, to be remembered.
    pub new: Vec<UserId>,
    /// Too many.
    pub limited: Vec<UserId>,
    /// With `limited`: until one more may be watched.
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn relation(audience: Audience, facts: &str) -> Relation {
        Relation {
            audience,
            blocked: facts.contains("blocked"),
            contact: facts.contains("contact"),
            watched: facts.contains("watched"),
            written: (!facts.contains("unasked")).then(|| facts.contains("written")),
        }
    }

    #[test]
    fn who_sees_whom() {
        use Audience::{Contacts, Everyone, Nobody};
        use Sight::{Hidden, Stranger, Unknown, Visible};
        let cases = [
            (Contacts, Everyone, "", Stranger),
            (Contacts, Everyone, "unasked", Unknown),
            (Contacts, Everyone, "watched unasked", Visible),
            (Contacts, Everyone, "contact unasked", Visible),
            (Contacts, Everyone, "written", Visible),
            (Contacts, Everyone, "blocked contact written", Hidden),
            (Contacts, Contacts, "", Hidden),
            (Contacts, Contacts, "unasked", Unknown),
            // That they shared with everyone yesterday gives no right today.
            (Contacts, Contacts, "watched", Hidden),
            (Contacts, Contacts, "contact unasked", Visible),
            (Contacts, Contacts, "written", Visible),
            (Contacts, Contacts, "blocked contact", Hidden),
            (Contacts, Contacts, "blocked unasked", Hidden),
            (Contacts, Nobody, "contact written watched", Hidden),
            (Contacts, Nobody, "unasked", Hidden),
            (Everyone, Everyone, "written", Visible),
            (Nobody, Everyone, "contact written watched", Hidden),
            (Nobody, Contacts, "contact", Hidden),
            (Nobody, Everyone, "unasked", Hidden),
        ];
        for (own, theirs, facts, expected) in cases {
            let actual = sight(own, relation(theirs, facts));
            assert_eq!(actual, expected, "{own:?} watches {theirs:?}, {facts}");
        }
    }

    #[test]
    fn an_audience_that_is_not_known_is_nobody() {
        for audience in [Audience::Everyone, Audience::Contacts, Audience::Nobody] {
            assert_eq!(Audience::from_stored(audience as i16), audience);
        }
        assert_eq!(Audience::from_stored(4), Audience::Nobody);
    }

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
}
