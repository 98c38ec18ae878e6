//! Turns at the store for what is not a shard's own work: a bounded number at a time, each in bounded time, and none while
//! the store is known to be away (rule 9).

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics;
use crate::state::shard::LoadError;
use crate::store::load::StoreError;
use crate::store::{is_away, is_held};

/// Work that hangs is given up: the store is away.
const WORK_TIMEOUT: Duration = Duration::from_secs(5);
/// So long work waits for its turn when a node that died leaves thousands of chats to others; the store is not away then.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// From work that found the store away to the next that tries: half of what clients are told to wait, so that whoever
/// comes after the store is back finds it.
const AWAY_FOR: Duration = Duration::from_millis(250);

/// Cheap to clone; all shards of a node share one.
#[derive(Debug, Clone)]
pub struct Turns {
    free: Arc<Semaphore>,
    circuit: Arc<Circuit>,
}

impl Turns {
    /// At most `at_a_time`: each holds a connection of the pool.
    pub fn new(at_a_time: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(at_a_time as usize)),
            circuit: Arc::default(),
        }
    }

    /// Does `work` when its turn has come; what it is done `of` is only named in the log.
    pub async fn take<T>(
        &self,
        of: impl Display,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, LoadError> {
        self.circuit.admits(Instant::now()).ok_or(LoadError::Away)?;
        let turn = timeout(TURN_TIMEOUT, self.free.acquire()).await;
        let _turn = turn
            .map_err(|_| LoadError::Overloaded)
            .inspect_err(|_| metrics::load_refused())?;
        // While it waited for its turn, others may have found the store away.
        let attempt = self.circuit.begin(Instant::now()).ok_or(LoadError::Away)?;
        match timeout(WORK_TIMEOUT, work).await {
            Ok(Ok(done)) => {
                attempt.succeeded();
                Ok(done)
            }
            Err(_) => {
                tracing::warn!(%of, "loading takes too long");
                Err(LoadError::Away)
            }
            Ok(Err(error)) => {
                tracing::warn!(%of, %error, "cannot load");
                match error {
                    StoreError::Sql(error) if is_away(&error) => drop(attempt),
                    StoreError::Sql(error) if is_held(&error) => {
                        attempt.succeeded();
                        return Err(LoadError::Held);
                    }
                    _ => attempt.succeeded(),
                }
                Err(LoadError::Away)
            }
        }
    }
}

/// Closed: everything passes. After a failure: one attempt each [`AWAY_FOR`], until one succeeds.
#[derive(Debug, Default)]
struct Circuit {
    /// When the next attempt may be made; `None`: closed.
    next: Mutex<Option<Instant>>,
}

impl Circuit {
    /// `None`: no attempt is admitted at this moment.
    fn admits(&self, now: Instant) -> Option<()> {
        self.next().is_none_or(|next| next <= now).then_some(())
    }

    /// An attempt that counts as failed when it is dropped, so one that is given up does too.
    fn begin(&self, now: Instant) -> Option<Attempt<'_>> {
        let mut next = self.next();
        if let Some(next) = next.as_mut() {
            if *next > now {
                return None;
            }
            // The only one, as long as it may take.
            *next = now + WORK_TIMEOUT;
        }
        Some(Attempt { circuit: self })
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Attempt<'a> {
    circuit: &'a Circuit,
}

impl Attempt<'_> {
    /// The store answered.
    fn succeeded(self) {
        *self.circuit.next() = None;
        std::mem::forget(self);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        *self.circuit.next() = Some(Instant::now() + AWAY_FOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_one_attempt_at_a_time_is_made() {
        let circuit = Circuit::default();
        let start = Instant::now();
        let (one, other) = (circuit.begin(start), circuit.begin(start));
        assert!(one.is_some() && other.is_some(), "closed: all pass");
        drop(one);
        assert!(circuit.begin(start).is_none());
        assert!(circuit.admits(start).is_none());

        let later = Instant::now() + AWAY_FOR;
        let probe = circuit.begin(later).unwrap();
        assert!(circuit.begin(later).is_none(), "one at a time");
        assert!(
            circuit.begin(later + AWAY_FOR).is_none(),
            "also when it takes long"
        );
        drop(probe);
        assert!(circuit.begin(Instant::now()).is_none(), "it failed too");

        let probe = circuit.begin(Instant::now() + AWAY_FOR).unwrap();
        probe.succeeded();
        assert!(circuit.begin(start).is_some(), "closed again");
    }

    #[tokio::test(start_paused = true)]
    async fn rule_9_waiting_for_a_turn_is_bounded_too() {
        let turns = Turns::new(0);
        let result = turns.take("", async { Ok(()) }).await;
        assert!(matches!(result, Err(LoadError::Overloaded)));
        assert!(
            turns.circuit.admits(Instant::now()).is_some(),
            "the store is not away"
        );
    }
}
