//! [`People`] knows the people of this node's slots: their sessions, their state, and which gateways are told
//! of it. The code is pure.
//!
//! ```text
//!   gateways' announcements, signs ──> registry ──> activity ──> watches ──> the gateways that watch
//! ```
//!
//! A node that has just got a slot does not know the sessions of its people until their gateways have
//! announced them. So for two seconds it reports nobody of such a slot as offline, lest people seem to leave
//! and come back. That is long enough: a gateway announces all its sessions as soon as it follows the new
//! map, within a second even if it has many.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tern_types::{Slot, Timestamp, UserId};

use crate::activity::{Activity, Presence};
use crate::follows::{Ended, FollowLink, Follows};
use crate::registry::{Effect, Event, NotOwner, Registry, Session, SlotSet};
use crate::watches::{WatchLink, Watches};

/// The sessions, states and watchers of the people in this node's slots.
#[derive(Debug)]
pub struct People {
    registry: Registry,
    activity: Activity,
    watches: Watches,
    follows: Follows,
    new_slots: NewSlots,
    /// The people about whom the store was asked while it was away, as long as somebody watches them. They count as
    /// never seen, unless they are online, until the store has answered.
    to_read_again: HashSet<UserId>,
}

/// Slots that this node has just got, in which nobody is reported as offline yet.
#[derive(Debug)]
struct NewSlots {
    /// The time for which nobody of a slot is reported as offline after the slot has come.
    lasts: Duration,
    /// The slots that came since `until` had last passed.
    slots: SlotSet,
    /// The monotonic time until which nobody of `slots` is reported as offline.
    until: Timestamp,
    /// The people who would have been reported as offline while their slots were new. Whoever watches them is told of
    /// them when that time is over.
    users: HashSet<UserId>,
}

/// The news for one watch stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The people whose state is due, with their state.
    pub states: Vec<(UserId, Presence)>,
    /// People whose slots belong to other nodes by this node's map.
    pub foreign: Vec<UserId>,
}

impl News {
    /// Returns whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty() && self.foreign.is_empty()
    }
}

impl People {
    /// Makes a node without slots. A person is online for `threshold` after each sign. Nobody is reported as offline
    /// for `hold_offline` after their slot has come.
    pub fn new(threshold: Duration, hold_offline: Duration) -> Self {
        Self {
            registry: Registry::default(),
            activity: Activity::new(threshold),
            watches: Watches::default(),
            follows: Follows::default(),
            new_slots: NewSlots {
                lasts: hold_offline,
                slots: SlotSet::empty(),
                until: Timestamp(0),
                users: HashSet::new(),
            },
            to_read_again: HashSet::new(),
        }
    }

    /// Returns the sessions.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the activity of the people: who is online, and what has to be written of last seen.
    pub fn activity(&mut self) -> &mut Activity {
        &mut self.activity
    }

