//! Runs the trimmer of a node: it erases what chats need not keep, beside the message path and never on its
//! connections.
//!
//! It works on each cell by itself, so that one which hangs holds up no other. Of each cell, the node that owns the
//! slot with the cell's number looks at what is due, once a second: messages that disappear, and chats that are to be
//! trimmed. Besides that, each node trims chats of its own when their shard gives a hint. Hints wait in a bounded queue
//! and may be lost; the looks make up for that. Two trimmers may work on one chat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::drain::Drain;
use tern_cluster::links::gather;
use tern_store::Pools;
use tern_types::{Cell, Cells, ChatId, Clock, Slot, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use tern_chat_core::retention::Mode;

use crate::metrics;
use crate::ownership::Ownership;
use crate::store::trim::{self, disappear};

/// The time between two looks at a cell: messages disappear from the store so much later than from devices.
const LOOK: Duration = Duration::from_secs(1);
/// The most hints of a cell that wait. A hint that finds no room is lost.
const HINTS: usize = 4_096;
/// The most chats that are trimmed together. Their statements stay short, and a busy cell needs fewer of them.
const CHATS: usize = 64;
/// The most messages that disappear in one transaction.
const MESSAGES: i64 = 200;
/// The most transactions of one look in which messages disappear, so that chats and hints have their turn.
const ROUNDS: usize = 32;
/// The time for which a node claims chats. If it ends meanwhile, the next look after that trims them.
const CLAIMED_FOR: Duration = Duration::from_secs(600);
/// The chats of one look that get a time to be trimmed, because the operator chose for how long chats keep messages.
const WALKED: i64 = 1_000;
/// The time within which such chats are trimmed, so that not all are due at once.
const WITHIN: Duration = Duration::from_secs(3_600);

/// The way by which shards give hints to the trimmer. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Trims {
    hints: Arc<[mpsc::Sender<ChatId>]>,
    cells: Cells,
    default: Mode,
}

impl Trims {
    /// Makes the queues of the hints, one for each cell, and returns their other ends in the order of the cells.
    /// `default` is the operator's choice of how long chats keep messages.
    pub fn new(cells: Cells, default: Mode) -> (Self, Vec<mpsc::Receiver<ChatId>>) {
        let (hints, queues): (Vec<_>, Vec<_>) = cells.all().map(|_| mpsc::channel(HINTS)).unzip();
        let trims = Self {
            hints: hints.into(),
            cells,
            default,
        };
        (trims, queues)
    }

    /// Returns the operator's choice of how long chats keep messages.
    pub(crate) fn default_mode(&self) -> Mode {
        self.default
    }

    /// Gives the hint that something of the chat need not be kept any more.
    pub(crate) fn hint(&self, chat: ChatId) {
        let number = usize::from(self.cells.of_chat(chat).number());
        if self.hints[number].try_send(chat).is_err() {
            metrics::trim_hint_lost();
        }
    }
}

/// Runs the trimmer until the drain has ended. `queues` are those of [`Trims::new`].
pub async fn run(
    pools: Pools,
    ownership: Ownership,
    drain: Drain,
    default: Mode,
    queues: Vec<mpsc::Receiver<ChatId>>,
) {
    let trimmers = pools.count().all().zip(queues).map(|(cell, hints)| {
        let trimmer = Trimmer {
            cell,
            pools: &pools,
            ownership: &ownership,
            default,
            hints,
            walked: Some(ChatId(Uuid::nil())),
        };
        trimmer.run()
    });
    tokio::select! {
        _ = join_all(trimmers) => {}
        () = drain.ended() => {}
    }
}

/// The trimmer of one cell.
struct Trimmer<'a> {
    cell: Cell,
    pools: &'a Pools,
    ownership: &'a Ownership,
    default: Mode,
    hints: mpsc::Receiver<ChatId>,
    /// The chat after which the walk goes on that gives chats a time to be trimmed; `None` after its end.
    walked: Option<ChatId>,
}

/// The next work of a trimmer.
enum Next {
    Trim(Vec<ChatId>),
    Look,
}

