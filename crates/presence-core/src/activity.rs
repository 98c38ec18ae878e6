//! Decides who is online, and when people were last active. The code is pure: time comes in as an argument.
//!
//! A sign is a gateway's message that a person is at a device, or has left it. The newest signs over all of a
//! person's devices decide: the person is online while one device is active and its sign is younger than the
//! threshold, and was last seen at the newest sign otherwise. The age of a sign is measured with clocks that nobody
//! sets: the gateway's monotonic clock until it makes the frame, and this node's monotonic clock from then on. The
//! time that last seen shows is the gateway's wall clock, but never later than this node's.
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
pub const WRITE_EVERY: Duration = Duration::from_secs(300);
/// The most people whose last seen waits to be written while the store is away; that is some 50 MiB. For people beyond
/// that, last seen is not written until their next sign. Only a batch that could not be written is put back even then.
pub const MAX_UNWRITTEN: usize = 1_000_000;

/// The newest sign of one session. The default value says that there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sign {
    /// True if the person is at the device, false if they have left it.
    pub active: bool,
    /// The time at which the sign was made, by the wall clock. Zero if there was no sign.
    pub at: Timestamp,
    /// The time at which the sign was made, in this node's monotonic time.
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
    /// True while the person has a place in [`Activity::expiries`]. A place that was left when the person was forgotten
    /// does not count.
    queued: bool,
}

/// The activity of all people: who is online, when each person was last seen, and what of it has to be written.
#[derive(Debug)]
pub struct Activity {
    threshold: Duration,
    people: HashMap<UserId, Person>,
    /// The monotonic times at which to check whether a person is still online. A place has the time until which the
    /// person was online when it was made, and is moved when it is due. So it is too early after later signs, and too
    /// late if the newest sign has ended with its session. [`Self::remove`] leaves the place of a person behind.
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
            if sign.active {
                until = until.max(sign.heard + self.threshold);
            }
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
        if person.until > Timestamp(0) && !person.queued {
            person.queued = self.expiries.insert((person.until, user));
        }
        person.presence() != before
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
            person.queued = person.until > now && self.expiries.insert((person.until, user));
            if !person.queued && person.until > Timestamp(0) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLD: Duration = Duration::from_secs(30);
    const START: Timestamp = Timestamp(1_000_000);

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    fn sign(active: bool, seconds: u64) -> Sign {
        arrival(seconds).sign(active, at(seconds), at(seconds))
    }

    /// An arrival at which all clocks are right.
    fn arrival(seconds: u64) -> Arrival {
        let now = at(seconds);
        Arrival {
            gateway: now,
            now,
            wall: now,
        }
    }

    /// One person. The store has been asked about them and has nothing.
    struct One {
        activity: Activity,
        user: UserId,
    }

    impl One {
        fn new() -> Self {
            let (mut activity, user) = (Activity::new(THRESHOLD), UserId::random());
            activity.stored(user, None);
            Self { activity, user }
        }

        fn signs(&mut self, signs: &[Sign], now: u64) -> bool {
            self.activity.signs(self.user, signs.iter().copied(), at(now))
        }

        fn presence(&self) -> Option<Presence> {
            self.activity.presence(self.user)
        }

        fn writes(&mut self) -> Vec<Timestamp> {
            let writes = self.activity.take_writes(10);
            writes.into_iter().map(|(_, at)| at).collect()
        }
    }

    #[test]
    fn a_person_is_online_for_the_threshold_after_each_sign_and_last_seen_at_the_newest() {
        let mut one = One::new();
        assert!(one.signs(&[sign(true, 0)], 0));
        assert_eq!(one.presence(), Some(Presence::Online));
        assert!(!one.signs(&[sign(true, 20)], 20), "nothing else is shown");
        assert!(one.activity.expire(at(31)).is_empty());
        assert_eq!(one.activity.expire(at(50)), [one.user]);
        assert_eq!(one.presence(), Some(Presence::LastSeen(at(20))));
        assert!(one.activity.expire(at(99)).is_empty());
    }

    #[test]
    fn who_leaves_is_offline_at_once_unless_another_device_is_active() {
        let mut one = One::new();
        one.signs(&[sign(true, 0), sign(true, 5)], 5);
        assert!(!one.signs(&[sign(true, 0), sign(false, 9)], 9));
        assert!(one.signs(&[sign(false, 10), sign(false, 9)], 10));
        assert_eq!(one.presence(), Some(Presence::LastSeen(at(10))));
        assert!(!one.signs(&[], 11), "sessions that end move nothing");
        assert_eq!(one.presence(), Some(Presence::LastSeen(at(10))));
    }

