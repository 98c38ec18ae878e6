//! Serves `tern.v1.Chats`. Each submodule handles the calls about one subject; a handler parses the request, asks the
//! store or the chat's shard, and converts the result. A handler fails for the reasons that the comments in
//! `proto/tern/v1/chats.proto` name, and with UNAVAILABLE if the store or the chat's owner cannot be reached.
//!
//! - `changing`: makes and changes groups; `running`: says how they are run, for `tern.v1.Groups`
//! - `reading`: reads chats, members and entries
//! - `retention`: reads how long a chat is to keep its messages
//! - `history`: reads messages as they are now
//! - `timeline`: reads the messages of all chats of a user, for back ends
//! - `receipts`: tells and sets watermarks
//! - `own`: sets how the caller keeps chats, and hides messages from the caller
//! - `call`: begins every call: it reads the caller and the chat, and checks rights
//! - `heads`: reads chats as the answers show them; `lists`: lists the caller's chats
//! - `hidden`: leaves out what the caller has hidden

pub(super) mod call;
mod changing;
mod heads;
mod hidden;
mod history;
mod lists;
mod own;
mod reading;
mod receipts;
mod retention;
pub(super) mod running;
mod timeline;

use tern_identity::ticket::Tickets;
use tern_proto::v1;
use tern_proto::v1::chats_server::Chats;
use tern_store::Pools;
use tonic::{Request, Response, Status};

use super::caller::Callers;
use super::groups::Groups;
use super::own_log::OwnLog;
use super::read_marks::ReadMarks;
use super::sends::Sends;
use crate::store::seal::MasterKey;
use call::Calls;
use changing::Changes;
use heads::ChatHeads;
use history::History;
use own::OwnCalls;
use reading::Reading;
use receipts::Receipts;
use timeline::Timelines;

/// The public service of chats.
pub struct ChatsService {
    sends: Sends,
    changes: Changes,
    reading: Reading,
    history: History,
    timelines: Timelines,
    receipts: Receipts,
    own: OwnCalls,
}

impl ChatsService {
    /// Wires the service. `tickets` is `None` if this server has no media.
    pub fn new(
        own_log: OwnLog,
        groups: Groups,
        read_marks: ReadMarks,
        pools: Pools,
        master: MasterKey,
        tickets: Option<Tickets>,
    ) -> Self {
        let writes = own_log.writes.clone();
        let callers = Callers::new(pools.people().clone());
        let calls = Calls {
            callers: callers.clone(),
            writes: writes.clone(),
            pools: pools.clone(),
        };
        let heads = ChatHeads {
            pools: pools.clone(),
            master: master.clone(),
            read_marks: read_marks.clone(),
        };
        let own = OwnCalls {
            calls: calls.clone(),
            own_log,
            read_marks,
            pools: pools.clone(),
            master: master.clone(),
        };
        Self {
            own,
            sends: Sends {
                writes: writes.clone(),
                callers,
                tickets: tickets.clone(),
            },
            changes: Changes {
                calls: calls.clone(),
                groups,
                heads: heads.clone(),
                tickets,
            },
            reading: Reading {
                calls: calls.clone(),
                heads,
                pools: pools.clone(),
                master: master.clone(),
            },
            history: History {
                calls: calls.clone(),
                pools: pools.clone(),
                master: master.clone(),
            },
            timelines: Timelines {
                calls: calls.clone(),
                pools: pools.clone(),
                master,
            },
            receipts: Receipts { calls, writes, pools },
        }
    }
}

#[tonic::async_trait]
impl Chats for ChatsService {
    async fn send_message(
        &self,
        request: Request<v1::SendMessageRequest>,
    ) -> Result<Response<v1::SendMessageResponse>, Status> {
        let sent = Some(self.sends.send(request).await?);
        Ok(Response::new(v1::SendMessageResponse { sent }))
    }

    async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> Result<Response<v1::CreateGroupResponse>, Status> {
        self.changes.create_group(request).await.map(Response::new)
    }

    async fn get_chat(
        &self,
        request: Request<v1::GetChatRequest>,
    ) -> Result<Response<v1::GetChatResponse>, Status> {
        self.reading.get_chat(request).await.map(Response::new)
    }

