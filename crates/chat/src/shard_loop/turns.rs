//! Hands out turns at a cell of the store for loads, for the making of chats and for windows: a bounded number at a
//! time, each for a bounded time.
//!
//! While the store is away, one attempt at a time finds out whether it is back. Work that comes meanwhile waits for the
//! result of that attempt (rule 9).

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use tern_chat_core::shard::LoadError;

use tern_store::StoreError;
use tern_store::error::{is_away, is_locked};

use crate::store::ReadError;

/// The longest time that work may take in its turn. Work that takes longer is given up, and the store counts as away.
const WORK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that work waits for its turn. After it the store does not count as away: if a node dies, the others
/// may have thousands of chats to load.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// The time from work that found the store away to the next attempt.
const AWAY_FOR: Duration = Duration::from_millis(250);
/// The longest time that work waits for the result of another attempt. After it the caller is told to try again.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// The turns at one cell of the store. They are cheap to clone; the loads and the maker of direct chats of the cell
/// share them. Windows have turns of their own.
#[derive(Debug, Clone)]
pub struct Turns {
    free: Arc<Semaphore>,
    circuit: Arc<Circuit>,
    /// The longest time that work may take in its turn.
    within: Duration,
}

impl Turns {
    /// Allows `at_a_time` turns at a time, since each uses a connection of the pool.
    pub fn new(at_a_time: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(at_a_time as usize)),
            circuit: Arc::default(),
            within: WORK_TIMEOUT,
        }
    }

    /// Sets the longest time that work may take in its turn. Without this it is 5 s.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Returns whether the store was found away, and is not to be asked before somebody has found out whether it is
    /// back. Work that is soon tried again need not wait for that.
    pub fn is_away(&self) -> bool {
        match self.circuit.found.borrow().store {
            Store::Answers => false,
            Store::Away { until } => Instant::now() < until,
            Store::Probed => true,
        }
    }

    /// Does `work` when its turn has come. `of` says in the log what the work is about.
    ///
    /// # Errors
    ///
    /// [`LoadError::Overloaded`] if the turn did not come in time, [`LoadError::Locked`] if the work met a lock of
    /// another transaction, [`LoadError::Unreadable`] if it could not read what the store answered, else
    /// [`LoadError::Away`].
    pub async fn take<T>(
        &self,
        of: impl Display,
        work: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, LoadError> {
        let attempt = timeout(PROBE_PATIENCE, self.circuit.begin()).await;
        let attempt = attempt.ok().flatten().ok_or(LoadError::Away)?;
        let turn = timeout(TURN_TIMEOUT, self.free.acquire()).await;
        let Ok(_turn) = turn else {
            attempt.was_not_made();
            return Err(LoadError::Overloaded);
        };
        // While it waited for its turn, others may have found the store away.
        if attempt.is_late() {
            attempt.was_not_made();
            return Err(LoadError::Away);
        }
        match timeout(self.within, work).await {
            Ok(Ok(done)) => {
                attempt.succeeded();
                Ok(done)
            }
            Err(_) => {
                tracing::warn!(%of, "reading from the store takes too long");
                Err(LoadError::Away)
            }
            Ok(Err(error)) => {
                tracing::warn!(%of, %error, "cannot read from the store");
                let failed = match error {
                    ReadError::Store(StoreError::Away(error)) if is_away(&error) => {
                        return Err(LoadError::Away);
                    }
                    ReadError::Store(StoreError::Away(error)) if is_locked(&error) => LoadError::Locked,
                    // After a fault too the caller is to come again: a device keeps its message until it is taken.
                    ReadError::Store(_) => LoadError::Away,
                    ReadError::Key(_) | ReadError::Unknown(..) => LoadError::Unreadable,
                };
                attempt.succeeded();
                Err(failed)
            }
        }
    }
}

/// The facts that the attempts so far have found out about the store.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    store: Store,
    /// The number of attempts that failed so far.
    failures: u64,
}

/// The state of the store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Store {
    /// The store answered the newest attempt, or none was made yet.
    #[default]
    Answers,
    /// The store was away. The next attempt may be made at `until`.
    Away { until: Instant },
    /// The store was away, and one attempt is under way to find out whether it is back.
    Probed,
}

/// A circuit breaker. While the store answers, every attempt passes. After a failure one attempt passes each
/// [`AWAY_FOR`], until one succeeds.
#[derive(Debug, Default)]
struct Circuit {
    found: watch::Sender<Found>,
}

impl Circuit {
    /// Begins an attempt. While the store is away this first waits for the result of the attempt under way, or for the
    /// time of the next one. Returns `None` if another attempt failed meanwhile, so that the store is still away.
    async fn begin(&self) -> Option<Attempt<'_>> {
        let mut seen = self.found.subscribe();
        let before = seen.borrow().failures;
        loop {
            let Found { store, failures } = *seen.borrow_and_update();
            match store {
                Store::Answers => return Some(self.attempt(false)),
                Store::Away { .. } if failures > before => return None,
                Store::Away { until } => {
                    if tokio::time::timeout_at(until, seen.changed()).await.is_err()
                        && self.becomes_probe(until)
                    {
                        return Some(self.attempt(true));
                    }
                }
                // The sender belongs to this circuit, so it cannot be gone.
                Store::Probed => seen.changed().await.ok()?,
            }
        }
    }

    fn attempt(&self, probe: bool) -> Attempt<'_> {
        Attempt { circuit: self, probe }
    }

    /// Makes the caller's attempt the probe if it is the first of those that waited for the time `until`. Returns
    /// whether it is.
    fn becomes_probe(&self, until: Instant) -> bool {
        self.found.send_if_modified(|found| {
            let first = found.store == Store::Away { until };
            if first {
                found.store = Store::Probed;
            }
            first
        })
    }
}

