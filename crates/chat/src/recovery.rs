//! Section 4, step 10: unsettled entries that no owner in memory knows of, after a crash or a move, or because a commit of
//! the owner before landed late. And whether the store is still the same one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tern_node::drain::Drain;
use tern_node::map::MapHandle;
use tern_types::Slot;

use crate::epoch::StoreEpoch;
use crate::metrics;
use crate::ownership::Ownership;
use crate::shard::Shards;
use crate::state::shard::Event;
use crate::store::settle;

/// Between two looks at all slots.
const INTERVAL: Duration = Duration::from_secs(10);
/// Younger rows are the business of the shard that committed them. Seconds.
const AGE_S: f64 = 5.0;

/// Follows the map, tells the shards what they own, and looks for what was left behind: at once in slots that are new,
/// and again and again in all.
pub async fn run(
    pool: PgPool,
    epoch: StoreEpoch,
    ownership: Ownership,
    shards: Shards,
    mut map: MapHandle,
    drain: Drain,
) {
    let mut owned: Arc<HashSet<Slot>> = Arc::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut current = map.current();
    loop {
        let slots = ownership.slots(&current);
        if slots != owned {
            let gained: Vec<i16> = slots
                .difference(&owned)
                .map(|slot| slot.number() as i16)
                .collect();
            tracing::info!(
                slots = slots.len(),
                gained = gained.len(),
                version = current.version(),
                "slots"
            );
            metrics::slots(slots.len(), current.version());
            owned = slots;
            shards.owned(&owned).await;
            recover(&pool, &shards, gained, 0.0).await;
        }
        tokio::select! {
            newer = map.changed() => current = newer,
            _ = ticks.tick() => {
                if let Err(error) = epoch.look().await {
                    tracing::warn!(%error, "cannot read the store's epoch");
                }
                let all = owned.iter().map(|slot| slot.number() as i16).collect();
                recover(&pool, &shards, all, AGE_S).await;
            }
            () = drain.ended() => return,
        }
    }
}

async fn recover(pool: &PgPool, shards: &Shards, slots: Vec<i16>, age_s: f64) {
    if slots.is_empty() {
        return;
    }
    match settle::unsettled(pool, slots, age_s).await {
        Ok(chats) => {
            metrics::recovered(chats.len());
            for (chat, low, high) in chats {
                let _ended = shards.send(chat, Event::Recover { chat, low, high }).await;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look for unsettled entries"),
    }
}
