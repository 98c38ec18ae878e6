//! Decides who is online, and when people were last active. The code is pure: time comes in as an argument.
//!
//! A sign is a gateway's message that a person is at a device, or has left it. The newest signs over all of a
//! person's devices decide: the person is online while one device is active and its sign is younger than the
//! threshold, and was last seen at the newest sign otherwise. The age of a sign is measured with clocks that
//! nobody sets: the gateway's monotonic clock until it makes the frame, and this node's monotonic clock from
//! when the frame has arrived. The time on the network between them does not count. The time that last seen
//! shows is the gateway's wall clock, but never later than this node's.
//!
//! Last seen has to be written when a person goes offline, and every five minutes while they are online, so that a
//! crash loses at most that. Coming online writes nothing.
//!
//! Example: the threshold is 30 s. The phone signs at 10:00:00, and the laptop at 10:00:20: the person is online until
//! 10:00:50. If the laptop says at 10:00:25 that the person has left it, the phone's sign keeps them online until
//! 10:00:30. After that they were last seen at 10:00:25.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tern_types::{Timestamp, UserId};

/// The interval at which last seen is written while a person is online, and so how much of it a crash may lose.
pub(crate) const WRITE_EVERY: Duration = Duration::from_secs(300);
/// The most people whose last seen waits to be written while the store is away; that is some 50 MiB. For people beyond
/// that, last seen is not written until their next sign. Only a batch that could not be written is put back even then.
pub(crate) const MAX_UNWRITTEN: usize = 1_000_000;

/// The newest sign of one session. The default value says that there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sign {
    /// True if the person is at the device, false if they have left it.
    pub active: bool,
    /// The time at which the sign was made, by the wall clock. Zero if there was no sign.
    pub at: Timestamp,
    /// The time at which the sign was made, in this node's monotonic time. It is too late by the time for
    /// which the gateway's frame was on the network.
    pub heard: Timestamp,
    /// The time at which the sign was made, by its gateway's monotonic clock. It orders the signs of a session, and has
    /// no other use.
    pub said: Timestamp,
}

/// The readings of the clocks that belong to a gateway's frame.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The gateway's monotonic clock when it made the frame.
    pub gateway: Timestamp,
    /// This node's monotonic clock when the frame arrived.
    pub now: Timestamp,
    /// This node's wall clock when the frame arrived.
    pub wall: Timestamp,
}

impl Arrival {
    /// Makes a sign from what the frame says. `at` is by the gateway's wall clock, `said` by its monotonic clock.
    pub fn sign(&self, active: bool, at: Timestamp, said: Timestamp) -> Sign {
        Sign {
            active,
            at: at.min(self.wall),
            heard: self.now - self.gateway.since(said),
            said,
        }
    }
}

/// The state of a person, as it is shown to people who may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The person is online.
    Online,
    /// The person is offline. The time is zero if it is not known.
    LastSeen(Timestamp),
}

/// The activity of one person, as far as it is known.
#[derive(Debug, Default)]
struct Person {
    /// The time of the newest sign, by the wall clock. It is what is written as last seen.
    last: Timestamp,
    /// The person is online until this time, in this node's monotonic time. Zero if the person is offline.
    until: Timestamp,
    /// True once the store has been asked for the person's last seen.
    read: bool,
    /// The value of `last` that was last written, or taken to be written.
    written: Timestamp,
    /// The monotonic time from which on a sign writes last seen, while the person is online.
    write_at: Timestamp,
    /// The time of the person's place in [`Activity::expiries`]. It is never later than `until`. Zero if the person has
    /// no place, because they are offline.
    place: Timestamp,
}

/// The activity of all people: who is online, when each person was last seen, and what of it has to be written.
#[derive(Debug)]
pub struct Activity {
    threshold: Duration,
    people: HashMap<UserId, Person>,
    /// The monotonic times at which to check whether a person is still online. Everybody who is online has one place,
    /// and nobody else has any. A later sign leaves the place too early, and it is moved when it is due, so that most
    /// signs cost nothing here. It is moved at once if the person goes offline sooner than it says.
    expiries: BTreeSet<(Timestamp, UserId)>,
    /// The newest last seen of each person for whom it has to be written.
    writes: HashMap<UserId, Timestamp>,
}

impl Activity {
    /// Makes an activity without people. A person is online for `threshold` after each sign.
    pub fn new(threshold: Duration) -> Self {
        Self {
            threshold,
            people: HashMap::new(),
            expiries: BTreeSet::new(),
            writes: HashMap::new(),
        }
    }

    /// Takes the signs of all sessions of a person, after one of them has changed. Returns `true` if the person's
    /// state has changed.
    pub fn signs(&mut self, user: UserId, signs: impl Iterator<Item = Sign>, now: Timestamp) -> bool {
        let (mut last, mut until) = (Timestamp(0), Timestamp(0));
        for sign in signs.filter(|sign| sign.at > Timestamp(0)) {
            last = last.max(sign.at);
            until = until.max(self.active_until(sign));
        }
        if last == Timestamp(0) && !self.people.contains_key(&user) {
            return false;
        }
        let person = self.people.entry(user).or_default();
        let before = person.presence();
        person.last = person.last.max(last);
        person.until = if until > now { until } else { Timestamp(0) };
        if person.until == Timestamp(0) {
            person.write_if(person.last > person.written, user, &mut self.writes);
        } else if before != Presence::Online {
            person.write_at = now + WRITE_EVERY;
        } else if now >= person.write_at {
            person.write_at = now + WRITE_EVERY;
            person.write_if(true, user, &mut self.writes);
        }
        person.take_place(user, &mut self.expiries);
        person.presence() != before
    }

