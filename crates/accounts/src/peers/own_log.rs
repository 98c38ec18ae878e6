//! Has the owners of users' own logs append entries.

use std::time::Duration;

use tern_cluster::routing::{MAP_VERSION, not_owner};
use tern_proto::ApiError;
use tern_proto::internal::AppendOwnRequest;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_types::{ChatId, RequestId, UserId};
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::{Peers, late, passes, refusal};
use crate::metrics;

/// The timeout of one call to an own log's owner, which commits one entry. A call of a user waits for it, and what was
/// not told in time is told later.
const APPEND_CALL: Duration = Duration::from_secs(2);
/// The number of nodes that are asked when the owner has changed.
const APPEND_ATTEMPTS: usize = 2;

impl Peers {
    /// Has the owner of the user's own log append the entry, unless the log has it already. `content` is an encoded
    /// `tern.v1.EntryContent`. Returns `Err` if the owner has not confirmed it.
    pub async fn append_own(
        &self,
        user: UserId,
        request: RequestId,
        content: Vec<u8>,
    ) -> Result<(), ApiError> {
        let append = AppendOwnRequest {
            user_id: user.to_vec().into(),
            request_id: request.to_vec().into(),
            content: content.into(),
        };
        for _ in 0..APPEND_ATTEMPTS {
            let Err(status) = self.try_append_own(ChatId::own(user), append.clone()).await else {
                return Ok(());
            };
            if let Some(version) = not_owner(&status) {
                self.map_of(version).await;
                continue;
            }
            metrics::peer_failure("append_own");
            tracing::warn!(%user, code = ?status.code(), message = status.message(), "the own log's owner failed");
            if !passes(&status) {
                return Err(refusal(&status));
            }
            break;
        }
        Err(ApiError::unavailable("the node of the own log does not answer"))
    }

    async fn try_append_own(&self, chat: ChatId, append: AppendOwnRequest) -> Result<(), Status> {
        let version = self.ctx.map.current().version();
        let node = self.owner(chat);
        let node = node.ok_or_else(|| Status::unavailable("there is no chat node"))?;
        let mut client = ChatNodeClient::new(self.ctx.channels.get(&node.address)?);
        let mut request = Request::new(append);
        let version = MetadataValue::from(version);
        request.metadata_mut().insert(MAP_VERSION, version);
        let answer = timeout(APPEND_CALL, client.append_own(request)).await;
        answer.unwrap_or_else(|_| Err(late())).map(drop)
    }
}
