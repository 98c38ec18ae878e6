//! Waits for what is due in each cell, and claims it.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tern_cluster::Drain;
use tern_cluster::links::RetryWaits;
use tern_types::{Cell, Clock, Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::{Batch, Bells, Deliver, Worker, claim};
use crate::metrics;

/// The longest time between two looks at a cell. Each is between half of it and the whole, so that the workers of a
/// platform are spread over it.
const POLL: Duration = Duration::from_secs(1);
/// The time between two counts of what is due in a cell, for metrics.
const MEASURE: Duration = Duration::from_secs(10);
/// The wait of pushes that could not be looked at, because the store failed.
const FAILED_WAIT: Duration = Duration::from_secs(2);

impl<D: Deliver> Worker<D> {
    /// Claims what is due in the cell, whenever it is woken and once a second at least, until the drain begins.
    pub(super) async fn serve(self: &Arc<Self>, cell: Cell, bells: &Bells, drain: &Drain) {
        let (mut waits, mut measured) = (RetryWaits::default(), Timestamp::default());
        while !drain.started() {
            let cleared = self.clear(cell, drain).await;
            let failed = cleared.is_err();
            let wait = match cleared {
                Ok(()) => {
                    waits.reset();
                    POLL.mul_f64(rand::rng().random_range(0.5..=1.0))
                }
                Err(error) => {
                    metrics::store_failed("claim");
                    tracing::warn!(%cell, %error, "cannot claim pushes");
                    waits.next(Duration::ZERO)
                }
            };
            let now = Clock::monotonic();
            if !failed && now.since(measured) >= MEASURE {
                measured = now;
                self.measure(cell).await;
            }
            // A store that fails is left alone for the whole wait, however often the bell is rung.
            tokio::select! {
                () = drain.wait() => {}
                () = bells.rung(cell), if !failed => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Claims batch after batch until fewer than a full one are due, or the drain begins.
    async fn clear(self: &Arc<Self>, cell: Cell, drain: &Drain) -> sqlx::Result<()> {
        let pool = self.store.pools().cell(cell);
        while !drain.started() {
            let Some(batch) = claim::claim(pool, self.limits.batch).await? else {
                break;
            };
            let is_full = batch.rows.len() >= self.limits.batch as usize;
            // A claimed batch waits for room here, so each cell has at most one batch that waits.
            let room = self.looks.clone().acquire_owned().await.ok();
            let worker = self.clone();
            self.tasks
                .spawn(async move { Box::pin(worker.handle(cell, batch, room)).await });
            if !is_full {
                break;
            }
        }
        Ok(())
    }

    /// Works on what was claimed until each push has come to its end. `room` is given up when all is decided, so the
    /// time that providers take does not hold up the next batch.
    pub(super) async fn handle(&self, cell: Cell, batch: Batch, room: Option<OwnedSemaphorePermit>) {
        let clock = batch.clock;
        let repeated = batch.rows.iter().filter(|row| row.repeated).count();
        metrics::claimed(batch.rows.len(), repeated);
        let planned = tokio::select! {
            planned = self.plan(cell, &batch) => planned,
            () = self.cut.cancelled() => {
                return self.give_back(cell, batch.rows.into_iter(), clock).await;
            }
        };
        drop(room);
        match planned {
            Ok(plan) => {
                let noted = self.note(cell, plan.notes, clock);
                tokio::join!(noted, self.send(cell, plan.pushes, clock));
            }
            Err(error) => {
                metrics::store_failed("look");
                tracing::warn!(%cell, %error, "cannot look at what is due");
                self.put_off(cell, batch.rows.into_iter(), FAILED_WAIT, clock)
                    .await;
            }
        }
    }
}
