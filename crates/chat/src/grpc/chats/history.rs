//! Handles the calls that read messages as they are now. Each method handles the call of its name.

use tern_identity::principal::Scope;
use tern_proto::v1::get_message_request::By;
use tern_proto::v1::list_messages_request::Only as Wanted;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::{ChatId, Seq, UserId};
use tonic::{Request, Status};

use super::call::{Calls, Needs, Who};
use super::hidden;
use super::reading::{MAX_ENTRIES, MAX_PAGE_BYTES};
use crate::grpc::store_failed;
use crate::store::entries;
use crate::store::history::{Begin, Bounds, Only, Page, Reader};
use crate::store::seal::MasterKey;

/// The handlers of the calls that read history.
pub struct History {
    pub calls: Calls,
    pub pools: Pools,
    pub master: MasterKey,
}

impl History {
    /// Reads a page of messages, as they are now or as they were sent.
    pub async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<v1::ListMessagesResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsRead, Needs::Visible)
            .await?;
        let user = call.caller.user;
        let mut page = self.list(&call.request, chat, user).await?;
        hidden::leave_out(&self.pools, user, chat, &mut page).await?;
        Ok(page)
    }

    /// Reads a page of messages, with those that the user has hidden.
    async fn list(
        &self,
        request: &v1::ListMessagesRequest,
        chat: ChatId,
        user: UserId,
    ) -> Result<v1::ListMessagesResponse, Status> {
        let (size, only) = (
            parse::page_size(request.page_size, 50, MAX_ENTRIES),
            only(request)?,
        );
        if !request.folded {
            return self.as_sent(chat, user, below(request.before_seq), size).await;
        }
        let reader = self.reader(chat, user);
        let bounds = bounds(size);
        match (request.before_seq, request.after_seq, request.around_seq) {
            (before, 0, 0) => {
                let page = reader.page(only, Begin::Below(below(before)), bounds).await;
                Ok(downwards(page.map_err(store_failed)?))
            }
            (0, after, 0) => {
                let page = reader.page(only, Begin::Above(Seq(after)), bounds).await;
                let page = page.map_err(store_failed)?;
                Ok(v1::ListMessagesResponse {
                    messages: page.messages,
                    next_after_seq: page.next.map_or(0, |seq| seq.0),
                    gaps: page.gaps,
                    ..v1::ListMessagesResponse::default()
                })
            }
            (0, 0, around) => self.around(reader, only, Seq(around), size).await,
            _ => {
                let problem = "may be set only where neither before_seq nor around_seq is";
                Err(ApiError::invalid("after_seq", problem).into())
            }
        }
    }

    /// Reads one message.
    pub async fn get_message(
        &self,
        request: Request<v1::GetMessageRequest>,
    ) -> Result<v1::GetMessageResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsRead, Needs::Visible)
            .await?;
        let reader = self.reader(chat, call.caller.user);
        let seq = match &call.request.by {
            None => return Err(ApiError::invalid("seq", "or request_id is needed").into()),
            Some(By::Seq(seq)) => Some(Seq(*seq)),
            Some(By::RequestId(request)) => {
                let request = parse::id("request_id", request)?;
                reader.seq_of(request).await.map_err(store_failed)?
            }
        };
        let mut message = match seq {
            Some(seq) => reader.message(seq).await.map_err(store_failed)?,
            None => None,
        };
        if let Some(seq) = seq
            && hidden::is_hidden(&self.pools, call.caller.user, chat, seq).await?
        {
            message = None;
        }
        if message.is_none() {
            let error = ApiError::new(v1::ErrorReason::MessageNotFound, "there is no such message");
            return Err(error.into());
        }
        Ok(v1::GetMessageResponse { message })
    }

    /// Reads a page of the edits of a message.
    pub async fn list_edits(
        &self,
        request: Request<v1::ListEditsRequest>,
    ) -> Result<v1::ListEditsResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsRead, Needs::Visible)
            .await?;
        let request = &call.request;
        if hidden::is_hidden(&self.pools, call.caller.user, chat, Seq(request.seq)).await? {
            return Ok(v1::ListEditsResponse::default());
        }
        let only = Only::EditsOf(Seq(request.seq));
        let bounds = bounds(parse::page_size(request.page_size, 50, MAX_ENTRIES));
        let reader = self.reader(chat, call.caller.user);
        let page = reader
            .page(only, Begin::Above(Seq(request.after_seq)), bounds)
            .await;
        let page = page.map_err(store_failed)?;
        Ok(v1::ListEditsResponse {
            edits: page.messages.into_iter().filter_map(|edit| edit.entry).collect(),
            next_after_seq: page.next.map_or(0, |seq| seq.0),
        })
    }

    fn reader(&self, chat: ChatId, user: UserId) -> Reader<'_> {
        Reader {
            pools: &self.pools,
            master: &self.master,
            chat,
            user,
        }
    }

    /// Reads the messages around a seq, the newest first.
    async fn around(
        &self,
        reader: Reader<'_>,
        only: Only,
        around: Seq,
        size: u32,
    ) -> Result<v1::ListMessagesResponse, Status> {
        let (older, newer) = (bounds((size / 2).max(1)), bounds((size - size / 2).max(1)));
        let (older, newer) = tokio::try_join!(
            reader.page(only, Begin::Below(around), older),
            reader.page(only, Begin::Above(around.previous()), newer),
        )
        .map_err(store_failed)?;
        let mut gaps = older.gaps;
        gaps.extend(newer.gaps);
        // The gap in which the seq is, if it is in one, is on both sides.
        gaps.dedup();
        let newest_first = newer.messages.into_iter().rev().chain(older.messages);
        Ok(v1::ListMessagesResponse {
            messages: newest_first.collect(),
            next_before_seq: older.next.map_or(0, |seq| seq.0),
            next_after_seq: newer.next.map_or(0, |seq| seq.0),
            gaps,
            ..v1::ListMessagesResponse::default()
        })
    }

    /// Reads messages, and what was done to messages, as they were sent.
    async fn as_sent(
        &self,
        chat: ChatId,
        user: UserId,
        before: Seq,
        size: u32,
    ) -> Result<v1::ListMessagesResponse, Status> {
        let (pools, master) = (&self.pools, &self.master);
        let history = entries::history(pools, master, chat, user, before, size, MAX_PAGE_BYTES)
            .await
            .map_err(store_failed)?;
        let last = history.messages.last().filter(|_| history.more);
        let next_before_seq = last.map_or(0, |message| message.seq);
        Ok(v1::ListMessagesResponse {
            entries: history.messages,
            next_before_seq,
            ..v1::ListMessagesResponse::default()
        })
    }
}

fn bounds(limit: u32) -> Bounds {
    Bounds {
        limit,
        bytes: MAX_PAGE_BYTES,
    }
}

/// Returns the seq below which a page begins; 0 stands for above the newest.
fn below(before: u64) -> Seq {
    match before {
        0 => Seq(i64::MAX as u64),
        before => Seq(before),
    }
}

fn downwards(page: Page) -> v1::ListMessagesResponse {
    v1::ListMessagesResponse {
        messages: page.messages,
        next_before_seq: page.next.map_or(0, |seq| seq.0),
        gaps: page.gaps,
        ..v1::ListMessagesResponse::default()
    }
}

/// Reads which messages the request asks for.
fn only(request: &v1::ListMessagesRequest) -> Result<Only, ApiError> {
    Ok(match &request.only {
        None | Some(Wanted::WithAttachments(false) | Wanted::Pinned(false)) => Only::All,
        Some(Wanted::ThreadRootSeq(root)) => Only::InThread(Seq(*root)),
        Some(Wanted::SenderUserId(sender)) => Only::OfSender(parse::id("sender_user_id", sender)?),
        Some(Wanted::WithAttachments(true)) => Only::WithAttachments,
        Some(Wanted::Pinned(true)) => Only::Pinned,
    })
}
