//! Finds messages by their words, and shows one that was found in its chat. Both come from the device's own store.

use tern_client::{Hit, Message};
use tern_types::Seq;

use super::{Desk, Update};

/// The largest number of messages that one search shows.
const HITS: usize = 50;
/// The number of neighbours that are shown before a message, and after it.
const AROUND: u64 = 2;
/// The number of entries before a message that are loaded with it.
const BEFORE: u64 = 50;
/// The largest number of entries between a message and the newest one with which the message is still shown in its
/// chat. It is below the number that the view keeps.
const REACH: u64 = 1500;

impl Desk {
    /// Finds messages of the open chat, or of all chats if none is open or with `everywhere`.
    pub(super) fn search(&self, words: String, everywhere: bool) {
        let chat = self.view.open.filter(|_| !everywhere);
        self.spawn(move |client, updates| async move {
            let hits = client.search(&words, chat, None, HITS).await?;
            if hits.is_empty() {
                let nothing = if client.search_is_complete().await? {
                    "nothing was found"
                } else {
                    "nothing was found yet: older messages are still being prepared for the search"
                };
                let _ = updates.send(Update::Notice(nothing.to_owned())).await;
                return Ok(());
            }
            let people = hits.iter().filter_map(|hit| hit.message.entry.sender);
            let people: Vec<_> = people.collect();
            // Without the server, those whose names are not known are shown without.
            let names = client.names(people).await.unwrap_or_default();
            let _ = updates.send(Update::Names(names)).await;
            let title = "found";
            let _ = updates.send(Update::Found { title, hits }).await;
            Ok(())
        });
    }

    /// Shows the pinned messages of the open chat, the newest first, as if a search had found them.
    pub(super) fn pins(&self) {
        let Some(chat) = self.chat_open() else { return };
        self.spawn(move |client, updates| async move {
            let pinned = client.pinned(chat).await?;
            if pinned.is_empty() {
                let nothing = "no message is pinned here".to_owned();
                let _ = updates.send(Update::Notice(nothing)).await;
                return Ok(());
            }
            let hit = |message: Message| Hit {
                text: message.entry.text().unwrap_or_default().into_owned(),
                places: Vec::new(),
                message,
            };
            let (title, hits) = ("pinned", pinned.into_iter().rev().map(hit).collect());
            let _ = updates.send(Update::Found { title, hits }).await;
            Ok(())
        });
    }

    /// Shows the message with this number among those that were found, counted from 1.
    pub(super) fn go_to(&self, nth: usize) {
        let hit = nth.checked_sub(1).and_then(|index| self.view.found.get(index));
        let Some(entry) = hit.map(|hit| &hit.message.entry) else {
            return self.notice(format!("there is no hit {nth}: /search finds messages"));
        };
        let (chat, seq) = (entry.chat, entry.seq);
        let room = self.view.rooms.get(&chat).and_then(|room| room.chat.as_ref());
        let head = room.map(|chat| chat.head).max(self.view.newest(chat));
        let back = head.map_or(0, |head| head.0.saturating_sub(seq.0));
        self.spawn(move |client, updates| async move {
            let below = Seq(seq.0 + AROUND + 1);
            let around = usize::try_from(2 * AROUND + 1)?;
            let around = client.messages(chat, Some(below), around).await?;
            let mut entries = Vec::new();
            if back <= REACH {
                let from_there = usize::try_from(back + BEFORE)?;
                entries = client.history(chat, None, from_there).await?;
            }
            let show = Update::Show {
                chat,
                seq,
                around,
                entries,
            };
            let _ = updates.send(show).await;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::messenger::desk::testing::offline;

    use super::*;

    /// Returns the text of the next notice.
    async fn notice(desk: &mut Desk) -> String {
        loop {
            if let Some(Update::Notice(text)) = desk.update().await {
                return text;
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_found_is_said_so() {
        let (mut desk, _events) = offline().await;
        desk.submit("/search nowhere").await;
        assert_eq!(notice(&mut desk).await, "nothing was found");
        desk.submit("/hit").await;
        assert_eq!(
            notice(&mut desk).await,
            "there is no hit 1: /search finds messages"
        );
        desk.submit("/search").await;
        assert!(notice(&mut desk).await.contains("/search words"));
    }
}
