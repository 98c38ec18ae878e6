//! A [`Table`] knows which sessions of this gateway watch which users, and which states they were told. Its functions
//! are pure: they get the time as an argument and return effects.
//!
//! The gateway watches a user once at their presence node, however many sessions watch them. Only the user's newest
//! state is told, to all watchers on this gateway at once, and not again before a pause that grows with the number of
//! watchers. So a user whom many sessions watch takes a bounded share of a processor, however often they come and go.
//! Example: with 100,000 watchers the pause is 5 s.
//!
//! The caller may let a telling wait, and asks [`Table::to_tell`] when it has come to a session. So a telling that has
//! waited never replaces what the session was told since, such as that it may not see the user any more.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use tern_types::{SessionId, Timestamp, UserId};

/// The least pause between two tellings of one user's state, too short for people to notice.
pub const PAUSE: Duration = Duration::from_millis(100);
/// The pause is at least this long for each watcher: from 2,000 watchers on that is longer than [`PAUSE`].
/// For example, with 3,000 watchers the pause is 150 ms. Telling a watcher takes about a tenth of this.
const PAUSE_EACH: Duration = Duration::from_micros(50);
/// The time after which a WatchPresence is answered even if the states of some users have not come.
const COMPLETE_WITHIN: Duration = Duration::from_secs(3);

/// The state of a user as a watcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The watcher may not see the user.
    Hidden,
    /// The user is online.
    Online,
    /// The user is offline and was last active at this time, by the wall clock. Zero: the time is not known.
    Offline(Timestamp),
}

/// Something that the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell the user's presence node that the user is watched here.
    Watch(UserId),
    /// Tell the user's presence node that the user is not watched here any more.
    Unwatch(UserId),
    /// Tell these sessions the user's state, and call [`Table::came`] for each that was told. If the telling waits before
    /// that, [`Table::to_tell`] says what each session is to be told then.
    Tell {
        /// The user whose state it is.
        user: UserId,
        /// The state of now.
        state: State,
        /// The sessions to be told.
        sessions: Vec<SessionId>,
    },
    /// Answer the session's WatchPresence: the states of its users were told, or did not come in time.
    Complete {
        /// The session to be answered.
        session: SessionId,
        /// The users who are not watched, of whom the answer tells.
        limited: Limited,
        /// The count of WatchPresence that this answers: more than 1 if some were replaced before accounts were asked.
        answers: u32,
    },
}

/// The users who are not watched because they are strangers beyond the day's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limited {
    /// The users.
    pub users: Vec<UserId>,
    /// The time from now after which the first of the day's strangers no longer counts, and one more may be watched.
    pub retry_after: Duration,
}

/// The answer of accounts for the set of users that a session asked for: whether the session may see each of them.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The users whom the session may see.
    pub visible: Vec<UserId>,
    /// The users whom the session may not see.
    pub hidden: Vec<UserId>,
    /// The users who are not watched because of the day's limit.
    pub limited: Limited,
    /// The count of WatchPresence that this answers. 0: the set was only checked again.
    pub answers: u32,
    /// The question that this answers.
    pub asked: Asked,
}

impl Seen {
    /// Returns all users of the set. The value is true if the session may see the user.
    fn people(&self) -> HashMap<UserId, bool> {
        let mut people: HashMap<UserId, bool> = self.hidden.iter().map(|user| (*user, false)).collect();
        people.extend(self.visible.iter().map(|user| (*user, true)));
        people.extend(self.limited.users.iter().map(|user| (*user, false)));
        people
    }
}

/// The question to which an answer belongs. Answers may overtake each other, and only the answer to the newest question
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The device sent the WatchPresence of this number. A later one has a higher number.
    Device(u64),
    /// The gateway checked the set again that the WatchPresence of this number named.
    Again(u64),
}

impl Default for Asked {
    fn default() -> Self {
        Self::Device(0)
    }
}

/// A user who is watched by one session or more.
#[derive(Debug, Default)]
struct Watched {
    sessions: HashSet<SessionId>,
    /// The newest state. `None`: none has come yet.
    state: Option<State>,
    /// The state that all of `sessions` were told last. `None`: they were told different ones, or none.
    told: Option<State>,
    /// The time before which the state is not told again.
    next_at: Timestamp,
    /// The time at which the state is to be told, under which the user is in [`Table::due`]. `None`: it is not there.
    due: Option<Timestamp>,
}

