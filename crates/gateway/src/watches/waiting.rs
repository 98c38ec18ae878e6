//! Keeps the sets of users that sessions want to watch, until accounts are asked about them. Accounts are asked about one
//! WatchPresence of a session at a time, so that the answers come in the order of the requests. It is pure.

use std::collections::{HashMap, HashSet};

use tern_types::SessionId;

use super::Wanted;

/// The sets that wait. Each session has one at most, because the newest replaces the one before.
#[derive(Default)]
pub(super) struct Waiting {
    sets: HashMap<SessionId, Wanted>,
    /// The sessions about whose WatchPresence accounts are being asked. Their sets wait outside of the queue.
    asking: HashSet<SessionId>,
}

impl Waiting {
    /// Puts a set in the place of the session's one. Returns true if the session is to be queued now.
    pub(super) fn put(&mut self, session: SessionId, new: Wanted) -> bool {
        match self.sets.get_mut(&session) {
            // A check has nothing to add to a WatchPresence that is not asked about yet.
            Some(older) if new.answers == 0 && older.answers > 0 => false,
            // The device's newest set counts, and each WatchPresence is answered.
            Some(older) => {
                let answers = older.answers + new.answers;
                *older = Wanted { answers, ..new };
                false
            }
            None => {
                self.sets.insert(session, new);
                !self.asking.contains(&session)
            }
        }
    }

    /// Takes the session's set, to ask accounts about it. [`Self::answered`] has to follow. `None` if there is no set, or
    /// if accounts are being asked about an older one.
    pub(super) fn take(&mut self, session: SessionId) -> Option<Wanted> {
        if self.asking.contains(&session) {
            return None;
        }
        let wanted = self.sets.remove(&session)?;
        self.asking.insert(session);
        Some(wanted)
    }

    /// Notes that the set that was taken is answered. Returns true if another one waits, so that the session is to be
    /// queued now.
    pub(super) fn answered(&mut self, session: SessionId) -> bool {
        self.asking.remove(&session);
        self.sets.contains_key(&session)
    }

    /// Removes the session's set, and returns it.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Wanted> {
        self.sets.remove(&session)
    }
}

#[cfg(test)]
mod tests {
    use tern_gateway_core::watches::Asked;
    use tern_types::UserId;

    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn wanted(number: u64, answers: u32) -> Wanted {
        Wanted {
            user: UserId::random(),
            people: vec![UserId::random()],
            answers,
            asked: Asked::Device(number),
        }
    }

    #[test]
    fn a_session_is_asked_about_once_at_a_time_and_its_newest_set_answers_all_that_waited() {
        let mut waiting = Waiting::default();
        assert!(waiting.put(SESSION, wanted(1, 1)));
        assert_eq!(waiting.take(SESSION).unwrap().asked, Asked::Device(1));
        assert!(!waiting.put(SESSION, wanted(2, 1)), "the first has no answer yet");
        assert!(!waiting.put(SESSION, wanted(3, 1)));
        assert!(!waiting.put(SESSION, wanted(3, 0)), "a check adds nothing");
        assert!(
            waiting.take(SESSION).is_none(),
            "a place in the queue from before"
        );
        assert!(waiting.answered(SESSION), "now the others");
        let next = waiting.take(SESSION).unwrap();
        assert_eq!((next.asked, next.answers), (Asked::Device(3), 2));
        assert!(!waiting.answered(SESSION));
        assert!(waiting.put(SESSION, wanted(4, 1)));
        waiting.remove(SESSION);
        assert!(waiting.take(SESSION).is_none());
    }
}
