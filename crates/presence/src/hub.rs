//! The [`Hub`] has the node's one registry, which all streams share.
//!
//! A frame is applied under one lock, in memory, without waiting for anything. What a gateway is to be told goes into
//! the bounded mailbox of its link. When the mailbox is full, the link is ended, and the gateway announces everything
//! on a new one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_cluster::map::{ClusterMap, Role};
use tern_types::{Clock, SessionId, Slot, UserId};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use tern_presence_core::follows::FollowLink;
use tern_presence_core::people::People;
use tern_presence_core::registry::{Effect, Event, Gateway, LinkId, NotOwner, Session, SlotSet};
use tern_presence_core::watches::WatchLink;

use crate::metrics;

/// The most replaced sessions that wait for a gateway to be told. If there are more, the gateway does not read its
/// replies: it loses its link, and hears of them again when it announces its sessions on the next one.
const REPLACED_MAILBOX: usize = 4096;

mod following;
#[cfg(test)]
mod tests;
mod watching;

pub use following::FollowGuard;
use watching::WatchEnd;
pub use watching::WatchGuard;

/// The state of a presence node, shared by all of its streams.
pub struct Hub {
    name: Arc<str>,
    incarnation: u64,
    /// The longest time that a frame waits for this node's map to catch up.
    map_wait: Duration,
    state: Mutex<State>,
    /// The version of the map that the registry follows.
    version: watch::Sender<i64>,
    /// Notified when the next time at which something is due may have changed.
    due_sooner: Notify,
}

/// The part of the hub that its lock guards.
struct State {
    people: People,
    links: HashMap<LinkId, LinkEnd>,
    watches: HashMap<WatchLink, WatchEnd>,
    /// The streams of look-ups. Each is notified when it has something to take.
    follows: HashMap<FollowLink, Arc<Notify>>,
    last_link: u64,
}

/// The hub's end of an announce stream.
struct LinkEnd {
    gateway: Gateway,
    replaced: mpsc::Sender<SessionId>,
    ended: CancellationToken,
}

/// The stream's end of a link. Dropping it unlinks the gateway.
pub struct LinkGuard {
    hub: Arc<Hub>,
    /// The gateway that opened the stream.
    pub gateway: Gateway,
    /// The id of the stream.
    pub id: LinkId,
    /// The gateway's sessions that newer ones have replaced.
    pub replaced: mpsc::Receiver<SessionId>,
    /// Cancelled when the hub wants the stream to end.
    pub ended: CancellationToken,
}

/// The memory of one stream that waiting for a newer map was in vain. The stream does not wait again while this node's
/// map has the same version, so a node whose map stands still answers at once.
#[derive(Default)]
pub struct Patience {
    /// The version that this node's map had when the stream last waited in vain.
    in_vain_at: Option<i64>,
}

impl Hub {
    /// Makes the hub of the node `name`, without any slots yet. A frame waits at most `map_wait` for this node's map to
    /// catch up. A person is online for `threshold` after each sign. Nobody is reported as offline for `hold_offline`
    /// after their slot has come to this node.
    pub fn new(
        name: Arc<str>,
        incarnation: u64,
        map_wait: Duration,
        threshold: Duration,
        hold_offline: Duration,
    ) -> Self {
        Self {
            name,
            incarnation,
            map_wait,
            state: Mutex::new(State::new(threshold, hold_offline)),
            due_sooner: Notify::new(),
            version: watch::Sender::new(0),
        }
    }

    /// Follows a newer map, then tells its version to all streams.
    pub fn follow(&self, map: &ClusterMap) {
        let mine = |slot: &Slot| {
            map.owner(Role::Presence, *slot)
                .is_some_and(|node| *node.name == *self.name && node.incarnation == self.incarnation)
        };
        let owned: SlotSet = Slot::all().filter(mine).collect();
        let gateways: HashSet<Gateway> = map
            .nodes(Role::Gateway)
            .iter()
            .map(|node| Gateway {
                name: node.name.as_str().into(),
                incarnation: node.incarnation,
            })
            .collect();
        tracing::debug!(
            version = map.version(),
            slots = owned.len(),
            gateways = gateways.len(),
            "map changed"
        );
        let mut state = self.lock();
        // This event belongs to no user, so it cannot be refused.
        let _ = state.apply(Event::MapChanged {
            map_version: map.version(),
            owned,
            gateways,
        });
        // People who have lost the session with their newest sign may go offline sooner.
        self.due_sooner.notify_one();
        metrics::sessions(state.people.registry().sessions());
        metrics::watches(state.people.watches());
        // The version is sent under the lock, so that whoever reads it finds the registry at least as new.
        self.version.send_replace(map.version());
    }

