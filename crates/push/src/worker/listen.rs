//! Listens to the chat nodes, which wake a worker when a push is due. A notification may be lost; then the poll of the
//! cell finds the push.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tern_types::{Cell, Cells};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// The channel on which chat nodes say that something is due. The payload is the number of the cell.
const CHANNEL: &str = "tern_push";
/// The wait before the first attempt to listen again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait. If nobody can listen at all, as behind some poolers, the attempts then cost next to nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The time after which a connection that broke is replaced at once.
const HEALTHY: Duration = Duration::from_secs(10);

/// The bells that wake the loops of the cells, one for each.
pub(super) struct Bells(Vec<Notify>);

impl Bells {
    pub(super) fn new(cells: Cells) -> Self {
        Self(cells.all().map(|_| Notify::new()).collect())
    }

    /// Waits until the cell's bell is rung. It may have been rung before.
    pub(super) async fn rung(&self, cell: Cell) {
        match self.0.get(usize::from(cell.number())) {
            Some(bell) => bell.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Rings the bell of the cell whose number this is, and all of them if it is no number of a cell.
    fn ring(&self, payload: &str) {
        match payload.parse().ok().and_then(|cell: usize| self.0.get(cell)) {
            Some(bell) => bell.notify_one(),
            None => self.ring_all(),
        }
    }

    fn ring_all(&self) {
        for bell in &self.0 {
            bell.notify_one();
        }
    }
}

/// Rings the bells whenever a chat node says so. It listens again when the connection breaks, and runs until it is
/// dropped.
pub(super) async fn run(pool: &PgPool, bells: &Bells) {
    let (mut wait, mut is_said) = (FIRST_WAIT, false);
    loop {
        let began = Instant::now();
        let Err(error) = listen(pool, bells).await;
        if began.elapsed() >= HEALTHY {
            (wait, is_said) = (FIRST_WAIT, false);
        }
        if !is_said {
            tracing::warn!(%error, "chat nodes do not wake this node: it looks for pushes once a second");
            is_said = true;
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Listens until the connection fails and cannot be replaced.
async fn listen(pool: &PgPool, bells: &Bells) -> sqlx::Result<Infallible> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        match listener.try_recv().await? {
            Some(told) => bells.ring(told.payload()),
            // The connection was replaced, and what was said meanwhile is lost.
            None => bells.ring_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_ring_is_kept_until_its_cell_asks() {
        let bells = Bells::new(Cells::new(4).unwrap());
        let rung = |cell| bells.rung(cell).now_or_never().is_some();
        let all: Vec<Cell> = Cells::new(4).unwrap().all().collect();
        bells.ring("2");
        bells.ring("2");
        assert_eq!(
            all.iter().map(|cell| rung(*cell)).collect::<Vec<_>>(),
            [false, false, true, false]
        );
        assert!(!rung(all[2]), "once");
        for unknown in ["4", "", "x"] {
            bells.ring(unknown);
            assert!(all.iter().all(|cell| rung(*cell)), "{unknown}");
        }
    }
}
