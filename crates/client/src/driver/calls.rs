//! Unary calls that the engine asked for; each answer is an input.

use tern_proto::v1;
use tokio::task::JoinError;

use crate::api::Api;
use crate::engine::{Call, Input};
use crate::error::CallError;
use crate::model::{Entry, ListedChat};

/// Largest page of ListChats.
const CHATS_PAGE: u32 = 200;
/// Largest page of ListEntries.
const ENTRIES_PAGE: u32 = 256;

/// The call's answer; a call that panicked answers nothing, and is made again at the next connection.
pub(super) fn answer(joined: Result<Input, JoinError>) -> Input {
    joined.unwrap_or_else(|error| {
        tracing::error!(%error, "call failed");
        Input::Tick
    })
}

pub(super) async fn make(api: Api, call: Call) -> Input {
    match call {
        Call::ListChats => Input::Listed(list_chats(&api).await),
        Call::GetChat(chat) => {
            let request = v1::GetChatRequest {
                chat_id: chat.to_string(),
                ..Default::default()
            };
            let result = api.get_chat(request).await.and_then(|response| {
                let chat = response.chat.ok_or_else(|| malformed("no chat"))?;
                ListedChat::try_from(chat).map_err(malformed)
            });
            Input::LookedUp { chat, result }
        }
        Call::Fill { chat, from } => {
            let request = v1::ListEntriesRequest {
                chat_id: chat.to_string(),
                from_seq: from.0,
                page_size: ENTRIES_PAGE,
                ..Default::default()
            };
            let result = api.list_entries(request).await;
            Input::Filled {
                chat,
                result: result.and_then(|response| entries(response.entries)),
            }
        }
        Call::Receipts(chat) => {
            let request = v1::GetReceiptsRequest {
                chat_id: chat.to_string(),
                ..Default::default()
            };
            let result = api.get_receipts(request).await;
            Input::ReceiptsRead {
                chat,
                result: result.map(|response| response.receipts),
            }
        }
        Call::Refresh { refresh_token } => {
            let result = api
                .anonymous()
                .refresh_token(v1::RefreshTokenRequest { refresh_token })
                .await;
            let tokens = result.and_then(|response| response.tokens.ok_or_else(|| malformed("no tokens")));
            Input::Refreshed(tokens)
        }
        // Answered by the driver itself, from the store.
        Call::ReloadOutbox => Input::Tick,
    }
}

async fn list_chats(api: &Api) -> Result<Vec<ListedChat>, CallError> {
    let mut chats = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListChatsRequest {
            page_size: CHATS_PAGE,
            page_token,
            ..Default::default()
        };
        let page = api.list_chats(request).await?;
        for chat in page.chats {
            chats.push(ListedChat::try_from(chat).map_err(malformed)?);
        }
        if page.next_page_token.is_empty() {
            return Ok(chats);
        }
        page_token = page.next_page_token;
    }
}

pub(crate) fn entries(entries: Vec<v1::Entry>) -> Result<Vec<Entry>, CallError> {
    entries
        .into_iter()
        .map(|entry| Entry::try_from(entry).map_err(malformed))
        .collect()
}

/// An answer that breaks the protocol.
pub(crate) fn malformed(what: impl std::fmt::Display) -> CallError {
    CallError {
        code: tonic::Code::Internal,
        reason: v1::ErrorReason::Unspecified,
        message: format!("malformed answer: {what}"),
        retry_after: None,
    }
}
