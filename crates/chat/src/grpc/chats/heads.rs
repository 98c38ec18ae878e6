//! Reads chats as the answers of calls show them: from the store, with the read marks that their owners know before the
//! store does, and with the settings that the caller's own log has.

use tern_proto::{ApiError, v1};
use tern_store::Pools;
use tern_types::{ChatId, Seq};

use super::hidden;
use crate::grpc::caller::Caller;
use crate::grpc::parsed::no_chat;
use crate::grpc::read_marks::ReadMarks;
use crate::grpc::store_failed;
use crate::grpc::views;
use crate::store::listing::{self, ChatView};
use crate::store::own::settings;
use crate::store::seal::MasterKey;

/// The bound in bytes on the last entries in a page of chats; the last one may exceed it. It is twice that of a page of
/// entries, so that a list seldom takes a second call.
pub const MAX_LIST_BYTES: usize = 2 << 20;

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
        let mut shown = self.show(caller, vec![view], marks).await?;
        self.add_own(caller, &mut shown).await;
        shown.into_iter().next().ok_or_else(no_chat)
    }

    /// Applies what the caller's own log says of these chats: sets how the caller keeps them, and takes the contents out of
    /// last entries that the caller has hidden. Returns false, and sets nothing, if the own log cannot be read.
    pub async fn add_own(&self, caller: Caller, chats: &mut [v1::Chat]) -> bool {
        let is_blanked = hidden::blank_last(&self.pools, caller.user, chats).await;
        self.add_settings(caller, chats).await && is_blanked
    }

    /// Sets how the caller keeps these chats. Returns false, and sets nothing, if that cannot be read.
    async fn add_settings(&self, caller: Caller, chats: &mut [v1::Chat]) -> bool {
        let ids = chats
            .iter()
            .filter_map(|chat| chat.chat_id.parse::<ChatId>().ok());
        let kept = settings::of_chats(&self.pools, &self.master, caller.user, ids).await;
        let Ok(kept) = kept else {
            return false;
        };
        for chat in chats {
            let kept = chat.chat_id.parse::<ChatId>().ok().and_then(|id| kept.get(&id));
            let shown = kept.map(|kept| kept.shown(Seq(chat.read_seq)).to_wire());
            chat.settings = Some(shown.unwrap_or_default());
        }
        true
    }

    /// Puts the read marks into the views, and converts these for the caller.
    pub async fn show(
        &self,
        caller: Caller,
        mut views: Vec<ChatView>,
        marks: Vec<(ChatId, Seq, u32)>,
    ) -> Result<Vec<v1::Chat>, ApiError> {
        self.read_marks.show(&mut views, marks).await?;
        Ok(views.into_iter().map(|view| views::chat(view, caller)).collect())
    }
}
