//! Decides which gateways are told of which people. The code is pure.
//!
//! A gateway watches a person at most once, however many of its sessions look at the person. When the person's state
//! changes, only the person's id waits for the gateway, at most once; when the gateway takes it, it gets the state as
//! it is then. So a slow gateway misses states in between, but never the last one, and costs no other gateway
//! anything.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use tern_types::UserId;

/// The id of one watch stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchLink(pub u64);

/// The watches of all streams, and what waits for each stream.
#[derive(Debug, Default)]
pub struct Watches {
    /// The streams on which each person is watched.
    watchers: HashMap<UserId, Vec<WatchLink>>,
    links: HashMap<WatchLink, Line>,
    /// The number of watches on all streams.
    count: usize,
}

/// The watches of one stream, and what waits for its gateway.
#[derive(Debug, Default)]
struct Line {
    /// The people who are watched on the stream.
    users: HashSet<UserId>,
    /// The people of `users` whose state changed since the gateway took it, each once, in the order of the changes.
    changed: BTreeMap<u64, UserId>,
    /// The places of the same people in `changed`.
    waiting: HashMap<UserId, u64>,
    /// The number of changes that have got a place until now.
    changes: u64,
    /// The people whose slots belong to other nodes, which the gateway is to be told.
    foreign: Vec<UserId>,
}

impl Watches {
    /// Opens a watch stream without watches.
    pub fn open(&mut self, link: WatchLink) {
        self.links.entry(link).or_default();
    }

    /// Closes the stream and ends its watches. Returns the people whom nobody watches any more.
    pub fn close(&mut self, link: WatchLink) -> Vec<UserId> {
        let users = self
            .links
            .remove(&link)
            .map(|line| line.users)
            .unwrap_or_default();
        let mut alone = Vec::new();
        for user in users {
            self.drop_watcher(link, user, &mut alone);
        }
        alone
    }

    /// Watches the person on this stream. The person's state is due, even if the person was watched before. Does
    /// nothing if the stream is not open.
    pub fn watch(&mut self, link: WatchLink, user: UserId) {
        let Some(line) = self.links.get_mut(&link) else {
            return;
        };
        if line.users.insert(user) {
            self.watchers.entry(user).or_default().push(link);
            self.count += 1;
        }
        line.note(user);
    }

    /// Ends a watch. Returns `true` if it was the last watch of the person.
    pub fn unwatch(&mut self, link: WatchLink, user: UserId) -> bool {
        let mut alone = Vec::new();
        if let Some(line) = self.links.get_mut(&link)
            && line.unwatch(user)
        {
            self.drop_watcher(link, user, &mut alone);
        }
        !alone.is_empty()
    }

    /// Notes that the person's slot belongs to another node, so that the gateway is told.
    pub fn refuse(&mut self, link: WatchLink, user: UserId) {
        if let Some(line) = self.links.get_mut(&link) {
            line.foreign.push(user);
        }
    }

    /// Notes that the person's state has changed. Returns the streams that have something to take now.
    pub fn changed(&mut self, user: UserId) -> &[WatchLink] {
        let Some(watchers) = self.watchers.get(&user) else {
            return &[];
        };
        for link in watchers {
            if let Some(line) = self.links.get_mut(link) {
                line.note(user);
            }
        }
        watchers
    }

    /// Returns whether any gateway watches the person.
    pub fn is_watched(&self, user: UserId) -> bool {
        self.watchers.contains_key(&user)
    }

    /// Takes what waits for the stream: at most `max` people whose state is due, and all people who belong to other
    /// nodes. If there are fewer than `max` people, nobody waits any more.
    pub fn take(&mut self, link: WatchLink, max: usize) -> (Vec<UserId>, Vec<UserId>) {
        let Some(line) = self.links.get_mut(&link) else {
            return Default::default();
        };
        let mut due = Vec::with_capacity(line.changed.len().min(max));
        while due.len() < max
            && let Some((_, user)) = line.changed.pop_first()
        {
            line.waiting.remove(&user);
            due.push(user);
        }
        line.check();
        (due, std::mem::take(&mut line.foreign))
    }

    /// Ends the watches of people who are no longer this node's, and notes that for their gateways. Returns the
    /// streams that have something to take now.
    pub fn keep(&mut self, owned: impl Fn(UserId) -> bool) -> Vec<WatchLink> {
        let lost: Vec<UserId> = self
            .watchers
            .keys()
            .copied()
            .filter(|user| !owned(*user))
            .collect();
        let mut told = Vec::new();
        for user in lost {
            for link in self.watchers.remove(&user).unwrap_or_default() {
                if let Some(line) = self.links.get_mut(&link) {
                    line.unwatch(user);
                    line.foreign.push(user);
                    self.count -= 1;
                    told.push(link);
                }
            }
        }
        told.sort_unstable();
        told.dedup();
        told
    }

