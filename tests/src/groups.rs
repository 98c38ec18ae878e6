//! Runs groups as people and back ends do: members, roles, policy, invite links and requests to join. The caller is a
//! device or, in nobody's name, a back end.

use std::fmt::Debug;

use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, Role};
use tern_types::{ChatId, RequestId, UserId};
use tonic::Status;

use crate::Api;

/// Returns a new request_id as it is on the wire.
pub fn fresh() -> String {
    RequestId::random().to_string()
}

/// Returns why a call was refused. Panics if it was not.
pub fn why<T: Debug>(result: Result<T, Status>) -> ErrorReason {
    let status = result.expect_err("a refusal");
    reason_of(&status).unwrap_or_else(|| panic!("no reason: {status:?}"))
}

/// Returns a chat as the caller sees it.
pub async fn view(api: &Api, chat: ChatId) -> Result<v1::Chat, Status> {
    let get = v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let answer = api.chats().get_chat(get).await?;
    Ok(answer.into_inner().chat.expect("a chat"))
}

/// Returns the role of each member by their id.
pub async fn roles(api: &Api, group: ChatId) -> Result<Vec<(UserId, Role)>, Status> {
    let list = v1::ListMembersRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    let answer = api.chats().list_members(list).await?.into_inner();
    let role = |member: &v1::Member| (member.user_id.parse::<UserId>().expect("an id"), member.role());
    Ok(answer.members.iter().map(role).collect())
}

/// Changes the whole policy, and returns the seq of that entry.
pub async fn set_policy(api: &Api, group: ChatId, policy: v1::GroupPolicy) -> Result<u64, Status> {
    let set = v1::SetPolicyRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        policy: Some(policy),
        ..Default::default()
    };
    Ok(api.groups().set_policy(set).await?.into_inner().seq)
}

/// Changes the description, and returns the seq of that entry.
pub async fn describe(api: &Api, group: ChatId, text: &str) -> Result<u64, Status> {
    let set = v1::SetDescriptionRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        description: text.to_owned(),
        ..Default::default()
    };
    Ok(api.groups().set_description(set).await?.into_inner().seq)
}

/// Changes the title, and returns the seq of that entry.
pub async fn rename(api: &Api, group: ChatId, title: &str) -> Result<u64, Status> {
    let set = v1::UpdateChatRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        title: title.to_owned(),
        ..Default::default()
    };
    Ok(api.chats().update_chat(set).await?.into_inner().seq)
}

/// Freezes a chat or ends that, and returns the seq of that entry.
pub async fn freeze(api: &Api, chat: ChatId, frozen: bool) -> Result<u64, Status> {
    let freeze = v1::FreezeRequest {
        chat_id: chat.to_string(),
        request_id: fresh(),
        frozen,
    };
    Ok(api.groups().freeze(freeze).await?.into_inner().seq)
}

/// Changes a member's role, and returns the seq of that entry.
pub async fn set_role(api: &Api, group: ChatId, user: UserId, role: Role) -> Result<u64, Status> {
    give_role(api, group, user, role, false).await
}

/// Makes a member the owner and the caller an admin, and returns the seq of that entry.
pub async fn hand_over(api: &Api, group: ChatId, user: UserId) -> Result<u64, Status> {
    give_role(api, group, user, Role::Owner, true).await
}

/// Changes a member's role, with or without handing the group over.
pub async fn give_role(
    api: &Api,
    group: ChatId,
    user: UserId,
    role: Role,
    hand_over: bool,
) -> Result<u64, Status> {
    let set = v1::SetRoleRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        user_id: user.to_string(),
        role: role.into(),
        hand_over,
        ..Default::default()
    };
    Ok(api.chats().set_role(set).await?.into_inner().seq)
}

/// Adds a member, and returns the seq of that entry.
pub async fn add(api: &Api, group: ChatId, user: UserId) -> Result<u64, Status> {
    let add = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        user_ids: vec![user.to_string()],
        ..Default::default()
    };
    Ok(api.chats().add_members(add).await?.into_inner().seq)
}