impl Trimmer<'_> {
    /// Trims chats of which there are hints, and looks at the cell from time to time. It never returns.
    async fn run(mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = match self.next(&mut looks).await {
                Next::Trim(hinted) => self.trim(hinted).await,
                Next::Look => self.look().await,
            };
            if let Err(error) = done {
                tracing::warn!(cell = %self.cell, %error, "cannot trim chats");
                metrics::trim_failed();
            }
        }
    }

    /// Waits for a hint or the next look.
    async fn next(&mut self, looks: &mut Interval) -> Next {
        tokio::select! {
            Some(hinted) = gather(&mut self.hints, CHATS) => Next::Trim(hinted),
            _ = looks.tick() => Next::Look,
        }
    }

    /// Trims chats of which there are hints, each once.
    async fn trim(&self, hinted: Vec<ChatId>) -> sqlx::Result<()> {
        let chats: BTreeSet<ChatId> = hinted.into_iter().collect();
        self.trim_chats(&Vec::from_iter(chats), None).await
    }

    async fn trim_chats(&self, chats: &[ChatId], claim: Option<Timestamp>) -> sqlx::Result<()> {
        let pool = self.pools.cell(self.cell);
        let trimmed = trim::chats(pool, chats, self.default, Clock::wall(), claim).await?;
        metrics::trimmed(trimmed.erased, trimmed.forgotten);
        Ok(())
    }

    /// Does what is due in the cell, if this node is the one that looks at it.
    async fn look(&mut self) -> sqlx::Result<()> {
        let looks = Slot::new(self.cell.number()).is_some_and(|slot| self.ownership.owns_slot(slot));
        if !looks {
            self.walked = Some(ChatId(Uuid::nil()));
            metrics::trim_overdue(self.cell, Duration::ZERO);
            return Ok(());
        }
        let now = Clock::wall();
        let messages = self.disappear(now).await?;
        let chats = self.trim_due(now).await?;
        let since = [messages, chats].into_iter().flatten().min();
        let overdue = since.map_or(Duration::ZERO, |since| now.since(since));
        metrics::trim_overdue(self.cell, overdue);
        self.walk(now).await
    }

    /// Erases messages that disappear. Returns the time at which the first of them was to.
    async fn disappear(&self, now: Timestamp) -> sqlx::Result<Option<Timestamp>> {
        let mut since = None;
        for _ in 0..ROUNDS {
            let gone = disappear::disappear(self.pools.cell(self.cell), now, MESSAGES).await?;
            metrics::trimmed(gone.erased, 0);
            since = since.or(gone.since);
            if (gone.messages as i64) < MESSAGES {
                break;
            }
        }
        Ok(since)
    }

    /// Trims chats that are due. Returns the time at which the first of them was.
    async fn trim_due(&self, now: Timestamp) -> sqlx::Result<Option<Timestamp>> {
        let claim = now + CLAIMED_FOR;
        let pool = self.pools.cell(self.cell);
        let due = trim::claim(pool, now, claim, CHATS as i64).await?;
        let Some((_, since)) = due.first().copied() else {
            return Ok(None);
        };
        let chats: Vec<ChatId> = due.into_iter().map(|(chat, _)| chat).collect();
        self.trim_chats(&chats, Some(claim)).await?;
        Ok(Some(since))
    }

    /// Goes on with the walk through all chats of the cell that gives each a time to be trimmed if it has none. It
    /// finds the chats that nobody uses; those that are used are found when they are loaded. Nothing is to be done if
    /// the operator chose to keep everything.
    async fn walk(&mut self, now: Timestamp) -> sqlx::Result<()> {
        if self.default.or(Mode::Forever) == Mode::Forever {
            return Ok(());
        }
        let Some(after) = self.walked else {
            return Ok(());
        };
        self.walked = trim::begin(self.pools.cell(self.cell), after, WALKED, now, WITHIN).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_wait_by_cell_and_those_without_room_are_lost() {
        let (trims, mut queues) = Trims::new(Cells::DEFAULT, Mode::UntilDelivered);
        assert_eq!(trims.default_mode(), Mode::UntilDelivered);
        let chat = ChatId(Uuid::from_u128(7));
        for _ in 0..HINTS + 1 {
            trims.hint(chat);
        }
        let cell = usize::from(Cells::DEFAULT.of_chat(chat).number());
        for (number, queue) in queues.iter_mut().enumerate() {
            let mut waiting = 0;
            while let Ok(hinted) = queue.try_recv() {
                assert_eq!(hinted, chat);
                waiting += 1;
            }
            assert_eq!(waiting, if number == cell { HINTS } else { 0 });
        }
    }
}