/// A session that has sent a WatchPresence, with the set of users in it.
#[derive(Debug)]
struct Watcher {
    user: UserId,
    /// The number of its newest WatchPresence.
    number: u64,
    /// The users of the set. The value is true if the session may see the user.
    people: HashMap<UserId, bool>,
    /// The visible users of the set whose state the session was not told yet.
    awaited: HashSet<UserId>,
    /// The answer to its newest WatchPresence, until the device is given it.
    complete: Option<Owed>,
}

/// The answer to a WatchPresence, which waits for the states.
#[derive(Debug)]
struct Owed {
    /// The time at which it is given at the latest.
    at: Timestamp,
    limited: Limited,
    /// The count of WatchPresence that it answers, at least 1.
    answers: u32,
}

impl Owed {
    fn give(self, session: SessionId) -> Effect {
        Effect::Complete {
            session,
            limited: self.limited,
            answers: self.answers,
        }
    }
}

/// The watches of one gateway.
#[derive(Debug, Default)]
pub struct Table {
    people: HashMap<UserId, Watched>,
    sessions: BTreeMap<SessionId, Watcher>,
    /// The users whose state is to be told, by the time of the telling.
    due: BTreeSet<(Timestamp, UserId)>,
    /// The sessions whose answer is owed, by the time at which it is given at the latest.
    incomplete: BTreeSet<(Timestamp, SessionId)>,
    /// The number of pairs of a session and a user whom it watches and may see.
    watches: usize,
}

impl Table {
    /// Replaces the session's set of watched users by an answer of accounts. If the answer belongs to an older
    /// question, nothing changes; a WatchPresence is answered all the same. If a WatchPresence replaces a set of which
    /// not all states have come, the one before is answered at once, so that a device that scrolls gets its answers.
    pub fn set(&mut self, session: SessionId, user: UserId, seen: Seen, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(number) = self.number_if_newest(session, seen.asked) else {
            if let Asked::Device(_) = seen.asked {
                // A newer set is in place. Each WatchPresence is answered all the same.
                effects.push(Effect::Complete {
                    session,
                    limited: seen.limited,
                    answers: seen.answers,
                });
            }
            return effects;
        };
        let people = seen.people();
        let before = self.take(session);
        let (old, mut awaited, owed) = before
            .map(|watcher| (watcher.people, watcher.awaited, watcher.complete))
            .unwrap_or_default();
        let complete = if let Asked::Again(_) = seen.asked {
            awaited.retain(|person| people.get(person) == Some(&true));
            let limited = seen.limited;
            owed.map(|owed| Owed { limited, ..owed })
        } else {
            awaited.clear();
            effects.extend(owed.map(|owed| owed.give(session)));
            (seen.answers > 0).then(|| Owed {
                at: now + COMPLETE_WITHIN,
                limited: seen.limited,
                answers: seen.answers,
            })
        };
        for gone in old
            .iter()
            .filter(|(user, visible)| **visible && people.get(*user) != Some(&true))
        {
            self.leave(*gone.0, session, &mut effects);
        }
        let is_news = |person: &UserId, visible: &bool| seen.answers > 0 || old.get(person) != Some(visible);
        awaited.extend(self.join_all(session, &people, is_news, &mut effects));
        self.incomplete
            .extend(complete.iter().map(|owed| (owed.at, session)));
        let watcher = Watcher {
            user,
            number,
            people,
            awaited,
            complete,
        };
        self.sessions.insert(session, watcher);
        self.complete_if_all_came(session, &mut effects);
        debug_assert!(
            self.incomplete.len() <= self.sessions.len(),
            "an answer is owed twice, or to a session that is gone"
        );
        effects
    }

