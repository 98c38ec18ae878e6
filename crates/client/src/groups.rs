//! Lets a person run a group: its description and policy, how long messages are kept, invite links and requests to join.
//! All methods are unary calls. Where one returns a seq, it is that of the entry that records the change, and `None` says
//! that nothing was to be changed. The entry tells all members, this device too.

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, UserId};

use tern_client_core::engine::Input;
use tern_client_core::model::{GroupPolicy, Retention};

use crate::client::Client;
use crate::driver::malformed;
use crate::error::ClientError;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// An invite link of a group. The app makes a link of the chat's id and [`v1::Invite::token`].
pub type Invite = v1::Invite;
/// The group that an invite link leads to, as somebody is shown it who has the link.
pub type InvitePreview = v1::LookUpInviteResponse;
/// Somebody who asks to join a group.
pub type JoinRequest = v1::JoinRequest;

/// The properties of a new invite link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InviteOptions {
    /// The time in seconds after which the link ends, at most a year. 0: it does not end.
    pub expires_after_s: u32,
    /// The number of people who may join by it, at most 100,000. 0: any number.
    pub max_uses: u32,
    /// True if those who come by it have to be approved.
    pub needs_approval: bool,
}

/// The outcome of joining by an invite link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The person is a member, by the entry with this seq. Zero: they were a member already.
    Member(Seq),
    /// A request to join waits for an answer. If it is accepted, the chat comes like any other.
    Requested,
}

impl Client {
    /// Sets how long the server keeps a chat's messages, and whether they disappear. In a group it needs the policy's
    /// edit_role; in a direct chat both people may. Fails with [`ClientError::Call`].
    pub async fn set_retention(&self, chat: ChatId, retention: Retention) -> Result<Option<Seq>> {
        let request = v1::SetRetentionRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            retention: Some(retention),
            acting_user_id: String::new(),
        };
        Ok(changed(self.api().set_retention(request).await?.seq))
    }

    /// Sets the description of a group: at most 2,048 bytes, in lines, and it may be empty. It needs the policy's
    /// edit_role. Fails with [`ClientError::Call`].
    pub async fn set_description(&self, chat: ChatId, description: &str) -> Result<Option<Seq>> {
        let request = v1::SetDescriptionRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            description: description.to_owned(),
            acting_user_id: String::new(),
        };
        Ok(changed(self.api().set_description(request).await?.seq))
    }

    /// Sets the whole policy of a group. Admins and owners may. Fails with [`ClientError::Call`].
    pub async fn set_policy(&self, chat: ChatId, policy: GroupPolicy) -> Result<Option<Seq>> {
        let request = v1::SetPolicyRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            policy: Some(policy),
            acting_user_id: String::new(),
        };
        Ok(changed(self.api().set_policy(request).await?.seq))
    }

    /// Hands a group over: the other member is an owner then, and this person, who has to be one, an admin. Fails with
    /// [`ClientError::Call`].
    pub async fn hand_over(&self, chat: ChatId, user: UserId) -> Result<Option<Seq>> {
        let request = v1::SetRoleRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            user_id: user.to_string(),
            role: v1::Role::Owner.into(),
            acting_user_id: String::new(),
            hand_over: true,
        };
        Ok(changed(self.api().set_role(request).await?.seq))
    }

    /// Makes an invite link. It needs the policy's add_role.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with LIST_FULL if the group has 64 links already.
    pub async fn create_invite(&self, chat: ChatId, options: InviteOptions) -> Result<Invite> {
        let request = v1::CreateInviteRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            expires_after_s: options.expires_after_s,
            max_uses: options.max_uses,
            needs_approval: options.needs_approval,
            acting_user_id: String::new(),
        };
        let invite = self.api().create_invite(request).await?.invite;
        Ok(invite.ok_or_else(|| malformed("no invite"))?)
    }

    /// Lists the links of a group that are in force, the newest first: all of them for admins and owners, and for others
    /// those that they made. Fails with [`ClientError::Call`].
    pub async fn invites(&self, chat: ChatId) -> Result<Vec<Invite>> {
        let request = v1::ListInvitesRequest {
            chat_id: chat.to_string(),
            acting_user_id: String::new(),
        };
        Ok(self.api().list_invites(request).await?.invites)
    }

    /// Ends a link. Who made it may, and admins and owners. Fails with [`ClientError::Call`].
    pub async fn revoke_invite(&self, chat: ChatId, invite_id: &str) -> Result<()> {
        let request = v1::RevokeInviteRequest {
            chat_id: chat.to_string(),
            invite_id: invite_id.to_owned(),
            acting_user_id: String::new(),
        };
        self.api().revoke_invite(request).await?;
        Ok(())
    }

    /// Says where a link leads, for the page that asks whether to join.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with INVITE_NOT_FOUND if the link is not in force.
    pub async fn look_up_invite(&self, chat: ChatId, token: &str) -> Result<InvitePreview> {
        let request = v1::LookUpInviteRequest {
            chat_id: chat.to_string(),
            token: token.to_owned(),
            acting_user_id: String::new(),
        };
        Ok(self.api().look_up_invite(request).await?)
    }

    /// Joins a group by a link. Fails as [`Client::look_up_invite`] does.
    pub async fn join_by_invite(&self, chat: ChatId, token: &str) -> Result<Joined> {
        let request = v1::JoinByInviteRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            token: token.to_owned(),
            acting_user_id: String::new(),
        };
        let answer = self.api().join_by_invite(request).await?;
        Ok(if answer.requested {
            Joined::Requested
        } else {
            Joined::Member(Seq(answer.seq))
        })
    }

    /// Lists who asks to join a group, the oldest request first. It needs the policy's add_role. Fails with
    /// [`ClientError::Call`].
    pub async fn join_requests(&self, chat: ChatId) -> Result<Vec<JoinRequest>> {
        let request = v1::ListJoinRequestsRequest {
            chat_id: chat.to_string(),
            acting_user_id: String::new(),
        };
        let requests = self.api().list_join_requests(request).await?.requests;
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        self.apply(Input::JoinRequests { chat, count }).await?;
        Ok(requests)
    }

    /// Takes somebody who asks to join as a member, or refuses them. It needs the policy's add_role.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with USER_NOT_FOUND if they do not ask any more.
    pub async fn answer_join_request(&self, chat: ChatId, user: UserId, accept: bool) -> Result<Option<Seq>> {
        let request = v1::AnswerJoinRequestRequest {
            chat_id: chat.to_string(),
            request_id: new_request(),
            user_id: user.to_string(),
            accept,
            acting_user_id: String::new(),
        };
        let seq = changed(self.api().answer_join_request(request).await?.seq);
        let before = self.read(move |store| store.chat(chat)).await?;
        let count = before.map_or(0, |chat| chat.join_request_count.saturating_sub(1));
        self.apply(Input::JoinRequests { chat, count }).await?;
        Ok(seq)
    }

    /// Takes this person's own request to join back. Without one it does nothing. Fails with [`ClientError::Call`].
    pub async fn withdraw_join_request(&self, chat: ChatId) -> Result<()> {
        let request = v1::WithdrawJoinRequestRequest {
            chat_id: chat.to_string(),
            acting_user_id: String::new(),
        };
        self.api().withdraw_join_request(request).await?;
        Ok(())
    }
}

/// Returns the seq of an answer, or `None` if nothing was changed.
pub(crate) fn changed(seq: u64) -> Option<Seq> {
    (seq > 0).then_some(Seq(seq))
}

fn new_request() -> String {
    RequestId::random().to_string()
}
