//! Items that a node gave back because it does not own their chat: they wait until the map has caught up. While one of
//! a slot waits, later ones of the slot wait behind it, so that a device's messages keep their order.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_proto::internal::{UpItem, up_item};
use tern_types::{SessionId, Slot};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Items that wait at most, on the whole gateway: a second of sends during a move. More are given back.
const MAX_PARKED: usize = 8_192;
/// How long an item waits for the map at most: longer than a node needs to see a change in etcd.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a node may give an item back.
const MAX_TRIES: u32 = 4;
/// Between two looks at what is parked, also when the map does not change: a node may be behind this gateway's map.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug, Default)]
pub struct Parked {
    count: AtomicUsize,
    came: Notify,
    slots: Mutex<HashMap<Slot, VecDeque<ParkedItem>>>,
}

/// One item that waits.
#[derive(Debug)]
pub struct ParkedItem {
    pub slot: Slot,
    pub tries: u32,
    item: UpItem,
    /// The version of the map that the node named.
    version: i64,
    not_before: Instant,
    until: Instant,
}

impl ParkedItem {
    pub fn expired(&self) -> bool {
        Instant::now() >= self.until
    }

    pub fn is_ack(&self) -> bool {
        matches!(self.item.op, Some(up_item::Op::Ack(_)))
    }

    pub fn session(&self) -> SessionId {
        SessionId(self.item.session)
    }

    pub fn clone_item(&self) -> UpItem {
        self.item.clone()
    }

    pub fn into_item(self) -> UpItem {
        self.item
    }
}

impl Parked {
    /// Parks an item that came back. Gives it back where it has come back too often, or too many wait.
    pub fn park(&self, slot: Slot, item: UpItem, tries: u32, version: i64) -> Result<(), Box<UpItem>> {
        if tries >= MAX_TRIES || self.count.load(Ordering::Acquire) >= MAX_PARKED {
            return Err(Box::new(item));
        }
        let mut slots = self.slots();
        self.push(&mut slots, slot, item, tries + 1, version);
        Ok(())
    }

    /// Parks the item when others of its slot are parked; gives it back otherwise.
    #[allow(clippy::result_large_err, reason = "the item is moved on at once")]
    pub fn behind_others(&self, slot: Slot, item: UpItem, tries: u32) -> Result<(), UpItem> {
        let count = self.count.load(Ordering::Acquire);
        if count == 0 || count >= MAX_PARKED {
            return Err(item);
        }
        let mut slots = self.slots();
        let Some(version) = slots
            .get(&slot)
            .and_then(|queue| queue.back())
            .map(|last| last.version)
        else {
            return Err(item);
        };
        self.push(&mut slots, slot, item, tries, version);
        Ok(())
    }

    fn push(
        &self,
        slots: &mut HashMap<Slot, VecDeque<ParkedItem>>,
        slot: Slot,
        item: UpItem,
        tries: u32,
        version: i64,
    ) {
        let now = Instant::now();
        let parked = ParkedItem {
            slot,
            tries,
            item,
            version,
            not_before: now + PAUSE * tries,
            until: now + PATIENCE,
        };
        slots.entry(slot).or_default().push_back(parked);
        self.count.fetch_add(1, Ordering::AcqRel);
        self.came.notify_one();
    }

    /// Until it is time to look again; for ever while nothing is parked.
    pub async fn due(&self) {
        while self.count.load(Ordering::Acquire) == 0 {
            self.came.notified().await;
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// What may be tried again with a map of `version`, slot by slot in order, and what has waited too long.
    pub fn take_due(&self, version: i64) -> Vec<ParkedItem> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let now = Instant::now();
        let mut due = Vec::new();
        self.slots().retain(|_, queue| {
            while let Some(first) = queue.front()
                && ((first.version <= version && first.not_before <= now) || first.until <= now)
            {
                due.extend(queue.pop_front());
            }
            !queue.is_empty()
        });
        self.count.fetch_sub(due.len(), Ordering::AcqRel);
        due
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Slot, VecDeque<ParkedItem>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(reference: u64) -> UpItem {
        UpItem {
            r#ref: reference,
            ..Default::default()
        }
    }

    fn references(items: Vec<ParkedItem>) -> Vec<u64> {
        items.into_iter().map(|item| item.into_item().r#ref).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn items_of_a_slot_wait_for_the_map_and_keep_their_order() {
        let parked = Parked::default();
        let slots: Vec<Slot> = Slot::all().take(2).collect();
        assert!(
            parked.behind_others(slots[0], item(1), 0).is_err(),
            "nothing waits: it goes its way"
        );
        parked.park(slots[0], item(1), 0, 7).expect("parked");
        parked.behind_others(slots[0], item(2), 0).expect("parked");
        assert!(
            parked.behind_others(slots[1], item(3), 0).is_err(),
            "another slot goes on"
        );
        tokio::time::advance(PAUSE).await;
        assert_eq!(references(parked.take_due(6)), [] as [u64; 0]);
        assert_eq!(references(parked.take_due(7)), [1, 2]);
        assert!(parked.behind_others(slots[0], item(4), 0).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let parked = Parked::default();
        let slot = Slot::all().next().expect("a slot");
        parked.park(slot, item(1), 0, 99).expect("parked");
        tokio::time::advance(PATIENCE).await;
        let due = parked.take_due(1);
        assert!(due.iter().all(ParkedItem::expired));
        assert_eq!(references(due), [1]);
        assert!(parked.park(slot, item(1), MAX_TRIES, 1).is_err());
    }
}