    /// Returns the number of gateways that have a link to this node.
    pub fn gateways(&self) -> u32 {
        let state = self.lock();
        let live = state.links.values().filter(|end| !end.ended.is_cancelled());
        let names: HashSet<&str> = live.map(|end| &*end.gateway.name).collect();
        u32::try_from(names.len()).unwrap_or(u32::MAX)
    }

    /// Does what is due by now: people go offline, watchers are told what was held back while slots were new, and stale
    /// sessions are removed.
    pub fn tick(&self) {
        let mut state = self.lock();
        let effects = state.people.tick(Clock::monotonic());
        let _ = state.perform(effects);
        let _ = state.apply(Event::Tick);
        metrics::sessions(state.people.registry().sessions());
    }

    /// Returns a receiver of the version of the map that the registry follows.
    pub fn version(&self) -> watch::Receiver<i64> {
        self.version.subscribe()
    }

    /// Waits until this node owns no slot.
    pub async fn handed_over(&self) {
        let mut version = self.version();
        while !self.lock().people.registry().owns_nothing() {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    /// Registers an announce stream of a gateway. An older stream of the gateway is ended.
    pub fn link(self: &Arc<Self>, gateway: Gateway) -> LinkGuard {
        let (sender, replaced) = mpsc::channel(REPLACED_MAILBOX);
        let ended = CancellationToken::new();
        let mut state = self.lock();
        state.last_link += 1;
        let id = LinkId(state.last_link);
        let end = LinkEnd {
            gateway: gateway.clone(),
            replaced: sender,
            ended: ended.clone(),
        };
        state.links.insert(id, end);
        let _ = state.apply(Event::Linked {
            gateway: gateway.clone(),
            link: id,
        });
        drop(state);
        LinkGuard {
            hub: self.clone(),
            gateway,
            id,
            replaced,
            ended,
        }
    }

    /// Applies the events of one frame. Returns for each event whether it was applied; `Err` means that its user's
    /// slot belongs to another node.
    pub fn announce(&self, events: impl IntoIterator<Item = Event>) -> Vec<Result<(), NotOwner>> {
        let mut state = self.lock();
        let before = state.people.next_tick();
        let mut announcements = 0;
        let apply = |event: Event| {
            announcements += usize::from(matches!(event, Event::Announced { .. } | Event::Ended { .. }));
            state.apply(event)
        };
        let taken: Vec<_> = events.into_iter().map(apply).collect();
        if state.people.next_tick() != before {
            self.due_sooner.notify_one();
        }
        if announcements > 0 {
            metrics::announcements(announcements);
        }
        metrics::sessions(state.people.registry().sessions());
        taken
    }

    /// Calls `found` for every live session of the user. Returns whether it is sure that these are all. Returns `Err`,
    /// without any call, if the user belongs to another node. It is for operators, and not counted as a look-up.
    pub fn sessions(&self, user: UserId, found: impl FnMut(&Session)) -> Result<bool, NotOwner> {
        self.lock().sessions(&[user], found)
    }

    /// Calls `found` for every live session of the users, and says of each whether the person is at it. Returns whether
    /// it is sure that these are all. Returns `Err`, without any call, if one of the users belongs to another node. It
    /// is for push nodes, and not counted as a look-up.
    pub fn active_sessions(
        &self,
        users: &[UserId],
        mut found: impl FnMut(&Session, bool),
    ) -> Result<bool, NotOwner> {
        let state = self.lock();
        let sessions = state.people.active_sessions(users, Clock::monotonic())?;
        sessions.for_each(|(session, active)| found(session, active));
        Ok(state.people.registry().is_sure(users))
    }

    /// Waits until this node follows the sender's map, if that is newer and if, by this node's own map, one of the
    /// users belongs to another node. It waits at most `map_wait`, and after a wait in vain not again for the same
    /// version of its own map.
    pub async fn catch_up(
        &self,
        sender_version: i64,
        users: impl IntoIterator<Item = UserId>,
        patience: &mut Patience,
    ) {
        let own = *self.version.borrow();
        if own >= sender_version || patience.in_vain_at == Some(own) || self.owns_all(users) {
            return;
        }
        let mut version = self.version();
        let caught_up = version.wait_for(|version| *version >= sender_version);
        let outcome = match tokio::time::timeout(self.map_wait, caught_up).await {
            Ok(_) => "caught_up",
            Err(_) => {
                patience.in_vain_at = Some(*self.version.borrow());
                "in_vain"
            }
        };
        metrics::map_wait(outcome);
    }

    fn owns_all(&self, users: impl IntoIterator<Item = UserId>) -> bool {
        let state = self.lock();
        users.into_iter().all(|user| state.people.registry().owns(user))
    }

    fn unlink(&self, gateway: Gateway, link: LinkId) {
        let mut state = self.lock();
        state.links.remove(&link);
        let _ = state.apply(Event::Unlinked { gateway, link });
        self.due_sooner.notify_one();
    }

    /// Locks the state even after a panic elsewhere: the state is plain data that every `apply` leaves whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(threshold: Duration, hold_offline: Duration) -> Self {
        Self {
            people: People::new(threshold, hold_offline),
            links: HashMap::new(),
            watches: HashMap::new(),
            follows: HashMap::new(),
            last_link: 0,
        }
    }

    fn look_up(&self, users: &[UserId], found: impl FnMut(&Session)) -> Result<bool, NotOwner> {
        metrics::lookups(1, users.len());
        self.sessions(users, found)
            .inspect_err(|NotOwner| metrics::not_owner("lookup"))
    }

    fn sessions(&self, users: &[UserId], found: impl FnMut(&Session)) -> Result<bool, NotOwner> {
        let registry = self.people.registry();
        registry.look_up(users)?.for_each(found);
        Ok(registry.is_sure(users))
    }

    fn tell(&self, link: WatchLink) {
        if let Some(end) = self.watches.get(&link) {
            end.news.notify_one();
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), NotOwner> {
        let effects = self.people.apply(event, Clock::monotonic());
        self.perform(effects)
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Result<(), NotOwner> {
        let mut outcome = Ok(());
        for effect in effects {
            match effect {
                Effect::NotOwner => {
                    metrics::not_owner("announce");
                    outcome = Err(NotOwner);
                }
                Effect::Replaced { gateway, session } => self.tell_replaced(&gateway, session),
                Effect::EndLink { link, .. } => self.end_link(link, "superseded_or_left"),
                Effect::Tell(link) => self.tell(link),
                Effect::TellChanged(link) => {
                    if let Some(news) = self.follows.get(&link) {
                        news.notify_one();
                    }
                }
                // [`People`] has handled these effects already.
                Effect::Signs(_) | Effect::Sessions(_) => {}
            }
        }
        outcome
    }

    /// Tells a gateway that a newer session has replaced one of its own. A gateway that has no link at present hears
    /// of it when it announces the session again.
    fn tell_replaced(&mut self, gateway: &Gateway, session: SessionId) {
        metrics::replaced();
        let link = self
            .links
            .iter()
            .find(|(_, end)| end.gateway == *gateway && !end.ended.is_cancelled());
        if let Some((id, end)) = link.map(|(id, end)| (*id, end))
            && end.replaced.try_send(session).is_err()
        {
            tracing::warn!(gateway = %gateway.name, "gateway does not read its replies, ending its link");
            self.end_link(id, "slow");
        }
    }

    fn end_link(&mut self, link: LinkId, reason: &'static str) {
        if let Some(end) = self.links.get(&link) {
            end.ended.cancel();
            metrics::link_ended(reason);
        }
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.hub.unlink(self.gateway.clone(), self.id);
    }
}
