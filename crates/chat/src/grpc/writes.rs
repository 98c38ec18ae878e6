//! Sends the commands of unary calls to the shards. Only the chat's owner accepts a command, and each command gets one
//! answer.

use std::sync::Arc;

use tern_cluster::routing::{CHAT, MAP_VERSION, NOT_OWNER};
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::ChatId;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use tern_chat_core::shard::Event;
use tern_chat_core::{Change, Origin, Outcome};

use crate::answer;
use crate::ownership::{NotOwner, Ownership};
use crate::shard_loop::Shards;
use crate::shard_loop::effects::Calls;

/// The sender of commands to the shards, which also waits for their answers.
#[derive(Clone)]
pub struct Writes {
    pub shards: Shards,
    pub calls: Arc<Calls>,
    pub ownership: Ownership,
}

impl Writes {
    /// Checks that this node owns the chat, as [`Ownership::check`] does. The error has the metadata by which the
    /// gateway routes the call again.
    pub fn check_owner(&self, chat: ChatId, metadata: &MetadataMap) -> Result<(), Status> {
        let sender = metadata
            .get(MAP_VERSION)
            .and_then(|version| version.to_str().ok()?.parse().ok());
        self.ownership
            .check(chat, sender.unwrap_or(0))
            .map_err(|not_owner| elsewhere(chat, not_owner))
    }

    /// Sends the event that `event` makes to the chat's shard, and waits for its answer. `answer` is the method of
    /// [`Outcome`] that returns answers to this kind of event, such as [`Outcome::sent`]. A refusal is an answer too.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` if the node is stopping, or is not the chat's owner any more.
    pub async fn call<T>(
        &self,
        chat: ChatId,
        event: impl FnOnce(Origin) -> Event,
        answer: fn(Outcome) -> Option<T>,
    ) -> Result<T, Status> {
        let call = self.calls.open();
        let stopping = || Status::from(ApiError::unavailable("the node is stopping"));
        self.shards
            .send(chat, event(call.origin()))
            .await
            .map_err(|_| stopping())?;
        match call.answered().await.ok_or_else(stopping)? {
            Outcome::NotOwner => Err(elsewhere(
                chat,
                NotOwner {
                    map_version: self.ownership.map_version(),
                },
            )),
            outcome => answer(outcome).ok_or_else(of_another_kind),
        }
    }
}

impl Writes {
    /// Has the chat's shard make the change. Returns the seq of its entry, or 0 if nothing was to be changed.
    ///
    /// # Errors
    ///
    /// The change was refused, or [`Self::call`] fails.
    pub async fn change(&self, chat: ChatId, change: Change) -> Result<u64, Status> {
        let event = |origin| Event::Change {
            origin,
            chat,
            change: Box::new(change),
        };
        let changed = self.call(chat, event, Outcome::changed).await?;
        let place = changed.map_err(|refusal| answer::change_to_error(&refusal))?;
        Ok(place.map_or(0, |place| place.seq.0))
    }
}

/// Returns the error that the shard answered another kind of event than was sent to it, which is a fault of the server.
fn of_another_kind() -> Status {
    ApiError::new(
        ErrorReason::Internal,
        "the answer is that to another kind of call",
    )
    .into()
}

/// Returns the error that the chat belongs to another node, with the metadata for the gateway.
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
