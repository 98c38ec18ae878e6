//! A [`Table`] knows which users may see the notices of another user, the giver, as far as accounts have said so. A typing
//! notice is one. Its functions are pure: they get the time as an argument.
//!
//! An answer of accounts holds for [`HOLDS`], or until a change of privacy names one of the two users. If no answer is
//! known, accounts are asked, one question at a time for each giver. Until the answer comes, the newest notice of each
//! chat and kind is held.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_types::limits::MAX_TYPING_MEMBERS;
use tern_types::{ChatId, IdMap, NoticeKind, SessionId, UserId};

/// The time for which an answer holds. A change of privacy that did not reach this gateway takes effect after this time
/// at the latest.
pub(crate) const HOLDS: Duration = Duration::from_secs(10);
/// The most givers for whom answers are kept, which is more than type at a time. For each giver there are at most the
/// members of a few chats.
const GIVERS: usize = 2048;
/// The most questions to accounts at a time. A notice that would need one more is dropped, and the next notice comes
/// 3 s later.
const QUESTIONS: usize = 64;
/// The most sessions with whose users accounts are asked about one notice: ten devices of each member. A
/// notice for more sessions of which it is not known whether they may see it is dropped for these.
const MAX_SESSIONS: usize = MAX_TYPING_MEMBERS * 10;
/// The most notices of one giver that are held during a question. A person types in one chat.
const HELD: usize = 2;

/// A session and its user.
pub type Recipient = (SessionId, UserId);

/// A notice, and the sessions that are told if their users may see it.
#[derive(Debug, Clone)]
pub struct Said {
    /// The chat whose members are to be told.
    pub chat: ChatId,
    /// The user who gives the notice.
    pub giver: UserId,
    /// The kind of the notice.
    pub kind: NoticeKind,
    /// The notice as an encoded ServerEvent.
    pub event: Bytes,
    /// The sessions that are told if their users may see the giver.
    pub to: Vec<Recipient>,
}

/// The recipients of a notice, sorted by what the caller is to do at once. For recipients that are in none of the lists
/// and counts the notice is held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// The sessions to be told.
    pub tell: Vec<SessionId>,
    /// The users of whom accounts are to be asked whether they may see the giver. The answer goes to
    /// [`Table::answered`].
    pub ask: Vec<UserId>,
    /// The number of sessions that are not told because their users may not see the giver.
    pub hidden: usize,
    /// The number of sessions that are not told because it is not known whether their users may see the giver, and
    /// accounts cannot be asked now.
    pub unknown: usize,
}

/// The answers of accounts that are known, and the questions that are under way.
#[derive(Debug, Default)]
pub struct Table {
    /// The answers by giver and user: whether the user may see the giver, and the time until which that holds.
    known: IdMap<UserId, IdMap<UserId, (bool, Instant)>>,
    /// The question that is under way for each giver.
    asking: IdMap<UserId, Asking>,
}

/// A question to accounts, and the notices that wait for its answer.
#[derive(Debug)]
struct Asking {
    /// The users about whom accounts were asked.
    watchers: Vec<UserId>,
    /// True if privacy changed since the question was asked, so that its answer may be out of date.
    void: bool,
    /// The notices that wait, the newest of each chat and kind and at most [`HELD`].
    held: Vec<Said>,
}

impl Asking {
    /// Holds a notice, in place of an older one of its chat and kind. Returns false if the question does not cover all its
    /// recipients, or if there is no room.
    fn hold(&mut self, said: Said) -> bool {
        let asked = said.to.iter().all(|(_, user)| self.watchers.contains(user));
        let room = self.held.len() < HELD;
        let key = |said: &Said| (said.chat, said.kind);
        let older = self.held.iter_mut().find(|held| key(held) == key(&said));
        match older {
            Some(older) if asked => *older = said,
            None if asked && room => self.held.push(said),
            _ => return false,
        }
        true
    }
}

impl Table {
    /// Decides which recipients of a notice are told at once. Holds the notice for those of whom it is not known
    /// whether they may see the giver. The giver's own sessions are told.
    pub fn sort(&mut self, said: Said, now: Instant) -> Sorted {
        let mut sorted = Sorted::default();
        let mut unknown = Vec::new();
        let known = self.known.get(&said.giver);
        for (session, user) in said.to {
            let answer = known.and_then(|known| known.get(&user));
            match answer.filter(|(_, until)| now < *until) {
                _ if user == said.giver => sorted.tell.push(session),
                Some((true, _)) => sorted.tell.push(session),
                Some((false, _)) => sorted.hidden += 1,
                None => unknown.push((session, user)),
            }
        }
        if !unknown.is_empty() {
            let to = unknown;
            self.hold(Said { to, ..said }, &mut sorted);
        }
        sorted
    }

    /// Holds a notice whose recipients are all unknown, and asks accounts about them unless a question is under way.
    fn hold(&mut self, said: Said, sorted: &mut Sorted) {
        let count = said.to.len();
        debug_assert!(count > 0, "a notice without recipients needs no answer");
        if let Some(asking) = self.asking.get_mut(&said.giver) {
            if !asking.hold(said) {
                sorted.unknown += count;
            }
            return;
        }
        if self.asking.len() >= QUESTIONS || count > MAX_SESSIONS {
            sorted.unknown += count;
            return;
        }
        let watchers: HashSet<UserId> = said.to.iter().map(|(_, user)| *user).collect();
        sorted.ask = watchers.into_iter().collect();
        let giver = said.giver;
        let asking = Asking {
            watchers: sorted.ask.clone(),
            void: false,
            held: vec![said],
        };
        self.asking.insert(giver, asking);
    }

