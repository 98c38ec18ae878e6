//! This module keeps account of which gateways have announced all their sessions of which slots. From that
//! follows whether a look-up finds all sessions of a user.

use std::time::Duration;

use tern_types::{Slot, Timestamp, UserId};

use super::{Effect, Gateway, LinkId, Registry, STALE_AFTER, SlotSet};

/// The time that a gateway has to say slots which this node has gained: that it has announced all its
/// sessions of them. A gateway that follows the map does so within a second. If it does not, its own map did
/// not show that this node was without them for a while. Its stream is ended by the first tick after this
/// time, so that it announces everything again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(3);

impl Registry {
    /// Notes slots of which a gateway has announced every session. A gateway whose map is older than the one by which
    /// this node gained slots may have announced sessions before that, which were refused or forgotten since.
    pub(super) fn said(&mut self, gateway: &Gateway, link: LinkId, mut slots: SlotSet, map_version: i64) {
        slots.keep(&self.owned);
        let current = self
            .gateways
            .get_mut(gateway)
            .and_then(|state| state.link.as_mut());
        if let Some(current) = current.filter(|current| current.id == link) {
            current.has_said = true;
            if map_version >= self.gained_at {
                current.said.extend(&slots);
            }
        }
    }

    /// Works out in which slots a session may be missing here, and since when each gateway lacks some.
    pub(super) fn cover(&mut self, now: Timestamp) {
        let mut unsaid = SlotSet::empty();
        for gateway in &self.in_map {
            let link = self
                .gateways
                .get_mut(gateway)
                .and_then(|state| state.link.as_mut());
            let Some(link) = link else {
                unsaid.extend(&self.owned);
                continue;
            };
            debug_assert!(
                link.said.without(&self.owned).is_empty(),
                "a gateway has said slots of this node only"
            );
            let lacks = self.owned.without(&link.said);
            let overdue = link.has_said && !lacks.is_empty();
            link.lacks_since = overdue.then(|| link.lacks_since.unwrap_or(now));
            unsaid.extend(&lacks);
        }
        self.unsaid = unsaid;
        self.reckon();
    }

    /// Works out when the tick has something to do next.
    fn reckon(&mut self) {
        let due = self.gateways.values().filter_map(|state| {
            let link = state.link.as_ref()?;
            let stale = (!link.swept).then(|| link.began + STALE_AFTER);
            let lacks = link.lacks_since.filter(|_| state.in_map);
            [stale, lacks.map(|since| since + AGAIN_AFTER)]
                .into_iter()
                .flatten()
                .min()
        });
        self.next_tick = due.min();
    }

    /// Returns whether a look-up of these users finds all their sessions: every gateway in the map has said their
    /// slots.
    pub fn is_sure(&self, users: &[UserId]) -> bool {
        let mut slots = users.iter().map(|user| Slot::of_user(*user));
        !slots.any(|slot| self.unsaid.contains(slot))
    }

    /// Removes the sessions of streams that were not announced again, and ends the streams of gateways that have not said
    /// slots for too long.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let (mut stale, mut effects) = (Vec::new(), Vec::new());
        for (gateway, state) in &mut self.gateways {
            let Some(link) = &mut state.link else { continue };
            let is_stale = !link.swept && now.since(link.began) >= STALE_AFTER;
            if is_stale {
                link.swept = true;
                stale.push((gateway.clone(), link.id));
            }
            let lacks = link
                .lacks_since
                .is_some_and(|since| now.since(since) >= AGAIN_AFTER);
            if state.in_map && (lacks || is_stale && !link.has_said && !self.owned.is_empty()) {
                (link.has_said, link.lacks_since) = (false, None);
                effects.push(Effect::EndLink {
                    gateway: gateway.clone(),
                    link: link.id,
                });
            }
        }
        for (gateway, link) in stale {
            effects.extend(self.retain(|session| session.gateway != gateway || session.link == link));
        }
        self.reckon();
        effects
    }
}
