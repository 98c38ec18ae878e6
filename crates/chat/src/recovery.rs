//! Recovers entries that nobody settles (docs/delivery.md, step 10). The store may have unsettled entries that no owner
//! has in memory: after a crash, after a slot has moved, or because a commit of the previous owner landed late. The
//! task finds them, and tells the shards. It also checks whether the store is still the same one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tern_cluster::drain::Drain;
use tern_cluster::map::MapHandle;
use tern_types::Slot;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};

use tern_chat_core::shard::Event;

use crate::epoch::StoreEpoch;
use crate::metrics;
use crate::ownership::Ownership;
use crate::shard_loop::Shards;
use crate::store::settle;

/// The time between two looks at all slots.
const INTERVAL: Duration = Duration::from_secs(10);
/// The age in seconds from which the regular look takes unsettled rows. Younger rows are left to the shard that
/// committed them.
const AGE_S: f64 = 5.0;

/// The time to the next try after the store did not answer. It is short, because a store that fails for a moment is
/// soon back.
const RETRY: Duration = Duration::from_millis(500);

/// The slots of this node.
#[derive(Default)]
struct Owned {
    all: Arc<HashSet<Slot>>,
    /// The slots that were gained and not looked at since.
    gained: HashSet<Slot>,
}

/// Follows the map, and tells the shards which slots this node owns. Looks for unsettled entries: at once in slots that
/// were gained, repeated until the store has answered, and every 10 s in all slots. It returns when the drain has
/// ended.
pub async fn run(
    pool: PgPool,
    epoch: StoreEpoch,
    ownership: Ownership,
    shards: Shards,
    map: MapHandle,
    drain: Drain,
) {
    let (owned, news) = (Mutex::new(Owned::default()), Notify::new());
    // Both run side by side, because a look at a store that hangs takes seconds, and the map may change meanwhile.
    tokio::select! {
        () = follow(&ownership, &shards, map, &owned, &news) => {}
        () = look(&pool, &epoch, &shards, &owned, &news) => {}
        () = drain.ended() => {}
    }
}

/// Follows the map: tells the shards of each change of this node's slots, and notes the slots that were gained.
async fn follow(
    ownership: &Ownership,
    shards: &Shards,
    mut map: MapHandle,
    owned: &Mutex<Owned>,
    news: &Notify,
) {
    let mut current = map.current();
    loop {
        let slots = ownership.slots(&current);
        let before = lock(owned).all.clone();
        if slots != before {
            let gained: Vec<Slot> = slots.difference(&before).copied().collect();
            tracing::info!(
                slots = slots.len(),
                gained = gained.len(),
                version = current.version(),
                "slots"
            );
            metrics::slots(slots.len(), current.version());
            shards.owned(&slots).await;
            let mut owned = lock(owned);
            owned.gained.retain(|slot| slots.contains(slot));
            owned.gained.extend(gained);
            owned.all = slots;
            news.notify_one();
        }
        current = map.changed().await;
    }
}

/// Looks for unsettled entries whenever slots were gained, and at all slots every [`INTERVAL`]. It never returns.
async fn look(pool: &PgPool, epoch: &StoreEpoch, shards: &Shards, owned: &Mutex<Owned>, news: &Notify) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed = false;
    loop {
        let gained = std::mem::take(&mut lock(owned).gained);
        let done = recover(pool, shards, &gained, 0.0).await;
        if !done {
            let mut owned = lock(owned);
            let all = owned.all.clone();
            let still = gained.into_iter().filter(|slot| all.contains(slot));
            owned.gained.extend(still);
        }
        tokio::select! {
            () = news.notified() => {}
            () = sleep(RETRY), if !done || missed => {
                if missed {
                    missed = !look_at_all(pool, epoch, shards, owned).await;
                }
            }
            _ = ticks.tick() => missed = !look_at_all(pool, epoch, shards, owned).await,
        }
    }
}

/// Checks the store's epoch, then looks at all slots of this node. Returns whether the store answered.
async fn look_at_all(pool: &PgPool, epoch: &StoreEpoch, shards: &Shards, owned: &Mutex<Owned>) -> bool {
    if let Err(error) = epoch.look().await {
        tracing::warn!(%error, "cannot read the store's epoch");
        return false;
    }
    let all = lock(owned).all.clone();
    recover(pool, shards, &all, AGE_S).await
}

/// Finds unsettled entries in these slots that are older than `age_s` seconds, and tells the shards of them. Returns
/// whether the store answered.
async fn recover(pool: &PgPool, shards: &Shards, slots: &HashSet<Slot>, age_s: f64) -> bool {
    if slots.is_empty() {
        return true;
    }
    let slots = slots.iter().map(|slot| slot.number() as i16).collect();
    match settle::unsettled(pool, slots, age_s).await {
        Ok(chats) => {
            metrics::recovered(chats.len());
            for (chat, low, high) in chats {
                let _ended = shards.send(chat, Event::Recover { chat, low, high }).await;
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "cannot look for unsettled entries");
            false
        }
    }
}

fn lock(owned: &Mutex<Owned>) -> MutexGuard<'_, Owned> {
    owned.lock().unwrap_or_else(PoisonError::into_inner)
}