    /// Takes the answer for a giver: those of the users asked about who may see the giver, or `None` if accounts did
    /// not answer. Returns the notices that were held, each with what to do. Returns none if no question was under way.
    pub fn answered(
        &mut self,
        giver: UserId,
        visible: Option<&HashSet<UserId>>,
        now: Instant,
    ) -> Vec<(Said, Sorted)> {
        let Some(asking) = self.asking.remove(&giver) else {
            return Vec::new();
        };
        let held = asking.held.into_iter();
        let Some(visible) = visible.filter(|_| !asking.void) else {
            let lost = |said: &Said| Sorted {
                unknown: said.to.len(),
                ..Sorted::default()
            };
            return held.map(|said| (said.clone(), lost(&said))).collect();
        };
        self.make_room(now);
        debug_assert!(self.known.len() < GIVERS, "there is no room for another giver");
        let known = self.known.entry(giver).or_default();
        known.retain(|_, (_, until)| now < *until);
        for watcher in asking.watchers {
            known.insert(watcher, (visible.contains(&watcher), now + HOLDS));
        }
        held.map(|said| (said.clone(), self.sort(said, now))).collect()
    }

    /// Forgets what is known of these users, and makes void the answers under way that concern them.
    pub fn privacy_changed(&mut self, users: &HashSet<UserId>) {
        self.known.retain(|giver, known| {
            known.retain(|watcher, _| !users.contains(watcher));
            !users.contains(giver)
        });
        for (giver, asking) in &mut self.asking {
            asking.void |=
                users.contains(giver) || asking.watchers.iter().any(|watcher| users.contains(watcher));
        }
    }

    /// Makes room for one more giver. It removes the givers whose answers hold no longer, and if that is not enough,
    /// all givers.
    fn make_room(&mut self, now: Instant) {
        if self.known.len() >= GIVERS {
            self.known
                .retain(|_, known| known.values().any(|(_, until)| now < *until));
        }
        if self.known.len() >= GIVERS {
            self.known.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two {
        table: Table,
        giver: UserId,
        watcher: UserId,
        chat: ChatId,
        now: Instant,
    }

    impl Two {
        fn new() -> Self {
            Self {
                table: Table::default(),
                giver: UserId::random(),
                watcher: UserId::random(),
                chat: ChatId::own(UserId::random()),
                now: Instant::now(),
            }
        }

        fn said(&self, event: &'static str) -> Said {
            Said {
                chat: self.chat,
                giver: self.giver,
                kind: NoticeKind::Typing,
                event: Bytes::from_static(event.as_bytes()),
                to: vec![(SessionId(1), self.watcher)],
            }
        }

        fn say(&mut self, event: &'static str) -> Sorted {
            let said = self.said(event);
            self.table.sort(said, self.now)
        }

        fn answer(&mut self, visible: Option<bool>) -> Vec<(Bytes, Sorted)> {
            let watcher = self.watcher;
            let visible = visible.map(|yes| HashSet::from_iter(yes.then_some(watcher)));
            let answered = self.table.answered(self.giver, visible.as_ref(), self.now);
            answered
                .into_iter()
                .map(|(said, sorted)| (said.event, sorted))
                .collect()
        }
    }

    fn told() -> Sorted {
        Sorted {
            tell: vec![SessionId(1)],
            ..Sorted::default()
        }
    }

    fn hidden() -> Sorted {
        Sorted {
            hidden: 1,
            ..Sorted::default()
        }
    }

    fn unknown() -> Sorted {
        Sorted {
            unknown: 1,
            ..Sorted::default()
        }
    }

    #[test]
    fn it_is_asked_once_and_the_newest_waits_for_the_answer_which_holds_for_a_while() {
        for (visible, expected) in [(true, told()), (false, hidden())] {
            let mut two = Two::new();
            assert_eq!(two.say("writes").ask, [two.watcher]);
            assert_eq!(two.say("stopped"), Sorted::default(), "held, and not asked again");
            let answered = two.answer(Some(visible));
            assert_eq!(answered.len(), 1);
            assert_eq!((&answered[0].0[..], &answered[0].1), (&b"stopped"[..], &expected));
            assert_eq!(two.say("writes"), expected);
            two.now += HOLDS;
            assert_eq!(two.say("writes").ask, [two.watcher]);
        }
    }

    #[test]
    fn what_cannot_be_found_out_is_not_told() {
        let mut two = Two::new();
        two.say("writes");
        assert_eq!(two.answer(None)[0].1, unknown());
        assert_eq!(two.say("writes").ask, [two.watcher]);
    }

    #[test]
    fn a_change_of_either_ends_what_was_known_and_voids_what_is_being_asked() {
        for of_giver in [true, false] {
            let mut two = Two::new();
            let changed = HashSet::from([if of_giver { two.giver } else { two.watcher }]);
            two.say("writes");
            two.answer(Some(true));
            assert_eq!(two.say("writes"), told());
            two.table.privacy_changed(&HashSet::from([UserId::random()]));
            assert_eq!(two.say("writes"), told(), "of others");
            two.table.privacy_changed(&changed);
            assert_eq!(two.say("writes").ask, [two.watcher]);
            two.table.privacy_changed(&changed);
            assert_eq!(two.answer(Some(true))[0].1, unknown(), "it may be of before");
        }
    }

    #[test]
    fn there_are_only_so_many_questions_and_answers() {
        let mut two = Two::new();
        let asked = (0..QUESTIONS * 2).filter(|_| {
            two.giver = UserId::random();
            !two.say("writes").ask.is_empty()
        });
        assert_eq!(asked.count(), QUESTIONS);
        let mut two = Two::new();
        for _ in 0..GIVERS * 2 {
            two.giver = UserId::random();
            two.say("writes");
            two.answer(Some(true));
        }
        assert!(two.table.known.len() <= GIVERS);
    }
}
