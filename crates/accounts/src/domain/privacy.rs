//! Decides whose presence somebody may see.

pub use tern_types::strangers::{STRANGER_FOR, admit};

/// The most people that one user may block. Nobody needs as many, and they are still quick to count.
pub(crate) const MAX_BLOCKED: usize = 10_000;
/// The most contacts of one user, as in a large address book.
pub(crate) const MAX_CONTACTS: usize = 10_000;

/// The people with whom a user shares their presence (`tern.v1.Audience`). The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Audience {
    /// Everybody may see the user's presence, apart from blocks.
    Everyone = 1,
    /// The user's contacts see it, and people to whom the user has written.
    Contacts = 2,
    /// Nobody sees it, and the user sees nobody's.
    Nobody = 3,
}

impl Audience {
    /// Reads the stored number. A number that this version does not know counts as [`Self::Nobody`].
    pub(crate) fn from_stored(number: i16) -> Self {
        [Self::Everyone, Self::Contacts]
            .into_iter()
            .find(|audience| *audience as i16 == number)
            .unwrap_or(Self::Nobody)
    }
}

/// A user's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privacy {
    /// The people with whom the user shares their presence.
    pub audience: Audience,
    /// True if others are not told what the user has read.
    pub read_receipts_off: bool,
}

/// The facts about the watched person that decide what the watcher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    /// The people with whom the watched person shares their presence.
    pub audience: Audience,
    /// True if one of the two has blocked the other.
    pub blocked: bool,
    /// True if the watcher is among the watched person's contacts.
    pub contact: bool,
    /// True if the watcher watched the person within the last day, as a stranger.
    pub watched: bool,
    /// True if the person has written to the watcher, and `None` if that was not asked yet.
    pub written: Option<bool>,
}

/// The facts about a watcher that decide whether they see the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observer {
    /// The people with whom the watcher shares their own presence.
    pub audience: Audience,
    /// True if one of the two has blocked the other.
    pub blocked: bool,
    /// True if the watcher is among the person's contacts.
    pub contact: bool,
}

/// The decision whether somebody may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The watcher may see the person.
    Visible,
    /// The watcher may not see the person.
    Hidden,
    /// The person is visible, but counts as one of the day's new strangers.
    Stranger,
    /// The decision depends on [`Relation::written`], which was not asked yet.
    Unknown,
}

/// Decides whether a watcher who shares their own presence with `own` sees somebody else.
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

/// Decides whether a watcher sees a person who shares with `audience`. It is the same rule as [`sight`], from the
/// person's side, except that nobody is counted as a stranger: everybody sees a person who shares with everyone.
/// `written` says whether the person has written to the watcher, if that was asked.
pub(crate) fn is_seen_by(audience: Audience, observer: Observer, written: Option<bool>) -> Sight {
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
            // A watcher who watched them yesterday, when they shared with everyone, has no right today.
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
