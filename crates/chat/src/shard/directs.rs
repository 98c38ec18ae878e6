//! Direct chats that are to be made: whatever arrived while the last ones were being made goes into one transaction, so
//! that a thousand at once cost little more than a few.

use sqlx::PgPool;
use tern_node::links::gather;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::turns::Turns;
use crate::state::shard::LoadError;
use crate::store::direct::{self, Held, Made, NewDirect};
use crate::store::load::StoreError;
use crate::store::seal::MasterKey;

/// Chats that wait; who finds no room waits for some, as a load waits for its turn.
const QUEUE: usize = 1024;
/// Chats of one transaction: more gain nothing, and each keeps two people's rows locked against linking.
const AT_ONCE: usize = 256;

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

    /// Makes it unless it exists. [`Made::NobodyFound`]: also where one of the people is held by somebody else at this
    /// moment.
    pub async fn make(&self, new: NewDirect) -> Result<Made, LoadError> {
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
        let made = direct::make(pool, master, new, Held::LeaveOut).await;
        made.map_err(StoreError::from)
    };
    match turns.take(format!("{} new chats", new.len()), work).await {
        Ok(made) => made.into_iter().map(Ok).collect(),
        Err(error) => new.iter().map(|_| Err(error)).collect(),
    }
}