    /// Returns the number of watches on all streams.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no watches.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes a watcher, and adds the person to `alone` if it was the last one.
    fn drop_watcher(&mut self, link: WatchLink, user: UserId, alone: &mut Vec<UserId>) {
        self.count -= 1;
        if let Some(watchers) = self.watchers.get_mut(&user) {
            debug_assert!(watchers.contains(&link), "both indexes have the watch");
            watchers.retain(|watcher| *watcher != link);
            if watchers.is_empty() {
                self.watchers.remove(&user);
                alone.push(user);
            }
        }
    }
}

impl Line {
    /// Notes that the person's state is due on this stream.
    fn note(&mut self, user: UserId) {
        if let Entry::Vacant(place) = self.waiting.entry(user) {
            self.changes += 1;
            place.insert(self.changes);
            self.changed.insert(self.changes, user);
        }
        self.check();
    }

    /// Ends the watch of the person, whose state is not due any more. Returns false if the person was not watched.
    fn unwatch(&mut self, user: UserId) -> bool {
        if let Some(place) = self.waiting.remove(&user) {
            self.changed.remove(&place);
        }
        self.check();
        self.users.remove(&user)
    }

    fn check(&self) {
        debug_assert_eq!(
            self.changed.len(),
            self.waiting.len(),
            "both indexes have the same people"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WatchLink = WatchLink(1);
    const OTHER: WatchLink = WatchLink(2);

    fn two() -> (Watches, UserId) {
        let mut watches = Watches::default();
        watches.open(ONE);
        watches.open(OTHER);
        (watches, UserId::random())
    }

    #[test]
    fn many_changes_wait_as_one_and_a_slow_link_holds_up_no_other() {
        let (mut watches, user) = two();
        for link in [ONE, OTHER] {
            watches.watch(link, user);
        }
        assert_eq!(watches.take(ONE, 9).0, [user], "the state at the start");
        for _ in 0..1000 {
            assert_eq!(watches.changed(user), [ONE, OTHER]);
        }
        assert_eq!(watches.take(ONE, 9).0, [user]);
        assert!(watches.take(ONE, 9).0.is_empty());
        assert_eq!(watches.take(OTHER, 9).0, [user]);
    }

    #[test]
    fn who_is_watched_no_longer_is_not_told_of_and_the_last_watcher_says_so() {
        let (mut watches, user) = two();
        watches.watch(ONE, user);
        watches.watch(OTHER, user);
        assert!(!watches.unwatch(ONE, user));
        assert!(watches.take(ONE, 9).0.is_empty());
        assert!(!watches.unwatch(ONE, user), "once only");
        assert!(watches.is_watched(user));
        assert_eq!(watches.close(OTHER), [user]);
        assert!(!watches.is_watched(user) && watches.is_empty());
        assert!(watches.changed(user).is_empty());
    }

    #[test]
    fn watches_of_slots_that_left_are_given_back() {
        let (mut watches, user) = two();
        let stays = UserId::random();
        watches.watch(ONE, user);
        watches.watch(ONE, stays);
        watches.watch(OTHER, stays);
        assert_eq!(watches.keep(|user| user == stays), [ONE]);
        assert_eq!(watches.take(ONE, 9), (vec![stays], vec![user]));
        assert_eq!(watches.take(OTHER, 9), (vec![stays], vec![]));
        assert_eq!(watches.len(), 2);
    }

    #[test]
    fn watching_again_gives_the_state_again_and_a_frame_takes_no_more_than_asked() {
        let (mut watches, _) = two();
        let users: Vec<UserId> = (0..5).map(|_| UserId::random()).collect();
        users.iter().for_each(|user| watches.watch(ONE, *user));
        assert_eq!(watches.take(ONE, 3).0, users[..3]);
        assert_eq!(watches.take(ONE, 3).0, users[3..]);
        watches.watch(ONE, users[0]);
        assert_eq!(watches.take(ONE, 3).0, users[..1]);
        assert_eq!(watches.len(), 5);
    }

    #[test]
    fn people_who_were_unwatched_take_no_room_in_a_frame_nor_in_memory() {
        let (mut watches, user) = two();
        for _ in 0..1000 {
            let gone = UserId::random();
            watches.watch(ONE, gone);
            watches.unwatch(ONE, gone);
        }
        assert!(watches.links[&ONE].changed.is_empty());
        watches.watch(ONE, user);
        assert_eq!(watches.take(ONE, 1).0, [user]);
        assert!(watches.take(ONE, 1).0.is_empty());
    }
}
