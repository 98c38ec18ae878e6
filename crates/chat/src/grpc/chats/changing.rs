//! Handles the calls that make and change groups. Only the chat's owner takes them. Each public method handles the call
//! of its name.

use tern_identity::principal::Scope;
use tern_identity::ticket::Tickets;
use tern_proto::{ApiError, parse, v1};
use tern_types::limits::MAX_NAME_BYTES;
use tern_types::{ChatId, RequestId, UserId};
use tonic::{Request, Status};

use tern_chat_core::change::Action;
use tern_chat_core::{Role, content};

use super::call::{Calls, Who};
use super::heads::ChatHeads;
use super::retention;
use crate::grpc::caller::Caller;
use crate::grpc::groups::Groups;
use crate::grpc::message;
use crate::grpc::parsed::user_ids;

/// The handlers of the calls that make and change groups.
pub struct Changes {
    pub calls: Calls,
    pub groups: Groups,
    pub heads: ChatHeads,
    /// The keys of media tickets; `None` if this server has no media.
    pub tickets: Option<Tickets>,
}

impl Changes {
    /// Makes a group with the caller as its owner. A repeated request returns the group that it made before.
    pub async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> Result<v1::CreateGroupResponse, Status> {
        let call = self.calls.open(request, Who::Person, Scope::ChatsWrite).await?;
        let (caller, group) = (call.caller, &call.request);
        let request: RequestId = parse::id("request_id", &group.request_id)?;
        let chat = ChatId::group(caller.user, request);
        let title = parse::name("title", group.title.clone(), MAX_NAME_BYTES)?;
        let members = user_ids("member_user_ids", &group.member_user_ids)?;
        self.calls.check_owner(&call, chat)?;
        self.groups.create(caller, chat, request, &title, members).await?;
        let chat = self.heads.one(caller, chat).await?;
        Ok(v1::CreateGroupResponse { chat: Some(chat) })
    }

    /// Sets a group's title.
    pub async fn update_chat(
        &self,
        request: Request<v1::UpdateChatRequest>,
    ) -> Result<v1::UpdateChatResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let title = parse::name("title", call.request.title.clone(), MAX_NAME_BYTES)?;
        let seq = self.calls.change(&call, chat, Action::SetTitle(title)).await?;
        Ok(v1::UpdateChatResponse { seq })
    }

    /// Sets a group's picture, or removes it.
    pub async fn set_chat_picture(
        &self,
        request: Request<v1::SetChatPictureRequest>,
    ) -> Result<v1::SetChatPictureResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let (user, picture) = (call.caller.user, call.request.picture.as_ref());
        let picture = message::picture(picture, user, self.tickets.as_ref())?;
        let seq = self
            .calls
            .change(&call, chat, Action::SetPicture(picture))
            .await?;
        Ok(v1::SetChatPictureResponse { seq })
    }

    /// Adds those of the users to a group who may be added. The caller is not told who is left out.
    pub async fn add_members(
        &self,
        request: Request<v1::AddMembersRequest>,
    ) -> Result<v1::AddMembersResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let users = user_ids("user_ids", &call.request.user_ids)?;
        let mut change = call.change(Action::Add(users.clone()))?;
        let addable = self
            .groups
            .addable(call.caller, chat, change.request, &users)
            .await?;
        change.action = Action::Add(addable);
        let seq = self.calls.writes.change(chat, change).await?;
        Ok(v1::AddMembersResponse { seq })
    }

    /// Removes a member from a group.
    pub async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<v1::RemoveMemberResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let user = parse::id("user_id", &call.request.user_id)?;
        let seq = self.calls.change(&call, chat, Action::Remove(user)).await?;
        Ok(v1::RemoveMemberResponse { seq })
    }

    /// Removes the caller from a group.
    pub async fn leave_chat(
        &self,
        request: Request<v1::LeaveChatRequest>,
    ) -> Result<v1::LeaveChatResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Person).await?;
        let seq = self
            .calls
            .change(&call, chat, Action::Remove(call.caller.user))
            .await?;
        Ok(v1::LeaveChatResponse { seq })
    }

    /// Sets the role of a member of a group, or hands the group over to them.
    pub async fn set_role(
        &self,
        request: Request<v1::SetRoleRequest>,
    ) -> Result<v1::SetRoleResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let user = parse::id("user_id", &call.request.user_id)?;
        let role = content::role_from_wire(call.request.role())
            .ok_or_else(|| ApiError::invalid("role", "is needed"))?;
        let action = if call.request.hand_over {
            hand_over(call.caller, user, role)?
        } else {
            Action::SetRole(user, role)
        };
        let seq = self.calls.change(&call, chat, action).await?;
        Ok(v1::SetRoleResponse { seq })
    }

    /// Sets how long a chat keeps its messages, and whether they disappear.
    pub async fn set_retention(
        &self,
        request: Request<v1::SetRetentionRequest>,
    ) -> Result<v1::SetRetentionResponse, Status> {
        let (call, chat) = self.calls.open_change(request, Who::Anybody).await?;
        let wanted = retention::of_request(call.request.retention.as_ref())?;
        let seq = self
            .calls
            .change(&call, chat, Action::SetRetention(wanted))
            .await?;
        Ok(v1::SetRetentionResponse { seq })
    }
}

/// Returns the action by which the caller hands the group over to `user`.
fn hand_over(caller: Caller, user: UserId, role: Role) -> Result<Action, ApiError> {
    if role != Role::Owner {
        return Err(ApiError::invalid("hand_over", "is for the role OWNER"));
    }
    if caller.is_nobody() {
        return Err(ApiError::invalid(
            "hand_over",
            "needs a member who hands the group over",
        ));
    }
    if user == caller.user {
        return Err(ApiError::invalid(
            "user_id",
            "must be another member than the caller",
        ));
    }
    let (from, to) = (caller.user, user);
    Ok(Action::HandOver { from, to })
}
