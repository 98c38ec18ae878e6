//! A [`Registry`] knows the live sessions of the users in this node's slots. The code is pure: time comes in
//! as an argument, and what is to be done is returned as effects.
//!
//! - A session is named by its gateway and its id. An announcement, also that of an end, changes that session only: a
//!   late "ended" of an old session never removes a newer one.
//! - A newer stream of a device replaces the older one, whose gateway is told to end it. Until the older session is
//!   unregistered, look-ups still return it. Which stream is newer is decided by the numbers that streams draw from
//!   the store when they are opened, never by a clock nor by the order in which this node hears of them: after a node
//!   restarted or a slot moved, sessions are announced in any order.
//! - A session is removed when it ends, when its gateway's incarnation leaves the map, and when its user's slot goes
//!   to another node.
//! - A gateway says slots: that it has announced all its sessions of these slots. A look-up is sure only if
//!   every gateway in the map has said the user's slot since this node has owned it. So it does not matter
//!   whose map changed when.

mod event;
mod said;
mod session;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::time::Duration;

use tern_types::{IdMap, SessionId, Slot, Timestamp, UserId};

pub use event::{Announcement, Effect, Event, Gateway, LinkId, NotOwner};
pub use said::AGAIN_AFTER;
pub use session::Session;
use session::{newer, replaced};
pub use slots::SlotSet;

use crate::activity::Sign;

/// The time that a gateway has on a new link to announce all of its sessions again; it spreads them over some seconds.
/// A session that was not announced within this time has ended while the link was down, and is removed.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// The most sessions of one user: ten devices, and room for sessions that their gateways have not unregistered yet.
/// Beyond it, the oldest session is removed.
const MAX_SESSIONS_PER_USER: usize = 128;

/// The state of one gateway process that is linked, or was linked and is in the map.
#[derive(Debug)]
struct GatewayState {
    /// True if the newest map has the gateway.
    in_map: bool,
    /// The gateway's newest announce stream, while it is open.
    link: Option<Link>,
}

/// The newest announce stream of a gateway.
#[derive(Debug)]
struct Link {
    id: LinkId,
    /// The time at which the stream was opened.
    began: Timestamp,
    /// True once the sessions that were not announced again on this stream have been removed.
    swept: bool,
    /// The slots of this node of which every session was announced on this stream, since this node has owned them.
    said: SlotSet,
    /// True once the gateway has said slots.
    has_said: bool,
    /// The time since which a slot is not said although the gateway has said slots before. `None`: there is none.
    lacks_since: Option<Timestamp>,
}

/// The live sessions of the users in this node's slots.
#[derive(Debug)]
pub struct Registry {
    /// The sessions of each user. A user without sessions has no entry.
    users: IdMap<UserId, Vec<Session>>,
    /// The number of sessions of all users.
    sessions: usize,
    /// The slots of this node by the newest map.
    owned: SlotSet,
    /// The slots of this node that some gateway in the map has not said: a session may be missing here.
    unsaid: SlotSet,
    /// The version of the map by which this node last gained a slot.
    gained_at: i64,
    /// The gateways that the newest map has, whether they are linked or not.
    in_map: HashSet<Gateway>,
    gateways: HashMap<Gateway, GatewayState>,
    /// The time at which the tick has something to do next. `None`: nothing is due.
    next_tick: Option<Timestamp>,
    /// The number of sessions that were announced for the first time until now.
    arrivals: u64,
}

impl Default for Registry {
    /// Makes a registry that owns no slots until the first map comes.
    fn default() -> Self {
        Self {
            users: IdMap::default(),
            sessions: 0,
            owned: SlotSet::empty(),
            unsaid: SlotSet::empty(),
            gained_at: 0,
            in_map: HashSet::new(),
            gateways: HashMap::new(),
            next_tick: None,
            arrivals: 0,
        }
    }
}

