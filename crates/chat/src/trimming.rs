//! Runs the trimmer of a node: it erases what chats need not keep, beside the message path and never on its
//! connections.
//!
//! It works on each cell by itself, so that one which hangs holds up no other. Of each cell, the node that owns the
//! slot with the cell's number looks at what is due, once a second: messages that disappear, and chats that are to be
//! trimmed. Besides that, each node trims chats of its own when their shard gives a hint. Hints wait in a bounded queue
//! and may be lost; the looks make up for that. Two trimmers may work on one chat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tern_cluster::drain::Drain;
use tern_cluster::links::gather;
use tern_store::Pools;
use tern_store::error::{is_conflict, is_locked, is_refusal, is_too_slow};
use tern_types::{Cell, Cells, ChatId, Clock, Slot, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use tern_chat_core::retention::Mode;

use crate::metrics;
use crate::ownership::Ownership;
use crate::store::trim::slow::{self, Pages};
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
/// The longest time for which chats are trimmed one by one before the others have their turn. Those that are left are
/// trimmed when the claim ends.
const ALONE_FOR: Duration = Duration::from_secs(60);
/// The chats of one look that get a time to be trimmed, because the operator chose for how long chats keep messages.
const WALKED: i64 = 1_000;
/// The time within which such chats are trimmed, so that not all are due at once.
const WITHIN: Duration = Duration::from_secs(3_600);
/// The time from the end of a walk to the next one. That finds the chats whose first hint was lost.
const WALK_AGAIN: Duration = Duration::from_secs(86_400);

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
            pages: Pages::default(),
            walked: ChatId(Uuid::nil()),
            walk_at: Timestamp::default(),
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
    /// The chats of which a page takes the store too long.
    pages: Pages,
    /// The chat after which the walk goes on that gives chats a time to be trimmed.
    walked: ChatId,
    /// The time, by the wall clock, before which the walk does not go on.
    walk_at: Timestamp,
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

    /// Trims chats of which there are hints, each once. A chat that was given up waits for its next look.
    async fn trim(&mut self, hinted: Vec<ChatId>) -> sqlx::Result<()> {
        let hinted = hinted.into_iter().filter(|chat| !self.pages.is_given_up(*chat));
        let chats: BTreeSet<ChatId> = hinted.collect();
        self.trim_chats(&Vec::from_iter(chats), None).await
    }

    /// Trims chats together, but those that are known to be slow each by itself. If the others fail together, they are
    /// trimmed one by one too, so that one which fails does not hold the others up.
    async fn trim_chats(&mut self, chats: &[ChatId], claim: Option<Timestamp>) -> sqlx::Result<()> {
        let (mut alone, others): (Vec<ChatId>, Vec<ChatId>) =
            chats.iter().copied().partition(|chat| self.pages.is_slow(*chat));
        let mut done = Ok(());
        if others.len() < 2 {
            alone.extend(others);
        } else {
            let together = self.trim_together(&others, claim).await;
            if together.as_ref().is_err_and(is_of_statement) {
                alone.extend(others);
            } else {
                done = together;
            }
        }
        let began = Instant::now();
        for chat in alone {
            if began.elapsed() > ALONE_FOR {
                break;
            }
            let trimmed = self.trim_alone(chat, claim).await;
            done = done.and(trimmed);
        }
        done
    }

    /// Trims a chat by pages that the store can do in time.
    async fn trim_alone(&mut self, chat: ChatId, claim: Option<Timestamp>) -> sqlx::Result<()> {
        let pool = self.pools.cell(self.cell);
        let trimmed = slow::trim(pool, chat, self.default, Clock::wall(), claim, &mut self.pages).await?;
        if let Some(trimmed) = trimmed {
            metrics::trimmed(trimmed.erased, trimmed.forgotten);
        } else {
            tracing::warn!(cell = %self.cell, %chat, "gave up a chat: the store takes too long to trim one entry");
            metrics::trim_given_up();
        }
        Ok(())
    }

    async fn trim_together(&self, chats: &[ChatId], claim: Option<Timestamp>) -> sqlx::Result<()> {
        let pool = self.pools.cell(self.cell);
        let trimmed = trim::chats(pool, chats, self.default, Clock::wall(), claim).await?;
        metrics::trimmed(trimmed.erased, trimmed.forgotten);
        Ok(())
    }

    /// Does what is due in the cell, if this node is the one that looks at it.
    async fn look(&mut self) -> sqlx::Result<()> {
        let looks = Slot::new(self.cell.number()).is_some_and(|slot| self.ownership.owns_slot(slot));
        if !looks {
            (self.walked, self.walk_at) = (ChatId(Uuid::nil()), Timestamp::default());
            metrics::trim_overdue(self.cell, Duration::ZERO);
            return Ok(());
        }
        let now = Clock::wall();
        let due = trim::first_due(self.pools.cell(self.cell)).await?;
        if due.is_none_or(|due| due > now) {
            metrics::trim_overdue(self.cell, Duration::ZERO);
            return self.walk(now).await;
        }
        // If one of these steps fails, the others are made all the same.
        let messages = self.disappear(now).await;
        let chats = self.trim_due(now).await;
        let walked = self.walk(now).await;
        let since = [messages?, chats?].into_iter().flatten().min();
        let overdue = since.map_or(Duration::ZERO, |since| now.since(since));
        metrics::trim_overdue(self.cell, overdue);
        walked
    }

    /// Erases messages that disappear. Returns the time at which the first of them was to. If that takes the store too
    /// long, fewer are erased at a time: very much may have been done to them.
    async fn disappear(&self, now: Timestamp) -> sqlx::Result<Option<Timestamp>> {
        let (mut since, mut most) = (None, MESSAGES);
        for _ in 0..ROUNDS {
            let gone = match disappear::disappear(self.pools.cell(self.cell), now, most).await {
                Err(error) if is_too_slow(&error) && most > 1 => {
                    most = (most / 16).max(1);
                    continue;
                }
                gone => gone?,
            };
            metrics::trimmed(gone.erased, 0);
            since = since.or(gone.since);
            if (gone.messages as i64) < most {
                break;
            }
        }
        Ok(since)
    }

    /// Trims chats that are due, for about as long as it is to the next look. Returns the time at which the first of them
    /// was. Most have nothing to be erased, and there may be millions of them.
    async fn trim_due(&mut self, now: Timestamp) -> sqlx::Result<Option<Timestamp>> {
        let (began, claim, mut since) = (Instant::now(), now + CLAIMED_FOR, None);
        while began.elapsed() < LOOK {
            let pool = self.pools.cell(self.cell);
            let due = trim::claim(pool, now, claim, CHATS as i64).await?;
            since = since.or(due.first().map(|(_, since)| *since));
            let chats: Vec<ChatId> = due.into_iter().map(|(chat, _)| chat).collect();
            if !chats.is_empty() {
                self.trim_chats(&chats, Some(claim)).await?;
            }
            if chats.len() < CHATS {
                break;
            }
        }
        Ok(since)
    }

    /// Goes on with the walk through all chats of the cell that gives each a time to be trimmed if it has none. It
    /// finds the chats that nobody uses; those that are used are found when they are loaded. Nothing is to be done if
    /// the operator chose to keep everything.
    async fn walk(&mut self, now: Timestamp) -> sqlx::Result<()> {
        if self.default.or(Mode::Forever) == Mode::Forever {
            return Ok(());
        }
        if now < self.walk_at {
            return Ok(());
        }
        let last = trim::begin(self.pools.cell(self.cell), self.walked, WALKED, now, WITHIN).await?;
        if last.is_none() {
            self.walk_at = now + WALK_AGAIN;
        }
        self.walked = last.unwrap_or(ChatId(Uuid::nil()));
        Ok(())
    }
}

/// Returns whether the statement failed because of what it was about: other chats may not be concerned.
fn is_of_statement(error: &sqlx::Error) -> bool {
    is_locked(error) || is_too_slow(error) || is_refusal(error) || is_conflict(error)
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
