//! Handles the calls about receipts: who received and read which entries, and the caller's own read mark. The owner of
//! a chat knows more of them than the store: acknowledgements of entries that are not settled yet. Each public method
//! handles the call of its name.

use tern_identity::principal::Scope;
use tern_proto::v1::ErrorReason;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, Seq, UserId};
use tonic::{Request, Status};

use tern_chat_core::Outcome;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::shard::Event;

use super::call::{Calls, Needs, Who};
use crate::answer;
use crate::grpc::caller::Caller;
use crate::grpc::message_receipts::{self, After};
use crate::grpc::parsed::no_chat;
use crate::grpc::writes::Writes;
use crate::grpc::{store_failed, views};
use crate::store::{listing, load, people};

/// Each present member, the seq at which they joined, and their watermark in the store.
type Stored = Vec<(UserId, Seq, Watermark)>;
/// The members' watermarks in the owner's memory.
type Live = Vec<(UserId, Watermark)>;

/// The handlers of the calls that tell and set watermarks.
pub struct Receipts {
    pub calls: Calls,
    pub writes: Writes,
    pub pools: Pools,
}

impl Receipts {
    /// Reads how far each member has received and read the chat.
    pub async fn get_receipts(
        &self,
        request: Request<v1::GetReceiptsRequest>,
    ) -> Result<v1::GetReceiptsResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsRead, Needs::OwnerAndVisible)
            .await?;
        let (stored, live) = self.marks(call.caller, chat).await?;
        let receipts = views::receipts(chat, call.caller.user, stored, &live);
        Ok(v1::GetReceiptsResponse { receipts })
    }

    /// Reads a page of the members who received and read one message.
    pub async fn get_message_receipts(
        &self,
        request: Request<v1::GetMessageReceiptsRequest>,
    ) -> Result<v1::GetMessageReceiptsResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsRead, Needs::OwnerAndVisible)
            .await?;
        let request = &call.request;
        let size = parse::page_size(request.page_size, 100, MAX_GROUP_MEMBERS as u32);
        let (seq, after) = (Seq(request.seq), After::read(&request.page_token)?);
        let sender = self.sender(call.caller, chat, seq).await?;
        let (stored, live) = self.marks(call.caller, chat).await?;
        Ok(message_receipts::page(
            (sender, seq),
            stored,
            &live,
            after,
            size as usize,
        ))
    }

    /// Sets the caller's read mark.
    pub async fn mark_chat_read(
        &self,
        request: Request<v1::MarkChatReadRequest>,
    ) -> Result<v1::MarkChatReadResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsWrite, Needs::OwnerAndVisible)
            .await?;
        let (user, seq) = (call.caller.user, Seq(call.request.seq));
        let off = people::read_receipts_off(self.pools.people(), user).await;
        let off = off.map_err(store_failed)?.ok_or_else(no_chat)?;
        let mark = |origin| Event::MarkRead {
            origin,
            chat,
            user,
            seq,
            off,
        };
        let noted = self.writes.call(chat, mark, Outcome::noted).await?;
        noted.map_err(|refusal| answer::to_error(&refusal))?;
        Ok(v1::MarkChatReadResponse {})
    }

    /// Returns the sender of the message at `seq`. Fails if there is none, or if a device asks about a message of
    /// another user.
    async fn sender(&self, caller: Caller, chat: ChatId, seq: Seq) -> Result<UserId, ApiError> {
        let sender = listing::sender_of_message(&self.pools, chat, seq).await;
        let sender = sender
            .map_err(store_failed)?
            .ok_or_else(|| ApiError::new(ErrorReason::MessageNotFound, "there is no message at this seq"))?;
        if caller.device.is_some() && caller.user != sender {
            return Err(ApiError::new(
                ErrorReason::NotTheSender,
                "only a message's sender is told who read it",
            ));
        }
        Ok(sender)
    }

    /// Reads each member's watermark, in the store and in the owner's memory. While one of a direct chat's two people
    /// has blocked the other, the caller is not shown the other's watermark.
    async fn marks(&self, caller: Caller, chat: ChatId) -> Result<(Stored, Live), ApiError> {
        let mut live = self.writes.shards.watermarks(chat).await.unwrap_or_default();
        let mut stored = listing::receipts(&self.pools, chat).await.map_err(store_failed)?;
        // The block is read after the marks, so that a block that came meanwhile hides all marks that came after it.
        if !caller.is_nobody() && load::is_blocked(&self.pools, chat).await.map_err(store_failed)? {
            live.retain(|(user, _)| *user == caller.user);
            for (user, _, mark) in &mut stored {
                if *user != caller.user {
                    *mark = Watermark::default();
                }
            }
        }
        Ok((stored, live))
    }
}
