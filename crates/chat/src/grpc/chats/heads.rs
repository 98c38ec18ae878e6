//! Reads chats as the answers of calls show them: from the store, with the read marks that their owners know before the
//! store does.

use tern_proto::{ApiError, v1};
use tern_store::Pools;
use tern_types::{ChatId, Seq, Timestamp};

use crate::grpc::caller::Caller;
use crate::grpc::parsed::no_chat;
use crate::grpc::read_marks::ReadMarks;
use crate::grpc::store_failed;
use crate::grpc::views::{self, PageToken};
use crate::store::listing::{self, ChatView};
use crate::store::seal::MasterKey;

/// The bound in bytes on the last entries in a page of chats; the last one may exceed it. It is twice that of a page of
/// entries, so that a list seldom takes a second call.
const MAX_LIST_BYTES: usize = 2 << 20;

/// The reader of chats for answers. It is cheap to clone.
#[derive(Clone)]
pub struct ChatHeads {
    pub pools: Pools,
    pub master: MasterKey,
    pub read_marks: ReadMarks,
}

impl ChatHeads {
    /// Reads one chat, which this node must own. Fails if the caller is no member.
    pub async fn one(&self, caller: Caller, chat: ChatId) -> Result<v1::Chat, ApiError> {
        let view = listing::chat(&self.pools, &self.master, caller.user, caller.device, chat).await;
        let view = view.map_err(store_failed)?.ok_or_else(no_chat)?;
        let marks = self.read_marks.shards.read_marks(caller.user, [chat]).await;
        let shown = self.show(caller, vec![view], marks).await?;
        shown.into_iter().next().ok_or_else(no_chat)
    }

    /// Reads a page of the caller's chats after `after`, the time of a chat's last entry and its id.
    pub async fn page(
        &self,
        caller: Caller,
        after: Option<(Timestamp, ChatId)>,
        size: u32,
    ) -> Result<v1::ListChatsResponse, ApiError> {
        let (pools, master, user, device) = (&self.pools, &self.master, caller.user, caller.device);
        let page = listing::chats(pools, master, user, device, after, size, MAX_LIST_BYTES)
            .await
            .map_err(store_failed)?;
        let next_page_token = PageToken::after(page.chats.last().filter(|_| page.more));
        let chats = page.chats.iter().map(|view| view.chat);
        let marks = self.read_marks.of(user, chats).await;
        Ok(v1::ListChatsResponse {
            chats: self.show(caller, page.chats, marks).await?,
            next_page_token,
            partial: page.partial,
        })
    }

    /// Puts the read marks into the views, and converts these for the caller.
    async fn show(
        &self,
        caller: Caller,
        mut views: Vec<ChatView>,
        marks: Vec<(ChatId, Seq, u32)>,
    ) -> Result<Vec<v1::Chat>, ApiError> {
        self.read_marks.show(&mut views, marks).await?;
        Ok(views.into_iter().map(|view| views::chat(view, caller)).collect())
    }
}
