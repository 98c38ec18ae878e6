//! Makes the direct chats of a cell, in one task. All requests that arrived while it made the last chats go into one
//! transaction, so that a thousand at once cost little more than a few. If a lock on one chat is in the way of that
//! transaction, they are made chat by chat.
//!
//! The queue is bounded; a caller that finds it full waits for room.

use std::time::Duration;

use sqlx::PgPool;
use tern_cluster::links::gather;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use tern_chat_core::shard::{ANSWER_WITHIN, LoadError};

use tern_store::error::{is_conflict, is_locked};

use super::turns::Turns;
use crate::store::ReadError;
use crate::store::direct::{self, Made, NewDirect};
use crate::store::seal::MasterKey;

/// The most chats that wait to be made. A caller that finds no room waits for some, as a load waits for its turn.
const QUEUE: usize = 1024;
/// The most chats of one transaction. More gain nothing, and each keeps the rows of two people locked against linking.
const AT_ONCE: usize = 256;

/// The time for which the making of a chat is tried again while another transaction has locked one of its people.
/// Linking a device locks its user for milliseconds, or for seconds if the user has thousands of chats. No caller waits
/// longer for its answer.
const LOCKED_FOR: Duration = ANSWER_WITHIN;
/// The time between the first two tries. It doubles with each try, up to [`LOCKED_RETRY_MAX`].
const LOCKED_RETRY: Duration = Duration::from_millis(20);
/// The longest time between two tries.
const LOCKED_RETRY_MAX: Duration = Duration::from_millis(500);

/// The time for which chats are made one by one. It is twice as long as a statement waits for a lock, so that the others
/// have their turn after a chat that is locked. The callers of the chats that are left then try again.
const ONE_BY_ONE_FOR: Duration = Duration::from_secs(4);

/// A chat to be made, and the channel for its answer.
type Ask = (NewDirect, oneshot::Sender<Result<Made, LoadError>>);

/// A handle of the task. It is cheap to clone, and the task ends with the last clone.
#[derive(Clone)]
pub struct Directs(mpsc::Sender<Ask>);

impl Directs {
    /// Starts the task that makes the chats of the cell with this pool.
    pub fn start(pool: PgPool, master: MasterKey, turns: Turns) -> Self {
        let (asks, mut queue) = mpsc::channel::<Ask>(QUEUE);
        let run = async move {
            while let Some(asked) = gather(&mut queue, AT_ONCE).await {
                let (new, answers): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
                let made = make(&pool, &master, &turns, &new).await;
                for (answer, made) in answers.into_iter().zip(made) {
                    let _gone = answer.send(made);
                }
            }
        };
        tokio::spawn(run.instrument(tracing::info_span!("directs")));
        Self(asks)
    }

    /// Makes the chat unless it exists. While another transaction has locked one of its people, the making is tried
    /// again from here and does not wait in the store: a wait there would keep a connection and a turn from the chats
    /// of other people.
    ///
    /// # Errors
    ///
    /// [`LoadError::Locked`] if the lock outlasts [`LOCKED_FOR`], or the statement waits too long for another lock of
    /// this chat; [`LoadError::Away`] or [`LoadError::Overloaded`] if the store cannot be asked.
    pub async fn make(&self, new: NewDirect) -> Result<Made, LoadError> {
        let until = Instant::now() + LOCKED_FOR;
        let mut pause = LOCKED_RETRY;
        loop {
            match self.try_to_make(new).await? {
                Made::Locked if Instant::now() + pause > until => return Err(LoadError::Locked),
                Made::Locked => tokio::time::sleep(pause).await,
                made => return Ok(made),
            }
            pause = (pause * 2).min(LOCKED_RETRY_MAX);
        }
    }

    /// Hands the chat to the task once, and waits for the answer.
    async fn try_to_make(&self, new: NewDirect) -> Result<Made, LoadError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((new, answer)).await.map_err(|_| LoadError::Away)?;
        answered.await.map_err(|_| LoadError::Away)?
    }
}

/// Makes these chats, in one transaction or one by one. There is one answer for each of `new`, in its order.
async fn make(
    pool: &PgPool,
    master: &MasterKey,
    turns: &Turns,
    new: &[NewDirect],
) -> Vec<Result<Made, LoadError>> {
    if let Some(made) = make_together(pool, master, turns, new).await {
        return made;
    }
    tracing::warn!(
        chats = new.len(),
        "a lock is in the way: new chats are made one by one"
    );
    let began = Instant::now();
    let mut answers = Vec::with_capacity(new.len());
    for one in new {
        let made = if began.elapsed() > ONE_BY_ONE_FOR {
            Ok(Made::Locked)
        } else {
            let made = make_together(pool, master, turns, std::slice::from_ref(one)).await;
            made.and_then(|mut made| made.pop())
                .unwrap_or(Err(LoadError::Locked))
        };
        answers.push(made);
    }
    answers
}

/// Makes these chats in one transaction. There is one answer for each of `new`, in its order. Returns `None` if there
/// are several, and a lock on one of them, or a conflict with another transaction, failed them all.
async fn make_together(
    pool: &PgPool,
    master: &MasterKey,
    turns: &Turns,
    new: &[NewDirect],
) -> Option<Vec<Result<Made, LoadError>>> {
    let work = async {
        match direct::make(pool, master, new).await {
            Err(error) if new.len() > 1 && (is_locked(&error) || is_conflict(&error)) => Ok(None),
            // The other transaction goes on now, so the chat is soon free.
            Err(error) if is_conflict(&error) => Ok(Some(vec![Made::Locked])),
            made => made.map(Some).map_err(ReadError::from),
        }
    };
    match turns.take(format!("{} new chats", new.len()), work).await {
        Ok(made) => Some(made?.into_iter().map(Ok).collect()),
        Err(error) => Some(new.iter().map(|_| Err(error)).collect()),
    }
}
