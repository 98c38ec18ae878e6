//! Erases what was done to deleted messages, as far as the commits of the deletions left it (`store/erasing.rs`). Every
//! node looks at the cells in which it owns chats. Two nodes that find the same erasure do not wait for each other.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use sqlx::PgPool;
use tern_cluster::drain::Drain;
use tern_cluster::map::MapHandle;
use tern_store::Pools;
use tern_types::Cell;
use tokio::time::sleep;

use crate::metrics;
use crate::ownership::Ownership;
use crate::store::erasing;

/// The time between two looks on average. Nobody is shown what is still to be erased, so it need not be shorter; a look
/// that finds nothing is one probe of an empty index.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks for erasures in the cells of this node's slots, and carries them out, until the drain begins.
pub async fn run(pools: Pools, ownership: Ownership, map: MapHandle, drain: Drain) {
    tokio::select! {
        () = looks(&pools, &ownership, &map) => {}
        () = drain.wait() => metrics::erasures(Duration::ZERO),
    }
}

/// Looks again and again. The pauses differ, so that nodes do not look at the same moment.
async fn looks(pools: &Pools, ownership: &Ownership, map: &MapHandle) {
    loop {
        sleep(INTERVAL.mul_f64(0.5 + rand::random::<f64>())).await;
        let slots = ownership.slots(&map.current());
        let cells: BTreeSet<Cell> = slots.iter().map(|slot| pools.count().of(*slot)).collect();
        look(pools, cells).await;
    }
}

/// Carries out the erasures of these cells, each cell by itself. A cell that fails is looked at again the next time.
async fn look(pools: &Pools, cells: BTreeSet<Cell>) {
    let erased = cells.into_iter().map(|cell| async move {
        let oldest = erase(pools.cell(cell)).await;
        oldest.inspect_err(
            |error| tracing::warn!(%cell, %error, "cannot erase what was done to deleted messages"),
        )
    });
    let oldest = join_all(erased).await.into_iter().flatten().flatten().max();
    metrics::erasures(oldest.unwrap_or_default());
}

/// Carries out the erasures of a cell, batch by batch. Returns the age that the oldest had; `None` if there was none.
async fn erase(pool: &PgPool) -> sqlx::Result<Option<Duration>> {
    let Some(oldest) = erasing::oldest(pool).await? else {
        return Ok(None);
    };
    while let Some(erased) = erasing::erase(pool, erasing::BATCH).await? {
        metrics::erased(erased);
    }
    Ok(Some(oldest))
}
