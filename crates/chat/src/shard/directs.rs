//! Direct chats that are to be made: whatever arrived while the last ones were being made goes into one transaction, so
//! that a thousand at once cost little more than a few.

use std::time::Duration;

use sqlx::PgPool;
use tern_node::links::gather;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::turns::Turns;
use crate::state::shard::{ANSWER_WITHIN, LoadError};
use crate::store::direct::{self, Made, NewDirect};
use crate::store::load::StoreError;
use crate::store::seal::MasterKey;

/// Chats that wait; who finds no room waits for some, as a load waits for its turn.
const QUEUE: usize = 1024;
/// Chats of one transaction: more gain nothing, and each keeps two people's rows locked against linking.
const AT_ONCE: usize = 256;

/// Linking a device holds its user for milliseconds, for seconds where the user has thousands of chats. Nobody waits for
/// an answer any longer.
const HELD_FOR: Duration = ANSWER_WITHIN;
/// Between two tries, doubled with each.
const HELD_RETRY: Duration = Duration::from_millis(20);
const HELD_RETRY_MAX: Duration = Duration::from_millis(500);

type Ask = (NewDirect, oneshot::Sender<Result<Made, LoadError>>);

/// Cheap to clone. The task behind it ends with the last clone.
#[derive(Clone)]
pub struct Directs(mpsc::Sender<Ask>);

impl Directs {
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

    /// Makes it unless it exists. People whom somebody else holds are waited for outside of the store: a wait in it would
    /// keep a connection and a turn from chats of other people.
    pub async fn make(&self, new: NewDirect) -> Result<Made, LoadError> {
        let until = Instant::now() + HELD_FOR;
        let mut pause = HELD_RETRY;
        loop {
            match self.try_to_make(new).await? {
                Made::Held if Instant::now() + pause > until => return Err(LoadError::Held),
                Made::Held => tokio::time::sleep(pause).await,
                made => return Ok(made),
            }
            pause = (pause * 2).min(HELD_RETRY_MAX);
        }
    }

    async fn try_to_make(&self, new: NewDirect) -> Result<Made, LoadError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((new, answer)).await.map_err(|_| LoadError::Away)?;
        answered.await.map_err(|_| LoadError::Away)?
    }
}

/// One answer for each of `new`.
async fn make(
    pool: &PgPool,
    master: &MasterKey,
    turns: &Turns,
    new: &[NewDirect],
) -> Vec<Result<Made, LoadError>> {
    let work = async {
        let made = direct::make(pool, master, new).await;
        made.map_err(StoreError::from)
    };
    match turns.take(format!("{} new chats", new.len()), work).await {
        Ok(made) => made.into_iter().map(Ok).collect(),
        Err(error) => new.iter().map(|_| Err(error)).collect(),
    }
}
