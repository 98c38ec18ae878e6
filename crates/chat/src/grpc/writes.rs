//! Commands of unary calls to the shards: sent to the owner only, answered once.

use std::sync::Arc;

use tern_proto::ApiError;
use tern_types::ChatId;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::ownership::{NotOwner, Ownership};
use crate::shard::Shards;
use crate::shard::effects::Calls;
use crate::state::shard::Event;
use crate::state::{Origin, Outcome};

/// The gateway's version of the map, in the request's metadata.
const MAP_VERSION: &str = "tern-map-version";
/// In the answer of a node that is not the owner: by which map, and of which chat.
const NOT_OWNER: &str = "tern-not-owner";
const CHAT: &str = "tern-chat";

#[derive(Clone)]
pub struct Writes {
    pub shards: Shards,
    pub calls: Arc<Calls>,
    pub ownership: Ownership,
}

impl Writes {
    /// Fails with what the gateway needs to route again when the chat is another node's.
    pub fn check_owner(&self, chat: ChatId, metadata: &MetadataMap) -> Result<(), Status> {
        let sender = metadata
            .get(MAP_VERSION)
            .and_then(|version| version.to_str().ok()?.parse().ok());
        self.ownership
            .check(chat, sender.unwrap_or(0))
            .map_err(|not_owner| elsewhere(chat, not_owner))
    }

    /// Hands the command that `event` makes to the chat's shard, and waits for its answer.
    pub async fn call(&self, chat: ChatId, event: impl FnOnce(Origin) -> Event) -> Result<Outcome, Status> {
        let (origin, answered) = self.calls.open();
        let stopping = || Status::from(ApiError::unavailable("the node is stopping"));
        self.shards
            .send(chat, event(origin))
            .await
            .map_err(|_| stopping())?;
        match answered.await.map_err(|_| stopping())? {
            Outcome::NotOwner => Err(elsewhere(
                chat,
                NotOwner {
                    map_version: self.ownership.map_version(),
                },
            )),
            outcome => Ok(outcome),
        }
    }
}

fn elsewhere(chat: ChatId, not_owner: NotOwner) -> Status {
    let mut status = Status::from(ApiError::unavailable("the chat belongs to another node"));
    status
        .metadata_mut()
        .insert(NOT_OWNER, MetadataValue::from(not_owner.map_version));
    if let Ok(chat) = MetadataValue::try_from(chat.to_string()) {
        status.metadata_mut().insert(CHAT, chat);
    }
    status
}
