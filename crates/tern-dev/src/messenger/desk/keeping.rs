//! Carries out the commands about how the user keeps a chat, and keeps what they had begun to write in it.

use tern_client::ChatSettingsChange;
use tern_types::{ChatId, Clock};

use super::{Desk, Update};
use crate::messenger::command::Keeping;
use crate::messenger::words::span;

/// The longest draft in bytes that the server takes. A longer one stays on this device until the program ends.
const MAX_DRAFT: usize = 8192;
/// The time until which a chat is muted for ever.
const ALWAYS: i64 = i64::MAX;

impl Desk {
    /// Changes how the user keeps the open chat, and says so.
    pub(super) fn keep(&self, keeping: Keeping) {
        let Some(chat) = self.chat_open() else { return };
        let mut change = ChatSettingsChange::default();
        let said = match keeping {
            Keeping::Mute(Some(seconds)) => {
                let until = Clock::wall() + std::time::Duration::from_secs(seconds.into());
                change.muted_until = Some(until.0);
                format!("this chat is muted for {}", span(seconds))
            }
            Keeping::Mute(None) => {
                change.muted_until = Some(ALWAYS);
                "this chat is muted".to_owned()
            }
            Keeping::Unmute => {
                change.muted_until = Some(0);
                "this chat is not muted".to_owned()
            }
            Keeping::Archive(archived) => {
                change.archived = Some(archived);
                let place = if archived { "in" } else { "out of" };
                format!("this chat is {place} the archive")
            }
            Keeping::Pin(pinned) => {
                change.pinned = Some(pinned);
                let place = if pinned {
                    "at the top of"
                } else {
                    "in its place in"
                };
                format!("this chat is {place} the list")
            }
            Keeping::Unread => {
                change.marked_unread = Some(true);
                "this chat is shown as unread until you open it again".to_owned()
            }
        };
        self.spawn(move |client, updates| async move {
            client.set_chat_settings(chat, change).await?;
            let _ = updates.send(Update::Notice(said)).await;
            Ok(())
        });
    }

    /// Ends that a chat is shown as unread, because it was opened.
    pub(super) fn unmark(&self, chat: ChatId) {
        let known = self.view.rooms.get(&chat).and_then(|room| room.chat.as_ref());
        if known.is_some_and(|chat| chat.settings.marked_unread) {
            let change = ChatSettingsChange {
                marked_unread: Some(false),
                ..Default::default()
            };
            self.spawn(move |client, _| async move {
                client.set_chat_settings(chat, change).await?;
                Ok(())
            });
        }
    }

    /// Keeps what the user had begun to write in a chat when they left it; an empty text keeps nothing. The server is
    /// told if it has another draft. Nobody waits for that, and without the server this device keeps the draft.
    pub fn keep_draft(&mut self, chat: ChatId, draft: String) {
        let known = self.view.draft(chat);
        if let Some(change) = self.note_draft(chat, &known, &draft) {
            self.spawn(move |client, updates| async move {
                if client.set_chat_settings(chat, change).await.is_ok() {
                    let _ = updates.send(Update::DraftKept { chat, draft }).await;
                }
                Ok(())
            });
        }
    }

    /// Does the same when the program ends, and waits for the server, but not for long.
    pub async fn keep_last_draft(&mut self, chat: ChatId, draft: String) {
        /// The time that the end of the program may take because of a draft.
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
        let known = self.view.draft(chat);
        if let Some(change) = self.note_draft(chat, &known, &draft) {
            let kept = self.client.set_chat_settings(chat, change);
            // Whether it worked or not, the program ends now.
            drop(tokio::time::timeout(PATIENCE, kept).await);
        }
    }

    /// Notes a draft on this device. Returns the change to tell the server, or `None` if there is nothing to tell.
    fn note_draft(&mut self, chat: ChatId, known: &str, draft: &str) -> Option<ChatSettingsChange> {
        if known == draft {
            return None;
        }
        self.view.room(chat).draft = Some(draft.to_owned());
        let change = ChatSettingsChange {
            draft: Some(draft.as_bytes().to_vec()),
            ..Default::default()
        };
        (draft.len() <= MAX_DRAFT).then_some(change)
    }
}
