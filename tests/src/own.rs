//! Users' own logs, by which the devices of a user know of each other: see own.proto.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, AccountChange, ChatSettings};
use tern_types::{ChatId, UserId};
use tonic::Status;

use crate::acts::content;
use crate::groups::fresh;
use crate::phone::State;
use crate::{Api, Phone};

/// Returns all that a device has of its user's own log, in order.
pub fn contents(phone: &Phone) -> Vec<Content> {
    of_own_log(&phone.state(), phone.user())
}

fn of_own_log(state: &State, user: UserId) -> Vec<Content> {
    let log = state.logs.get(&ChatId::own(user));
    log.map(|log| log.entries.values().map(content).collect())
        .unwrap_or_default()
}

/// Waits until a device has an entry of its user's own log that `pick` takes, and returns what it makes of the first.
pub async fn told<T>(phone: &Phone, what: &str, pick: impl Fn(Content) -> Option<T>) -> T {
    let found = |state: &State| of_own_log(state, phone.user()).into_iter().find_map(&pick);
    let state = phone.until(what, |state| found(state).is_some()).await;
    found(&state).expect("it was there")
}

/// Waits until a device was told that a chat has these settings.
pub async fn told_settings(phone: &Phone, chat: ChatId, wanted: &ChatSettings) {
    let what = format!("{wanted:?} of {chat}");
    told(phone, &what, |content| match content {
        Content::ChatSettingsChanged(changed) if changed.chat_id == chat.to_string() => {
            (changed.settings.unwrap_or_default() == *wanted).then_some(())
        }
        _ => None,
    })
    .await;
}

/// Waits until a device was told that this happened to the account.
pub async fn told_of_account(phone: &Phone, change: AccountChange, subject: &str) {
    let what = format!("{change:?} of {subject:?}");
    told(phone, &what, |content| match content {
        Content::AccountChanged(changed) => {
            (changed.change() == change && changed.subject_id == subject).then_some(())
        }
        _ => None,
    })
    .await;
}

/// Returns the request that changes nothing of how a chat is kept. Each test sets what it wants.
pub fn settings(chat: ChatId) -> v1::SetChatSettingsRequest {
    v1::SetChatSettingsRequest {
        request_id: fresh(),
        chat_id: chat.to_string(),
        ..Default::default()
    }
}

/// Changes how the caller keeps a chat.
pub async fn keep(
    api: &Api,
    change: v1::SetChatSettingsRequest,
) -> Result<v1::SetChatSettingsResponse, Status> {
    Ok(api.chats().set_chat_settings(change).await?.into_inner())
}

/// Deletes messages for the caller alone, and returns the seq of that entry in the user's own log.
pub async fn hide(api: &Api, chat: ChatId, seqs: &[u64]) -> Result<u64, Status> {
    let hide = v1::HideMessagesRequest {
        request_id: fresh(),
        chat_id: chat.to_string(),
        seqs: seqs.to_vec(),
        ..Default::default()
    };
    Ok(api.chats().hide_messages(hide).await?.into_inner().own_seq)
}
