//! The connections of a node to all parts of the store: a pool for what is by user, and one for each cell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, Transaction};
use tern_types::{Cell, Cells, ChatId};
use tokio::time::timeout;

use crate::error::{is_away, is_locked};
use crate::postgres::{self, ACQUIRE_TIMEOUT, PostgresArgs, cell_connect_options, hot_connect_options};
use crate::{metrics, schema};

/// The longest time that the answers of the other cells wait for one cell. It is shorter than the 5 s for which
/// gateways wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// The time for which a cell that did not answer is left out. Otherwise each answer would wait for it.
const LEFT_OUT_FOR: Duration = Duration::from_secs(1);
/// The time after which a connection to a cell that nothing uses is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The fewest connections to a cell: with one, a read that takes long would hold up all others.
const MIN_CELL_CONNECTIONS: u32 = 2;

/// Makes unqualified names mean the tables of one cell and those of people, until the transaction ends.
const ENTER_CELL: &str = "SELECT set_config('search_path', $1, true)";

/// The pools. They are cheap to clone.
///
/// On the connections of a cell, the names of tables of chats mean those of the cell. The names of tables of people
/// mean the same on all connections, so one transaction on a connection of a cell can read both. A transaction must not
/// wait for a second connection of the same pool.
#[derive(Clone, Debug)]
pub struct Pools {
    people: PgPool,
    cells: Arc<[Reached]>,
    count: Cells,
    /// The most connections to a cell.
    size: u32,
}

/// A cell as this node reaches it.
#[derive(Debug)]
struct Reached {
    pool: PgPool,
    found: Mutex<Found>,
}

/// The state of a cell, as far as questions to it have shown.
#[derive(Debug, Default)]
struct Found {
    /// The time of the last answer.
    answered: Option<Instant>,
    /// The time until which the cell is left out, if the last question got no answer.
    left_out: Option<Instant>,
}

/// The answers of the cells that answered.
#[derive(Debug)]
pub struct Gathered<T> {
    /// The answers, in the order of the cells.
    pub answers: Vec<T>,
    /// True if a cell did not answer, so that its part is missing.
    pub partial: bool,
}

impl Pools {
    /// Connects to the store with [`hot_connect_options`], for a node whose every message asks it: see [`Self::over`].
    ///
    /// # Errors
    ///
    /// Postgres cannot be reached, or it has no store.
    pub async fn open(args: &PostgresArgs) -> anyhow::Result<Self> {
        let people = pool(args.database_pool_size)
            .connect_with(hot_connect_options(args))
            .await
            .with_context(|| format!("cannot connect to Postgres at {:?}", args.database_url))?;
        args.spread(&people, hot_connect_options);
        Self::over(people, args).await
    }

    /// Makes the pools from an open pool for people, by which it reads how many cells the store has. That the schema is
    /// up to date has to be known ([`schema::require`]). The pools of the cells connect when they are first used.
    ///
    /// # Errors
    ///
    /// Postgres does not answer, or it has no store.
    pub async fn over(people: PgPool, args: &PostgresArgs) -> anyhow::Result<Self> {
        let count = schema::count(&people).await?;
        metrics::has_cells();
        let size = args.database_pool_size / u32::from(count.count());
        let connect = |cell| cell_connect_options(args, cell);
        let pools = Self::new(people, count, size.max(MIN_CELL_CONNECTIONS), connect);
        for cell in count.all() {
            args.spread(pools.cell(cell), move |args| cell_connect_options(args, cell));
        }
        Ok(pools)
    }

    /// Returns pools that connect when they are first used. `size` is the most connections to each cell, and
    /// `connect` gives the settings of the connections to a cell.
    pub fn new(people: PgPool, count: Cells, size: u32, connect: impl Fn(Cell) -> PgConnectOptions) -> Self {
        let lazily = |cell| {
            let pool = pool(size).min_connections(0).idle_timeout(IDLE_TIMEOUT);
            Reached {
                pool: pool.connect_lazy_with(connect(cell)),
                found: Mutex::default(),
            }
        };
        Self {
            people,
            cells: count.all().map(lazily).collect(),
            count,
            size,
        }
    }

    /// Returns the number of cells.
    pub fn count(&self) -> Cells {
        self.count
    }

    /// Returns the most connections to a cell.
    pub fn cell_connections(&self) -> u32 {
        self.size
    }

