//! Loads of chats, and their making on first use. Whoever waits is told soon when the store is away, and comes again
//! (rule 9): see [`Turns`].

use sqlx::PgPool;
use tern_types::{ChatId, RequestId, UserId};

use super::directs::Directs;
use super::turns::Turns;
use crate::state::Making;
use crate::state::chat::Snapshot;
use crate::state::shard::LoadError;
use crate::store::direct::{Made, NewDirect};
use crate::store::load;
use crate::store::seal::MasterKey;

/// Cheap to clone; all shards of a node share one.
#[derive(Clone)]
pub struct Loader {
    pool: PgPool,
    master: MasterKey,
    turns: Turns,
    directs: Directs,
    new_strangers: usize,
}

impl Loader {
    /// At most `at_a_time`: a load holds a connection of the pool. `new_strangers`: whom one user's devices may write to
    /// first within a day.
    pub fn new(pool: PgPool, master: MasterKey, at_a_time: u32, new_strangers: usize) -> Self {
        let turns = Turns::new(at_a_time);
        Self {
            directs: Directs::start(pool.clone(), master.clone(), turns.clone()),
            pool,
            master,
            turns,
            new_strangers,
        }
    }

    fn new_direct(&self, chat: ChatId, making: Making) -> NewDirect {
        NewDirect {
            chat,
            people: making.people,
            strangers: making.by_device.then_some(self.new_strangers),
        }
    }

    /// The chat, made first where `create` names two people and it does not exist; what the log says of `requests` with it.
    pub async fn load(
        &self,
        chat: ChatId,
        create: Option<Making>,
        requests: &[(UserId, RequestId)],
    ) -> Result<Option<Snapshot>, LoadError> {
        if let Some(making) = create {
            match self.directs.make(self.new_direct(chat, making)).await? {
                Made::New(snapshot) => return Ok(Some(new(snapshot, requests))),
                Made::Blocked => return Err(LoadError::NotAccepted),
                Made::Limited(retry_after) => return Err(LoadError::StrangersLimited { retry_after }),
                Made::NobodyFound => return Err(LoadError::PeerNotFound),
                Made::Held => return Err(LoadError::Held),
                Made::Before => {}
            }
        }
        let read = load::chat(&self.pool, &self.master, chat, requests);
        self.turns.take(chat, read).await
    }
}

/// None of `requests` has a place in an empty log.
fn new(snapshot: Snapshot, requests: &[(UserId, RequestId)]) -> Snapshot {
    Snapshot {
        looked_up: requests.to_vec(),
        ..snapshot
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures::future::join_all;
    use sqlx::postgres::PgPoolOptions;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn rule_9_a_thousand_chats_are_told_soon_that_the_store_is_away() {
        let nobody_listens = "postgres://tern@127.0.0.1:1/tern";
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_millis(200))
            .connect_lazy(nobody_listens)
            .unwrap();
        let loader = Loader::new(pool, MasterKey::from_hex(&"a7".repeat(32)).unwrap(), 4, 100);
        let start = Instant::now();
        let chats = (0..1000).map(|n| ChatId(Uuid::from_u128(n)));
        let making = Making {
            people: (UserId::random(), UserId::random()),
            by_device: true,
        };
        let loads = chats.map(|chat| loader.load(chat, (chat.0.as_u128() % 2 == 0).then_some(making), &[]));
        let results = join_all(loads).await;
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Err(LoadError::Away)))
        );
        // One after the other they would take a minute.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}
