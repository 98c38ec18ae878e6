//! `tern.v1.Chats`: each handler parses the request, makes one call, and converts the result.

use sqlx::PgPool;
use tern_identity::principal::Scope;
use tern_identity::ticket::Tickets;
use tern_proto::v1::chats_server::Chats;
use tern_proto::v1::{self, ErrorReason};
use tern_proto::{ApiError, parse};
use tern_types::limits::{MAX_GROUP_MEMBERS, MAX_NAME_BYTES};
use tern_types::{ChatId, RequestId, Seq, UserId};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use tern_chat_core::change::Action;
use tern_chat_core::content::{self, fingerprint};
use tern_chat_core::receipts::Watermark;
use tern_chat_core::shard::Event;
use tern_chat_core::{Change, Outcome};

use super::caller::{Caller, Callers};
use super::groups::Groups;
use super::message;
use super::message_receipts::{self, After};
use super::parsed::{chat_id, no_chat, user_ids};
use super::read_marks::ReadMarks;
use super::sends::Sends;
use super::store_away;
use super::views::{self, PageToken};
use super::writes::Writes;
use crate::answer;
use crate::store::seal::MasterKey;
use crate::store::{entries, listing, load};

/// The most entries or messages of a page.
const MAX_ENTRIES: u32 = 256;
/// Bytes of a page; the last entry may exceed it. Clients accept responses of 4 MiB by default.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// Bytes of the last entries in a page of chats; the last one may exceed it. It is twice as much, so that a list
/// seldom takes a second call.
const MAX_LIST_BYTES: usize = 2 << 20;

/// Each present member, the seq at which they joined, and their watermark in the store.
type Stored = Vec<(UserId, Seq, Watermark)>;
/// The watermarks in the owner's memory.
type Live = Vec<(UserId, Watermark)>;

/// The public service of chats.
pub struct ChatsService {
    writes: Writes,
    callers: Callers,
    sends: Sends,
    groups: Groups,
    read_marks: ReadMarks,
    pool: PgPool,
    master: MasterKey,
    tickets: Option<Tickets>,
}

impl ChatsService {
    /// Wires the service. `tickets` is `None` if this server has no media.
    pub fn new(
        writes: Writes,
        groups: Groups,
        read_marks: ReadMarks,
        pool: PgPool,
        master: MasterKey,
        tickets: Option<Tickets>,
    ) -> Self {
        let callers = Callers::new(pool.clone());
        let sends = Sends {
            writes: writes.clone(),
            callers: callers.clone(),
            tickets: tickets.clone(),
        };
        Self {
            writes,
            callers,
            sends,
            groups,
            read_marks,
            pool,
            master,
            tickets,
        }
    }

    async fn view(&self, caller: Caller, chat: ChatId) -> Result<v1::Chat, ApiError> {
        let view = listing::chat(&self.pool, &self.master, caller.user, caller.device, chat).await;
        let mut view = [view.map_err(store_away)?.ok_or_else(no_chat)?];
        let marks = self.writes.shards.read_marks(caller.user, [chat]).await;
        self.read_marks.show(&mut view, marks).await?;
        let [view] = view;
        views::chat(view, caller)
    }

    /// Checks that the caller may see the chat: a member may, and a back end in nobody's name.
    async fn authorise(&self, caller: Caller, chat: ChatId) -> Result<(), ApiError> {
        let may = caller.is_nobody()
            || listing::is_member(&self.pool, chat, caller.user)
                .await
                .map_err(store_away)?;
        if may { Ok(()) } else { Err(no_chat()) }
    }

    /// The sender of the message at `seq`. A device may only ask about messages of its own user.
    async fn sender(&self, caller: Caller, chat: ChatId, seq: Seq) -> Result<UserId, ApiError> {
        let sender = listing::sender_of_message(&self.pool, chat, seq).await;
        let sender = sender
            .map_err(store_away)?
            .ok_or_else(|| ApiError::new(ErrorReason::MessageNotFound, "there is no message at this seq"))?;
        if caller.device.is_some() && caller.user != sender {
            return Err(ApiError::new(
                ErrorReason::NotTheSender,
                "only a message's sender is told who read it",
            ));
        }
        Ok(sender)
    }