impl Registry {
    /// Applies one event, and returns what has to be done because of it.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        match event {
            Event::Linked { gateway, link } => {
                let effects = self.linked(gateway, link, now);
                self.cover(now);
                effects
            }
            Event::Unlinked { gateway, link } => {
                let effects = self.unlinked(&gateway, link);
                self.cover(now);
                effects
            }
            Event::Announced {
                gateway,
                link,
                announcement,
            } => self.announced(&gateway, link, announcement),
            Event::Ended {
                gateway,
                link,
                user,
                session,
            } => self.ended(&gateway, link, user, session),
            Event::Signed {
                gateway,
                link,
                user,
                session,
                sign,
            } => self.signed(&gateway, link, user, session, sign),
            Event::Opened {
                gateway,
                link,
                user,
                session,
                number,
            } => self.opened(&gateway, link, user, session, number),
            Event::Said {
                gateway,
                link,
                slots,
                map_version,
            } => {
                self.said(&gateway, link, slots, map_version);
                self.cover(now);
                Vec::new()
            }
            Event::MapChanged {
                map_version,
                owned,
                gateways,
            } => {
                let effects = self.map_changed(map_version, owned, gateways);
                self.cover(now);
                effects
            }
            Event::Tick => self.tick(now),
        }
    }

    /// Returns all live sessions of the users. `Err` if any of the users belongs to another node.
    pub fn look_up<'a>(&'a self, users: &'a [UserId]) -> Result<impl Iterator<Item = &'a Session>, NotOwner> {
        if users.iter().any(|user| !self.owns(*user)) {
            return Err(NotOwner);
        }
        Ok(users.iter().filter_map(|user| self.users.get(user)).flatten())
    }

    /// Returns the newest sign of each of the user's sessions.
    pub fn signs(&self, user: UserId) -> impl Iterator<Item = Sign> {
        let sessions = self.users.get(&user).into_iter().flatten();
        sessions.map(|session| session.sign)
    }

    /// Returns whether the user has a live session.
    pub fn has_sessions(&self, user: UserId) -> bool {
        debug_assert!(
            self.users.get(&user).is_none_or(|sessions| !sessions.is_empty()),
            "a user without sessions has no entry"
        );
        self.users.contains_key(&user)
    }

    /// Returns whether the user's slot is this node's.
    pub fn owns(&self, user: UserId) -> bool {
        self.owned.contains(Slot::of_user(user))
    }

    /// Returns the slots of `owned` that are not this node's yet.
    pub fn gained(&self, owned: &SlotSet) -> SlotSet {
        owned.without(&self.owned)
    }

    /// Returns whether this node owns no slot.
    pub fn owns_nothing(&self) -> bool {
        self.owned.is_empty()
    }

    /// Returns whether this node owns these slots and no others.
    pub fn owns_just(&self, slots: &SlotSet) -> bool {
        self.owned == *slots
    }

    /// Returns the number of live sessions of all users.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Returns the monotonic time at which [`Event::Tick`] has something to do next. `None` if nothing is due.
    pub fn next_tick(&self) -> Option<Timestamp> {
        self.next_tick
    }

    fn linked(&mut self, gateway: Gateway, id: LinkId, now: Timestamp) -> Vec<Effect> {
        let in_map = self.in_map.contains(&gateway);
        let state = self
            .gateways
            .entry(gateway.clone())
            .or_insert(GatewayState { in_map, link: None });
        let older = state.link.replace(Link {
            id,
            began: now,
            swept: false,
            said: SlotSet::empty(),
            has_said: false,
            lacks_since: None,
        });
        debug_assert!(
            older.as_ref().is_none_or(|older| older.id < id),
            "a newer link has a greater id"
        );
        older
            .map(|older| Effect::EndLink {
                gateway,
                link: older.id,
            })
            .into_iter()
            .collect()
    }

    fn unlinked(&mut self, gateway: &Gateway, link: LinkId) -> Vec<Effect> {
        let Some(state) = self.gateways.get_mut(gateway) else {
            return Vec::new();
        };
        if state.link.as_ref().is_some_and(|current| current.id == link) {
            state.link = None;
            if !state.in_map {
                return self.forget_gateway(gateway);
            }
        }
        Vec::new()
    }

    fn announced(&mut self, gateway: &Gateway, link: LinkId, announced: Announcement) -> Vec<Effect> {
        if !self.is_current(gateway, link) {
            return Vec::new();
        }
        if !self.owns(announced.user) {
            return vec![Effect::NotOwner];
        }
        let sessions = self.users.entry(announced.user).or_default();
        let same = |session: &Session| session.session == announced.session && session.gateway == *gateway;
        let mut effects = vec![Effect::Signs(announced.user)];
        let is_new = !sessions.iter().any(same);
        if let Some(known) = sessions.iter_mut().find(|session| same(session)) {
            known.link = link;
            known.sign = newer(known.sign, announced.sign);
            known.number = known.number.or(announced.number);
        } else {
            self.arrivals += 1;
            sessions.push(Session {
                user: announced.user,
                device: announced.device,
                gateway: gateway.clone(),
                session: announced.session,
                sign: announced.sign,
                since: announced.since,
                number: announced.number,
                arrival: self.arrivals,
                link,
            });
            self.sessions += 1;
        }
        if let Some(session) = sessions.iter().find(|session| same(session)) {
            effects.extend(replaced(sessions, session));
        }
        if sessions.len() > MAX_SESSIONS_PER_USER
            && let Some(oldest) = (0..sessions.len()).min_by_key(|index| sessions[*index].age())
        {
            effects.push(sessions.swap_remove(oldest).replaced());
            self.sessions -= 1;
        }
        if is_new {
            effects.push(Effect::Sessions(announced.user));
        }
        debug_assert!(
            (1..=MAX_SESSIONS_PER_USER).contains(&sessions.len()),
            "an entry has a session, and not too many"
        );
        effects
    }

    fn ended(&mut self, gateway: &Gateway, link: LinkId, user: UserId, ended: SessionId) -> Vec<Effect> {
        if !self.is_current(gateway, link) {
            return Vec::new();
        }
        if !self.owns(user) {
            return vec![Effect::NotOwner];
        }
        let mut effects = vec![Effect::Signs(user)];
        if let Some(sessions) = self.users.get_mut(&user) {
            let before = sessions.len();
            sessions.retain(|session| session.session != ended || session.gateway != *gateway);
            if sessions.len() < before {
                effects.push(Effect::Sessions(user));
            }
            self.sessions -= before - sessions.len();
            if sessions.is_empty() {
                self.users.remove(&user);
            }
        }
        effects
    }

    fn signed(
        &mut self,
        gateway: &Gateway,
        link: LinkId,
        user: UserId,
        session: SessionId,
        sign: Sign,
    ) -> Vec<Effect> {
        if !self.is_current(gateway, link) {
            return Vec::new();
        }
        let sessions = self.users.get_mut(&user).into_iter().flatten();
        let mut known = sessions.filter(|known| known.session == session && known.gateway == *gateway);
        let Some(known) = known.next() else {
            return Vec::new();
        };
        debug_assert!(
            self.owned.contains(Slot::of_user(user)),
            "only users of own slots have sessions"
        );
        known.sign = newer(known.sign, sign);
        vec![Effect::Signs(user)]
    }

    fn opened(
        &mut self,
        gateway: &Gateway,
        link: LinkId,
        user: UserId,
        opened: SessionId,
        number: NonZeroU64,
    ) -> Vec<Effect> {
        if !self.is_current(gateway, link) {
            return Vec::new();
        }
        let Some(sessions) = self.users.get_mut(&user) else {
            return Vec::new();
        };
        let same = |session: &Session| session.session == opened && session.gateway == *gateway;
        let Some(index) = sessions.iter().position(same) else {
            return Vec::new();
        };
        sessions[index].number = sessions[index].number.or(Some(number));
        replaced(sessions, &sessions[index])
    }

    fn map_changed(&mut self, version: i64, owned: SlotSet, in_map: HashSet<Gateway>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut gone = Vec::new();
        for (gateway, state) in &mut self.gateways {
            let left = state.in_map && !in_map.contains(gateway);
            state.in_map = in_map.contains(gateway);
            if left {
                gone.push(gateway.clone());
                let link = state.link.as_ref().map(|link| link.id);
                effects.extend(link.map(|link| Effect::EndLink {
                    gateway: gateway.clone(),
                    link,
                }));
            }
        }
        for gateway in &gone {
            effects.extend(self.forget_gateway(gateway));
        }
        self.in_map = in_map;
        if self.owned != owned {
            if !self.gained(&owned).is_empty() {
                self.gained_at = version;
            }
            for link in self.gateways.values_mut().filter_map(|state| state.link.as_mut()) {
                link.said.keep(&owned);
            }
            self.owned = owned;
            let owned = self.owned.clone();
            // The users belong to another node now, so their signs no longer matter here.
            self.retain(|session| owned.contains(Slot::of_user(session.user)));
        }
        effects
    }

    fn is_current(&self, gateway: &Gateway, link: LinkId) -> bool {
        let current = self.gateways.get(gateway).and_then(|state| state.link.as_ref());
        current.is_some_and(|current| current.id == link)
    }

    fn forget_gateway(&mut self, gateway: &Gateway) -> Vec<Effect> {
        self.gateways.remove(gateway);
        self.retain(|session| session.gateway != *gateway)
    }

    /// Removes all sessions that `keep` refuses. It goes through all users, so it is only for events of nodes, not of
    /// sessions. Returns [`Effect::Signs`] and [`Effect::Sessions`]
    /// for each user who has lost a session.
    fn retain(&mut self, keep: impl Fn(&Session) -> bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.users.retain(|user, sessions| {
            let before = sessions.len();
            sessions.retain(&keep);
            if sessions.len() < before {
                effects.extend([Effect::Signs(*user), Effect::Sessions(*user)]);
            }
            !sessions.is_empty()
        });
        self.sessions = self.users.values().map(Vec::len).sum();
        effects
    }
}
