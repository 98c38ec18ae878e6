//! Tells other nodes of blocks, contacts and settings, and asks chat nodes who has written to whom.

use std::time::Duration;

use tern_cluster::links::BackOff;
use tern_cluster::map::{Node, Role};
use tern_proto::ApiError;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_proto::internal::{BlocksChangedRequest, HaveWrittenRequest, PrivacyChangedRequest, UserPrivacy};
use tern_types::{ChatId, Slot, UserId};
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::{Peers, late, passes, refusal};
use crate::metrics;

/// How long one attempt at a chat's owner may take, which loads one chat.
const BLOCK_CALL: Duration = Duration::from_secs(5);
/// How long all attempts together may take before the caller is told to come back: enough for a map that is changing,
/// and less than clients wait. It is not enough for a node that died and still has its lease.
const BLOCK_PATIENCE: Duration = Duration::from_secs(8);
/// How long a chat node may take to look up who of 256 people has written.
const WRITTEN_CALL: Duration = Duration::from_secs(5);
/// How long a newer map is waited for: longer than a node needs to see a change in etcd.
const MAP_PATIENCE: Duration = Duration::from_secs(2);
/// How long after a block this node watches for a map, late to arrive here, by which the chat already had another
/// owner. It is several leases.
const MAP_LAG: Duration = Duration::from_secs(30);
/// How many chats are watched for that at a time. For chats beyond it, an owner that this node did not know of learns
/// of the block when it loads the chat again.
const MAX_FOLLOWED: usize = 1024;

/// Metadata with this node's version of the map, for a chat's owner.
const MAP_VERSION: &str = "tern-map-version";
/// Metadata in the answer of a node that is not the owner: the version of its map.
const NOT_OWNER: &str = "tern-not-owner";

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

    /// Returns those of `from` who have written to `to`. Any chat node can answer.
    pub async fn have_written(&self, to: UserId, from: &[UserId]) -> Result<Vec<UserId>, ApiError> {
        self.written(to, from, false).await
    }

    /// Returns those of `to` to whom `from` has written. Any chat node can answer.
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

    /// Tells the owner of the direct chat of the two to read their blocks again. When it returns, the owner decides
    /// by what the store has now. `Err` if the owner does not answer in time.
    pub async fn blocks_changed(&self, one: UserId, other: UserId) -> Result<(), ApiError> {
        let changed = self.tell_owner(ChatId::direct(one, other));
        let silent = || ApiError::unavailable("the chat's node does not answer");
        timeout(BLOCK_PATIENCE, changed).await.map_err(|_| silent())?
    }

    async fn tell_owner(&self, chat: ChatId) -> Result<(), ApiError> {
        let mut back_off = BackOff::default();
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
            tokio::time::sleep(back_off.next(Duration::ZERO)).await;
        }
    }

    fn owner(&self, chat: ChatId) -> Option<Node> {
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

    /// Watches for a late map by which another node owns the chat, and tells that node too. It may have loaded the
    /// chat before the block was stored.
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
    async fn map_of(&self, version: i64) {
        let mut map = self.ctx.map.clone();
        if map.current().version() < version {
            let caught_up = async { while map.changed().await.version() < version {} };
            // If it was in vain, the next attempt reports what is wrong.
            let _ = timeout(MAP_PATIENCE, caught_up).await;
        }
    }
}

pub(super) fn room() -> std::sync::Arc<tokio::sync::Semaphore> {
    std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_FOLLOWED))
}

fn not_owner(status: &Status) -> Option<i64> {
    status.metadata().get(NOT_OWNER)?.to_str().ok()?.parse().ok()
}