    async fn list_chats(
        &self,
        request: Request<v1::ListChatsRequest>,
    ) -> Result<Response<v1::ListChatsResponse>, Status> {
        self.reading.list_chats(request).await.map(Response::new)
    }

    async fn update_chat(
        &self,
        request: Request<v1::UpdateChatRequest>,
    ) -> Result<Response<v1::UpdateChatResponse>, Status> {
        self.changes.update_chat(request).await.map(Response::new)
    }

    async fn set_chat_picture(
        &self,
        request: Request<v1::SetChatPictureRequest>,
    ) -> Result<Response<v1::SetChatPictureResponse>, Status> {
        self.changes.set_chat_picture(request).await.map(Response::new)
    }

    async fn add_members(
        &self,
        request: Request<v1::AddMembersRequest>,
    ) -> Result<Response<v1::AddMembersResponse>, Status> {
        self.changes.add_members(request).await.map(Response::new)
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        self.changes.remove_member(request).await.map(Response::new)
    }

    async fn leave_chat(
        &self,
        request: Request<v1::LeaveChatRequest>,
    ) -> Result<Response<v1::LeaveChatResponse>, Status> {
        self.changes.leave_chat(request).await.map(Response::new)
    }

    async fn set_role(
        &self,
        request: Request<v1::SetRoleRequest>,
    ) -> Result<Response<v1::SetRoleResponse>, Status> {
        self.changes.set_role(request).await.map(Response::new)
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        self.reading.list_members(request).await.map(Response::new)
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        self.reading.list_entries(request).await.map(Response::new)
    }

    async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<Response<v1::ListMessagesResponse>, Status> {
        self.history.list_messages(request).await.map(Response::new)
    }

    async fn get_message(
        &self,
        request: Request<v1::GetMessageRequest>,
    ) -> Result<Response<v1::GetMessageResponse>, Status> {
        self.history.get_message(request).await.map(Response::new)
    }

    async fn list_edits(
        &self,
        request: Request<v1::ListEditsRequest>,
    ) -> Result<Response<v1::ListEditsResponse>, Status> {
        self.history.list_edits(request).await.map(Response::new)
    }

    async fn list_undelivered(
        &self,
        request: Request<v1::ListUndeliveredRequest>,
    ) -> Result<Response<v1::ListUndeliveredResponse>, Status> {
        self.timelines.list_undelivered(request).await.map(Response::new)
    }

    async fn list_user_messages(
        &self,
        request: Request<v1::ListUserMessagesRequest>,
    ) -> Result<Response<v1::ListUserMessagesResponse>, Status> {
        self.timelines
            .list_user_messages(request)
            .await
            .map(Response::new)
    }

    async fn get_receipts(
        &self,
        request: Request<v1::GetReceiptsRequest>,
    ) -> Result<Response<v1::GetReceiptsResponse>, Status> {
        self.receipts.get_receipts(request).await.map(Response::new)
    }

    async fn get_message_receipts(
        &self,
        request: Request<v1::GetMessageReceiptsRequest>,
    ) -> Result<Response<v1::GetMessageReceiptsResponse>, Status> {
        self.receipts
            .get_message_receipts(request)
            .await
            .map(Response::new)
    }

    async fn mark_chat_read(
        &self,
        request: Request<v1::MarkChatReadRequest>,
    ) -> Result<Response<v1::MarkChatReadResponse>, Status> {
        self.receipts.mark_chat_read(request).await.map(Response::new)
    }

    async fn set_retention(
        &self,
        request: Request<v1::SetRetentionRequest>,
    ) -> Result<Response<v1::SetRetentionResponse>, Status> {
        self.changes.set_retention(request).await.map(Response::new)
    }

    async fn set_chat_settings(
        &self,
        request: Request<v1::SetChatSettingsRequest>,
    ) -> Result<Response<v1::SetChatSettingsResponse>, Status> {
        self.own.set_chat_settings(request).await.map(Response::new)
    }

    async fn hide_messages(
        &self,
        request: Request<v1::HideMessagesRequest>,
    ) -> Result<Response<v1::HideMessagesResponse>, Status> {
        self.own.hide_messages(request).await.map(Response::new)
    }
}
