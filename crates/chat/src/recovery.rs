//! Recovers entries that nobody settles (docs/delivery.md, step 10). The store may have unsettled entries that no owner
//! has in memory: after a crash, after a slot has moved, or because a commit of the previous owner landed late. The
//! task finds them, and tells the shards. It also checks whether the store is still the same one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::drain::Drain;
use tern_cluster::map::MapHandle;
use tern_store::Pools;
use tern_types::{Cell, ChatId, Seq, Slot};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use tern_chat_core::shard::Event;

use crate::epoch::StoreEpoch;
use crate::metrics;
use crate::ownership::Ownership;
use crate::shard_loop::Shards;
use crate::store::settle;

/// The time between two looks at all slots.
const INTERVAL: Duration = Duration::from_secs(10);
/// The age in seconds from which the regular look takes unsettled rows. Younger rows are left to the shard that
/// committed them.
const AGE_S: f64 = 5.0;

/// The most chats that the store is asked for at a time. If it has as many, it is asked for those after them at once.
const PAGE: i64 = 10_000;
/// The time to the next try after the store did not answer. It is short, because a store that fails for a moment is
/// soon back.
const RETRY: Duration = Duration::from_millis(500);

/// The slots of this node.
#[derive(Default)]
struct Owned {
    all: Arc<HashSet<Slot>>,
    /// The slots that were gained and not looked at since.
    gained: HashSet<Slot>,
}

impl Owned {
    /// Takes over the slots of a newer map. Returns how many were gained.
    fn follow(&mut self, slots: Arc<HashSet<Slot>>) -> usize {
        let gained: Vec<Slot> = slots.difference(&self.all).copied().collect();
        let count = gained.len();
        self.gained.retain(|slot| slots.contains(slot));
        self.gained.extend(gained);
        self.all = slots;
        debug_assert!(self.gained.is_subset(&self.all));
        count
    }

    /// Takes the gained slots that `which` accepts, so that they can be looked at now.
    fn take_gained(&mut self, which: impl Fn(Slot) -> bool) -> HashSet<Slot> {
        let (taken, left) = std::mem::take(&mut self.gained)
            .into_iter()
            .partition(|slot| which(*slot));
        self.gained = left;
        taken
    }

    /// Notes that the store did not answer about slots that [`Self::take_gained`] returned. They have to be looked at
    /// again, unless they were lost meanwhile.
    fn look_again(&mut self, slots: HashSet<Slot>) {
        let still = slots.into_iter().filter(|slot| self.all.contains(slot));
        self.gained.extend(still);
    }
}

/// Follows the map, and tells the shards which slots this node owns. Looks for unsettled entries: at once in slots that
/// were gained, repeated until the store has answered, and every 10 s in all slots. Each cell is looked at by itself,
/// so that one which hangs holds up no other. It returns when the drain has ended.
pub async fn run(
    pools: Pools,
    epoch: StoreEpoch,
    ownership: Ownership,
    shards: Shards,
    map: MapHandle,
    drain: Drain,
) {
    let owned = Mutex::new(Owned::default());
    let news: Vec<Notify> = pools.count().all().map(|_| Notify::new()).collect();
    let (rounds, round) = watch::channel(0);
    let looks = pools.count().all().zip(&news).map(|(cell, news)| {
        let look = Look {
            cell,
            pools: &pools,
            shards: &shards,
            owned: &owned,
        };
        look.run(news, round.clone())
    });
    // All run side by side, because a look at a store that hangs takes seconds, and the map may change meanwhile.
    tokio::select! {
        () = follow(&ownership, &shards, map, &owned, &news) => {}
        () = begin_rounds(&epoch, &rounds) => {}
        _ = join_all(looks) => {}
        () = drain.ended() => {}
    }
}

/// Begins a look at all slots every [`INTERVAL`], after a check of the store's epoch.
async fn begin_rounds(epoch: &StoreEpoch, rounds: &watch::Sender<u64>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Err(error) = epoch.look().await {
            tracing::warn!(%error, "cannot read the store's epoch");
            sleep(RETRY).await;
        }
        rounds.send_modify(|round| *round += 1);
    }
}

/// Follows the map: tells the shards of each change of this node's slots, and notes the slots that were gained.
async fn follow(
    ownership: &Ownership,
    shards: &Shards,
    mut map: MapHandle,
    owned: &Mutex<Owned>,
    news: &[Notify],
) {
    let mut current = map.current();
    loop {
        let slots = ownership.slots(&current);
        let before = lock(owned).all.clone();
        if slots != before {
            metrics::slots(slots.len(), current.version());
            // The shards know their slots before a look at these can find something.
            shards.owned(&slots).await;
            let count = slots.len();
            let gained = lock(owned).follow(slots);
            tracing::info!(slots = count, gained, version = current.version(), "slots");
            news.iter().for_each(Notify::notify_one);
        }
        current = map.changed().await;
    }
}

/// The looks at one cell.
struct Look<'a> {
    cell: Cell,
    pools: &'a Pools,
    shards: &'a Shards,
    owned: &'a Mutex<Owned>,
}

