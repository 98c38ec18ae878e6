//! Handles the calls by which people join a group by a link, ask to join it, and are answered.

use futures::{StreamExt, stream};
use tern_identity::principal::Scope;
use tern_proto::v1::ErrorReason;
use tern_proto::v1::entry_content::Content;
use tern_proto::{ApiError, parse, v1};
use tern_types::{ChatId, Clock, InviteId, RequestId, Timestamp, UserId};
use tonic::{Request, Status};
use uuid::Uuid;

use tern_chat_core::Change;
use tern_chat_core::change::Action;
use tern_chat_core::content::fingerprint;

use super::{Invites, full, invite_not_found, may_change, may_invite, not_a_group};
use crate::grpc::chats::call::{Call, Needs, Who};
use crate::grpc::parsed::chat_id;
use crate::grpc::store_failed;
use crate::store::invites::Way;
use crate::store::join_requests::{self, Asked};
use crate::store::{joining, listing};

/// The number of members who are told at the same time that somebody asks to join.
const TOLD_AT_ONCE: usize = 8;

impl Invites {
    /// Makes the caller a member, or lets them ask to join.
    pub async fn join_by_invite(
        &self,
        request: Request<v1::JoinByInviteRequest>,
    ) -> Result<v1::JoinByInviteResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsWrite, Needs::Owner)
            .await?;
        let user = call.caller.user;
        // The request_id is read first: a request without one is answered the same whatever its token is.
        let _: RequestId = parse::id("request_id", &call.request.request_id)?;
        let (door, invite) = self.proven(call.caller, chat, &call.request.token).await?;
        let change = join(&call, invite)?;
        // The shard answers a repetition, also if the link is not in force any more, and tells a member that they are
        // one.
        if door.role.is_some() || self.is_placed(chat, &change).await? {
            return self.join(chat, change).await;
        }
        match self.way(&door, chat, invite, user).await? {
            Way::Open => self.join(chat, change).await,
            Way::Asks => self.ask(chat, user, invite).await,
            Way::Closed => {
                let asked = join_requests::state(self.pools.of(chat), chat, user, Clock::wall()).await;
                let asked = asked.map_err(store_failed)?;
                // The link may have ended since the same person asked by it.
                match asked.filter(|(_, by)| *by == invite) {
                    Some(_) => Ok(requested()),
                    None => Err(invite_not_found().into()),
                }
            }
        }
    }

    /// Lists who asks to join.
    pub async fn list_join_requests(
        &self,
        request: Request<v1::ListJoinRequestsRequest>,
    ) -> Result<v1::ListJoinRequestsResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsRead, Needs::Visible)
            .await?;
        let door = self.group(call.caller, chat).await?;
        may_invite(call.caller, &door)?;
        let waiting = join_requests::waiting(&self.pools, chat, Clock::wall()).await;
        let requests = waiting.map_err(store_failed)?.into_iter().map(shown).collect();
        Ok(v1::ListJoinRequestsResponse { requests })
    }

    /// Takes somebody who asks to join as a member, or refuses them.
    pub async fn answer_join_request(
        &self,
        request: Request<v1::AnswerJoinRequestRequest>,
    ) -> Result<v1::AnswerJoinRequestResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsWrite, Needs::Owner)
            .await?;
        let (accept, user) = (call.request.accept, parse::id("user_id", &call.request.user_id)?);
        let change = call.change(Action::Add(vec![user]))?;
        // The shard answers a repetition, even if the caller may not answer requests any more, or is no member any more.
        if accept && self.is_placed(chat, &change).await? {
            let seq = self.calls.writes.change(chat, change).await?;
            return Ok(v1::AnswerJoinRequestResponse { seq });
        }
        self.calls.check_visible(call.caller, chat).await?;
        let door = self.group(call.caller, chat).await?;
        may_change(call.caller, &door)?;
        may_invite(call.caller, &door)?;
        let seq = if accept {
            self.accept(chat, user, change).await?
        } else {
            self.refuse(chat, user).await?
        };
        Ok(v1::AnswerJoinRequestResponse { seq })
    }

    /// Takes the caller's request to join back.
    pub async fn withdraw_join_request(
        &self,
        request: Request<v1::WithdrawJoinRequestRequest>,
    ) -> Result<v1::WithdrawJoinRequestResponse, Status> {
        let call = self.calls.open(request, Who::Person, Scope::ChatsWrite).await?;
        let (user, chat) = (call.caller.user, chat_id(&call.request.chat_id)?);
        let withdrawn = join_requests::withdraw(&self.pools, chat, user).await;
        if !withdrawn.map_err(store_failed)? {
            let door = self.door(chat, user).await?;
            // A member of another chat knows that there is this chat.
            if door.is_some_and(|door| !door.is_group && door.role.is_some()) {
                return Err(not_a_group().into());
            }
        }
        Ok(v1::WithdrawJoinRequestResponse {})
    }

    /// Makes the caller a member by the change.
    async fn join(&self, chat: ChatId, change: Change) -> Result<v1::JoinByInviteResponse, Status> {
        let (seq, requested) = (self.calls.writes.change(chat, change).await?, false);
        Ok(v1::JoinByInviteResponse { seq, requested })
    }

    /// Makes a request of the user. A repetition does nothing, and tells again those who may answer: somebody may not
    /// have been told the first time.
    async fn ask(
        &self,
        chat: ChatId,
        user: UserId,
        invite: InviteId,
    ) -> Result<v1::JoinByInviteResponse, Status> {
        let asked = join_requests::ask(&self.pools, chat, user, invite, Clock::wall()).await;
        match asked.map_err(store_failed)? {
            Asked::Full => Err(full("as many people as are allowed ask to join the group").into()),
            Asked::Refused => Ok(requested()),
            Asked::Waits(since) => {
                self.tell_answerers(chat, user, since).await?;
                Ok(requested())
            }
        }
    }

    /// Tells members who may answer, by their own logs, that the user has asked to join since this time. Whoever cannot
    /// be told now is told when the user asks again, and sees the request in the list meanwhile.
    async fn tell_answerers(&self, chat: ChatId, user: UserId, since: Timestamp) -> Result<(), ApiError> {
        let answerers = join_requests::answerers(&self.pools, chat).await;
        let request = telling(chat, user, since);
        let told = answerers.map_err(store_failed)?.into_iter().map(|answerer| {
            let asked = v1::JoinRequested {
                chat_id: chat.to_string(),
                user_id: user.to_string(),
            };
            self.own.append(answerer, request, Content::JoinRequested(asked))
        });
        let mut told = stream::iter(told).buffer_unordered(TOLD_AT_ONCE);
        while let Some(result) = told.next().await {
            if let Err(error) = result {
                tracing::warn!(%chat, %error, "an answerer was not told of a request to join");
            }
        }
        Ok(())
    }

    /// Takes the user as a member, who must have asked to join. Returns the seq of the entry, or 0 if they are one
    /// already.
    async fn accept(&self, chat: ChatId, user: UserId, change: Change) -> Result<u64, Status> {
        let waits = join_requests::is_waiting(&self.pools, chat, user, Clock::wall()).await;
        if !waits.map_err(store_failed)? {
            return self.is_member_already(chat, user).await;
        }
        let seq = self.calls.writes.change(chat, change).await?;
        if seq == 0 {
            // The version before adds members without ending their requests.
            let ended = join_requests::end(self.pools.of(chat), chat, &[user]).await;
            ended.map_err(store_failed)?;
        }
        Ok(seq)
    }

    /// Refuses the user, who must have asked to join. Returns 0.
    async fn refuse(&self, chat: ChatId, user: UserId) -> Result<u64, Status> {
        let refused = join_requests::refuse(&self.pools, chat, user, Clock::wall()).await;
        if refused.map_err(store_failed)? {
            return Ok(0);
        }
        self.is_member_already(chat, user).await
    }

    /// Returns 0 if the user, who does not ask to join, is a member. Fails otherwise.
    async fn is_member_already(&self, chat: ChatId, user: UserId) -> Result<u64, Status> {
        let is_member = listing::is_member(&self.pools, chat, user).await;
        if is_member.map_err(store_failed)? {
            return Ok(0);
        }
        let error = ApiError::new(ErrorReason::UserNotFound, "this user does not ask to join");
        Err(error.into())
    }

    /// Returns whether the request of the change is in the chat's log.
    async fn is_placed(&self, chat: ChatId, change: &Change) -> Result<bool, ApiError> {
        let placed = joining::is_placed(self.pools.of(chat), chat, change.actor, change.request).await;
        placed.map_err(store_failed)
    }
}