    /// Each member's watermark, in the store and in the owner's memory. While one of a direct chat's two people has
    /// blocked the other, the caller is not shown the other's.
    async fn receipts(&self, caller: Caller, chat: ChatId) -> Result<(Stored, Live), ApiError> {
        let mut live = self.writes.shards.watermarks(chat).await.unwrap_or_default();
        let mut stored = listing::receipts(&self.pool, chat).await.map_err(store_away)?;
        // The block is read after the marks, so that a block that came meanwhile hides what came after it.
        if !caller.is_nobody() && load::is_blocked(&self.pool, chat).await.map_err(store_away)? {
            live.retain(|(user, _)| *user == caller.user);
            for (user, _, mark) in &mut stored {
                if *user != caller.user {
                    *mark = Watermark::default();
                }
            }
        }
        Ok((stored, live))
    }

    async fn change(
        &self,
        metadata: &MetadataMap,
        caller: Caller,
        chat: ChatId,
        request_id: &str,
        action: Action,
    ) -> Result<u64, Status> {
        let change = asked(caller, request_id, action)?;
        self.writes.check_owner(chat, metadata)?;
        self.apply(chat, change).await
    }

    async fn apply(&self, chat: ChatId, change: Change) -> Result<u64, Status> {
        match self
            .writes
            .call(chat, |origin| Event::Change { origin, chat, change })
            .await?
        {
            Outcome::Placed { seq, .. } => Ok(seq.0),
            Outcome::Refused(refusal) => Err(answer::to_error(&refusal).into()),
            _ => Ok(0),
        }
    }
}

