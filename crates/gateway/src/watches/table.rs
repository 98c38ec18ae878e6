//! Who looks at whom on this gateway, and what they were told. Pure.
//!
//! A person is watched once, however many sessions look at them. Of what they show only the newest is told, and it is
//! told to all their watchers here at once, after a pause that grows with their number: somebody whom 100,000 people
//! watch costs a bounded share of a processor however often they come and go.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tern_types::{SessionId, Timestamp, UserId};

/// Between two tellings of one person: short against what people notice.
pub const PAUSE: Duration = Duration::from_millis(100);
/// And for each watcher this much: telling one costs a tenth of it.
pub const PAUSE_EACH: Duration = Duration::from_micros(50);
/// A screen is told that its people are complete after this, also when some are not known by then.
pub const COMPLETE_WITHIN: Duration = Duration::from_secs(3);

/// What a watched person shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Hidden,
    Online,
    /// Zero: not known.
    Offline(Timestamp),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The person's presence node is to tell of them, or need not any more.
    Watch(UserId),
    Unwatch(UserId),
    /// These sessions see this.
    Tell {
        user: UserId,
        state: State,
        sessions: Vec<SessionId>,
    },
    /// All people of the session's newest set were told, or could not be found in time.
    Complete {
        session: SessionId,
        limited: Limited,
        /// WatchPresences that are answered by it.
        answers: u32,
    },
}

/// Strangers beyond the day's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limited {
    pub users: Vec<UserId>,
    pub retry_after: Duration,
}

/// Whom a session asked for, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub visible: Vec<UserId>,
    pub hidden: Vec<UserId>,
    pub limited: Limited,
    /// WatchPresences that it answers; 0: looked at again.
    pub answers: u32,
    /// Which question it answers.
    pub asked: Asked,
}

/// Answers may overtake each other: only that to the newest question counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The device asked; a later one has a higher number.
    Device(u64),
    /// Those of that number were looked at again.
    Again(u64),
}

impl Default for Asked {
    fn default() -> Self {
        Self::Device(0)
    }
}

#[derive(Debug, Default)]
struct Watched {
    sessions: HashSet<SessionId>,
    /// `None`: nothing came yet.
    state: Option<State>,
    told: Option<State>,
    /// Not told again before.
    next_at: Timestamp,
    /// Waits among the due.
    due: Option<Timestamp>,
}

#[derive(Debug)]
struct Watcher {
    user: UserId,
    /// Of the device's question.
    number: u64,
    /// Whom it asked for; true: visible.
    people: HashMap<UserId, bool>,
    awaited: HashSet<UserId>,
    complete: Option<Owed>,
}

/// The answer that a session waits for.
#[derive(Debug)]
struct Owed {
    at: Timestamp,
    limited: Limited,
    answers: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    people: HashMap<UserId, Watched>,
    sessions: HashMap<SessionId, Watcher>,
    due: BTreeSet<(Timestamp, UserId)>,
    incomplete: BTreeSet<(Timestamp, SessionId)>,
    watches: usize,
}

impl Table {
    /// Whom a session sees from now on, in place of before, unless the device has asked for others meanwhile.
    pub fn set(&mut self, session: SessionId, user: UserId, seen: Seen, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let newest = self.sessions.get(&session).map(|watcher| watcher.number);
        let number = match seen.asked {
            Asked::Device(number) if newest.is_none_or(|newest| newest <= number) => number,
            Asked::Again(number) if newest == Some(number) => number,
            Asked::Device(_) => {
                // It is answered all the same: each of them is.
                effects.push(Effect::Complete {
                    session,
                    limited: seen.limited,
                    answers: seen.answers,
                });
                return effects;
            }
            Asked::Again(_) => return effects,
        };
        let mut people: HashMap<UserId, bool> = seen.hidden.iter().map(|user| (*user, false)).collect();
        people.extend(seen.visible.iter().map(|user| (*user, true)));
        people.extend(seen.limited.users.iter().map(|user| (*user, false)));
        let before = self.sessions.remove(&session);
        let old = before
            .as_ref()
            .map(|watcher| watcher.people.clone())
            .unwrap_or_default();
        let owed = before.and_then(|watcher| watcher.complete);
        if let Some(owed) = &owed {
            self.incomplete.remove(&(owed.at, session));
        }
        for gone in old
            .iter()
            .filter(|(user, visible)| **visible && people.get(*user) != Some(&true))
        {
            self.leave(*gone.0, session, &mut effects);
        }
        let mut awaited = HashSet::new();
        for (person, visible) in &people {
            let news = seen.answers > 0 || old.get(person) != Some(visible);
            let state = if *visible {
                self.join(*person, session, &mut effects)
            } else {
                Some(State::Hidden)
            };
            match state {
                Some(state) if news => effects.push(Effect::Tell {
                    user: *person,
                    state,
                    sessions: vec![session],
                }),
                None if news => drop(awaited.insert(*person)),
                _ => {}
            }
        }
        let answers = seen.answers + owed.map_or(0, |owed| owed.answers);
        let complete = (answers > 0).then(|| Owed {
            at: now + COMPLETE_WITHIN,
            limited: seen.limited,
            answers,
        });
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
        effects
    }

