//! Who is to be told of whom. Pure.
//!
//! A watch is one of a gateway for a person, however many sessions there look at them. What changed waits as the
//! person's name only, once for each gateway: whenever the gateway takes more, it gets the state as it is then. So a
//! gateway that is slow misses steps in between, and never the last one, and costs nobody else anything.

use std::collections::{HashMap, HashSet, VecDeque};

use tern_types::UserId;

/// Names one watch stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchLink(pub u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Watches {
    watchers: HashMap<UserId, Vec<WatchLink>>,
    links: HashMap<WatchLink, Line>,
    count: usize,
}

#[derive(Debug, Default)]
struct Line {
    users: HashSet<UserId>,
    /// Changed since they were taken, in order, each once.
    changed: VecDeque<UserId>,
    waiting: HashSet<UserId>,
    /// Asked for or watched, and another node's.
    foreign: Vec<UserId>,
}

impl Watches {
    pub fn open(&mut self, link: WatchLink) {
        self.links.entry(link).or_default();
    }

    /// Its watches end. Those whom nobody watches any more.
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

    /// The person's state is due on this link, also where it is watched already.
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

    /// True: nobody watches the person any more.
    pub fn unwatch(&mut self, link: WatchLink, user: UserId) -> bool {
        let mut alone = Vec::new();
        if let Some(line) = self.links.get_mut(&link)
            && line.users.remove(&user)
        {
            self.drop_watcher(link, user, &mut alone);
        }
        !alone.is_empty()
    }

    /// Somebody else's: the gateway is to be told.
    pub fn refuse(&mut self, link: WatchLink, user: UserId) {
        if let Some(line) = self.links.get_mut(&link) {
            line.foreign.push(user);
        }
    }

    /// The person shows something else. Which links have something to take now.
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

    pub fn is_watched(&self, user: UserId) -> bool {
        self.watchers.contains_key(&user)
    }

    /// At most `max` people of whom the link is to be told, and all that are others'.
    pub fn take(&mut self, link: WatchLink, max: usize) -> (Vec<UserId>, Vec<UserId>) {
        let Some(line) = self.links.get_mut(&link) else {
            return Default::default();
        };
        let count = line.changed.len().min(max);
        let changed: Vec<UserId> = line.changed.drain(..count).collect();
        let mut known = Vec::with_capacity(changed.len());
        for user in changed {
            // Who is watched no longer is told of no longer.
            if line.waiting.remove(&user) && line.users.contains(&user) {
                known.push(user);
            }
        }
        (known, std::mem::take(&mut line.foreign))
    }

    /// Keeps watches of this node's people; the gateways are told of the others. The links with something to take.
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
                    line.users.remove(&user);
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

    /// Watches over all links.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn drop_watcher(&mut self, link: WatchLink, user: UserId, alone: &mut Vec<UserId>) {
        self.count -= 1;
        if let Some(watchers) = self.watchers.get_mut(&user) {
            watchers.retain(|watcher| *watcher != link);
            if watchers.is_empty() {
                self.watchers.remove(&user);
                alone.push(user);
            }
        }
    }
}

impl Line {
    fn note(&mut self, user: UserId) {
        if self.waiting.insert(user) {
            self.changed.push_back(user);
        }
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
}
