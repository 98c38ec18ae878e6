//! The order of items on their way up: a device's sends reach their chat's owner in the order in which the device sent
//! them, also while the slot moves from one node to another.
//!
//! Each slot has a lane. An item that a node gave back, because it does not own the chat, is parked in it until the map
//! has caught up; items that came later wait behind it. A send also waits while an earlier one of its slot is without an
//! answer at another link than the one that it would take. Items are handed to a link under their lane's lock, so none
//! overtakes. Nothing waits for ever: what cannot go within [`PATIENCE`] is given back to its session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_proto::internal::{UpItem, up_item};
use tern_types::{IdMap, SessionId, Slot};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Refused;
use super::link::Link;
use super::pending::size;

/// Items that wait at most, on the whole gateway: a second of sends during a move. More are given back.
const MAX_PARKED: usize = 8_192;
/// Their bytes: bodies may be large, and a move must not cost the gateway its memory.
const MAX_PARKED_BYTES: usize = 64 << 20;
/// How long an item waits for the map at most: longer than a node needs to see a change in etcd.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a node may give an item back.
const MAX_TRIES: u32 = 4;
/// Between two looks at what is parked, also when the map does not change: a node may be behind this gateway's map.
const PAUSE: Duration = Duration::from_millis(50);
/// Lanes are spread over as many tables, so that sends seldom wait for each other.
const TABLES: usize = 64;

/// Which item of its slot it is, and how often a node gave it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub slot: Slot,
    pub order: u64,
    pub tries: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Lanes {
    tables: [Mutex<IdMap<Slot, Lane>>; TABLES],
    parked: AtomicUsize,
    parked_bytes: AtomicUsize,
    came: Notify,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Lane {
    /// By their order.
    parked: BTreeMap<u64, Parked>,
    /// Sends without an answer, by the generation of the link that they took: one, but for a moment after a move.
    under_way: Vec<(u64, BTreeSet<u64>)>,
}

#[derive(Debug)]
struct Parked {
    item: UpItem,
    tries: u32,
    /// The version of the map that the node named.
    version: i64,
    not_before: Instant,
    until: Instant,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            tables: std::array::from_fn(|_| Mutex::default()),
            parked: AtomicUsize::new(0),
            parked_bytes: AtomicUsize::new(0),
            came: Notify::new(),
            last: AtomicU64::new(0),
        }
    }
}

impl Lanes {
    /// Gives a new item to the link that `link` names, or parks it behind what it must not overtake. `version`: of the
    /// map by which it goes.
    pub fn route(
        &self,
        slot: Slot,
        item: UpItem,
        version: i64,
        link: impl FnOnce() -> Option<Arc<Link>>,
    ) -> Result<(), Refused> {
        let place = Place {
            slot,
            order: self.last.fetch_add(1, Ordering::Relaxed),
            tries: 0,
        };
        if !is_send(&item) && self.parked.load(Ordering::Acquire) == 0 {
            // Acknowledgements and read marks are watermarks: their order says nothing.
            return link().ok_or(Refused)?.give(place, item);
        }
        let mut table = self.table(slot);
        let link = link();
        let generation = link.as_ref().map(|link| link.generation);
        let waits = table
            .get(&slot)
            .is_some_and(|lane| lane.holds_back(place.order, is_send(&item), generation));
        if waits {
            if !self.has_room(&item) {
                return Err(Refused);
            }
            self.insert(&mut table, place, item, version);
            return Ok(());
        }
        let link = link.ok_or(Refused)?;
        hand_over(&mut table, &link, place, item)
    }

    /// An item has got its answer, or gets none.
    pub fn answered(&self, place: Place, item: &UpItem) {
        if is_send(item) {
            arrived(&mut self.table(place.slot), place);
        }
    }

    /// Parks an item that came back from a node whose map is of `version`, in its old place. Gives it back where it has
    /// come back too often, or too many wait.
    pub fn park(&self, place: Place, item: UpItem, version: i64) -> Result<(), Box<UpItem>> {
        let mut table = self.table(place.slot);
        // Parked in the same breath: a later one finds it here or there.
        arrived(&mut table, place);
        if place.tries >= MAX_TRIES || !self.has_room(&item) {
            return Err(Box::new(item));
        }
        let tries = place.tries + 1;
        self.insert(&mut table, Place { tries, ..place }, item, version);
        Ok(())
    }

