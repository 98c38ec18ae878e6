//! Hands out turns at committing, so that the shards of a busy node commit one after the other.
//!
//! Each commit has a cost of its own, whatever it carries. While one shard commits, messages of the other shards gather,
//! and the next commits carry more of them. With a turn for each shard the same messages took more statements.
//!
//! A turn ends after [`TURN`] at the latest, also while its commit is under way. So a cell that is slow, locked or away
//! holds the other cells up for that time only.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_types::Cells;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::PollSemaphore;

/// The longest time for which a commit holds others up. A busy shard's commit takes about as long.
const TURN: Duration = Duration::from_millis(5);
/// The number of cells for each commit at the same time. Who has a larger Postgres has more cells.
const CELLS_A_TURN: usize = 4;

/// The turns of a node. They are cheap to clone.
#[derive(Debug, Clone)]
pub struct CommitTurns(Arc<Semaphore>);

impl CommitTurns {
    /// Allows one commit at the same time for each four of these cells, and one at least.
    pub fn new(cells: Cells) -> Self {
        let at_a_time = cells.all().count().div_ceil(CELLS_A_TURN);
        Self(Arc::new(Semaphore::new(at_a_time)))
    }

    /// Returns the place of one shard in the queue for turns.
    pub fn for_shard(&self) -> Place {
        Place {
            queue: PollSemaphore::new(self.0.clone()),
            free: self.0.clone(),
            waits: false,
            asked: Instant::now(),
            turn: None,
        }
    }
}

/// The place of one shard in the queue for turns.
#[derive(Debug)]
pub struct Place {
    queue: PollSemaphore,
    free: Arc<Semaphore>,
    /// True while the shard is in the queue. It leaves the queue only by its turn, which `queue` would keep otherwise.
    waits: bool,
    /// The time at which the shard asked for its turn.
    asked: Instant,
    /// The turn that has come, until it is taken.
    turn: Option<Turn>,
}

impl Place {
    /// Takes a turn. If none is free, the shard joins the queue, and [`Self::came`] returns when its turn has come.
    pub fn take(&mut self) -> Option<Turn> {
        if self.turn.is_none() && !self.waits {
            self.asked = Instant::now();
            let permit = self.free.clone().try_acquire_owned().ok();
            self.waits = permit.is_none();
            self.turn = permit.map(|permit| Turn::new(permit, self.asked));
        }
        self.turn.take()
    }

    /// Gives back the turn that has come, because the shard has nothing to commit.
    pub fn give_back(&mut self) {
        self.turn = None;
    }

    /// Waits until the turn of a shard in the queue has come. It waits forever if the shard is not in the queue. The
    /// shard keeps its place if this is dropped.
    pub async fn came(&mut self) {
        if !self.waits {
            return std::future::pending().await;
        }
        let permit = std::future::poll_fn(|cx| self.queue.poll_acquire(cx)).await;
        self.waits = false;
        self.turn = permit.map(|permit| Turn::new(permit, self.asked));
    }
}

/// A turn at committing. Dropping it gives the turn to the next shard.
#[derive(Debug)]
pub struct Turn {
    permit: OwnedSemaphorePermit,
    /// The time at which the shard asked for it.
    pub asked: Instant,
}

impl Turn {
    fn new(permit: OwnedSemaphorePermit, asked: Instant) -> Self {
        Self { permit, asked }
    }

    /// Does a commit in this turn. If the commit takes longer than [`TURN`], the turn ends before it.
    pub async fn cover<T>(self, commit: impl Future<Output = T>) -> T {
        let mut commit = pin!(commit);
        match timeout(TURN, &mut commit).await {
            Ok(done) => done,
            Err(_) => {
                drop(self.permit);
                commit.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::time::sleep;

    use super::*;

    fn turns(cells: u16) -> CommitTurns {
        CommitTurns::new(Cells::new(cells).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn four_cells_commit_one_after_the_other_and_eight_two_at_a_time() {
        for (cells, at_a_time) in [(1, 1), (2, 1), (4, 1), (8, 2), (256, 64)] {
            let turns = turns(cells);
            let mut places: Vec<_> = (0..cells).map(|_| turns.for_shard()).collect();
            let taken: Vec<_> = places.iter_mut().filter_map(Place::take).collect();
            assert_eq!(taken.len(), at_a_time, "{cells} cells");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_the_order_in_which_shards_asked_and_none_is_lost() {
        let turns = turns(4);
        let [mut one, mut two, mut three] = [(); 3].map(|()| turns.for_shard());
        let first = one.take().unwrap();
        assert!(two.take().is_none() && three.take().is_none());
        assert!(poll!(pin!(two.came())).is_pending());
        assert!(poll!(pin!(three.came())).is_pending());
        assert!(poll!(pin!(two.came())).is_pending(), "the place is kept");
        drop(first);
        assert!(one.take().is_none(), "nobody passes those who wait");
        two.came().await;
        let second = two.take().unwrap();
        drop(second);
        three.came().await;
        three.give_back();
        one.came().await;
        assert!(
            one.take().is_some(),
            "a turn that was given back goes to the next"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_hangs_holds_the_others_up_for_one_turn() {
        let turns = turns(4);
        let (mut slow, mut other) = (turns.for_shard(), turns.for_shard());
        let hangs = slow.take().unwrap().cover(sleep(Duration::from_secs(6)));
        let mut hangs = pin!(hangs);
        assert!(poll!(&mut hangs).is_pending());
        assert!(other.take().is_none());
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = &mut hangs => panic!("the commit has ended"),
            () = other.came() => assert_eq!(began.elapsed(), TURN),
        }
        hangs.await;
        assert!(other.take().is_some());
    }
}
