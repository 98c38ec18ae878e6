//! This module is the hub's part for watch streams and for last seen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tern_types::{Clock, Timestamp, UserId};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use tern_presence_core::activity::Presence;
use tern_presence_core::people::News;
use tern_presence_core::registry::{Gateway, NotOwner};
use tern_presence_core::watches::WatchLink;

use super::Hub;
use crate::metrics;

/// The longest time that [`Hub::keep_time`] sleeps.
const IDLE: Duration = Duration::from_secs(10);
/// The shortest time that [`Hub::keep_time`] sleeps unless it is notified, so that one tick serves many people.
const PAUSE: Duration = Duration::from_millis(20);

/// The hub's end of a watch stream.
pub(super) struct WatchEnd {
    gateway: Arc<str>,
    pub(super) news: Arc<Notify>,
    ended: CancellationToken,
}

/// The stream's end of a watch stream. Dropping it ends its watches.
pub struct WatchGuard {
    hub: Arc<Hub>,
    id: WatchLink,
    /// Notified when there may be something to take.
    pub news: Arc<Notify>,
    /// Cancelled when a newer stream of the gateway has taken over.
    pub ended: CancellationToken,
}

impl Hub {
    /// Opens a watch stream of the gateway, and ends an older one.
    pub fn open_watch(self: &Arc<Self>, gateway: &Gateway) -> WatchGuard {
        let (news, ended) = (Arc::new(Notify::new()), CancellationToken::new());
        let mut state = self.lock();
        for older in state.watches.values().filter(|end| end.gateway == gateway.name) {
            older.ended.cancel();
        }
        state.last_link += 1;
        let id = WatchLink(state.last_link);
        state.people.open_watch(id);
        let end = WatchEnd {
            gateway: gateway.name.clone(),
            news: news.clone(),
            ended: ended.clone(),
        };
        state.watches.insert(id, end);
        WatchGuard {
            hub: self.clone(),
            id,
            news,
            ended,
        }
    }

    /// Takes the store's answer about the users in `asked`.
    pub fn stored(&self, asked: &[UserId], found: &HashMap<UserId, Timestamp>) {
        let mut state = self.lock();
        let effects = state.people.stored(asked, found);
        let _ = state.perform(effects);
    }

    /// Takes note that the store was away when it was asked about the users in `asked`.
    pub fn store_was_away(&self, asked: &[UserId]) {
        let mut state = self.lock();
        let effects = state.people.store_was_away(asked);
        let _ = state.perform(effects);
    }

    /// Returns at most `max` people of whom the store has to be asked again, because it was away.
    pub fn to_read_again(&self, max: usize) -> Vec<UserId> {
        self.lock().people.to_read_again(max)
    }

    /// Returns the state of each user as far as it is known in memory, once this node may be expected to know all
    /// sessions of its slots. `None` means that the store has to be asked. `Err` if one of the users belongs to
    /// another node.
    pub async fn presences(&self, users: &[UserId]) -> Result<Vec<Option<Presence>>, NotOwner> {
        let unsettled = self.lock().people.unsettled_for(users, Clock::monotonic());
        tokio::time::sleep(unsettled).await;
        self.lock().people.presences(users)
    }

    /// Ticks whenever something is due. Runs until it is dropped.
    pub async fn keep_time(&self) {
        loop {
            let next = self.lock().people.next_tick();
            let wait = next.map_or(IDLE, |at| at.since(Clock::monotonic()).clamp(PAUSE, IDLE));
            let _sooner = timeout(wait, self.due_sooner.notified()).await;
            self.tick();
        }
    }

    /// Takes at most `max` people's last seen to be written.
    pub fn take_writes(&self, max: usize) -> Vec<(UserId, Timestamp)> {
        self.lock().people.activity().take_writes(max)
    }

    /// Puts back times that could not be written.
    pub fn put_back(&self, writes: Vec<(UserId, Timestamp)>) {
        self.lock().people.activity().put_back(writes);
    }

    /// Marks everything that is not written yet to be written, because the node is about to stop.
    pub fn write_all(&self) {
        self.lock().people.activity().write_all();
    }

    /// Returns the number of people whose last seen waits to be written.
    pub fn unwritten(&self) -> usize {
        self.lock().people.activity().unwritten()
    }
}

impl WatchGuard {
    /// Begins watches. Returns the people of whom the store has to be asked.
    pub fn watch(&self, users: &[UserId]) -> Vec<UserId> {
        let mut state = self.hub.lock();
        let unknown = state.people.watch(self.id, users);
        metrics::watches(state.people.watches());
        drop(state);
        self.news.notify_one();
        unknown
    }

    /// Ends watches.
    pub fn unwatch(&self, users: &[UserId]) {
        let mut state = self.hub.lock();
        state.people.unwatch(self.id, users);
        metrics::watches(state.people.watches());
    }

    /// Takes the news of the stream: at most `max` states, and all people who belong to other nodes. If there is none,
    /// nothing waits any more.
    pub fn take(&self, max: usize) -> News {
        let mut state = self.hub.lock();
        let before = state.people.next_tick();
        let news = state.people.take(self.id, max, Clock::monotonic());
        if state.people.next_tick() != before {
            self.hub.due_sooner.notify_one();
        }
        news
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.watches.remove(&self.id);
        state.people.close_watch(self.id);
        metrics::watches(state.people.watches());
    }
}
