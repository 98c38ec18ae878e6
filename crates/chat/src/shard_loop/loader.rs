//! Loads chats from the store, and makes direct chats on first use. Loads take turns ([`Turns`]): while the store is
//! away they fail soon, so that callers are told to come again (rule 9).

use std::sync::Arc;

use tern_store::Pools;
use tern_types::ChatId;

use tern_chat_core::Making;
use tern_chat_core::chat::{LookUp, Snapshot};
use tern_chat_core::shard::LoadError;

use super::directs::Directs;
use super::turns::Turns;
use crate::metrics;
use crate::store::direct::{Made, NewDirect};
use crate::store::load;
use crate::store::seal::MasterKey;

/// The loader of chats. It is cheap to clone; all shards of a node share one.
#[derive(Clone)]
pub struct Loader {
    pools: Pools,
    master: MasterKey,
    /// The turns at each cell, in the order of the cells. A cell that is away holds up no other.
    cells: Arc<[(Turns, Directs)]>,
    new_strangers: usize,
}

impl Loader {
    /// Creates a loader. Since each load uses a connection to the chat's cell, at most three quarters of these load
    /// chats at a time; the rest is left to devices that catch up. `new_strangers` is the number of new strangers to
    /// whom one user's devices may write within a day.
    pub fn new(pools: Pools, master: MasterKey, new_strangers: usize) -> Self {
        let connections = pools.cell_connections();
        let at_a_time = connections.saturating_sub(connections.div_ceil(4)).max(1);
        let cell = |cell| {
            let turns = Turns::new(at_a_time);
            let directs = Directs::start(pools.cell(cell).clone(), master.clone(), turns.clone());
            (turns, directs)
        };
        Self {
            cells: pools.count().all().map(cell).collect(),
            pools,
            master,
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

    /// Reads the chat in one snapshot, and looks up in its log what it is told to. If `create` is set and the chat does not
    /// exist, the chat is made first. Returns `Ok(None)` if there is no such chat.
    pub async fn load(
        &self,
        chat: ChatId,
        create: Option<Making>,
        look_up: &LookUp,
    ) -> Result<Option<Snapshot>, LoadError> {
        let loaded = self.load_in_turn(chat, create, look_up).await;
        if matches!(loaded, Err(LoadError::Overloaded)) {
            metrics::load_refused();
        }
        loaded
    }

    /// Does the work of [`Self::load`] when its turn has come.
    async fn load_in_turn(
        &self,
        chat: ChatId,
        create: Option<Making>,
        look_up: &LookUp,
    ) -> Result<Option<Snapshot>, LoadError> {
        let (turns, directs) = &self.cells[self.pools.number(chat)];
        if let Some(making) = create {
            match directs.make(self.new_direct(chat, making)).await? {
                Made::New(snapshot) => return Ok(Some(new(*snapshot, look_up))),
                Made::Blocked => return Err(LoadError::NotAccepted),
                Made::Limited(retry_after) => return Err(LoadError::StrangersLimited { retry_after }),
                Made::NobodyFound => return Err(LoadError::PeerNotFound),
                Made::Locked => return Err(LoadError::Locked),
                Made::Before => {}
            }
        }
        let read = load::chat(&self.pools, &self.master, chat, look_up);
        turns.take(chat, read).await
    }
}

/// Returns the snapshot of a chat that was just made. Its log is empty, so nothing that is looked up is in it.
fn new(snapshot: Snapshot, look_up: &LookUp) -> Snapshot {
    Snapshot {
        looked_up: look_up.requests.clone(),
        ..snapshot
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tern_types::{Cells, UserId};
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rule_9_a_thousand_chats_are_told_soon_that_the_store_is_away() {
        let nobody_listens: PgConnectOptions = "postgres://tern@127.0.0.1:1/tern".parse().unwrap();
        let people = PgPoolOptions::new().connect_lazy_with(nobody_listens.clone());
        let pools = Pools::new(people, Cells::DEFAULT, 4, |_| nobody_listens.clone());
        let loader = Loader::new(pools, MasterKey::from_hex(&"a7".repeat(32)).unwrap(), 100);
        let start = Instant::now();
        let chats = (0..1000).map(|n| ChatId(Uuid::from_u128(n)));
        let making = Making {
            people: (UserId::random(), UserId::random()),
            by_device: true,
        };
        let nothing = LookUp::default();
        let loads =
            chats.map(|chat| loader.load(chat, (chat.0.as_u128() % 2 == 0).then_some(making), &nothing));
        let results = join_all(loads).await;
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Err(LoadError::Away)))
        );
        // Four loads of a cell at a time, each of which waits 3 s for a connection, would take minutes if each were
        // tried.
        assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    }
}
