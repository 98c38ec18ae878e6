//! Appends entries to users' own logs, whichever node owns them.

use std::time::Duration;

use tern_cluster::links::RetryWaits;
use tern_cluster::routing::{MAP_VERSION, not_owner};
use tern_cluster::{NodeContext, Role};
use tern_proto::error::reason_of;
use tern_proto::internal::AppendOwnRequest;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{EntryContent, ErrorReason};
use tern_proto::{ApiError, Code, Status};
use tern_types::{ChatId, RequestId, Seq, Slot, UserId};
use tokio::time::timeout;
use tonic::Request;
use tonic::metadata::MetadataValue;

/// The timeout of one call to an own log's owner, which may have to make the own log.
const CALL: Duration = Duration::from_secs(5);
/// The time for all tries together before the caller is told to come again. It exceeds the lease after which a lost
/// owner leaves the map.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest time to wait for a newer map. A node sees a change in etcd sooner.
const MAP_PATIENCE: Duration = Duration::from_secs(2);

/// The appender to own logs. It is cheap to clone.
#[derive(Clone)]
pub struct OwnLogs {
    ctx: NodeContext,
}

impl OwnLogs {
    /// Makes an appender that finds the owners by the map of `ctx`.
    pub fn new(ctx: NodeContext) -> Self {
        Self { ctx }
    }

    /// Appends an entry in nobody's name to the user's own log, and returns its seq. The own log is made if the user has
    /// none. The same request may be repeated, and then returns the seq of the first.
    ///
    /// # Errors
    ///
    /// There is no such user, the request_id was used for another entry, or the owner does not answer in time.
    pub async fn append(&self, user: UserId, request: RequestId, content: Content) -> Result<Seq, ApiError> {
        let content = EntryContent {
            content: Some(content),
            ..EntryContent::default()
        };
        let append = AppendOwnRequest {
            user_id: user.to_vec().into(),
            request_id: request.to_vec().into(),
            content: content.encoded(),
        };
        let appended = self.tell_owner(ChatId::own(user), &append);
        let silent = || ApiError::unavailable("the node of the own log does not answer");
        timeout(PATIENCE, appended).await.map_err(|_| silent())?
    }

    async fn tell_owner(&self, chat: ChatId, append: &AppendOwnRequest) -> Result<Seq, ApiError> {
        let mut waits = RetryWaits::default();
        loop {
            let status = match self.try_to_append(chat, append.clone()).await {
                Ok(seq) => return Ok(seq),
                Err(status) => status,
            };
            match not_owner(&status) {
                Some(version) => self.map_of(version).await,
                None if passes(&status) => {
                    tracing::info!(%chat, code = ?status.code(), message = status.message(), "an owner failed");
                }
                None => {
                    let reason = reason_of(&status).unwrap_or(ErrorReason::Internal);
                    return Err(ApiError::new(reason, status.message()));
                }
            }
            tokio::time::sleep(waits.next(Duration::ZERO)).await;
        }
    }

    async fn try_to_append(&self, chat: ChatId, append: AppendOwnRequest) -> Result<Seq, Status> {
        let map = self.ctx.map.current();
        let node = map.owner(Role::Chat, Slot::of_chat(chat));
        let node = node.ok_or_else(|| Status::unavailable("there is no chat node"))?;
        let mut client = ChatNodeClient::new(self.ctx.channels.get(&node.address)?);
        let mut request = Request::new(append);
        let version = MetadataValue::from(map.version());
        request.metadata_mut().insert(MAP_VERSION, version);
        let answer = timeout(CALL, client.append_own(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?;
        Ok(Seq(answer.into_inner().seq))
    }

    /// Waits until the map has at least this version, but at most [`MAP_PATIENCE`].
    async fn map_of(&self, version: i64) {
        let mut map = self.ctx.map.clone();
        if map.current().version() < version {
            let caught_up = async { while map.changed().await.version() < version {} };
            // If the map does not come in time, the next try says what is wrong.
            let _ = timeout(MAP_PATIENCE, caught_up).await;
        }
    }
}

/// Returns whether another try may succeed. A broken connection may look like `Unknown` or `Cancelled`.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Aborted
    )
}
