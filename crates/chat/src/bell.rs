//! Wakes the push workers when a push becomes due in a cell, by NOTIFY on a connection of its own, which writes
//! nothing.
//!
//! A ring is a hint, and nobody waits for it. The workers look at each cell once a second anyway, so a ring that the
//! store does not take is only counted. It is not sent in the transaction that makes a push due, because Postgres
//! commits the transactions of a database that notify somebody one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tern_cluster::drain::Drain;
use tern_store::postgres::PostgresArgs;
use tern_types::Cells;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::metrics;

/// Wakes the listeners of the channel `tern_push`, once for each number of a cell ($1), as text.
const RING: &str = "SELECT pg_notify('tern_push', n) FROM unnest($1::text[]) AS n";

/// The time between two rings, in which those of the same cell become one. A worker takes some milliseconds for what
/// it finds, and a person does not notice a push that comes so much later.
const RING_EVERY: Duration = Duration::from_millis(20);
/// The longest time that one ring may take, with the connection. After that time the workers have looked by themselves.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bell of a node. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Bell(Arc<Rung>);

#[derive(Debug)]
struct Rung {
    /// True for each cell that was rung for and whose workers were not woken yet, in the order of the cells. Nothing
    /// else is kept of a ring.
    cells: Vec<AtomicBool>,
    news: Notify,
}

/// The handle that rings the bell for one cell.
#[derive(Debug, Clone)]
pub struct Rope {
    bell: Bell,
    cell: usize,
}

impl Bell {
    /// Makes the bell of a node whose store has these cells. Nobody hears it before [`run`].
    pub fn new(cells: Cells) -> Self {
        Self(Arc::new(Rung {
            cells: cells.all().map(|_| AtomicBool::new(false)).collect(),
            news: Notify::new(),
        }))
    }

    /// Returns the handle that rings for the cell with this number.
    pub fn rope(&self, cell: usize) -> Rope {
        Rope {
            bell: self.clone(),
            cell,
        }
    }

    /// Takes the numbers of the cells that were rung for, as text.
    fn take(&self) -> Vec<String> {
        let cells = self.0.cells.iter().enumerate();
        let rung = cells.filter(|(_, rung)| rung.swap(false, Ordering::AcqRel));
        rung.map(|(number, _)| number.to_string()).collect()
    }
}

impl Rope {
    /// Rings for the cell. It never waits.
    pub(crate) fn ring(&self) {
        if let Some(rung) = self.bell.0.cells.get(self.cell) {
            rung.store(true, Ordering::Release);
            self.bell.0.news.notify_one();
        }
    }
}

/// Returns the pool of the one connection by which a bell rings. It leads to the first server of the store, where the
/// workers listen. A ring may be lost with the server, so none waits until it is safe on a disk.
pub fn pool(args: &PostgresArgs) -> PgPool {
    let patience = PATIENCE.as_millis().to_string();
    let options = args.database_url.first().application_name("tern").options([
        ("statement_timeout", patience.as_str()),
        ("synchronous_commit", "off"),
    ]);
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect_lazy_with(options)
}

/// Passes the rings on to the workers until the drain has ended.
pub async fn run(bell: Bell, pool: PgPool, drain: Drain) {
    tokio::select! {
        () = pass_on(&bell, &pool) => {}
        () = drain.ended() => {}
    }
}

/// Passes the rings on, and never returns.
async fn pass_on(bell: &Bell, pool: &PgPool) {
    loop {
        bell.0.news.notified().await;
        let cells = bell.take();
        if !cells.is_empty() && !wake(pool, &cells).await {
            metrics::ring_lost();
        }
        sleep(RING_EVERY).await;
    }
}

/// Wakes the workers of these cells. Returns whether the store has taken it.
async fn wake(pool: &PgPool, cells: &[String]) -> bool {
    let ring = sqlx::query(RING).bind(cells).execute(pool);
    match timeout(PATIENCE, ring).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot wake the push workers");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_rings_of_a_cell_are_one_and_wake_once() {
        let bell = Bell::new(Cells::DEFAULT);
        for cell in [1, 0, 1, 1, usize::MAX] {
            bell.rope(cell).ring();
        }
        bell.0.news.notified().await;
        assert_eq!(bell.take(), ["0", "1"]);
        assert_eq!(bell.take(), [] as [&str; 0]);
        bell.rope(1).ring();
        bell.0.news.notified().await;
        assert_eq!(bell.take(), ["1"]);
    }
}