    /// The session is over.
    pub fn remove(&mut self, session: SessionId) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(watcher) = self.sessions.remove(&session) else {
            return effects;
        };
        if let Some(owed) = watcher.complete {
            self.incomplete.remove(&(owed.at, session));
        }
        for (user, _) in watcher.people.into_iter().filter(|(_, visible)| *visible) {
            self.leave(user, session, &mut effects);
        }
        effects
    }

    /// What the person's presence node says. `slow`: they are told of less often than otherwise, for load.
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
            // A node that has just got the person, and whose store is away or was not written: nobody was seen earlier.
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

    /// What is due.
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

    /// What was to be told of the person was not: it is due again then.
    pub fn again(&mut self, user: UserId, at: Timestamp) {
        if let Some(watched) = self.people.get_mut(&user)
            && watched.due.is_none()
        {
            watched.told = None;
            watched.due = Some(at);
            self.due.insert((at, user));
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_tick(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(at, _)| *at);
        let incomplete = self.incomplete.first().map(|(at, _)| *at);
        [due, incomplete].into_iter().flatten().min()
    }

    /// People who are watched at their presence nodes.
    pub fn people(&self) -> impl Iterator<Item = UserId> {
        self.people.keys().copied()
    }

    pub fn is_watched(&self, user: UserId) -> bool {
        self.people.contains_key(&user)
    }

    /// Sessions that see one of these users, or are theirs, with whom they asked for.
    pub fn concerned(&self, users: &HashSet<UserId>) -> Vec<SessionId> {
        let concerned = self.sessions.iter().filter(|(_, watcher)| {
            users.contains(&watcher.user) || users.iter().any(|user| watcher.people.contains_key(user))
        });
        concerned.map(|(session, _)| *session).collect()
    }

    /// All sessions that look at somebody.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// Whom a session asked for, and by which question.
    pub fn asked_for(&self, session: SessionId) -> Option<(UserId, Vec<UserId>, u64)> {
        let watcher = self.sessions.get(&session)?;
        let people = watcher.people.keys().copied().collect();
        Some((watcher.user, people, watcher.number))
    }

    /// Visible people over all sessions.
    pub fn watches(&self) -> usize {
        self.watches
    }

    fn join(&mut self, user: UserId, session: SessionId, effects: &mut Vec<Effect>) -> Option<State> {
        let watched = self.people.entry(user).or_default();
        if watched.sessions.is_empty() {
            effects.push(Effect::Watch(user));
        }
        self.watches += usize::from(watched.sessions.insert(session));
        if watched.told != watched.state {
            // This one is shown what the others are not yet: whatever is told next is news to one of them.
            watched.told = None;
        }
        watched.state
    }

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
    }

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
        let sessions: Vec<SessionId> = watched.sessions.iter().copied().collect();
        for session in &sessions {
            if let Some(watcher) = self.sessions.get_mut(session) {
                watcher.awaited.remove(&user);
            }
        }
        effects.push(Effect::Tell {
            user,
            state,
            sessions: sessions.clone(),
        });
        for session in sessions {
            self.complete_if_all_came(session, effects);
        }
    }

    fn complete_if_all_came(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        let all = |watcher: &Watcher| watcher.awaited.is_empty();
        if self.sessions.get(&session).is_some_and(all) {
            self.complete(session, effects);
        }
    }

    fn complete(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        let watcher = self.sessions.get_mut(&session);
        if let Some(owed) = watcher.and_then(|watcher| watcher.complete.take()) {
            self.incomplete.remove(&(owed.at, session));
            effects.push(Effect::Complete {
                session,
                limited: owed.limited,
                answers: owed.answers,
            });
        }
    }
}