    /// Until it is time to look again; for ever while nothing is parked.
    pub async fn due(&self) {
        while self.parked.load(Ordering::Acquire) == 0 {
            self.came.notified().await;
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Hands over what may go by a map of `version`. Returns what has waited too long or found no way.
    pub fn retry(&self, version: i64, link: impl Fn(Slot) -> Option<Arc<Link>>) -> Vec<UpItem> {
        let mut failed = Vec::new();
        if self.parked.load(Ordering::Acquire) == 0 {
            return failed;
        }
        for table in 0..TABLES {
            let mut table = self.lock(table);
            let slots: Vec<Slot> = table
                .iter()
                .filter(|(_, lane)| !lane.parked.is_empty())
                .map(|(slot, _)| *slot)
                .collect();
            for slot in slots {
                self.retry_slot(&mut table, slot, version, &link, &mut failed);
            }
        }
        failed
    }

    fn retry_slot(
        &self,
        table: &mut IdMap<Slot, Lane>,
        slot: Slot,
        version: i64,
        link: &impl Fn(Slot) -> Option<Arc<Link>>,
        failed: &mut Vec<UpItem>,
    ) {
        let (now, link) = (Instant::now(), link(slot));
        let generation = link.as_ref().map(|link| link.generation);
        while let Some(lane) = table.get_mut(&slot)
            && let Some((&order, first)) = lane.parked.first_key_value()
        {
            let expired = first.until <= now;
            let due = first.version <= version && first.not_before <= now;
            if !expired && (!due || lane.holds_back(order, is_send(&first.item), generation)) {
                return;
            }
            let Some(Parked { item, tries, .. }) = lane.parked.remove(&order) else {
                return;
            };
            self.unpark(&item);
            let place = Place { slot, order, tries };
            let given = match &link {
                Some(link) if !expired => hand_over(table, link, place, item.clone()),
                _ => Err(Refused),
            };
            if given.is_err() {
                failed.push(item);
            }
            forget_if_empty(table, slot);
        }
    }

    /// Nobody waits for the session's acknowledgements any more.
    pub fn forget_acks(&self, session: SessionId) {
        if self.parked.load(Ordering::Acquire) == 0 {
            return;
        }
        for table in 0..TABLES {
            self.lock(table).retain(|_, lane| {
                lane.parked.retain(|_, parked| {
                    let its = parked.item.session == session.0 && !is_send(&parked.item);
                    if its {
                        self.unpark(&parked.item);
                    }
                    !its
                });
                !lane.is_empty()
            });
        }
    }

    fn unpark(&self, item: &UpItem) {
        self.parked.fetch_sub(1, Ordering::AcqRel);
        self.parked_bytes.fetch_sub(size(item), Ordering::AcqRel);
    }

    fn has_room(&self, item: &UpItem) -> bool {
        self.parked.load(Ordering::Acquire) < MAX_PARKED
            && self.parked_bytes.load(Ordering::Acquire) + size(item) <= MAX_PARKED_BYTES
    }

    fn insert(&self, table: &mut IdMap<Slot, Lane>, place: Place, item: UpItem, version: i64) {
        let now = Instant::now();
        self.parked.fetch_add(1, Ordering::AcqRel);
        self.parked_bytes.fetch_add(size(&item), Ordering::AcqRel);
        let parked = Parked {
            item,
            tries: place.tries,
            version,
            not_before: now + PAUSE * place.tries,
            until: now + PATIENCE,
        };
        table
            .entry(place.slot)
            .or_default()
            .parked
            .insert(place.order, parked);
        self.came.notify_one();
    }

    fn table(&self, slot: Slot) -> MutexGuard<'_, IdMap<Slot, Lane>> {
        self.lock(slot.index() % TABLES)
    }

    fn lock(&self, table: usize) -> MutexGuard<'_, IdMap<Slot, Lane>> {
        self.tables[table].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.under_way.is_empty()
    }

    /// Whether the item of `order` would overtake an earlier one on the link of `generation`.
    fn holds_back(&self, order: u64, send: bool, generation: Option<u64>) -> bool {
        let earlier = |orders: &BTreeSet<u64>| orders.first().is_some_and(|first| *first < order);
        let elsewhere = || {
            self.under_way
                .iter()
                .any(|(link, orders)| Some(*link) != generation && earlier(orders))
        };
        let parked = self.parked.keys().next().is_some_and(|first| *first < order);
        parked || (send && elsewhere())
    }
}

fn hand_over(table: &mut IdMap<Slot, Lane>, link: &Link, place: Place, item: UpItem) -> Result<(), Refused> {
    let send = is_send(&item);
    link.give(place, item)?;
    if send {
        let under_way = &mut table.entry(place.slot).or_default().under_way;
        match under_way.iter_mut().find(|(of, _)| *of == link.generation) {
            Some((_, orders)) => drop(orders.insert(place.order)),
            None => under_way.push((link.generation, BTreeSet::from([place.order]))),
        }
    }
    Ok(())
}

/// The send is under way no more.
fn arrived(table: &mut IdMap<Slot, Lane>, place: Place) {
    if let Some(lane) = table.get_mut(&place.slot) {
        lane.under_way.retain_mut(|(_, orders)| {
            orders.remove(&place.order);
            !orders.is_empty()
        });
    }
    forget_if_empty(table, place.slot);
}

fn forget_if_empty(table: &mut IdMap<Slot, Lane>, slot: Slot) {
    if table.get(&slot).is_some_and(Lane::is_empty) {
        table.remove(&slot);
    }
}

fn is_send(item: &UpItem) -> bool {
    matches!(item.op, Some(up_item::Op::Send(_)))
}

#[cfg(test)]
mod tests;
