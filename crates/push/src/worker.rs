//! Claims pushes that are due, looks once more, sends them, and notes what became of them.
//!
//! A claim is the only state. Whatever stops a worker, the claim of its rows runs out, and another one repeats them.
//! Everything that is written about a row names its claim, so nothing is written about a row that has changed
//! meanwhile.
//!
//! - this file: the worker, its start and its end
//! - `cells`: waits for what is due in each cell
//! - `batch`: looks at what was claimed, and decides
//! - `sending`: sends, with a bound for each push service, and notes what became of it
//! - `listen`: is woken by chat nodes
//! - `janitor`: ends tokens that no device names any more

mod batch;
mod cells;
mod janitor;
mod listen;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use tern_cluster::Drain;
use tern_cluster::links::RetryWaits;
use tern_types::Cell;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lanes::Lanes;
use crate::metrics;
use crate::presence::Sessions;
use crate::provider::{Delivery, Outgoing};
use crate::providers::Providers;
use crate::store::claim::{self, Batch, Claimed};
use crate::store::note::{self, Became, Note};
use crate::store::{Store, StoreClock};
use listen::Bells;

/// The time after a claim within which its pushes are handed to their providers. A provider takes 10 s at most, so the
/// outcome of a push is written before the claim runs out.
pub const SEND_BY: Duration = Duration::from_secs(15);
/// The time after a claim until which the worker tries to write what became of its pushes.
const NOTE_BY: Duration = Duration::from_secs(28);
/// The part of a drain's time in which pushes may come to their end. A provider takes 10 s at most, and a drain 25 s.
const FINISH: f64 = 0.6;
/// The part of it in which claims are given back after that.
const GIVE_BACK: f64 = 0.3;

/// A way to push services.
pub trait Deliver: Clone + Send + Sync + 'static {
    /// Sends a push, and returns what became of it, within 10 s.
    fn deliver(&self, push: &Outgoing) -> impl Future<Output = Delivery> + Send;
}

impl Deliver for Providers {
    fn deliver(&self, push: &Outgoing) -> impl Future<Output = Delivery> + Send {
        self.send(push)
    }
}

/// The bounds of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most pushes that are claimed at once.
    pub batch: u32,
    /// The most batches that are looked at at a time.
    pub batches: u32,
}

/// A worker. Any number of them may work on one store.
pub struct Worker<D> {
    store: Store,
    deliver: D,
    sessions: Sessions,
    limits: Limits,
    lanes: Lanes,
    /// The room for batches that are being looked at.
    looks: Arc<Semaphore>,
    /// The batches that have not come to their end.
    tasks: TaskTracker,
    /// The token is cancelled when no time is left, and claims have to be given back.
    cut: CancellationToken,
}

impl<D: Deliver> Worker<D> {
    /// Makes a worker that sends by `deliver`.
    pub fn new(store: Store, deliver: D, sessions: Sessions, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            store,
            deliver,
            sessions,
            limits,
            lanes: Lanes::default(),
            looks: Arc::new(Semaphore::new(limits.batches as usize)),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        })
    }

    /// Works until the drain begins, and then until what is claimed has come to its end or is given back.
    pub async fn run(self: Arc<Self>, drain: Drain) {
        let pools = self.store.pools();
        let bells = Bells::new(pools.count());
        let serving = pools.count().all().map(|cell| self.serve(cell, &bells, &drain));
        let beside = join(listen::run(pools.people(), &bells), janitor::run(pools));
        tokio::select! {
            _ = join_all(serving) => {}
            _ = beside => {}
        }
        self.finish(drain.deadline()).await;
    }

    /// Claims pushes of a cell once, and works on them until each has come to its end. Returns how many there were.
    ///
    /// # Errors
    ///
    /// Nothing can be claimed.
    pub async fn round(&self, cell: Cell) -> sqlx::Result<usize> {
        let pool = self.store.pools().cell(cell);
        let Some(batch) = claim::claim(pool, self.limits.batch).await? else {
            return Ok(0);
        };
        let count = batch.rows.len();
        self.handle(cell, batch, None).await;
        Ok(count)
    }

    /// Waits until everything has come to its end, and gives back what does not within `deadline`.
    async fn finish(&self, deadline: Duration) {
        self.tasks.close();
        if timeout(deadline.mul_f64(FINISH), self.tasks.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(
            batches = self.tasks.len(),
            "pushes are given back: there is no time left"
        );
        self.cut.cancel();
        let _given_back = timeout(deadline.mul_f64(GIVE_BACK), self.tasks.wait()).await;
    }

    /// Makes these pushes due at once, so that another worker claims them.
    async fn give_back(&self, cell: Cell, rows: impl Iterator<Item = Claimed>, clock: StoreClock) {
        self.put_off(cell, rows, Duration::ZERO, clock).await;
    }

    /// Makes these pushes due after `wait`, without counting a try.
    async fn put_off(
        &self,
        cell: Cell,
        rows: impl Iterator<Item = Claimed>,
        wait: Duration,
        clock: StoreClock,
    ) {
        let until = clock.now() + wait;
        let waits = |row: Claimed| {
            let tries = row.tries;
            Note::of(&row, Became::Waits { until, tries })
        };
        self.note(cell, rows.map(waits).collect(), clock).await;
    }

    /// Writes notes about a cell's rows. If the store fails, it tries again for as long as the claim lasts: otherwise
    /// what was sent would be sent again.
    async fn note(&self, cell: Cell, notes: Vec<Note>, clock: StoreClock) {
        if notes.is_empty() {
            return;
        }
        let mut waits = RetryWaits::default();
        while let Err(error) = note::note(self.store.pools().cell(cell), notes.clone(), clock).await {
            metrics::store_failed("note");
            tracing::warn!(%cell, %error, rows = notes.len(), "cannot note what became of pushes");
            if clock.elapsed() >= NOTE_BY {
                return;
            }
            sleep(waits.next(Duration::ZERO)).await;
        }
    }

    /// Measures how much is due in a cell.
    async fn measure(&self, cell: Cell) {
        match claim::due(self.store.pools().cell(cell)).await {
            Ok((count, overdue)) => metrics::due(cell, count, overdue),
            Err(error) => {
                metrics::store_failed("due");
                tracing::debug!(%cell, %error, "cannot count what is due");
            }
        }
    }
}
