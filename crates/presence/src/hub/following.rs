//! The hub's part for streams of look-ups, on which chat nodes follow users.

use std::sync::Arc;

use tern_types::UserId;
use tokio::sync::Notify;

use tern_presence_core::follows::{Ended, FollowLink};
use tern_presence_core::registry::{NotOwner, Session};

use super::Hub;
use crate::metrics;

/// The stream's end of a stream of look-ups. Dropping it ends what is followed on it.
pub struct FollowGuard {
    hub: Arc<Hub>,
    id: FollowLink,
    /// Notified when there may be something to take.
    pub news: Arc<Notify>,
}

/// The facts that a look-up found out beyond the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedUp {
    /// True if it is sure that the sessions are all.
    pub sure: bool,
    /// True if the users are followed now, all of them.
    pub followed: bool,
}

impl Hub {
    /// Opens a stream of look-ups, on which nobody is followed.
    pub fn open_follow(self: &Arc<Self>) -> FollowGuard {
        let news = Arc::new(Notify::new());
        let mut state = self.lock();
        state.last_link += 1;
        let id = FollowLink(state.last_link);
        state.people.open_follow(id);
        state.follows.insert(id, news.clone());
        FollowGuard {
            hub: self.clone(),
            id,
            news,
        }
    }
}

impl FollowGuard {
    /// Calls `found` for every live session of the users. With `follow` the users are followed from this moment on, if
    /// it is sure that these are all. Returns `Err`, without any call, if one of the users belongs to another node.
    pub fn look_up(
        &self,
        users: &[UserId],
        follow: bool,
        found: impl FnMut(&Session),
    ) -> Result<LookedUp, NotOwner> {
        let mut state = self.hub.lock();
        let sure = state.look_up(users, found)?;
        let followed = follow && sure && state.people.follow(self.id, users);
        metrics::followed(state.people.followed());
        Ok(LookedUp { sure, followed })
    }

    /// Stops following all users.
    pub fn unfollow_all(&self) {
        let mut state = self.hub.lock();
        state.people.unfollow_all(self.id);
        metrics::followed(state.people.followed());
    }

    /// Takes the users who are not followed any more, because their sessions have changed.
    pub fn take(&self) -> Ended {
        let mut state = self.hub.lock();
        let ended = state.people.take_ended(self.id);
        metrics::followed(state.people.followed());
        ended
    }
}

impl Drop for FollowGuard {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.follows.remove(&self.id);
        state.people.close_follow(self.id);
        metrics::followed(state.people.followed());
    }
}
