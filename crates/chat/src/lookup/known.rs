//! Keeps the sessions of users whom a presence node lets this node follow, from a look-up until the presence node says
//! that they have changed. It is pure.

use tern_types::{IdMap, UserId};

use super::Found;

/// The sessions that one presence node told of over one link. The presence node bounds the number of users.
#[derive(Debug, Default)]
pub struct Known {
    users: IdMap<UserId, Vec<Found>>,
    /// Replies to look-ups with lower references are not kept: their users are not followed any more.
    since: u64,
}

impl Known {
    /// Appends the user's sessions to `sessions`. Returns false if they are not known.
    pub fn get(&self, user: UserId, sessions: &mut Vec<Found>) -> bool {
        let known = self.users.get(&user);
        sessions.extend(known.into_iter().flatten().cloned());
        known.is_some()
    }

    /// Takes the sessions of users who are followed now, from the reply to the look-up with this reference. A user
    /// without a session in `sessions` is offline.
    pub fn learn(&mut self, reference: u64, users: &[UserId], sessions: impl IntoIterator<Item = Found>) {
        if reference < self.since {
            return;
        }
        self.users.extend(users.iter().map(|user| (*user, Vec::new())));
        for session in sessions {
            if let Some(of) = self.users.get_mut(&session.user) {
                of.push(session);
            }
        }
    }

    /// Forgets users whose sessions have changed.
    pub fn forget(&mut self, users: impl IntoIterator<Item = UserId>) {
        for user in users {
            self.users.remove(&user);
        }
    }

    /// Forgets all users.
    pub fn forget_all(&mut self) {
        self.users.clear();
    }

    /// Forgets all users, because nobody is followed any more. `next` is the reference of the next look-up.
    pub fn begin_anew(&mut self, next: u64) {
        self.users.clear();
        self.since = next;
    }
}

#[cfg(test)]
mod tests {
    use tern_types::{DeviceId, SessionId};

    use super::*;

    fn session(user: UserId, session: u64) -> Found {
        Found {
            user,
            device: DeviceId::random(),
            gateway: "gateway-0".into(),
            session: SessionId(session),
        }
    }

    fn of(known: &Known, user: UserId) -> Option<Vec<u64>> {
        let mut sessions = Vec::new();
        let is_known = known.get(user, &mut sessions);
        is_known.then(|| sessions.iter().map(|found| found.session.0).collect())
    }

    #[test]
    fn users_are_known_from_their_look_up_until_they_change() {
        let (mut known, user, offline) = (Known::default(), UserId::random(), UserId::random());
        assert_eq!(of(&known, user), None);
        known.learn(1, &[user, offline], [session(user, 7), session(user, 8)]);
        assert_eq!(of(&known, user), Some(vec![7, 8]));
        assert_eq!(of(&known, offline), Some(vec![]));
        known.learn(2, &[user], [session(user, 9)]);
        assert_eq!(of(&known, user), Some(vec![9]), "the newest answer holds");
        known.forget([user]);
        assert_eq!(of(&known, user), None);
        assert!(of(&known, offline).is_some());
        known.forget_all();
        assert_eq!(of(&known, offline), None);
    }

    #[test]
    fn an_answer_that_was_under_way_when_nobody_was_followed_any_more_is_not_kept() {
        let (mut known, user) = (Known::default(), UserId::random());
        known.learn(4, &[user], [session(user, 6)]);
        known.begin_anew(6);
        assert_eq!(of(&known, user), None);
        known.learn(5, &[user], [session(user, 7)]);
        assert_eq!(
            of(&known, user),
            None,
            "the presence node tells of no change any more"
        );
        known.learn(6, &[user], [session(user, 8)]);
        assert_eq!(of(&known, user), Some(vec![8]));
    }
}