    /// Returns the number of watches on all streams.
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Applies an event, and returns what the owner of the streams has to do.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let gained = match &event {
            Event::MapChanged { owned, .. } => Some(self.registry.gained(owned)),
            _ => None,
        };
        let moves = matches!(&event, Event::MapChanged { owned, .. } if !self.registry.owns_just(owned));
        let mut effects = Vec::new();
        for effect in self.registry.apply(event, now) {
            match effect {
                Effect::Signs(user) => self.signs(user, now, &mut effects),
                Effect::Sessions(user) => {
                    effects.extend(self.follows.changed(user).into_iter().map(Effect::TellChanged));
                }
                other => effects.push(other),
            }
        }
        if let Some(gained) = gained {
            self.moved(&gained, now, &mut effects);
        }
        if moves {
            effects.extend(self.follows.end_all().into_iter().map(Effect::TellChanged));
        }
        effects
    }

    /// Takes the signs of the user's sessions as they are now, and tells the gateways that watch the user if the state
    /// has changed.
    fn signs(&mut self, user: UserId, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.activity.signs(user, self.registry.signs(user), now) {
            self.tell(user, effects);
        }
        self.release(user);
    }

    /// Hands over the people of slots that have left: forgets their activity and tells the gateways that watch them.
    /// Begins to hold the slots that have come: nobody in them is reported as offline for a while.
    fn moved(&mut self, gained: &SlotSet, now: Timestamp, effects: &mut Vec<Effect>) {
        let registry = &self.registry;
        self.activity.keep(|user| registry.owns(user));
        self.to_read_again.retain(|user| registry.owns(*user));
        let told = self.watches.keep(|user| registry.owns(user));
        effects.extend(told.into_iter().map(Effect::Tell));
        if !gained.is_empty() {
            if now >= self.new_slots.until {
                self.new_slots.slots = SlotSet::empty();
            }
            self.new_slots.slots.extend(gained);
            self.new_slots.until = now + self.new_slots.lasts;
        }
    }

    /// Takes note that time has passed: people whose signs are too old go offline, and whoever watches people of new
    /// slots is told what was held back.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        for user in self.activity.expire(now) {
            self.tell(user, &mut effects);
            self.release(user);
        }
        if now >= self.new_slots.until {
            for user in std::mem::take(&mut self.new_slots.users) {
                self.tell(user, &mut effects);
            }
        }
        effects
    }

    /// Returns the monotonic time at which [`Self::tick`] or [`Event::Tick`] has something to do next. `None` if nothing
    /// is due.
    pub fn next_tick(&self) -> Option<Timestamp> {
        let held = (!self.new_slots.users.is_empty()).then_some(self.new_slots.until);
        let (expiry, registry) = (self.activity.next_expiry(), self.registry.next_tick());
        [expiry, held, registry].into_iter().flatten().min()
    }

    /// Opens a stream of look-ups, on which nobody is followed.
    pub fn open_follow(&mut self, link: FollowLink) {
        self.follows.open(link);
    }

    /// Closes a stream of look-ups, and ends what is followed on it.
    pub fn close_follow(&mut self, link: FollowLink) {
        self.follows.close(link);
    }

    /// Follows these users on the stream, or none of them. This node has to be sure to know all their sessions. Returns
    /// whether they are followed.
    pub fn follow(&mut self, link: FollowLink, users: &[UserId]) -> bool {
        debug_assert!(self.registry.is_sure(users), "others may be live");
        self.follows.follow(link, users)
    }

    /// Stops following all users on the stream.
    pub fn unfollow_all(&mut self, link: FollowLink) {
        self.follows.unfollow_all(link);
    }

    /// Takes what waits for the stream: the users who are not followed any more.
    pub fn take_ended(&mut self, link: FollowLink) -> Ended {
        self.follows.take(link)
    }

    /// Returns the number of users who are followed, on any stream.
    pub fn followed(&self) -> usize {
        self.follows.users()
    }

    /// Opens a watch stream without watches.
    pub fn open_watch(&mut self, link: WatchLink) {
        self.watches.open(link);
    }

    /// Closes a watch stream, and ends its watches.
    pub fn close_watch(&mut self, link: WatchLink) {
        for user in self.watches.close(link) {
            self.release(user);
        }
    }

    /// Begins watches on the stream. Returns the people of whom the store has to be asked.
    pub fn watch(&mut self, link: WatchLink, users: &[UserId]) -> Vec<UserId> {
        let mut unknown = Vec::new();
        for user in users {
            if !self.registry.owns(*user) {
                self.watches.refuse(link, *user);
                continue;
            }
            self.watches.watch(link, *user);
            // The store is asked about people who are online too, because they will go offline some time.
            if !self.activity.was_read(*user) {
                unknown.push(*user);
            }
        }
        unknown
    }

    /// Ends watches on the stream.
    pub fn unwatch(&mut self, link: WatchLink, users: &[UserId]) {
        for user in users {
            if self.watches.unwatch(link, *user) {
                self.release(*user);
            }
        }
    }

    /// Takes the store's answer about the users in `asked`. Users who are not in `found` count as never seen.
    pub fn stored(&mut self, asked: &[UserId], found: &HashMap<UserId, Timestamp>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for user in asked {
            self.to_read_again.remove(user);
            if !self.watches.is_watched(*user) {
                continue;
            }
            if self.activity.stored(*user, found.get(user).copied()) {
                self.tell(*user, &mut effects);
            }
        }
        effects
    }

    /// Takes note that the store was away when it was asked about the users in `asked`.
    pub fn store_was_away(&mut self, asked: &[UserId]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for user in asked {
            if !self.watches.is_watched(*user) || self.activity.was_read(*user) {
                continue;
            }
            self.to_read_again.insert(*user);
            if self.activity.stored(*user, None) {
                self.tell(*user, &mut effects);
            }
        }
        effects
    }

    /// Returns at most `max` people of whom the store has to be asked again, because it was away.
    pub fn to_read_again(&self, max: usize) -> Vec<UserId> {
        let users: Vec<UserId> = self.to_read_again.iter().copied().take(max).collect();
        debug_assert!(
            users.iter().all(|user| self.watches.is_watched(*user)),
            "the store is asked only about people whom somebody watches"
        );
        users
    }

    /// Takes at most `max` states for the stream, and all people who belong to other nodes. If there are fewer than
    /// `max` states, nothing waits any more.
    pub fn take(&mut self, link: WatchLink, max: usize, now: Timestamp) -> News {
        let mut news = News::default();
        loop {
            let (users, foreign) = self.watches.take(link, max - news.states.len());
            news.foreign.extend(foreign);
            if users.is_empty() {
                return news;
            }
            for user in users {
                // A person whose state is not known yet counts as changed again when the store has answered, or when
                // the slot is no longer new.
                if let Some(presence) = self.presence(user, now) {
                    news.states.push((user, presence));
                }
            }
        }
    }

    /// Returns the state of each user as far as it is known in memory. `None` means that the store has to be asked.
    ///
    /// # Errors
    ///
    /// If one of the users belongs to another node.
    pub fn presences(&self, users: &[UserId]) -> Result<Vec<Option<Presence>>, NotOwner> {
        if users.iter().any(|user| !self.registry.owns(*user)) {
            return Err(NotOwner);
        }
        Ok(users.iter().map(|user| self.activity.presence(*user)).collect())
    }

    /// Returns all live sessions of the users, each with whether the person is at it. `Err` if any of the users belongs
    /// to another node.
    pub fn active_sessions<'a>(
        &'a self,
        users: &'a [UserId],
        now: Timestamp,
    ) -> Result<impl Iterator<Item = (&'a Session, bool)>, NotOwner> {
        let sessions = self.registry.look_up(users)?;
        Ok(sessions.map(move |session| (session, self.activity.counts(session.sign, now))))
    }

    /// Returns how long the states of these users may still be wrong, because their slots have just come.
    pub fn unsettled_for(&self, users: &[UserId], now: Timestamp) -> Duration {
        let held = |user: &UserId| self.new_slots.slots.contains(Slot::of_user(*user));
        if users.iter().any(held) {
            self.new_slots.until.since(now)
        } else {
            Duration::ZERO
        }
    }

    /// Returns the person's state, unless it is not known or must not be reported yet.
    fn presence(&mut self, user: UserId, now: Timestamp) -> Option<Presence> {
        let presence = self.activity.presence(user)?;
        let held = now < self.new_slots.until && self.new_slots.slots.contains(Slot::of_user(user));
        if held && presence != Presence::Online {
            self.new_slots.users.insert(user);
            return None;
        }
        Some(presence)
    }

    /// Notes for all gateways that watch the person that their state has changed.
    fn tell(&mut self, user: UserId, effects: &mut Vec<Effect>) {
        effects.extend(self.watches.changed(user).iter().map(|link| Effect::Tell(*link)));
    }

    /// Forgets a person who has neither sessions nor watchers. If the store was away, it is asked about the person
    /// again only when somebody watches them again.
    fn release(&mut self, user: UserId) {
        if self.watches.is_watched(user) {
            return;
        }
        if self.to_read_again.remove(&user) {
            self.activity.forget_read(user);
        }
        if !self.registry.has_sessions(user) {
            self.activity.release(user);
        }
    }
}

#[cfg(test)]
mod tests;
