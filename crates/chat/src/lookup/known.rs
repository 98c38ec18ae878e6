//! Keeps the sessions of users whom a presence node lets this node follow, from a look-up until the presence node says
//! that they have changed. It is pure.

use tern_types::{IdMap, UserId};

use super::Found;

/// The most users whose sessions are kept from one presence node, which lets a chat node follow as many. The others are
/// looked up each time.
const MAX_KNOWN: usize = 65_536;

/// The sessions that one presence node told of over one link.
#[derive(Debug, Default)]
pub struct Known {
    users: IdMap<UserId, Of>,
    /// Replies to look-ups with lower references are not kept: their users may not be followed any more.
    since: u64,
}

/// The sessions of one user.
#[derive(Debug)]
struct Of {
    sessions: Vec<Found>,
    /// True if somebody asked for them since the last sweep.
    used: bool,
}

impl Known {
    /// Appends the user's sessions to `sessions`. Returns false if they are not known.
    pub fn get(&mut self, user: UserId, sessions: &mut Vec<Found>) -> bool {
        let Some(of) = self.users.get_mut(&user) else {
            return false;
        };
        of.used = true;
        sessions.extend_from_slice(&of.sessions);
        true
    }

    /// Takes the sessions of users who are followed now, from the reply to the look-up with this reference. A user
    /// without a session in `sessions` is offline.
    pub fn learn(&mut self, reference: u64, users: &[UserId], sessions: impl IntoIterator<Item = Found>) {
        if reference < self.since {
            return;
        }
        for user in users {
            if self.users.len() < MAX_KNOWN || self.users.contains_key(user) {
                let nobody = Of {
                    sessions: Vec::new(),
                    used: true,
                };
                self.users.insert(*user, nobody);
            }
        }
        for session in sessions {
            if let Some(of) = self.users.get_mut(&session.user) {
                of.sessions.push(session);
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

    /// Forgets the users for whom nobody asked since the last sweep, and returns them: they need not be followed any
    /// more. `next` is the reference of the next look-up.
    pub fn sweep(&mut self, next: u64) -> Vec<UserId> {
        let mut unused = Vec::new();
        self.users.retain(|user, of| {
            if !of.used {
                unused.push(*user);
            }
            std::mem::take(&mut of.used)
        });
        if !unused.is_empty() {
            self.since = next;
        }
        unused
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
            gateway: "gateway-0".to_owned(),
            session: SessionId(session),
        }
    }

    fn of(known: &mut Known, user: UserId) -> Option<Vec<u64>> {
        let mut sessions = Vec::new();
        let is_known = known.get(user, &mut sessions);
        is_known.then(|| sessions.iter().map(|found| found.session.0).collect())
    }

    #[test]
    fn users_are_known_from_their_look_up_until_they_change() {
        let (mut known, user, offline) = (Known::default(), UserId::random(), UserId::random());
        assert_eq!(of(&mut known, user), None);
        known.learn(1, &[user, offline], [session(user, 7), session(user, 8)]);
        assert_eq!(of(&mut known, user), Some(vec![7, 8]));
        assert_eq!(of(&mut known, offline), Some(vec![]));
        known.learn(2, &[user], [session(user, 9)]);
        assert_eq!(of(&mut known, user), Some(vec![9]), "the newest answer holds");
        known.forget([user]);
        assert_eq!(of(&mut known, user), None);
        assert!(of(&mut known, offline).is_some());
        known.forget_all();
        assert_eq!(of(&mut known, offline), None);
    }

    #[test]
    fn users_for_whom_nobody_asks_are_given_up_and_an_answer_under_way_then_is_not_kept() {
        let (mut known, used, unused) = (Known::default(), UserId::random(), UserId::random());
        known.learn(1, &[used, unused], []);
        assert!(known.sweep(5).is_empty());
        assert!(of(&mut known, used).is_some());
        assert_eq!(known.sweep(6), [unused]);
        known.learn(5, &[unused], [session(unused, 7)]);
        assert_eq!(
            of(&mut known, unused),
            None,
            "the presence node tells of no change any more"
        );
        known.learn(6, &[unused], [session(unused, 7)]);
        assert_eq!(of(&mut known, unused), Some(vec![7]));
    }

    #[test]
    fn a_bounded_number_of_users_is_known() {
        let mut known = Known::default();
        let users: Vec<UserId> = (0..=MAX_KNOWN).map(|_| UserId::random()).collect();
        known.learn(1, &users, []);
        assert_eq!(known.users.len(), MAX_KNOWN);
        known.learn(2, &users[..1], [session(users[0], 7)]);
        assert_eq!(of(&mut known, users[0]), Some(vec![7]));
    }
}
