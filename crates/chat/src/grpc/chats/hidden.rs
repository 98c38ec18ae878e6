//! Leaves the messages that a user has hidden from themselves out of what the user reads of a chat's history. A page that
//! lost messages in this way still leads to the next one. If the cell of the user's own log does not answer, nothing is
//! shown rather than too much.

use std::collections::HashSet;

use tern_proto::v1::entry_content::Content;
use tern_proto::{ApiError, v1};
use tern_store::Pools;
use tern_types::{ChatId, Seq, UserId};

use crate::grpc::store_failed;
use crate::store::own::hidden;

/// Leaves out of the page what the user has hidden: messages, and what was done to them.
pub async fn leave_out(
    pools: &Pools,
    user: UserId,
    chat: ChatId,
    page: &mut v1::ListMessagesResponse,
) -> Result<(), ApiError> {
    let shown: HashSet<Seq> = page
        .entries
        .iter()
        .flat_map(seqs)
        .chain(page.messages.iter().filter_map(seq))
        .collect();
    let hidden = hidden::among(pools, user, chat, shown)
        .await
        .map_err(store_failed)?;
    if !hidden.is_empty() {
        page.entries
            .retain(|entry| !seqs(entry).iter().any(|seq| hidden.contains(seq)));
        page.messages
            .retain(|message| seq(message).is_none_or(|seq| !hidden.contains(&seq)));
    }
    Ok(())
}

/// Takes the contents out of the last entries of chats where the user has hidden the message, or that which the entry is
/// about. Returns false, and leaves no content, if that cannot be read.
pub async fn blank_last(pools: &Pools, user: UserId, chats: &mut [v1::Chat]) -> bool {
    let places: Vec<(ChatId, Seq)> = chats.iter().flat_map(last_places).collect();
    let hidden = hidden::among_places(pools, user, places).await;
    for chat in chats {
        let places = last_places(chat);
        let is_shown = hidden
            .as_ref()
            .is_ok_and(|hidden| !places.iter().any(|place| hidden.contains(place)));
        if let Some(entry) = chat.last_entry.as_mut().filter(|_| !is_shown) {
            entry.content.clear();
        }
    }
    hidden.is_ok()
}

/// Returns whether the user has hidden the message.
pub async fn is_hidden(pools: &Pools, user: UserId, chat: ChatId, seq: Seq) -> Result<bool, ApiError> {
    let hidden = hidden::among(pools, user, chat, [seq]).await;
    Ok(!hidden.map_err(store_failed)?.is_empty())
}

/// Returns the places of the chat's last entry and of the message that it is about.
fn last_places(chat: &v1::Chat) -> Vec<(ChatId, Seq)> {
    match (chat.chat_id.parse::<ChatId>(), &chat.last_entry) {
        (Ok(id), Some(entry)) => seqs(entry).map(|seq| (id, seq)).to_vec(),
        _ => Vec::new(),
    }
}

/// Returns the seq of a message.
fn seq(message: &v1::HistoryMessage) -> Option<Seq> {
    message.entry.as_ref().map(|entry| Seq(entry.seq))
}

/// Returns the seq of an entry, and that of the message that it is about. If it is about none, the second one is 0, which
/// no message has.
fn seqs(entry: &v1::Entry) -> [Seq; 2] {
    let content = entry.decoded_content().ok().and_then(|content| content.content);
    let target = match content {
        Some(Content::Message(message)) => message.envelope.map_or(0, |envelope| envelope.target_seq),
        Some(Content::Erased(erased)) => erased.target_seq,
        _ => 0,
    };
    [Seq(entry.seq), Seq(target)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_about_its_message_and_a_message_about_none() {
        let entry = |content| v1::Entry {
            seq: 7,
            content: v1::EntryContent {
                content: Some(content),
                ..v1::EntryContent::default()
            }
            .encoded(),
            ..v1::Entry::default()
        };
        let message = |target_seq| {
            let envelope = v1::Envelope {
                target_seq,
                ..v1::Envelope::default()
            };
            Content::Message(v1::Message {
                envelope: Some(envelope),
                ..v1::Message::default()
            })
        };
        let erased = v1::Erased {
            target_seq: 3,
            ..v1::Erased::default()
        };
        let cases = [
            (message(0), 0),
            (message(3), 3),
            (Content::Message(v1::Message::default()), 0),
            (Content::Erased(erased), 3),
            (Content::ChatUpdated(v1::ChatUpdated::default()), 0),
        ];
        for (content, target) in cases {
            assert_eq!(seqs(&entry(content)), [Seq(7), Seq(target)]);
        }
    }
}
