//! Changes the own logs that this node owns. An own log is made when it is first written.

use std::time::Duration;

use tern_cluster::{NodeContext, Role};
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_store::Pools;
use tern_types::{ChatId, UserId};
use tokio::time::Instant;
use tonic::Status;

use tern_chat_core::shard::{ANSWER_WITHIN, Event};
use tern_chat_core::{Change, ChangeRefusal, Outcome, Place, Refusal};

use super::store_failed;
use super::writes::Writes;
use crate::answer;
use crate::store::own::{self, Made};
use crate::store::seal::MasterKey;

/// The time between two tries to make an own log while another transaction has locked its user.
const LOCKED_RETRY: Duration = Duration::from_millis(50);

/// The result of a change: the place of its entry, or `None` if there was nothing to be changed.
pub type Changed = Result<Option<Place>, ChangeRefusal>;

/// The writer of own logs. It is cheap to clone.
#[derive(Clone)]
pub struct OwnLog {
    pub ctx: NodeContext,
    pub writes: Writes,
    pub pools: Pools,
    pub master: MasterKey,
}

impl OwnLog {
    /// Has the shard of the user's own log, which this node must own, make the change. If there is no own log yet, it is
    /// made first. A refusal is an answer too.
    ///
    /// # Errors
    ///
    /// There is no such user, the node is not the owner any more, or the own log cannot be made now.
    pub async fn change(&self, user: UserId, change: Change) -> Result<Changed, Status> {
        let changed = self.try_to_change(user, change.clone()).await?;
        if changed != Err(ChangeRefusal::Common(Refusal::NotAMember)) {
            return Ok(changed);
        }
        self.make(user).await?;
        self.try_to_change(user, change).await
    }

    async fn try_to_change(&self, user: UserId, change: Change) -> Result<Changed, Status> {
        let chat = ChatId::own(user);
        let event = |origin| Event::Change {
            origin,
            chat,
            change: Box::new(change),
        };
        self.writes.call(chat, event, Outcome::changed).await
    }

    /// Makes the own log. While another transaction has locked its user, this tries again from here, and does not keep a
    /// connection.
    async fn make(&self, user: UserId) -> Result<(), ApiError> {
        if !self.is_known_to_all() {
            return Err(ApiError::unavailable("some chat nodes do not know own logs yet"));
        }
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let made = own::make(&self.pools, &self.master, user).await;
            match made.map_err(store_failed)? {
                Made::Done => return Ok(()),
                Made::NobodyFound => {
                    return Err(ApiError::new(
                        ErrorReason::UserNotFound,
                        format!("no user has the id {user}"),
                    ));
                }
                Made::Locked if Instant::now() + LOCKED_RETRY < until => {
                    tokio::time::sleep(LOCKED_RETRY).await;
                }
                Made::Locked => return Err(answer::to_error(&Refusal::LOCKED)),
            }
        }
    }

    /// Returns whether all chat nodes know own logs. A node of the version before could not list the chats of a user who
    /// has one.
    fn is_known_to_all(&self) -> bool {
        let map = self.ctx.map.current();
        map.nodes(Role::Chat).iter().all(|node| node.knows_own_logs)
    }
}
