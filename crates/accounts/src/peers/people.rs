//! Tells other nodes of blocks, contacts and settings, and asks chat nodes who has written to whom.

use std::time::Duration;

use tern_cluster::links::RetryWaits;
use tern_cluster::map::{Node, Role};
use tern_cluster::routing::{MAP_VERSION, not_owner};
use tern_proto::ApiError;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_proto::internal::{BlocksChangedRequest, HaveWrittenRequest, PrivacyChangedRequest, UserPrivacy};
use tern_types::{ChatId, Slot, UserId};
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::{Peers, late, passes, refusal};
use crate::metrics;

/// The timeout of one call to a chat's owner, which may have to load the chat from the store.
const BLOCK_CALL: Duration = Duration::from_secs(5);
/// The time for all attempts together before the caller gets UNAVAILABLE. It is shorter than clients wait, and long
/// enough for a changing map: it exceeds the lease after which a lost owner leaves the map.
const BLOCK_PATIENCE: Duration = Duration::from_secs(8);
/// The timeout of a chat node's look-up of who among 256 people has written.
const WRITTEN_CALL: Duration = Duration::from_secs(5);
/// The longest time to wait for a newer map. A node sees a change in etcd sooner.
const MAP_PATIENCE: Duration = Duration::from_secs(2);
/// The time for which this node watches the map after a block. A map that arrives late here may show that the chat
/// already had another owner when the old one was told. The time is several leases.
const MAP_LAG: Duration = Duration::from_secs(30);
/// The most chats for which the map is watched at a time. For a chat beyond that number, an owner that this node did
/// not know of learns of the block only when it loads the chat again.
const MAX_FOLLOWED: usize = 1024;

impl Peers {
    /// Tells every gateway that can be reached to check again who may watch the user, and whom the user may watch.
    pub async fn privacy_changed(&self, user: UserId, read_receipts_off: bool) {
        let request = PrivacyChangedRequest {
            users: vec![UserPrivacy {
                user_id: user.to_vec().into(),
                read_receipts_off,
            }],
        };
        let told = self.tell_gateways("privacy_changed", |mut gateway| {
            let request = request.clone();
            async move { gateway.privacy_changed(request).await.map(drop) }
        });
        told.await;
    }

    /// Returns those of `from` who have written to `to`. Any chat node can answer. Returns `Err` if none has done so.
    pub async fn have_written(&self, to: UserId, from: &[UserId]) -> Result<Vec<UserId>, ApiError> {
        self.written(to, from, false).await
    }

    /// Returns those of `to` to whom `from` has written. Any chat node can answer. Returns `Err` if none has done so.
    pub async fn has_written_to(&self, from: UserId, to: &[UserId]) -> Result<Vec<UserId>, ApiError> {
        self.written(from, to, true).await
    }

    async fn written(&self, to: UserId, from: &[UserId], reversed: bool) -> Result<Vec<UserId>, ApiError> {
        let request = HaveWrittenRequest {
            to_user_id: to.to_vec().into(),
            from_user_ids: from.iter().map(|user| user.to_vec().into()).collect(),
            reversed,
        };
        let answer = self
            .any_chat("have_written", WRITTEN_CALL, |mut client| {
                let request = request.clone();
                async move { client.have_written(request).await }
            })
            .await?;
        let written = answer
            .from_user_ids
            .iter()
            .filter_map(|id| UserId::from_slice(id).ok());
        Ok(written.collect())
    }

    /// Tells the owner of the direct chat of the two to read their blocks again. When this returns `Ok`, the owner
    /// applies the blocks that the store has now. Returns `Err` if the owner does not answer in time.
    pub async fn blocks_changed(&self, one: UserId, other: UserId) -> Result<(), ApiError> {
        let changed = self.tell_owner(ChatId::direct(one, other));
        let silent = || ApiError::unavailable("the chat's node does not answer");
        timeout(BLOCK_PATIENCE, changed).await.map_err(|_| silent())?
    }

    async fn tell_owner(&self, chat: ChatId) -> Result<(), ApiError> {
        let mut waits = RetryWaits::default();
        loop {
            let status = match self.try_blocks_changed(chat).await {
                Ok(told) if self.owner(chat).is_none_or(|owner| owner == told) => {
                    self.follow(chat, told);
                    return Ok(());
                }
                // The map has changed in the meantime, and the chat has another owner.
                Ok(_) => continue,
                Err(status) => status,
            };
            if let Some(version) = not_owner(&status) {
                self.map_of(version).await;
            } else {
                metrics::peer_failure("blocks_changed");
                tracing::warn!(%chat, code = ?status.code(), message = status.message(), "chat's owner failed");
                if !passes(&status) {
                    return Err(refusal(&status));
                }
            }
            tokio::time::sleep(waits.next(Duration::ZERO)).await;
        }
    }

    pub(super) fn owner(&self, chat: ChatId) -> Option<Node> {
        let map = self.ctx.map.current();
        map.owner(Role::Chat, Slot::of_chat(chat)).cloned()
    }

    /// Tells the chat's owner once, and returns the node that was told.
    async fn try_blocks_changed(&self, chat: ChatId) -> Result<Node, Status> {
        let version = self.ctx.map.current().version();
        let node = self.owner(chat);
        let node = node.ok_or_else(|| Status::unavailable("there is no chat node"))?;
        let mut client = ChatNodeClient::new(self.ctx.channels.get(&node.address)?);
        let mut request = Request::new(BlocksChangedRequest {
            chat_id: chat.to_vec().into(),
        });
        let version = MetadataValue::from(version);
        request.metadata_mut().insert(MAP_VERSION, version);
        let answer = timeout(BLOCK_CALL, client.blocks_changed(request)).await;
        answer.unwrap_or_else(|_| Err(late()))?;
        Ok(node)
    }

    /// Watches the map in the background for [`MAP_LAG`], and tells the chat's next owner too if the map names one
    /// other than `told`. That node may have loaded the chat before the block was stored, by a newer map that this node
    /// had not seen.
    fn follow(&self, chat: ChatId, told: Node) {
        let Ok(room) = self.followed.clone().try_acquire_owned() else {
            return;
        };
        let (peers, mut map) = (self.clone(), self.ctx.map.clone());
        tokio::spawn(async move {
            let _room = room;
            let other = async {
                loop {
                    let map = map.changed().await;
                    if map
                        .owner(Role::Chat, Slot::of_chat(chat))
                        .is_some_and(|owner| *owner != told)
                    {
                        return;
                    }
                }
            };
            if timeout(MAP_LAG, other).await.is_ok()
                && let Err(status) = peers.try_blocks_changed(chat).await
            {
                metrics::peer_failure("blocks_changed");
                tracing::warn!(%chat, code = ?status.code(), message = status.message(),
                    "the chat's next owner could not be told of a block");
            }
        });
    }

    /// Waits until the map has at least this version, but at most [`MAP_PATIENCE`].
    pub(super) async fn map_of(&self, version: i64) {
        let mut map = self.ctx.map.clone();
        if map.current().version() < version {
            let caught_up = async { while map.changed().await.version() < version {} };
            // If the map does not come in time, the next attempt reports what is wrong.
            let _ = timeout(MAP_PATIENCE, caught_up).await;
        }
    }
}

/// Returns the permits of the background tasks that [`Peers::follow`] starts.
pub(super) fn room() -> std::sync::Arc<tokio::sync::Semaphore> {
    std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_FOLLOWED))
}