/// The change that a request asks for. Its fingerprint is that of the whole request, whatever is left out of it
/// later.
fn asked(caller: Caller, request_id: &str, action: Action) -> Result<Change, ApiError> {
    Ok(Change {
        actor: caller.user,
        device: caller.sender_device(),
        request: parse::id("request_id", request_id)?,
        fingerprint: fingerprint([content::of_change(caller.user, &action).as_ref()]),
        action,
    })
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
        let (metadata, _, group) = request.into_parts();
        let caller = self
            .callers
            .person(&metadata, &group.acting_user_id, Scope::ChatsWrite)
            .await?;
        let request: RequestId = parse::id("request_id", &group.request_id)?;
        let chat = ChatId::group(caller.user, request);
        let title = parse::name("title", group.title, MAX_NAME_BYTES)?;
        let members = user_ids("member_user_ids", &group.member_user_ids)?;
        self.writes.check_owner(chat, &metadata)?;
        self.groups.create(caller, chat, request, &title, members).await?;
        Ok(Response::new(v1::CreateGroupResponse {
            chat: Some(self.view(caller, chat).await?),
        }))
    }

    async fn get_chat(
        &self,
        request: Request<v1::GetChatRequest>,
    ) -> Result<Response<v1::GetChatResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.person(metadata, acting, Scope::ChatsRead).await?;
        let chat = chat_id(&request.get_ref().chat_id)?;
        // The owner knows read marks before the store does.
        self.writes.check_owner(chat, request.metadata())?;
        let chat = self.view(caller, chat).await?;
        Ok(Response::new(v1::GetChatResponse { chat: Some(chat) }))
    }

    async fn list_chats(
        &self,
        request: Request<v1::ListChatsRequest>,
    ) -> Result<Response<v1::ListChatsResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.person(metadata, acting, Scope::ChatsRead).await?;
        let request = request.into_inner();
        let size = parse::page_size(request.page_size, 50, 200);
        let after = PageToken::read(&request.page_token)?;
        let (pool, master, user, device) = (&self.pool, &self.master, caller.user, caller.device);
        let mut page = listing::chats(pool, master, user, device, after, size, MAX_LIST_BYTES)
            .await
            .map_err(store_away)?;
        let marks = self
            .read_marks
            .of(user, page.chats.iter().map(|view| view.chat))
            .await;
        self.read_marks.show(&mut page.chats, marks).await?;
        let last = page.chats.last().filter(|_| page.more);
        let next_page_token = PageToken::after(last);
        let chats = page
            .chats
            .into_iter()
            .map(|view| views::chat(view, caller))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListChatsResponse {
            chats,
            next_page_token,
        }))
    }

    async fn update_chat(
        &self,
        request: Request<v1::UpdateChatRequest>,
    ) -> Result<Response<v1::UpdateChatResponse>, Status> {
        let (metadata, _, update) = request.into_parts();
        let caller = self
            .callers
            .read(&metadata, &update.acting_user_id, Scope::ChatsWrite)
            .await?;
        let title = parse::name("title", update.title, MAX_NAME_BYTES)?;
        let chat = chat_id(&update.chat_id)?;
        let seq = self
            .change(
                &metadata,
                caller,
                chat,
                &update.request_id,
                Action::SetTitle(title),
            )
            .await?;
        Ok(Response::new(v1::UpdateChatResponse { seq }))
    }

    async fn set_chat_picture(
        &self,
        request: Request<v1::SetChatPictureRequest>,
    ) -> Result<Response<v1::SetChatPictureResponse>, Status> {
        let (metadata, _, set) = request.into_parts();
        let caller = self
            .callers
            .read(&metadata, &set.acting_user_id, Scope::ChatsWrite)
            .await?;
        let picture = message::picture(set.picture.as_ref(), caller.user, self.tickets.as_ref())?;
        let (chat, action) = (chat_id(&set.chat_id)?, Action::SetPicture(picture));
        let seq = self
            .change(&metadata, caller, chat, &set.request_id, action)
            .await?;
        Ok(Response::new(v1::SetChatPictureResponse { seq }))
    }

    async fn add_members(
        &self,
        request: Request<v1::AddMembersRequest>,
    ) -> Result<Response<v1::AddMembersResponse>, Status> {
        let (metadata, _, add) = request.into_parts();
        let caller = self
            .callers
            .read(&metadata, &add.acting_user_id, Scope::ChatsWrite)
            .await?;
        let users = user_ids("user_ids", &add.user_ids)?;
        let chat = chat_id(&add.chat_id)?;
        let mut change = asked(caller, &add.request_id, Action::Add(users.clone()))?;
        self.writes.check_owner(chat, &metadata)?;
        let addable = self.groups.addable(caller, chat, change.request, &users).await?;
        change.action = Action::Add(addable);
        let seq = self.apply(chat, change).await?;
        Ok(Response::new(v1::AddMembersResponse { seq }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let (metadata, _, remove) = request.into_parts();
        let caller = self
            .callers
            .read(&metadata, &remove.acting_user_id, Scope::ChatsWrite)
            .await?;
        let user = parse::id("user_id", &remove.user_id)?;
        let chat = chat_id(&remove.chat_id)?;
        let seq = self
            .change(&metadata, caller, chat, &remove.request_id, Action::Remove(user))
            .await?;
        Ok(Response::new(v1::RemoveMemberResponse { seq }))
    }

    async fn leave_chat(
        &self,
        request: Request<v1::LeaveChatRequest>,
    ) -> Result<Response<v1::LeaveChatResponse>, Status> {
        let (metadata, _, leave) = request.into_parts();
        let caller = self
            .callers
            .person(&metadata, &leave.acting_user_id, Scope::ChatsWrite)
            .await?;
        let chat = chat_id(&leave.chat_id)?;
        let seq = self
            .change(
                &metadata,
                caller,
                chat,
                &leave.request_id,
                Action::Remove(caller.user),
            )
            .await?;
        Ok(Response::new(v1::LeaveChatResponse { seq }))
    }

    async fn set_role(
        &self,
        request: Request<v1::SetRoleRequest>,
    ) -> Result<Response<v1::SetRoleResponse>, Status> {
        let (metadata, _, set) = request.into_parts();
        let caller = self
            .callers
            .read(&metadata, &set.acting_user_id, Scope::ChatsWrite)
            .await?;
        let user = parse::id("user_id", &set.user_id)?;
        let role =
            content::role_from_wire(set.role()).ok_or_else(|| ApiError::invalid("role", "is needed"))?;
        let chat = chat_id(&set.chat_id)?;
        let seq = self
            .change(
                &metadata,
                caller,
                chat,
                &set.request_id,
                Action::SetRole(user, role),
            )
            .await?;
        Ok(Response::new(v1::SetRoleResponse { seq }))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.read(metadata, acting, Scope::ChatsRead).await?;
        let request = request.into_inner();
        let chat = chat_id(&request.chat_id)?;
        let size = parse::page_size(request.page_size, 100, MAX_GROUP_MEMBERS as u32);
        let after = parse::optional_id("page_token", &request.page_token)?.unwrap_or(UserId::SYSTEM);
        self.authorise(caller, chat).await?;
        let members = listing::members(&self.pool, chat, after, size)
            .await
            .map_err(store_away)?;
        let full = members.len() == size as usize;
        let next = members.last().filter(|_| full).map(|(user, ..)| user.to_string());
        let members = members.into_iter().map(views::member).collect();
        Ok(Response::new(v1::ListMembersResponse {
            members,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.person(metadata, acting, Scope::ChatsRead).await?;
        let request = request.into_inner();
        let chat = chat_id(&request.chat_id)?;
        let size = parse::page_size(request.page_size, 100, MAX_ENTRIES);
        self.authorise(caller, chat).await?;
        let (pool, master, from) = (&self.pool, &self.master, Seq(request.from_seq));
        let window = entries::window(pool, master, chat, caller.user, from, size, MAX_PAGE_BYTES)
            .await
            .map_err(store_away)?;
        let next_from_seq = if window.done { 0 } else { window.next.0 };
        let entries = window.items.into_iter().filter_map(|item| match item {
            entries::Item::Entry(entry) => Some(views::entry(entry)),
            entries::Item::Skipped { .. } => None,
        });
        let entries = entries.collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListEntriesResponse {
            entries,
            next_from_seq,
        }))
    }

    async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<Response<v1::ListMessagesResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.person(metadata, acting, Scope::ChatsRead).await?;
        let request = request.into_inner();
        let chat = chat_id(&request.chat_id)?;
        let size = parse::page_size(request.page_size, 50, MAX_ENTRIES);
        self.authorise(caller, chat).await?;
        let before = if request.before_seq == 0 {
            Seq(i64::MAX as u64)
        } else {
            Seq(request.before_seq)
        };
        let (pool, master, user) = (&self.pool, &self.master, caller.user);
        let history = entries::history(pool, master, chat, user, before, size, MAX_PAGE_BYTES)
            .await
            .map_err(store_away)?;
        let last = history.messages.last().filter(|_| history.more);
        let next = last.map_or(0, |message| message.seq);
        let entries = history
            .messages
            .into_iter()
            .map(views::entry)
            .collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListMessagesResponse {
            entries,
            next_before_seq: next,
        }))
    }

    async fn get_receipts(
        &self,
        request: Request<v1::GetReceiptsRequest>,
    ) -> Result<Response<v1::GetReceiptsResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.read(metadata, acting, Scope::ChatsRead).await?;
        let chat = chat_id(&request.get_ref().chat_id)?;
        self.authorise(caller, chat).await?;
        // The owner knows more than the store: acknowledgements of entries that are not settled yet.
        self.writes.check_owner(chat, request.metadata())?;
        let (stored, live) = self.receipts(caller, chat).await?;
        let receipts = views::receipts(chat, caller.user, stored, &live);
        Ok(Response::new(v1::GetReceiptsResponse { receipts }))
    }

    async fn get_message_receipts(
        &self,
        request: Request<v1::GetMessageReceiptsRequest>,
    ) -> Result<Response<v1::GetMessageReceiptsResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let caller = self
            .callers
            .person(&metadata, &asked.acting_user_id, Scope::ChatsRead)
            .await?;
        let (chat, seq) = (chat_id(&asked.chat_id)?, Seq(asked.seq));
        let size = parse::page_size(asked.page_size, 100, MAX_GROUP_MEMBERS as u32);
        let after = After::read(&asked.page_token)?;
        self.writes.check_owner(chat, &metadata)?;
        self.authorise(caller, chat).await?;
        let sender = self.sender(caller, chat, seq).await?;
        let (stored, live) = self.receipts(caller, chat).await?;
        let page = message_receipts::page((sender, seq), stored, &live, after, size as usize);
        Ok(Response::new(page))
    }

    async fn mark_chat_read(
        &self,
        request: Request<v1::MarkChatReadRequest>,
    ) -> Result<Response<v1::MarkChatReadResponse>, Status> {
        let (metadata, acting) = (request.metadata(), &request.get_ref().acting_user_id);
        let caller = self.callers.person(metadata, acting, Scope::ChatsWrite).await?;
        let chat = chat_id(&request.get_ref().chat_id)?;
        self.writes.check_owner(chat, request.metadata())?;
        let off = listing::read_receipts_off_of_member(&self.pool, chat, caller.user).await;
        let off = off.map_err(store_away)?.ok_or_else(no_chat)?;
        let (user, seq) = (caller.user, Seq(request.get_ref().seq));
        let mark = |origin| Event::MarkRead {
            origin,
            chat,
            user,
            seq,
            off,
        };
        match self.writes.call(chat, mark).await? {
            Outcome::Refused(refusal) => Err(answer::to_error(&refusal).into()),
            _ => Ok(Response::new(v1::MarkChatReadResponse {})),
        }
    }
}