/// Removes a member, and returns the seq of that entry.
pub async fn remove(api: &Api, group: ChatId, user: UserId) -> Result<u64, Status> {
    let remove = v1::RemoveMemberRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        user_id: user.to_string(),
        ..Default::default()
    };
    Ok(api.chats().remove_member(remove).await?.into_inner().seq)
}

/// Ends the caller's own membership, and returns the seq of that entry.
pub async fn leave(api: &Api, group: ChatId) -> Result<u64, Status> {
    let leave = v1::LeaveChatRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        ..Default::default()
    };
    Ok(api.chats().leave_chat(leave).await?.into_inner().seq)
}

/// Changes what the server keeps of a chat, and returns the seq of that entry.
pub async fn set_retention(api: &Api, chat: ChatId, retention: v1::Retention) -> Result<u64, Status> {
    let set = v1::SetRetentionRequest {
        chat_id: chat.to_string(),
        request_id: fresh(),
        retention: Some(retention),
        ..Default::default()
    };
    Ok(api.chats().set_retention(set).await?.into_inner().seq)
}

/// Returns the request for a link that never ends, by which any number may join without approval.
pub fn link(group: ChatId) -> v1::CreateInviteRequest {
    v1::CreateInviteRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        ..Default::default()
    }
}

/// Makes an invite link.
pub async fn invite(api: &Api, link: v1::CreateInviteRequest) -> Result<v1::Invite, Status> {
    let answer = api.groups().create_invite(link).await?;
    Ok(answer.into_inner().invite.expect("a link"))
}

/// Returns the links in force that the caller may see, the newest first.
pub async fn invites(api: &Api, group: ChatId) -> Result<Vec<v1::Invite>, Status> {
    let list = v1::ListInvitesRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    Ok(api.groups().list_invites(list).await?.into_inner().invites)
}

/// Ends a link.
pub async fn revoke(api: &Api, group: ChatId, invite: &v1::Invite) -> Result<(), Status> {
    let revoke = v1::RevokeInviteRequest {
        chat_id: group.to_string(),
        invite_id: invite.invite_id.clone(),
        ..Default::default()
    };
    api.groups().revoke_invite(revoke).await.map(drop)
}

/// Asks where a link leads.
pub async fn look_up(api: &Api, group: ChatId, token: &str) -> Result<v1::LookUpInviteResponse, Status> {
    let look_up = v1::LookUpInviteRequest {
        chat_id: group.to_string(),
        token: token.to_owned(),
        ..Default::default()
    };
    Ok(api.groups().look_up_invite(look_up).await?.into_inner())
}

/// Joins a group by a link, or asks to.
pub async fn join(api: &Api, group: ChatId, token: &str) -> Result<v1::JoinByInviteResponse, Status> {
    let join = v1::JoinByInviteRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        token: token.to_owned(),
        ..Default::default()
    };
    Ok(api.groups().join_by_invite(join).await?.into_inner())
}

/// Returns who asks to join, the oldest first.
pub async fn requests(api: &Api, group: ChatId) -> Result<Vec<v1::JoinRequest>, Status> {
    let list = v1::ListJoinRequestsRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    Ok(api.groups().list_join_requests(list).await?.into_inner().requests)
}

/// Takes somebody who asks to join, or refuses them. Returns the seq of the entry, 0 if there is none.
pub async fn answer(api: &Api, group: ChatId, user: UserId, accept: bool) -> Result<u64, Status> {
    let answer = v1::AnswerJoinRequestRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        user_id: user.to_string(),
        accept,
        ..Default::default()
    };
    Ok(api.groups().answer_join_request(answer).await?.into_inner().seq)
}

/// Takes the caller's own request to join back.
pub async fn withdraw(api: &Api, group: ChatId) -> Result<(), Status> {
    let withdraw = v1::WithdrawJoinRequestRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    api.groups().withdraw_join_request(withdraw).await.map(drop)
}
