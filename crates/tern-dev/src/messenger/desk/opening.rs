//! Opens chats: loads their history, members and receipts, and marks them as read.

use tern_proto::v1;
use tern_types::{ChatId, Seq};

use super::{Desk, Update};

/// The number of entries that are loaded when a chat is opened or scrolled up.
const PAGE: usize = 100;

impl Desk {
    /// Opens a chat: loads its history, members and receipts, and marks it as read.
    pub fn open(&mut self, chat: ChatId) {
        self.view.open = Some(chat);
        (self.view.selected, self.view.thread) = (None, None);
        self.unmark(chat);
        let room = self.view.room(chat);
        room.new_from = room
            .chat
            .as_ref()
            .filter(|chat| chat.unread > 0)
            .map(|chat| chat.read.next());
        self.load(chat, None);
        self.spawn(|client, updates| async move {
            let marks = client.receipts(chat).await?;
            let _ = updates.send(Update::Marks { chat, marks }).await;
            Ok(client.ask_for_receipts(chat).await?)
        });
        self.load_members(chat);
        self.mark_read(chat);
        let peer = self.view.room(chat).chat.as_ref().and_then(|chat| chat.peer);
        if peer.is_some_and(|peer| self.view.is_hidden(peer)) {
            self.watch_again();
        }
    }

    pub(super) fn load_members(&self, chat: ChatId) {
        self.spawn(move |client, updates| async move {
            let request = v1::ListMembersRequest {
                chat_id: chat.to_string(),
                page_size: 1024,
                ..Default::default()
            };
            // A direct chat does not exist at the server before its first message.
            let Ok(answer) = client.api().list_members(request).await else {
                return Ok(());
            };
            let members = answer
                .members
                .iter()
                .filter_map(|member| member.user_id.parse().ok())
                .collect();
            let _ = updates.send(Update::Members { chat, members }).await;
            Ok(())
        });
    }

    /// Loads the page of entries before the oldest one of the open chat.
    pub fn load_older(&mut self) {
        if let Some(chat) = self.view.open
            && !self.view.room(chat).complete
        {
            self.load(chat, self.view.oldest(chat));
        }
    }

    fn load(&self, chat: ChatId, before: Option<Seq>) {
        self.spawn(move |client, updates| async move {
            let entries = match client.load_history(chat, before, PAGE).await {
                Ok(entries) => entries,
                // Without the server, the entries that this device has stored are shown.
                Err(_) => client.history(chat, before, PAGE).await?,
            };
            let complete = entries.is_empty() || entries.first().is_some_and(|first| first.seq <= Seq(1));
            let _ = updates
                .send(Update::History {
                    chat,
                    entries,
                    complete,
                })
                .await;
            Ok(())
        });
    }

    /// Marks the chat as read up to its newest entry, because the user has seen it.
    pub fn mark_read(&mut self, chat: ChatId) {
        let newest = self.view.newest(chat);
        let head = self
            .view
            .room(chat)
            .chat
            .as_ref()
            .filter(|chat| chat.unread > 0)
            .map(|chat| chat.head);
        if let Some(seq) = newest.max(head) {
            self.spawn(move |client, _| async move { Ok(client.mark_read(chat, seq).await?) });
        }
    }
}