/// An attempt at the store. An attempt that is dropped counts as failed, for example because its caller gave up.
struct Attempt<'a> {
    circuit: &'a Circuit,
    /// True if this is the one attempt that others wait for.
    probe: bool,
}

impl Attempt<'_> {
    /// Returns whether the attempt began while the store answered, and the store has been found away since.
    fn is_late(&self) -> bool {
        !self.probe && self.circuit.found.borrow().store != Store::Answers
    }

    /// Ends an attempt that did not reach the store and so learned nothing of it. If it is the probe, it counts as
    /// failed, so that another attempt may take its place.
    fn was_not_made(self) {
        if !self.probe {
            std::mem::forget(self);
        }
    }

    /// Ends an attempt that the store answered.
    fn succeeded(self) {
        self.circuit.found.send_if_modified(|found| {
            let news = found.store != Store::Answers;
            found.store = Store::Answers;
            news
        });
        std::mem::forget(self);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let until = Instant::now() + AWAY_FOR;
        self.circuit.found.send_modify(|found| {
            found.store = Store::Away { until };
            found.failures += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::future::join_all;
    use futures::poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_one_attempt_at_a_time_is_made_and_the_others_wait_for_what_it_finds() {
        let circuit = Circuit::default();
        let (one, other) = (circuit.begin().await, circuit.begin().await);
        assert!(one.is_some() && other.is_some(), "the store answers: all pass");
        let began = Instant::now();
        drop(one);

        let probe = circuit.begin().await.unwrap();
        assert_eq!(began.elapsed(), AWAY_FOR);
        let mut waits = pin!(circuit.begin());
        assert!(poll!(&mut waits).is_pending(), "one at a time");
        drop(probe);
        assert!(waits.await.is_none(), "the store is away");
        assert_eq!(began.elapsed(), AWAY_FOR, "who waited is told at once");

        let probe = circuit.begin().await.unwrap();
        let mut waits = pin!(circuit.begin());
        assert!(poll!(&mut waits).is_pending());
        probe.succeeded();
        assert!(waits.await.is_some(), "the store answers again");
        assert_eq!(began.elapsed(), 2 * AWAY_FOR);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_wait_for_the_time_of_the_next_attempt_one_makes_it() {
        let turns = Turns::new(2);
        let away = || async { Err::<(), _>(ReadError::from(sqlx::Error::PoolClosed)) };
        assert!(turns.take("", away()).await.is_err());
        let tries = std::cell::Cell::new(0);
        let load = || {
            turns.take("", async {
                tries.set(tries.get() + 1);
                away().await
            })
        };
        let results = join_all((0..100).map(|_| load())).await;
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Err(LoadError::Away)))
        );
        assert_eq!(tries.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_need_not_wait_for_an_attempt_asks_whether_one_is_to_be_made() {
        let turns = Turns::new(2);
        assert!(!turns.is_away());
        drop(turns.circuit.begin().await);
        assert!(turns.is_away());
        tokio::time::advance(AWAY_FOR).await;
        assert!(!turns.is_away(), "somebody has to find out");
        let probe = turns.circuit.begin().await.unwrap();
        assert!(turns.is_away(), "one does");
        probe.succeeded();
        assert!(!turns.is_away());
    }

    #[tokio::test]
    async fn a_chat_that_cannot_be_read_says_nothing_against_the_store() {
        let turns = Turns::new(2);
        let chat = tern_types::ChatId(uuid::Uuid::nil());
        for error in [ReadError::Key(chat), ReadError::Unknown(chat, "a role")] {
            let result = turns.take(chat, async { Err::<(), _>(error) }).await;
            assert!(matches!(result, Err(LoadError::Unreadable)), "{result:?}");
        }
        assert!(!turns.is_away());
    }

    #[tokio::test(start_paused = true)]
    async fn rule_9_waiting_for_a_turn_is_bounded_too() {
        let turns = Turns::new(0);
        let result = turns.take("", async { Ok(()) }).await;
        assert!(matches!(result, Err(LoadError::Overloaded)));
        assert_eq!(
            turns.circuit.found.borrow().store,
            Store::Answers,
            "the store is not away"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rule_9_waiting_for_an_attempt_that_hangs_is_bounded_too() {
        let turns = Turns::new(2);
        drop(turns.circuit.begin().await);
        let hangs = turns.take("", std::future::pending::<Result<(), ReadError>>());
        let mut hangs = pin!(hangs);
        assert!(poll!(&mut hangs).is_pending());
        tokio::time::sleep(AWAY_FOR).await;
        assert!(poll!(&mut hangs).is_pending());
        let began = Instant::now();
        let result = turns.take("", async { Ok(()) }).await;
        assert!(matches!(result, Err(LoadError::Away)));
        assert_eq!(began.elapsed(), PROBE_PATIENCE);
    }
}