    /// Returns the pool for what is by user and about the store as a whole.
    pub fn people(&self) -> &PgPool {
        &self.people
    }

    /// Returns the number of the cell that has the chat: its place in a list of something for each cell.
    pub fn number(&self, chat: ChatId) -> usize {
        usize::from(self.count.of_chat(chat).number())
    }

    /// Returns the pool of the cell that has the chat.
    pub fn of(&self, chat: ChatId) -> &PgPool {
        &self.cells[self.number(chat)].pool
    }

    /// Returns the pool of the cell, which must be one of this store's.
    pub fn cell(&self, cell: Cell) -> &PgPool {
        &self.cells[usize::from(cell.number())].pool
    }

    /// Splits what belongs to chats by the chats' cells. It leaves out cells that have nothing of it.
    pub fn by_cell<T>(
        &self,
        parts: impl IntoIterator<Item = T>,
        chat: impl Fn(&T) -> ChatId,
    ) -> impl Iterator<Item = (&PgPool, Vec<T>)> {
        let mut split: Vec<Vec<T>> = self.cells.iter().map(|_| Vec::new()).collect();
        for part in parts {
            let number = self.number(chat(&part));
            split[number].push(part);
        }
        let all = self.cells.iter().map(|cell| &cell.pool).zip(split);
        all.filter(|(_, parts)| !parts.is_empty())
    }

    /// Asks all cells at the same time. The answer of a cell that fails, or does not answer within
    /// [`PATIENCE`], is missing. If the cell seems to be away, the questions of the next second
    /// ([`LEFT_OUT_FOR`]) do not wait for it. Then one question finds out whether the cell is back, and the
    /// others do not wait for it until that is known.
    ///
    /// # Errors
    ///
    /// No cell answered. The error is that of the first.
    pub async fn gather<T, F>(&self, ask: impl Fn(PgPool) -> F) -> sqlx::Result<Gathered<T>>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let (mut answers, mut first) = (Vec::with_capacity(self.cells.len()), None);
        for answer in join_all(self.questions(ask)).await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    metrics::cell_left_out();
                    first = first.or(Some(error));
                }
            }
        }
        match first {
            Some(error) if answers.is_empty() => Err(error),
            first => Ok(Gathered {
                answers,
                partial: first.is_some(),
            }),
        }
    }

    /// Asks all cells as [`Self::gather`] does, but each must answer. The answers are in the order of the cells.
    ///
    /// # Errors
    ///
    /// A cell failed.
    pub async fn all<T, F>(&self, ask: impl Fn(PgPool) -> F) -> sqlx::Result<Vec<T>>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        try_join_all(self.questions(ask)).await
    }

    /// Asks the cell of the chat as [`Self::gather`] asks each: a cell that seems to be away fails the question soon.
    ///
    /// # Errors
    ///
    /// The cell failed, or did not answer within [`PATIENCE`].
    pub async fn ask<T, F>(&self, chat: ChatId, question: impl FnOnce(PgPool) -> F) -> sqlx::Result<T>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let cell = self.count.of_chat(chat);
        let reached = &self.cells[usize::from(cell.number())];
        reached.ask(cell, question(reached.pool.clone())).await
    }

    /// Returns a question to each cell.
    fn questions<T, F>(
        &self,
        ask: impl Fn(PgPool) -> F,
    ) -> impl Iterator<Item = impl Future<Output = sqlx::Result<T>>>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let cells = self.count.all().zip(self.cells.iter());
        cells.map(move |(cell, reached)| reached.ask(cell, ask(reached.pool.clone())))
    }

    /// Begins a transaction for people, which may enter cells one after the other: see [`enter`]. Returns `Err` if no
    /// connection is free in time or the server does not answer.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        postgres::begin(&self.people).await
    }
}

impl Reached {
    /// Waits for an answer of the cell, unless it is left out.
    async fn ask<T>(&self, cell: Cell, question: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let began = Instant::now();
        let Some(probes) = self.found().may_ask(began) else {
            return Err(sqlx::Error::PoolTimedOut);
        };
        let mut probe = Probe(probes.then_some(self));
        let answer = timeout(PATIENCE, question).await;
        probe.0 = None;
        let answer = answer.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        if let Err(error) = &answer {
            tracing::warn!(%cell, %error, "a cell does not answer");
        }
        self.found().note(&answer, began, Instant::now());
        answer
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that finds out whether a cell is back. If its caller gives it up, the next question finds out.
struct Probe<'a>(Option<&'a Reached>);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(reached) = self.0 {
            reached.found().left_out = Some(Instant::now());
        }
    }
}