    /// Removes a session that has ended, and its watches.
    pub fn remove(&mut self, session: SessionId) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(watcher) = self.take(session) else {
            return effects;
        };
        for (user, _) in watcher.people.into_iter().filter(|(_, visible)| *visible) {
            self.leave(user, session, &mut effects);
        }
        effects
    }

    /// Takes a user's state from their presence node. `slow` is set under load: it is then the least pause before the
    /// user's next state is told, in place of [`PAUSE`].
    pub fn says(
        &mut self,
        user: UserId,
        state: State,
        slow: Option<Duration>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(watched) = self.people.get_mut(&user) else {
            return effects;
        };
        if let (State::Offline(new), Some(State::Offline(known))) = (state, watched.state)
            && new < known
        {
            // Last seen never goes back. A node that has just got the user may have read an older time, or none.
            return effects;
        }
        watched.state = Some(state);
        if now >= watched.next_at {
            self.tell(user, slow, now, &mut effects);
        } else if watched.due.is_none() {
            watched.due = Some(watched.next_at);
            self.due.insert((watched.next_at, user));
        }
        effects
    }

    /// Tells the states that are due, and gives the answers that have waited for [`COMPLETE_WITHIN`].
    pub fn tick(&mut self, slow: Option<Duration>, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((at, user)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, user));
            if let Some(watched) = self.people.get_mut(&user) {
                watched.due = None;
            }
            self.tell(user, slow, now, &mut effects);
        }
        while let Some((at, session)) = self.incomplete.first().copied().filter(|(at, _)| *at <= now) {
            self.incomplete.remove(&(at, session));
            self.complete(session, &mut effects);
        }
        effects
    }

    /// Returns the state that the session is to be told of the user by a telling of `state` that has waited. `None` means
    /// that it is told nothing: it may not see the user any more, or a newer telling to all watchers waits.
    pub fn to_tell(&self, session: SessionId, user: UserId, state: State) -> Option<State> {
        let watched = self.people.get(&user)?;
        if !watched.sessions.contains(&session) {
            return None;
        }
        match watched.told {
            Some(told) => (told == state).then_some(state),
            // The session may have been told the newest state alone, so it is told none that is older. All watchers are
            // told again soon.
            None => watched.state,
        }
    }

    /// Takes note that the session was told the user's state. Returns the answer that it is owed, if it has waited for
    /// this state last.
    pub fn came(&mut self, session: SessionId, user: UserId) -> Vec<Effect> {
        let mut effects = Vec::new();
        let watcher = self.sessions.get_mut(&session);
        if watcher.is_some_and(|watcher| watcher.awaited.remove(&user)) {
            self.complete_if_all_came(session, &mut effects);
        }
        effects
    }

    /// Makes the user's state due again at `at`, because it could not be told to all watchers.
    pub fn again(&mut self, user: UserId, at: Timestamp) {
        let Some(watched) = self.people.get_mut(&user) else {
            return;
        };
        watched.told = None;
        if watched.due.is_none() {
            watched.due = Some(at);
            self.due.insert((at, user));
        }
    }

    /// Returns the time at which [`Self::tick`] is due next, or `None` if it has nothing to do.
    pub fn next_tick(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(at, _)| *at);
        let incomplete = self.incomplete.first().map(|(at, _)| *at);
        [due, incomplete].into_iter().flatten().min()
    }

    /// Returns the users who are watched at their presence nodes.
    pub fn people(&self) -> impl Iterator<Item = UserId> {
        self.people.keys().copied()
    }

    /// Returns whether any session watches the user and may see them.
    pub fn is_watched(&self, user: UserId) -> bool {
        self.people.contains_key(&user)
    }

    /// Returns the sessions that belong to one of these users or whose set names one of them.
    pub fn concerned(&self, users: &HashSet<UserId>) -> Vec<SessionId> {
        let concerned = self.sessions.iter().filter(|(_, watcher)| {
            users.contains(&watcher.user) || users.iter().any(|user| watcher.people.contains_key(user))
        });
        concerned.map(|(session, _)| *session).collect()
    }

    /// Returns the next `max` sessions after `after`, or the first ones, that have a set of users to watch, be it an
    /// empty one.
    pub fn sessions_after(&self, after: Option<SessionId>, max: usize) -> Vec<SessionId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let sessions = self.sessions.range((from, Bound::Unbounded));
        sessions.take(max).map(|(session, _)| *session).collect()
    }

    /// Returns the session's user, the set that it asked for, and the number of the WatchPresence that named the set.
    /// Returns `None` if the session has no set.
    pub fn asked_for(&self, session: SessionId) -> Option<(UserId, Vec<UserId>, u64)> {
        let watcher = self.sessions.get(&session)?;
        let people = watcher.people.keys().copied().collect();
        Some((watcher.user, people, watcher.number))
    }

    /// Returns the number of pairs of a session and a user whom it watches and may see.
    pub fn watches(&self) -> usize {
        self.watches
    }

    /// Returns the number of the WatchPresence to which the question belongs, or `None` if the session has asked anew
    /// since then.
    fn number_if_newest(&self, session: SessionId, asked: Asked) -> Option<u64> {
        let newest = self.sessions.get(&session).map(|watcher| watcher.number);
        match asked {
            Asked::Device(number) => newest.is_none_or(|newest| newest <= number).then_some(number),
            Asked::Again(number) => (newest == Some(number)).then_some(number),
        }
    }

    /// Removes and returns the session's own record, with the answer that it is owed. The session stays among the
    /// watchers of the users in its set.
    fn take(&mut self, session: SessionId) -> Option<Watcher> {
        let watcher = self.sessions.remove(&session)?;
        if let Some(owed) = &watcher.complete {
            self.incomplete.remove(&(owed.at, session));
        }
        Some(watcher)
    }

    /// Adds the session to the watchers of all visible `people`, and tells it the state of each person for whom
    /// `is_news` returns true. Returns those of them whose state has not come yet.
    fn join_all(
        &mut self,
        session: SessionId,
        people: &HashMap<UserId, bool>,
        is_news: impl Fn(&UserId, &bool) -> bool,
        effects: &mut Vec<Effect>,
    ) -> HashSet<UserId> {
        let mut awaited = HashSet::new();
        for (person, visible) in people {
            let state = if *visible {
                self.join(*person, session, effects)
            } else {
                Some(State::Hidden)
            };
            match state {
                _ if !is_news(person, visible) => {}
                Some(state) => effects.push(Effect::Tell {
                    user: *person,
                    state,
                    sessions: vec![session],
                }),
                None => drop(awaited.insert(*person)),
            }
        }
        awaited
    }

    /// Adds the session to the user's watchers. Returns the user's state, which the caller tells to this session alone.
    fn join(&mut self, user: UserId, session: SessionId, effects: &mut Vec<Effect>) -> Option<State> {
        let watched = self.people.entry(user).or_default();
        if watched.sessions.is_empty() {
            effects.push(Effect::Watch(user));
        }
        self.watches += usize::from(watched.sessions.insert(session));
        if watched.told != watched.state {
            // This session is told a state that the others were not told yet. So the next telling must reach all of
            // them, even if it is of the state that the others know.
            watched.told = None;
        }
        watched.state
    }

    /// Removes the session from the user's watchers. Without watchers the user is no longer watched.
    fn leave(&mut self, user: UserId, session: SessionId, effects: &mut Vec<Effect>) {
        let Some(watched) = self.people.get_mut(&user) else {
            return;
        };
        self.watches -= usize::from(watched.sessions.remove(&session));
        if watched.sessions.is_empty() {
            if let Some(at) = watched.due {
                self.due.remove(&(at, user));
            }
            self.people.remove(&user);
            effects.push(Effect::Unwatch(user));
        }
        debug_assert!(
            self.people.len() <= self.watches && self.due.len() <= self.people.len(),
            "a watched user has no watcher, or somebody is due who is not watched"
        );
    }

    /// Tells the user's state to all of their watchers, unless all of them were told it last.
    fn tell(&mut self, user: UserId, slow: Option<Duration>, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(watched) = self.people.get_mut(&user) else {
            return;
        };
        let Some(state) = watched.state.filter(|state| watched.told != Some(*state)) else {
            return;
        };
        let count = u32::try_from(watched.sessions.len()).unwrap_or(u32::MAX);
        watched.told = Some(state);
        watched.next_at = now + slow.unwrap_or(PAUSE).max(PAUSE_EACH * count);
        effects.push(Effect::Tell {
            user,
            state,
            sessions: watched.sessions.iter().copied().collect(),
        });
    }

    /// Gives the session the answer that it is owed if no state is awaited any more.
    fn complete_if_all_came(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        let all = |watcher: &Watcher| watcher.awaited.is_empty();
        if self.sessions.get(&session).is_some_and(all) {
            self.complete(session, effects);
        }
    }

    /// Gives the session the answer that it is owed, if there is one.
    fn complete(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        let watcher = self.sessions.get_mut(&session);
        if let Some(owed) = watcher.and_then(|watcher| watcher.complete.take()) {
            self.incomplete.remove(&(owed.at, session));
            effects.push(owed.give(session));
        }
    }
}
