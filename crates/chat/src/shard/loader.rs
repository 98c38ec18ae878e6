//! Loads of chats: a bounded number at a time, each in bounded time, and none while the store is known to be away: whoever
//! waits is told soon, and comes again (rule 9).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tern_types::{ChatId, RequestId, UserId};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics;
use crate::state::chat::Snapshot;
use crate::state::shard::LoadError;
use crate::store::is_away;
use crate::store::load::{self, Direct, StoreError};
use crate::store::seal::MasterKey;

/// Loads that hang are given up: the store is away.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// So long a load waits for its turn when a node that died leaves thousands of chats to others; the store is not away then.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// From a load that found the store away to the next that tries: clients come again a second later at the earliest.
const AWAY_FOR: Duration = Duration::from_millis(500);

/// Cheap to clone; all shards of a node share one.
#[derive(Clone)]
pub struct Loader {
    pool: PgPool,
    master: MasterKey,
    turns: Arc<Semaphore>,
    circuit: Arc<Circuit>,
}

impl Loader {
    /// At most `at_a_time`: a load holds a connection of the pool.
    pub fn new(pool: PgPool, master: MasterKey, at_a_time: u32) -> Self {
        Self {
            pool,
            master,
            turns: Arc::new(Semaphore::new(at_a_time as usize)),
            circuit: Arc::default(),
        }
    }

    /// The chat, made first where `create` names two people and it does not exist; what the log says of `requests` with it.
    pub async fn load(
        &self,
        chat: ChatId,
        create: Option<(UserId, UserId)>,
        requests: &[(UserId, RequestId)],
    ) -> Result<Option<Snapshot>, LoadError> {
        self.circuit.admits(Instant::now()).ok_or(LoadError::Away)?;
        let turn = timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let _turn = turn
            .map_err(|_| LoadError::Overloaded)
            .inspect_err(|_| metrics::load_refused())?;
        // While it waited for its turn, others may have found the store away.
        let attempt = self.circuit.begin(Instant::now()).ok_or(LoadError::Away)?;
        match timeout(LOAD_TIMEOUT, self.read(chat, create, requests)).await {
            Ok(Ok(result)) => {
                attempt.succeeded();
                result
            }
            Err(_) => {
                tracing::warn!(%chat, "loading the chat takes too long");
                Err(LoadError::Away)
            }
            Ok(Err(error)) => {
                tracing::warn!(%chat, %error, "cannot load the chat");
                match error {
                    StoreError::Sql(error) if is_away(&error) => drop(attempt),
                    _ => attempt.succeeded(),
                }
                Err(LoadError::Away)
            }
        }
    }

    async fn read(
        &self,
        chat: ChatId,
        create: Option<(UserId, UserId)>,
        requests: &[(UserId, RequestId)],
    ) -> Result<Result<Option<Snapshot>, LoadError>, StoreError> {
        let (pool, master) = (&self.pool, &self.master);
        let snapshot = load::chat(pool, master, chat, requests).await?;
        let (None, Some(people)) = (&snapshot, create) else {
            return Ok(Ok(snapshot));
        };
        match load::create_direct(pool, master, chat, people).await? {
            Direct::There => {}
            Direct::UserNotFound => return Ok(Err(LoadError::PeerNotFound)),
            Direct::Blocked => return Ok(Err(LoadError::NotAccepted)),
        }
        load::chat(pool, master, chat, requests).await.map(Ok)
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
            *next = now + LOAD_TIMEOUT;
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
    use futures::future::join_all;
    use sqlx::postgres::PgPoolOptions;
    use uuid::Uuid;

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

    #[tokio::test]
    async fn rule_9_a_thousand_chats_are_told_soon_that_the_store_is_away() {
        let nobody_listens = "postgres://tern@127.0.0.1:1/tern";
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_millis(200))
            .connect_lazy(nobody_listens)
            .unwrap();
        let loader = Loader::new(pool, MasterKey::from_hex(&"a7".repeat(32)).unwrap(), 4);
        let start = Instant::now();
        let chats = (0..1000).map(|n| ChatId(Uuid::from_u128(n)));
        let loads = chats.map(|chat| loader.load(chat, None, &[]));
        let results = join_all(loads).await;
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Err(LoadError::Away)))
        );
        // One after the other they would take a minute.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn rule_9_waiting_for_a_turn_is_bounded_too() {
        let pool = PgPoolOptions::new()
            .connect_lazy("postgres://tern@127.0.0.1:1/tern")
            .unwrap();
        let loader = Loader::new(pool, MasterKey::from_hex(&"a7".repeat(32)).unwrap(), 0);
        let result = loader.load(ChatId(Uuid::nil()), None, &[]).await;
        assert!(matches!(result, Err(LoadError::Overloaded)));
        assert!(
            loader.circuit.admits(Instant::now()).is_some(),
            "the store is not away"
        );
    }
}