/// Returns the change that makes the caller a member. The same request_id with another link is another request.
fn join(call: &Call<v1::JoinByInviteRequest>, invite: InviteId) -> Result<Change, ApiError> {
    let user = call.caller.user;
    let change = call.change(Action::Join { invite, user })?;
    Ok(Change {
        fingerprint: fingerprint([b"join".as_slice(), invite.as_bytes()]),
        ..change
    })
}

/// Returns the request_id under which it is told that the user has asked to join since this time: the same one each
/// time, so that nobody is told twice.
fn telling(chat: ChatId, user: UserId, since: Timestamp) -> RequestId {
    let mut name = [0; 24];
    name[..16].copy_from_slice(user.as_bytes());
    name[16..].copy_from_slice(&since.0.to_be_bytes());
    RequestId(Uuid::new_v5(&chat.0, &name))
}

/// Returns the answer to somebody whose request waits now, or seems to.
fn requested() -> v1::JoinByInviteResponse {
    v1::JoinByInviteResponse {
        seq: 0,
        requested: true,
    }
}

/// Converts a request to the public API.
fn shown(request: join_requests::Request) -> v1::JoinRequest {
    v1::JoinRequest {
        user_id: request.user.to_string(),
        requested_at_ms: request.requested_at.0,
        invite_id: request.invite.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_told_under_a_request_id_of_its_own() {
        let (chat, user, since) = (ChatId(Uuid::nil()), UserId(Uuid::nil()), Timestamp(1));
        let first = telling(chat, user, since);
        assert_eq!(telling(chat, user, since), first);
        let other = Uuid::from_u128(1);
        for another in [
            telling(ChatId(other), user, since),
            telling(chat, UserId(other), since),
            telling(chat, user, Timestamp(2)),
        ] {
            assert_ne!(another, first);
        }
    }
}
