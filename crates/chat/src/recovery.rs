//! Recovery (docs/delivery.md, step 10): finds unsettled entries that no owner in memory knows of, after a crash or a move,
//! or because a commit of the previous owner landed late. It also checks whether the store is still the same one.

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
/// Seconds. Younger rows are left to the shard that committed them.
const AGE_S: f64 = 5.0;

/// The time between two tries to look at slots that this node has gained. It is short, because a store that fails for
/// a moment is soon back.
const RETRY: Duration = Duration::from_millis(500);

/// The slots of this node.
#[derive(Default)]
struct Owned {
    all: Arc<HashSet<Slot>>,
    /// The slots that were gained and not looked at since.
    gained: HashSet<Slot>,
}

/// Follows the map, tells the shards what they own, and looks for unsettled entries: at once in slots that were
/// gained, and again until the store has answered; every [`INTERVAL`] in all slots. It ends with the drain.
pub async fn run(
    pool: PgPool,
    epoch: StoreEpoch,
    ownership: Ownership,
    shards: Shards,
    map: MapHandle,
    drain: Drain,
) {
    let (owned, news) = (Mutex::new(Owned::default()), Notify::new());
    // They run side by side: a look at a store that hangs takes seconds, in which the map may change.
    tokio::select! {
        () = follow(&ownership, &shards, map, &owned, &news) => {}
        () = look(&pool, &epoch, &shards, &owned, &news) => {}
        () = drain.ended() => {}
    }
}

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

async fn look_at_all(pool: &PgPool, epoch: &StoreEpoch, shards: &Shards, owned: &Mutex<Owned>) -> bool {
    if let Err(error) = epoch.look().await {
        tracing::warn!(%error, "cannot read the store's epoch");
        return false;
    }
    let all = lock(owned).all.clone();
    recover(pool, shards, &all, AGE_S).await
}

/// Tells the shards of unsettled entries in these slots that are older than `age_s` seconds. Returns whether the
/// store answered.
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
