//! The order of items on their way to the chat nodes: a device's sends reach their chat's owner in the order in which
//! the device sent them, also while the slot moves from one node to another.
//!
//! Each slot has a lane. An item that a node refused, because it does not own the chat, is parked in its lane
//! until the map has caught up; later items wait behind it. A send also waits while an earlier send of its
//! slot has no answer and went over another link. Items are handed to a link while their lane is locked, so
//! that none overtakes another. Nothing waits for ever: a parked item that cannot go within [`PATIENCE`] is
//! given back to its session, and so is one that was refused more than [`MAX_TRIES`] times.
//!
//! Example: sends 1 and 2 went to node a; then the slot moves to node b. Send 3 waits until a has answered both. If a
//! refuses 2, it is parked before 3, and b gets 2, then 3.

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
use super::ops::Manner;
use super::pending::{Place, size};

/// The most items that wait on the whole gateway: about the sends of a second during a move. Further items are refused
/// or given back.
const MAX_PARKED: usize = 8_192;
/// The most bytes of the waiting items: bodies may be large, and a move must not cost the gateway its memory.
const MAX_PARKED_BYTES: usize = 64 << 20;
/// The longest time that an item waits for the map each time it is parked. A change in etcd reaches a node
/// sooner.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of refusals after which an item is still sent again. After one more it is given back.
const MAX_TRIES: u32 = 4;
/// The time between two rounds of retries. There are rounds also while the map does not change, since a node may be
/// behind this gateway's map.
const PAUSE: Duration = Duration::from_millis(50);
/// The number of tables over which lanes are spread. Each has a lock, so that sends seldom wait for each other.
const TABLES: usize = 64;

/// The lanes of all slots.
#[derive(Debug)]
pub struct Lanes {
    tables: [Mutex<IdMap<Slot, Lane>>; TABLES],
    /// The number of parked items.
    parked: AtomicUsize,
    /// The bytes of the parked items.
    parked_bytes: AtomicUsize,
    /// Notified when an item is parked.
    came: Notify,
    /// The number of the next item, in the order of all items.
    last: AtomicU64,
}

/// The lane of one slot.
#[derive(Debug, Default)]
struct Lane {
    /// The items that wait, by their number.
    parked: BTreeMap<u64, Parked>,
    /// The numbers of the sends without an answer, by the generation of the link that they took. There is one link,
    /// except for a moment after a move.
    under_way: Vec<(u64, BTreeSet<u64>)>,
}

/// An item that waits in its lane.
#[derive(Debug)]
struct Parked {
    item: UpItem,
    /// The number of times that nodes have refused the item.
    tries: u32,
    /// The version of the map by which the node refused the item, or by which it was parked. It is not sent by an older
    /// one.
    version: i64,
    /// The time before which the item is not sent again.
    not_before: Instant,
    /// The time at which the item is given back.
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
    /// Gives a new item to the link that `link` names, or parks it behind items that it must not overtake. `version` is
    /// the version of the map by which `link` chooses. `Err` if there is no link, if a queue is full, or if too many
    /// items are parked.
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
        if !is_in_order(&item) && self.parked.load(Ordering::Acquire) == 0 {
            // The order of watermarks does not matter.
            return link().ok_or(Refused)?.give(place, item);
        }
        let mut table = self.table(slot);
        let link = link();
        let generation = link.as_ref().map(|link| link.generation);
        let waits = table
            .get(&slot)
            .is_some_and(|lane| lane.holds_back(place.order, is_in_order(&item), generation));
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

    /// Notes that an item got its answer, or will get none: it holds back no other item any more.
    pub fn answered(&self, place: Place, item: &UpItem) {
        if is_in_order(item) {
            arrived(&mut self.table(place.slot), place);
        }
    }

    /// Parks an item that a node with a map of `version` refused, at its old position in the lane. `Err` gives the item
    /// back: it was refused too often, or too many items wait.
    pub fn park(&self, place: Place, item: UpItem, version: i64) -> Result<(), Box<UpItem>> {
        let mut table = self.table(place.slot);
        // The item is parked under the same lock, so that a later one finds it either under way or parked.
        arrived(&mut table, place);
        if place.tries >= MAX_TRIES || !self.has_room(&item) {
            return Err(Box::new(item));
        }
        let tries = place.tries + 1;
        self.insert(&mut table, Place { tries, ..place }, item, version);
        Ok(())
    }

    /// Waits until a round of retries is due, which is never while nothing is parked.
    pub async fn due(&self) {
        while self.parked.load(Ordering::Acquire) == 0 {
            self.came.notified().await;
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Sends the parked items that may go by a map of `version`, each over the link that `link` names for its slot.
    /// Returns the items that have waited too long or found no link.
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
            if !expired && (!due || lane.holds_back(order, is_in_order(&first.item), generation)) {
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

    /// Forgets the parked acknowledgements of a session that has ended. Its sends and read marks go on: the person has
    /// read what was read, even if the app was closed right after.
    pub fn forget_acks(&self, session: SessionId) {
        if self.parked.load(Ordering::Acquire) == 0 {
            return;
        }
        for table in 0..TABLES {
            self.lock(table).retain(|_, lane| {
                lane.parked.retain(|_, parked| {
                    let its = parked.item.session == session.0 && is_ack(&parked.item);
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

    /// Returns whether the item numbered `order` would overtake an earlier one, if it took the link of `generation`
    /// now.
    fn holds_back(&self, order: u64, in_order: bool, generation: Option<u64>) -> bool {
        let earlier = |orders: &BTreeSet<u64>| orders.first().is_some_and(|first| *first < order);
        let elsewhere = || {
            self.under_way
                .iter()
                .any(|(link, orders)| Some(*link) != generation && earlier(orders))
        };
        let parked = self.parked.keys().next().is_some_and(|first| *first < order);
        parked || (in_order && elsewhere())
    }
}

/// Gives the item to the link, and notes one that keeps its order as under way.
fn hand_over(table: &mut IdMap<Slot, Lane>, link: &Link, place: Place, item: UpItem) -> Result<(), Refused> {
    let in_order = is_in_order(&item);
    link.give(place, item)?;
    if in_order {
        let under_way = &mut table.entry(place.slot).or_default().under_way;
        match under_way.iter_mut().find(|(of, _)| *of == link.generation) {
            Some((_, orders)) => drop(orders.insert(place.order)),
            None => under_way.push((link.generation, BTreeSet::from([place.order]))),
        }
    }
    Ok(())
}

/// Notes that the send is not under way any more.
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

fn is_in_order(item: &UpItem) -> bool {
    Manner::of(item) == Manner::InOrder
}

fn is_ack(item: &UpItem) -> bool {
    matches!(item.op, Some(up_item::Op::Ack(_)))
}

#[cfg(test)]
mod tests;
