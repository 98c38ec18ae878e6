//! Whose presence somebody may see.

pub use tern_types::strangers::{STRANGER_FOR, admit};

/// People that one user may block: more than anybody meets, and still counted in a moment.
pub const MAX_BLOCKED: usize = 10_000;
/// Contacts of one user: a large address book.
pub const MAX_CONTACTS: usize = 10_000;

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

/// What a watcher has to do with the person who may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observer {
    /// Of the watcher.
    pub audience: Audience,
    /// One of the two has blocked the other.
    pub blocked: bool,
    /// The watcher is among the person's contacts.
    pub contact: bool,
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

/// Whether a watcher sees a person who shares with `audience`: the same rule from the other side. Nobody is counted, so a
/// stranger sees whoever shares with everyone. `written`: whether the person has written to the watcher, where that was
/// asked.
pub fn is_seen_by(audience: Audience, observer: Observer, written: Option<bool>) -> Sight {
    let relation = Relation {
        audience,
        blocked: observer.blocked,
        contact: observer.contact,
        watched: true,
        written,
    };
    sight(observer.audience, relation)
}

#[cfg(test)]
mod tests {
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
    fn who_is_seen_by_whom() {
        use Audience::{Contacts, Everyone, Nobody};
        use Sight::{Hidden, Unknown, Visible};
        let cases = [
            (Everyone, Contacts, "", Visible),
            (Everyone, Contacts, "blocked", Hidden),
            (Everyone, Nobody, "contact written", Hidden),
            (Contacts, Contacts, "unasked", Unknown),
            (Contacts, Contacts, "", Hidden),
            (Contacts, Contacts, "written", Visible),
            (Contacts, Everyone, "contact unasked", Visible),
            (Contacts, Contacts, "blocked contact written", Hidden),
            (Nobody, Everyone, "contact written", Hidden),
        ];
        for (own, theirs, facts, expected) in cases {
            let observer = Observer {
                audience: theirs,
                blocked: facts.contains("blocked"),
                contact: facts.contains("contact"),
            };
            let written = (!facts.contains("unasked")).then(|| facts.contains("written"));
            let actual = is_seen_by(own, observer, written);
            assert_eq!(actual, expected, "{own:?} by {theirs:?}, {facts}");
        }
    }

    #[test]
    fn an_audience_that_is_not_known_is_nobody() {
        for audience in [Audience::Everyone, Audience::Contacts, Audience::Nobody] {
            assert_eq!(Audience::from_stored(audience as i16), audience);
        }
        assert_eq!(Audience::from_stored(4), Audience::Nobody);
    }
}
