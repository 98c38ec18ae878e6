//! Measures the size of all inboxes in the store, for metrics. One chat node does so on behalf of all: the owner of
//! slot 0.

use std::time::Duration;

use tern_cluster::drain::Drain;
use tern_cluster::map::MapHandle;
use tern_store::Pools;

use crate::metrics::{self, Backlog};
use crate::ownership::Ownership;
use crate::store::inspect;

/// The time between two looks. Operators look at these figures by the minute.
const INTERVAL: Duration = Duration::from_secs(15);

/// Sets the metrics every 15 s until the drain begins, and then to 0. On nodes that do not own slot 0 they are 0.
pub async fn run(pools: Pools, ownership: Ownership, map: MapHandle, drain: Drain) {
    let mut looks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = drain.wait() => return metrics::backlog(&Backlog::default()),
        }
        let asks = ownership
            .slots(&map.current())
            .iter()
            .any(|slot| slot.number() == 0);
        match look(&pools, asks).await {
            Ok(backlog) => metrics::backlog(&backlog),
            Err(error) => tracing::debug!(%error, "cannot look at the inboxes"),
        }
    }
}

/// Measures the inboxes if this node asks for all nodes; otherwise returns zeros. Rows of a cell that does not answer are
/// left out.
async fn look(pools: &Pools, asks: bool) -> sqlx::Result<Backlog> {
    if !asks {
        return Ok(Backlog::default());
    }
    let inbox = inspect::inbox_size(pools).await?;
    Ok(Backlog {
        inbox_rows: inbox.rows,
        inbox_oldest: Duration::from_millis(u64::try_from(inbox.oldest_age_ms).unwrap_or(0)),
        wal_bytes: inspect::wal_bytes(pools).await?,
    })
}
