//! Who looks at whom on this gateway, and what they were told. Pure.
//!
//! A person is watched once, however many sessions look at them. Of what they show only the newest is told, and it is
//! told to all their watchers here at once, after a pause that grows with their number: somebody whom 100,000 people
//! watch costs a bounded share of a processor however often they come and go.

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
    /// Whom a session sees from now on, in place of before.
    pub fn set(&mut self, session: SessionId, user: UserId, seen: Seen, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
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

    /// Whom a session asked for.
    pub fn asked_for(&self, session: SessionId) -> Option<(UserId, Vec<UserId>)> {
        let watcher = self.sessions.get(&session)?;
        Some((watcher.user, watcher.people.keys().copied().collect()))
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);
    const ONE: SessionId = SessionId(1);
    const OTHER: SessionId = SessionId(2);

    fn at(millis: u64) -> Timestamp {
        START + Duration::from_millis(millis)
    }

    fn visible(users: &[UserId]) -> Seen {
        Seen {
            visible: users.to_vec(),
            answers: 1,
            ..Seen::default()
        }
    }

    fn told(user: UserId, state: State, sessions: &[SessionId]) -> Effect {
        let sessions = sessions.to_vec();
        Effect::Tell {
            user,
            state,
            sessions,
        }
    }

    fn complete(session: SessionId) -> Effect {
        let limited = Limited::default();
        Effect::Complete {
            session,
            limited,
            answers: 1,
        }
    }

    fn offline(seconds: i64) -> State {
        State::Offline(Timestamp(seconds))
    }

    #[test]
    fn a_person_is_watched_once_and_the_screen_is_complete_when_all_have_come() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        assert_eq!(table.set(ONE, me, visible(&[user]), START), [Effect::Watch(user)]);
        assert_eq!(
            table.says(user, State::Online, None, START),
            [told(user, State::Online, &[ONE]), complete(ONE)]
        );
        // The next one is told what is known.
        assert_eq!(
            table.set(OTHER, me, visible(&[user]), START),
            [told(user, State::Online, &[OTHER]), complete(OTHER)]
        );
        assert_eq!(table.remove(ONE), []);
        assert_eq!(table.remove(OTHER), [Effect::Unwatch(user)]);
        assert_eq!(table.says(user, State::Online, None, START), []);
        assert!(table.next_tick().is_none());
    }

    #[test]
    fn who_is_not_found_in_time_does_not_hold_up_the_screen() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        table.set(ONE, me, visible(&[user]), START);
        assert_eq!(table.next_tick(), Some(START + COMPLETE_WITHIN));
        assert_eq!(table.tick(None, START + COMPLETE_WITHIN), [complete(ONE)]);
        let late = at(9_000);
        assert_eq!(
            table.says(user, offline(1), None, late),
            [told(user, offline(1), &[ONE])]
        );
    }

    #[test]
    fn of_many_changes_the_last_is_told_after_a_pause_and_the_same_not_twice() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        table.set(ONE, me, visible(&[user]), START);
        table.says(user, State::Online, None, START);
        for millis in 1..50 {
            let state = if millis % 2 == 0 {
                State::Online
            } else {
                offline(7)
            };
            assert_eq!(table.says(user, state, None, at(millis)), []);
        }
        assert_eq!(table.next_tick(), Some(START + PAUSE));
        assert_eq!(table.tick(None, at(100)), [told(user, offline(7), &[ONE])]);
        // There and back within the pause is nothing.
        table.says(user, State::Online, None, at(110));
        table.says(user, offline(7), None, at(120));
        assert_eq!(table.tick(None, at(200)), []);
    }

    #[test]
    fn the_pause_grows_with_the_watchers_and_under_load() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        for session in 0..100_000 {
            table.set(SessionId(session), me, visible(&[user]), START);
        }
        table.says(user, State::Online, None, START);
        table.says(user, offline(1), None, at(1));
        assert_eq!(table.next_tick(), Some(at(5_000)), "100,000 x 50 us");
        let slow = Some(Duration::from_secs(10));
        table.tick(slow, at(5_000));
        table.says(user, State::Online, slow, at(5_001));
        assert_eq!(table.next_tick(), Some(at(15_000)));
    }

    #[test]
    fn what_becomes_hidden_or_visible_is_told_and_what_stays_is_not() {
        let (mut table, me) = (Table::default(), UserId::random());
        let (stays, hides, shows) = (UserId::random(), UserId::random(), UserId::random());
        let first = Seen {
            hidden: vec![shows],
            ..visible(&[stays, hides])
        };
        table.set(ONE, me, first, START);
        table.says(stays, State::Online, None, START);
        table.says(hides, State::Online, None, START);
        let again = Seen {
            visible: vec![stays, shows],
            hidden: vec![hides],
            ..Seen::default()
        };
        let effects = table.set(ONE, me, again, at(1));
        assert_eq!(effects.len(), 3, "{effects:?}");
        for effect in [
            Effect::Unwatch(hides),
            told(hides, State::Hidden, &[ONE]),
            Effect::Watch(shows),
        ] {
            assert!(effects.contains(&effect), "{effect:?}");
        }
        assert_eq!(
            table.says(shows, offline(3), None, at(2)),
            [told(shows, offline(3), &[ONE])]
        );
    }

    #[test]
    fn a_change_of_privacy_concerns_those_who_see_and_those_who_are_seen() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        table.set(ONE, me, visible(&[user]), START);
        table.set(OTHER, user, visible(&[]), START);
        assert_eq!(table.concerned(&[me].into()), [ONE]);
        let mut both = table.concerned(&[user].into());
        both.sort();
        assert_eq!(both, [ONE, OTHER]);
        assert!(table.concerned(&[UserId::random()].into()).is_empty());
        assert_eq!(table.asked_for(ONE), Some((me, vec![user])));
    }

    #[test]
    fn a_set_that_is_replaced_before_it_is_complete_is_answered_with_the_next() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        table.set(ONE, me, visible(&[user]), START);
        let effects = table.set(ONE, me, visible(&[]), START);
        let answers = effects.iter().filter_map(|effect| match effect {
            Effect::Complete { answers, .. } => Some(*answers),
            _ => None,
        });
        assert_eq!(answers.collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_empty_set_ends_all_and_is_answered() {
        let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
        table.set(ONE, me, visible(&[user]), START);
        table.says(user, State::Online, None, START);
        assert_eq!(
            table.set(ONE, me, visible(&[]), START),
            [Effect::Unwatch(user), complete(ONE)]
        );
        assert_eq!(table.watches(), 0);
        assert!(table.next_tick().is_none());
    }
}
