//! Makes the unary calls that the engine asks for. Each answer becomes an input of the engine.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tern_proto::v1;
use tokio::task::JoinError;

use tern_client_core::CallError;
use tern_client_core::engine::{Call, Input};
use tern_client_core::model::{ChatList, Entry, ListedChat};

use crate::api::Api;

/// The largest page of ListChats, in chats.
const CHATS_PAGE: u32 = 200;
/// The largest page of ListEntries, in entries.
const ENTRIES_PAGE: u32 = 256;

/// Turns a finished call into its input. A call that panics has an answer too ([`make`]). A call that was aborted has
/// none and becomes an [`Input::Tick`], because the client ends then.
pub(super) fn answer(joined: Result<Input, JoinError>) -> Input {
    joined.unwrap_or_else(|error| {
        tracing::error!(%error, "call failed");
        Input::Tick
    })
}

/// Makes the call that the engine asked for in this `generation`. The engine gets an answer whatever happens to the
/// call, because it would otherwise wait for one until the client is started again.
pub(super) async fn make(api: Api, call: Call, generation: u64) -> Input {
    match answered(call.clone(), ask(api, call)).await {
        // New tokens count even if the server's store was replaced meanwhile, since the old ones have ended.
        refreshed @ Input::Refreshed(_) => refreshed,
        answer => Input::Answered {
            generation,
            answer: Box::new(answer),
        },
    }
}

/// Returns the answer of `ask`, or an error as the answer to `call` if `ask` panics.
async fn answered(call: Call, ask: impl Future<Output = Input>) -> Input {
    AssertUnwindSafe(ask).catch_unwind().await.unwrap_or_else(|_| {
        // The call is not logged, because it may hold a token.
        tracing::error!("a call panicked");
        failed(call)
    })
}

/// Returns an error as the answer to the call.
fn failed(call: Call) -> Input {
    let error = malformed("it could not be handled");
    match call {
        Call::ListChats => Input::Listed(Err(error)),
        Call::GetChat(chat) => Input::LookedUp {
            chat,
            result: Err(error),
        },
        Call::Fill { chat, .. } => Input::Filled {
            chat,
            result: Err(error),
        },
        Call::Receipts(chat) => Input::ReceiptsRead {
            chat,
            result: Err(error),
        },
        Call::Refresh { .. } => Input::Refreshed(Err(error)),
        Call::ReloadOutbox | Call::Expire => Input::Tick,
    }
}

async fn ask(api: Api, call: Call) -> Input {
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
        // The driver answers these itself, from the store.
        Call::ReloadOutbox | Call::Expire => Input::Tick,
    }
}

async fn list_chats(api: &Api) -> Result<ChatList, CallError> {
    let mut list = ChatList::default();
    let mut page_token = String::new();
    loop {
        let request = v1::ListChatsRequest {
            page_size: CHATS_PAGE,
            page_token,
            accept_partial: true,
            ..Default::default()
        };
        let page = api.list_chats(request).await?;
        for chat in page.chats {
            list.chats.push(ListedChat::try_from(chat).map_err(malformed)?);
        }
        list.partial |= page.partial;
        if page.next_page_token.is_empty() {
            return Ok(list);
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

/// Returns the error for an answer that breaks the protocol.
pub(crate) fn malformed(what: impl std::fmt::Display) -> CallError {
    CallError {
        code: tonic::Code::Internal,
        reason: v1::ErrorReason::Unspecified,
        message: format!("malformed answer: {what}"),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use tern_types::{ChatId, Seq, UserId};

    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_is_answered_as_failed() {
        let chat = ChatId::own(UserId::random());
        let refresh_token = String::new();
        for call in [
            Call::ListChats,
            Call::GetChat(chat),
            Call::Fill { chat, from: Seq(1) },
            Call::Receipts(chat),
            Call::Refresh { refresh_token },
        ] {
            let answer = answered(call.clone(), async { panic!("a defect") }).await;
            let is_error = match (&call, answer) {
                (Call::ListChats, Input::Listed(result)) => result.is_err(),
                (Call::GetChat(_), Input::LookedUp { chat: of, result }) => of == chat && result.is_err(),
                (Call::Fill { .. }, Input::Filled { chat: of, result }) => of == chat && result.is_err(),
                (Call::Receipts(_), Input::ReceiptsRead { chat: of, result }) => {
                    of == chat && result.is_err()
                }
                (Call::Refresh { .. }, Input::Refreshed(result)) => result.is_err(),
                (_, answer) => panic!("{call:?}: {answer:?}"),
            };
            assert!(is_error, "{call:?}");
        }
    }
}
