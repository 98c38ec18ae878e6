//! Decides which chat nodes are told that a user's sessions have changed. The code is pure.
//!
//! A chat node that has looked a user up may use the answer again for as long as it follows the user. The first change of
//! the user's sessions ends that: the user waits for the chat node, which forgets the answer when it hears of it, and
//! looks the user up again when there is something to push.

use std::collections::HashMap;

use tern_types::{IdMap, IdSet, UserId};

/// The most users who are followed on one stream: 65,536. A chat node looks up the others each time.
pub const MAX_FOLLOWED: usize = 65_536;

/// The id of one stream of look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FollowLink(pub u64);

/// The followed users of all streams, and what waits for each stream.
#[derive(Debug, Default)]
pub struct Follows {
    /// The streams on which each user is followed. No list is empty.
    followers: IdMap<UserId, Vec<FollowLink>>,
    links: HashMap<FollowLink, Line>,
}

/// One stream.
#[derive(Debug, Default)]
struct Line {
    /// The users who are followed on the stream.
    followed: IdSet<UserId>,
    ended: Ended,
}

/// The users who are not followed on a stream any more.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Users whose sessions have changed.
    pub users: Vec<UserId>,
    /// True if nobody is followed any more who was followed until now.
    pub all: bool,
}

impl Ended {
    /// Returns whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && !self.all
    }
}

impl Follows {
    /// Opens a stream, on which nobody is followed.
    pub fn open(&mut self, link: FollowLink) {
        self.links.entry(link).or_default();
    }

    /// Closes a stream, and ends what is followed on it.
    pub fn close(&mut self, link: FollowLink) {
        self.unfollow_all(link);
        self.links.remove(&link);
    }

    /// Follows these users on this stream, or none of them. Returns whether they are followed: they are not if the stream
    /// is not open, or has no room for all of them beside [`MAX_FOLLOWED`].
    pub fn follow(&mut self, link: FollowLink, users: &[UserId]) -> bool {
        let Some(line) = self.links.get_mut(&link) else {
            return false;
        };
        // A chat node that is told that not all are followed would never give up those who are.
        if line.followed.len() + users.len() > MAX_FOLLOWED {
            return false;
        }
        for user in users {
            if line.followed.insert(*user) {
                self.followers.entry(*user).or_default().push(link);
            }
        }
        true
    }

    /// Stops following all users on this stream, because its chat node begins anew.
    pub fn unfollow_all(&mut self, link: FollowLink) {
        let line = self.links.get_mut(&link);
        for user in line
            .map(|line| std::mem::take(&mut line.followed))
            .unwrap_or_default()
        {
            if let Some(links) = self.followers.get_mut(&user) {
                debug_assert!(links.contains(&link), "both indexes have the user");
                links.retain(|follower| *follower != link);
                if links.is_empty() {
                    self.followers.remove(&user);
                }
            }
        }
    }

    /// Notes that the user's sessions have changed, which ends that the user is followed. Returns the streams that have
    /// something to take now.
    pub fn changed(&mut self, user: UserId) -> Vec<FollowLink> {
        let links = self.followers.remove(&user).unwrap_or_default();
        for link in &links {
            if let Some(line) = self.links.get_mut(link) {
                line.end(user);
            }
        }
        links
    }

    /// Ends everything that is followed. Returns the streams that have something to take now.
    pub fn end_all(&mut self) -> Vec<FollowLink> {
        self.followers.clear();
        let followed = self
            .links
            .iter_mut()
            .filter(|(_, line)| !line.followed.is_empty());
        followed
            .map(|(link, line)| {
                line.end_all();
                *link
            })
            .collect()
    }

    /// Takes what waits for the stream.
    pub fn take(&mut self, link: FollowLink) -> Ended {
        let line = self.links.get_mut(&link);
        line.map(|line| std::mem::take(&mut line.ended))
            .unwrap_or_default()
    }

    /// Returns the number of users who are followed, on any stream.
    pub fn users(&self) -> usize {
        self.followers.len()
    }
}

impl Line {
    /// Notes that the user is not followed any more. A stream for which too many users wait is told that nobody is.
    fn end(&mut self, user: UserId) {
        let was_followed = self.followed.remove(&user);
        debug_assert!(was_followed, "both indexes have the user");
        self.ended.users.push(user);
        if self.ended.users.len() > MAX_FOLLOWED {
            self.ended = Ended {
                users: Vec::new(),
                all: true,
            };
        }
    }

    fn end_all(&mut self) {
        self.followed.clear();
        self.ended = Ended {
            users: Vec::new(),
            all: true,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: FollowLink = FollowLink(1);
    const OTHER: FollowLink = FollowLink(2);

    fn two() -> (Follows, UserId) {
        let mut follows = Follows::default();
        follows.open(ONE);
        follows.open(OTHER);
        (follows, UserId::random())
    }

    fn changed(users: &[UserId]) -> Ended {
        Ended {
            users: users.to_vec(),
            all: false,
        }
    }

    #[test]
    fn the_first_change_is_told_to_each_follower_and_the_next_to_who_follows_again() {
        let (mut follows, user) = two();
        assert!(
            follows.follow(ONE, &[user]) && follows.follow(OTHER, &[user]) && follows.follow(ONE, &[user])
        );
        assert_eq!(follows.changed(user), [ONE, OTHER]);
        assert!(follows.changed(user).is_empty(), "nobody follows any more");
        assert_eq!(follows.take(ONE), changed(&[user]));
        assert!(follows.take(ONE).is_empty());
        assert!(follows.follow(ONE, &[user]));
        assert_eq!(follows.changed(user), [ONE]);
        assert_eq!(follows.take(OTHER), changed(&[user]));
    }

    #[test]
    fn who_stops_following_or_has_gone_is_not_told() {
        let (mut follows, user) = two();
        assert!(follows.follow(ONE, &[user]) && follows.follow(OTHER, &[user]));
        follows.unfollow_all(ONE);
        follows.unfollow_all(ONE);
        follows.close(OTHER);
        assert_eq!(follows.users(), 0);
        assert!(follows.changed(user).is_empty() && follows.take(ONE).is_empty());
        assert!(!follows.follow(OTHER, &[user]), "the stream is closed");
    }

    #[test]
    fn when_the_map_has_changed_all_are_told_who_follow_anybody() {
        let (mut follows, user) = two();
        assert!(follows.follow(ONE, &[user]));
        assert_eq!(follows.end_all(), [ONE]);
        assert!(follows.take(ONE).all);
        assert!(follows.changed(user).is_empty());
        assert!(follows.end_all().is_empty(), "once");
    }

    #[test]
    fn a_stream_follows_a_bounded_number_and_a_change_makes_room() {
        let (mut follows, first) = two();
        assert!(follows.follow(ONE, &[first]));
        let others: Vec<UserId> = (2..MAX_FOLLOWED).map(|_| UserId::random()).collect();
        assert!(follows.follow(ONE, &others));
        let [last, next] = [UserId::random(), UserId::random()];
        assert!(!follows.follow(ONE, &[last, next]), "there is no room for both");
        assert!(follows.follow(ONE, &[last]), "so neither has taken it");
        assert!(!follows.follow(ONE, &[next]));
        assert!(follows.follow(OTHER, &[next]), "the other stream has room");
        follows.changed(first);
        assert!(follows.follow(ONE, &[next]));
    }
}