    /// Returns whether the sign says that the person is at the device, and still counts.
    pub fn counts(&self, sign: Sign, now: Timestamp) -> bool {
        self.active_until(sign) > now
    }

    /// Returns the monotonic time until which the sign says that the person is at the device. Zero if it does not say
    /// so.
    fn active_until(&self, sign: Sign) -> Timestamp {
        if sign.active && sign.at > Timestamp(0) {
            sign.heard + self.threshold
        } else {
            Timestamp(0)
        }
    }

    /// Takes the last seen that the store has of a person. `at` is `None` if the store has none or cannot be asked.
    /// Returns `true` if the person's state, or whether it is known, has changed.
    pub fn stored(&mut self, user: UserId, at: Option<Timestamp>) -> bool {
        let person = self.people.entry(user).or_default();
        let before = (person.read, person.presence());
        person.read = true;
        if let Some(at) = at {
            person.last = person.last.max(at);
            person.written = person.written.max(at);
        }
        (true, person.presence()) != before
    }

    /// Forgets that the store was asked about the person, so that it is asked again when somebody watches them next.
    pub(crate) fn forget_read(&mut self, user: UserId) {
        if let Some(person) = self.people.get_mut(&user) {
            person.read = false;
        }
    }

    /// Returns whether the store has been asked about the person.
    pub fn was_read(&self, user: UserId) -> bool {
        self.people.get(&user).is_some_and(|person| person.read)
    }

    /// Returns the person's state. `None` if the store has to be asked first.
    pub fn presence(&self, user: UserId) -> Option<Presence> {
        let person = self.people.get(&user)?;
        let presence = person.presence();
        (person.read || presence == Presence::Online).then_some(presence)
    }

    /// Returns the people who go offline now because there was no newer sign.
    pub fn expire(&mut self, now: Timestamp) -> Vec<UserId> {
        let mut gone = Vec::new();
        while let Some((at, user)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, user));
            let Some(person) = self.people.get_mut(&user) else {
                continue;
            };
            person.place = Timestamp(0);
            if person.until > now {
                person.take_place(user, &mut self.expiries);
            } else {
                person.until = Timestamp(0);
                person.write_if(person.last > person.written, user, &mut self.writes);
                gone.push(user);
            }
        }
        gone
    }

    /// Returns the monotonic time at which [`Self::expire`] has something to check next. `None` if there is nothing to
    /// check.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Forgets the person if they are offline. Call it when nobody watches them and they have no sessions. Their last
    /// seen is still written.
    pub fn release(&mut self, user: UserId) {
        if self
            .people
            .get(&user)
            .is_some_and(|person| person.until == Timestamp(0))
        {
            self.remove(user);
        }
    }

    /// Forgets everybody who is no longer this node's. Their last seen is still written.
    pub fn keep(&mut self, owned: impl Fn(UserId) -> bool) {
        let lost: Vec<UserId> = self.people.keys().copied().filter(|user| !owned(*user)).collect();
        for user in lost {
            self.remove(user);
        }
    }

    /// Marks everything that is not written yet to be written, because the node is about to stop.
    pub fn write_all(&mut self) {
        for (user, person) in &mut self.people {
            person.write_if(person.last > person.written, *user, &mut self.writes);
        }
    }

    /// Takes at most `max` people's last seen to be written now, in the order of their ids, so that two nodes that
    /// write the same people do not deadlock.
    pub fn take_writes(&mut self, max: usize) -> Vec<(UserId, Timestamp)> {
        let mut users: Vec<UserId> = self.writes.keys().copied().take(max).collect();
        users.sort_unstable();
        users
            .into_iter()
            .filter_map(|user| Some((user, self.writes.remove(&user)?)))
            .collect()
    }

    /// Puts back times that could not be written. If a newer time of a person waits already, that one is kept.
    pub fn put_back(&mut self, writes: Vec<(UserId, Timestamp)>) {
        for (user, at) in writes {
            let newest = self.writes.entry(user).or_default();
            *newest = at.max(*newest);
        }
    }

    /// Returns the number of people whose last seen waits to be written.
    pub fn unwritten(&self) -> usize {
        self.writes.len()
    }

    /// Returns the number of people of whom something is known.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Returns whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// Forgets the person, and has their last seen written if it is not.
    fn remove(&mut self, user: UserId) {
        if let Some(mut person) = self.people.remove(&user) {
            self.expiries.remove(&(person.place, user));
            person.write_if(person.last > person.written, user, &mut self.writes);
        }
    }
}

impl Person {
    fn presence(&self) -> Presence {
        if self.until > Timestamp(0) {
            Presence::Online
        } else {
            Presence::LastSeen(self.last)
        }
    }

    /// Gives the person a place that is due when they go offline or sooner, unless they have such a place. Takes the
    /// place of a person who is offline.
    fn take_place(&mut self, user: UserId, expiries: &mut BTreeSet<(Timestamp, UserId)>) {
        if self.place == Timestamp(0) || self.place > self.until {
            expiries.remove(&(self.place, user));
            self.place = self.until;
            if self.place > Timestamp(0) {
                expiries.insert((self.place, user));
            }
        }
    }

    /// Queues last seen to be written if it is `due` and there is room.
    fn write_if(&mut self, due: bool, user: UserId, writes: &mut HashMap<UserId, Timestamp>) {
        debug_assert!(
            self.written <= self.last,
            "no later time was written than the last one"
        );
        let room = writes.len() < MAX_UNWRITTEN || writes.contains_key(&user);
        if due && room {
            self.written = self.last;
            let newest = writes.entry(user).or_default();
            *newest = self.last.max(*newest);
        }
    }
}

#[cfg(test)]
mod tests;