impl Look<'_> {
    /// Looks for unsettled entries whenever slots were gained, and in each round at all slots. It never returns.
    async fn run(self, news: &Notify, mut round: watch::Receiver<u64>) {
        let of_cell = |slot| self.pools.count().of(slot) == self.cell;
        let mut all = false;
        loop {
            let gained = lock(self.owned).take_gained(of_cell);
            let looked = self.recover(&gained, 0.0).await;
            if !looked {
                lock(self.owned).look_again(gained);
            }
            if all {
                let slots = lock(self.owned).all.clone();
                let slots = slots.iter().copied().filter(|slot| of_cell(*slot)).collect();
                all = !self.recover(&slots, AGE_S).await;
            }
            tokio::select! {
                () = news.notified() => {}
                Ok(()) = round.changed() => all = true,
                () = sleep(RETRY), if !looked || all => {}
            }
        }
    }

    /// Finds all unsettled entries in these slots that are older than `age_s` seconds, page by page, and tells the
    /// shards of them. Returns whether the cell answered.
    async fn recover(&self, slots: &HashSet<Slot>, age_s: f64) -> bool {
        if slots.is_empty() {
            return true;
        }
        let slots: Vec<i16> = slots.iter().map(|slot| slot.number() as i16).collect();
        let mut after = Some(ChatId(Uuid::nil()));
        while let Some(last) = after {
            let pool = self.pools.cell(self.cell);
            let chats = match settle::unsettled(pool, &slots, age_s, last, PAGE).await {
                Ok(chats) => chats,
                Err(error) => {
                    tracing::warn!(cell = %self.cell, %error, "cannot look for unsettled entries");
                    return false;
                }
            };
            after = last_of_full(&chats, PAGE);
            for (chat, low, high) in chats {
                let _ended = self.shards.send(chat, Event::Recover { chat, low, high }).await;
            }
        }
        true
    }
}

/// Returns the chat after which the store is asked for more: the last one of a full page, or `None` if the page has
/// room.
fn last_of_full(page: &[(ChatId, Seq, Seq)], most: i64) -> Option<ChatId> {
    let (last, _, _) = page.last()?;
    (page.len() as i64 >= most).then_some(*last)
}

fn lock(owned: &Mutex<Owned>) -> MutexGuard<'_, Owned> {
    owned.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tern_types::Cells;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    fn slots(numbers: impl IntoIterator<Item = usize>) -> Arc<HashSet<Slot>> {
        let all: Vec<Slot> = Slot::all().collect();
        Arc::new(numbers.into_iter().map(|number| all[number]).collect())
    }

    #[test]
    fn the_store_is_asked_for_more_as_long_as_its_answer_is_full() {
        let chat = |number| (ChatId(Uuid::from_u128(number)), Seq(1), Seq(1));
        assert_eq!(last_of_full(&[], 2), None);
        assert_eq!(last_of_full(&[chat(1)], 2), None);
        assert_eq!(last_of_full(&[chat(1), chat(2)], 2), Some(chat(2).0));
    }

    #[test]
    fn gained_slots_are_looked_at_until_the_store_has_answered() {
        let mut owned = Owned::default();
        assert_eq!(owned.follow(slots([1, 2, 3])), 3);
        let asked = owned.take_gained(|_| true);
        assert_eq!(asked, *slots([1, 2, 3]));
        // While the store is asked, a slot is lost and another one gained. Then the store fails.
        assert_eq!(owned.follow(slots([2, 3, 4])), 1);
        owned.look_again(asked);
        assert_eq!(owned.take_gained(|_| true), *slots([2, 3, 4]));
        // The store has answered.
        assert!(owned.take_gained(|_| true).is_empty());
        // A slot that was lost and comes back is looked at again.
        assert_eq!(owned.follow(slots([3])), 0);
        assert_eq!(owned.follow(slots([2, 3])), 1);
        // Each cell takes its own.
        assert!(owned.take_gained(|slot| slot.number() != 2).is_empty());
        assert_eq!(owned.take_gained(|_| true), *slots([2]));
    }

    /// The store ends each connection before it has answered.
    #[tokio::test]
    async fn a_look_at_gained_slots_that_failed_is_made_again_and_again() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let connect: PgConnectOptions = format!("postgres://tern@{address}/tern").parse().unwrap();
        let people = PgPoolOptions::new().connect_lazy_with(connect.clone());
        let pools = Pools::new(people, Cells::new(1).unwrap(), 1, |_| connect.clone());
        let owned = Mutex::new(Owned::default());
        lock(&owned).follow(slots([1]));
        let look = Look {
            cell: Cell::FIRST,
            pools: &pools,
            shards: &Shards::none(pools.count()),
            owned: &owned,
        };
        let (news, (_rounds, round)) = (Notify::new(), watch::channel(0));
        let asked = async {
            for _ in 0..3 {
                drop(server.accept().await.unwrap());
            }
        };
        tokio::select! {
            () = look.run(&news, round) => panic!("it goes on"),
            asked = timeout(Duration::from_secs(60), asked) => asked.expect("it asks again"),
        }
    }
}