impl Found {
    /// Returns `None` if the cell is left out now. The first question after that gets `Some(true)`: it finds
    /// out whether the cell is back, and until that is known, the cell stays left out for the others. While
    /// nothing is wrong, every question gets `Some(false)`.
    fn may_ask(&mut self, now: Instant) -> Option<bool> {
        match self.left_out {
            Some(until) if now < until => None,
            Some(_) => {
                self.left_out = Some(now + PATIENCE);
                Some(true)
            }
            None => Some(false),
        }
    }

    /// Notes what became of a question. A question that failed although another one was answered after it
    /// began says nothing about the cell. If only the statement was at fault, the cell did answer.
    fn note<T>(&mut self, answer: &sqlx::Result<T>, began: Instant, now: Instant) {
        match answer {
            Ok(_) => {
                *self = Self {
                    answered: Some(now),
                    left_out: None,
                }
            }
            Err(error) if !is_away(error) && !is_locked(error) => self.left_out = None,
            Err(_) if self.answered.is_some_and(|at| at > began) => {}
            Err(_) => self.left_out = Some(now + LEFT_OUT_FOR),
        }
    }
}

/// Makes the transaction's next statements be about this cell. A transaction locks people first and then enters cells
/// in ascending order, so that no two of them wait for each other. Returns `Err` if the statement fails.
pub async fn enter(tx: &mut Transaction<'_, Postgres>, cell: Cell) -> sqlx::Result<()> {
    let path = postgres::cell_path(cell);
    sqlx::query(ENTER_CELL).bind(path).execute(&mut **tx).await?;
    Ok(())
}

fn pool(size: u32) -> PgPoolOptions {
    let options = PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT);
    postgres::hot(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> sqlx::Result<()> {
        Err(sqlx::Error::PoolTimedOut)
    }

    #[test]
    fn after_a_failure_one_question_at_a_time_finds_out_whether_the_cell_is_back() {
        let (mut found, start) = (Found::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!([found.may_ask(at(0)), found.may_ask(at(0))], [Some(false); 2]);
        found.note(&away(), at(0), at(100));
        assert_eq!(found.may_ask(at(200)), None, "it is left out for a second");
        assert_eq!(found.may_ask(at(1100)), Some(true), "one question is asked");
        assert_eq!(found.may_ask(at(1200)), None, "and the others do not wait for it");
        found.note(&away(), at(1100), at(5100));
        assert_eq!(found.may_ask(at(5200)), None);
        assert_eq!(found.may_ask(at(6100)), Some(true));
        found.note(&Ok(()), at(6100), at(6200));
        assert_eq!(
            [found.may_ask(at(6200)), found.may_ask(at(6200))],
            [Some(false); 2],
            "it is back"
        );
    }

    #[test]
    fn a_question_that_fails_while_others_are_answered_says_nothing_of_the_cell() {
        let (mut found, start) = (Found::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        found.note(&Ok(()), at(10), at(20));
        found.note(&away(), at(0), at(4000));
        assert_eq!(
            found.may_ask(at(4001)),
            Some(false),
            "another question was answered meanwhile"
        );
        found.note::<()>(&Err(sqlx::Error::RowNotFound), at(30), at(40));
        assert_eq!(
            found.may_ask(at(41)),
            Some(false),
            "the statement failed by itself"
        );
        found.note(&away(), at(30), at(4030));
        assert_eq!(found.may_ask(at(4031)), None);
    }

    #[tokio::test]
    async fn a_question_that_is_given_up_leaves_the_next_one_to_find_out() {
        let nobody_listens: PgConnectOptions = "postgres://tern@127.0.0.1:1/tern".parse().unwrap();
        let reached = Reached {
            pool: PgPoolOptions::new().connect_lazy_with(nobody_listens),
            found: Mutex::default(),
        };
        reached.found().left_out = Some(Instant::now());
        let question = reached.ask(Cell::FIRST, std::future::pending::<sqlx::Result<()>>());
        let given_up = timeout(Duration::from_millis(10), question).await;
        assert!(given_up.is_err());
        assert_eq!(reached.found().may_ask(Instant::now()), Some(true));
    }
}