    /// Announces a sign of second 10 again 5 s later, from a gateway whose wall clock may be wrong.
    #[test]
    fn whatever_a_gateways_clock_shows_people_are_online_for_the_threshold() {
        for (gateway_wall, last_seen) in [
            (at(10), at(10)),
            (at(500), at(10)),
            (START - THRESHOLD * 9, START - THRESHOLD * 9),
        ] {
            let mut one = One::new();
            // The gateway's monotonic clock has begun at another time, and this node's wall clock is right.
            let own = |seconds| Timestamp(7_000) + Duration::from_secs(seconds);
            let announced = |now| Arrival {
                gateway: own(now),
                ..arrival(now)
            };
            let first = announced(10).sign(true, gateway_wall, own(10));
            assert!(one.signs(&[first], 10));
            let again = announced(15).sign(true, first.at, own(10));
            assert_eq!(
                again.heard, first.heard,
                "the time on the way counts, nothing else"
            );
            one.signs(&[again], 15);
            assert!(one.activity.expire(at(39)).is_empty());
            assert_eq!(one.activity.expire(at(40)), [one.user]);
            assert_eq!(one.presence(), Some(Presence::LastSeen(last_seen)));
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_back_here_keeps_nobody_online() {
        let mut one = One::new();
        let set_back = Arrival {
            wall: START - THRESHOLD * 9,
            ..arrival(5)
        };
        assert!(one.signs(&[set_back.sign(true, at(5), at(5))], 5));
        assert_eq!(one.activity.expire(at(35)), [one.user]);
    }

    #[test]
    fn last_seen_is_written_on_leaving_and_every_five_minutes_and_not_on_coming() {
        let mut one = One::new();
        for second in (0..1000).step_by(10) {
            one.signs(&[sign(true, second)], second);
            let expected = if second > 0 && second % 300 == 0 {
                vec![at(second)]
            } else {
                Vec::new()
            };
            assert_eq!(one.writes(), expected, "after {second} s");
        }
        one.signs(&[sign(false, 995)], 995);
        assert_eq!(one.writes(), [at(995)]);
        one.signs(&[], 996);
        one.activity.release(one.user);
        assert!(one.writes().is_empty(), "it is written already");
    }

    #[test]
    fn what_is_not_written_is_when_the_node_stops_or_loses_the_slot_and_again_when_it_failed() {
        let mut one = One::new();
        one.signs(&[sign(true, 7)], 7);
        one.activity.write_all();
        let writes = one.activity.take_writes(10);
        assert_eq!(writes, [(one.user, at(7))]);
        one.activity.put_back(writes);
        one.signs(&[sign(true, 8)], 8);
        one.activity.keep(|_| false);
        assert!(one.activity.is_empty());
        assert_eq!(one.writes(), [at(8)], "the newest only");
    }

    #[test]
    fn before_the_store_was_asked_only_online_is_known() {
        let (mut activity, user) = (Activity::new(THRESHOLD), UserId::random());
        assert_eq!(activity.presence(user), None);
        activity.signs(user, [sign(true, 1)].into_iter(), at(1));
        assert_eq!(activity.presence(user), Some(Presence::Online));
        activity.signs(user, [sign(false, 2)].into_iter(), at(2));
        assert_eq!(activity.presence(user), None, "the store may know of later");
        assert!(activity.stored(user, Some(at(3))));
        assert_eq!(activity.presence(user), Some(Presence::LastSeen(at(3))));
        assert!(!activity.stored(user, Some(at(1))));
    }

    proptest! {
        /// Compares with the definition: a person is online if and only if a session is active whose sign is younger
        /// than the threshold.
        #[test]
        fn whatever_happens_the_newest_sign_over_all_devices_counts(
            steps in prop::collection::vec((0usize..3, any::<bool>(), 0u64..20, any::<bool>()), 1..80),
        ) {
            let mut one = One::new();
            let (mut sessions, mut now, mut newest) = ([Sign::default(); 3], 0, Timestamp(0));
            for (device, active, pause, ends) in steps {
                now += pause;
                let gone = one.activity.expire(at(now));
                prop_assert!(gone.is_empty() || one.presence() != Some(Presence::Online));
                sessions[device] = if ends { Sign::default() } else { sign(active, now) };
                newest = newest.max(sessions[device].at);
                one.signs(&sessions, now);
                let online = sessions
                    .iter()
                    .any(|sign| sign.active && sign.at > Timestamp(0) && sign.at + THRESHOLD > at(now));
                let expected = if online { Presence::Online } else { Presence::LastSeen(newest) };
                prop_assert_eq!(one.presence(), Some(expected));
                let waits = one.activity.next_expiry();
                prop_assert_eq!(online && waits.is_none(), false, "who is online will be looked at");
            }
        }
    }
}
