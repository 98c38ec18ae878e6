//! Changes how the person keeps their chats. All devices of the person get such a change by the person's own log (see
//! own.proto), and others are not told.

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq};

use tern_client_core::engine::Input;
use tern_client_core::model::ChatSettings;

use crate::client::Client;
use crate::error::ClientError;

/// The largest number of messages that one call hides.
const HIDDEN_AT_ONCE: usize = 100;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A change of the person's settings of a chat. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChatSettingsChange {
    /// The time until which the chat is muted, in milliseconds since the Unix epoch. 0 ends it, and [`i64::MAX`] stands
    /// for always.
    pub muted_until: Option<i64>,
    /// True to put the chat into the archive.
    pub archived: Option<bool>,
    /// True to pin the chat to the top of the list. At most 32 chats are pinned.
    pub pinned: Option<bool>,
    /// True to show the chat as unread. It ends by itself when the read mark rises.
    pub marked_unread: Option<bool>,
    /// The text that the person has begun to write, as the app encodes it, at most 8,192 bytes. Empty: nothing.
    pub draft: Option<Vec<u8>>,
    /// True if only messages that mention the person are announced.
    pub mentions_only: Option<bool>,
}

impl Client {
    /// Changes the person's settings of a chat, and returns all of them. [`crate::Chat::settings`] has them when this
    /// returns, and [`crate::Event::Chat`] tells them.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with LIST_FULL if too many chats are pinned, and with CHAT_NOT_FOUND if the person is not
    /// a member.
    pub async fn set_chat_settings(&self, chat: ChatId, change: ChatSettingsChange) -> Result<ChatSettings> {
        let request = v1::SetChatSettingsRequest {
            user_id: String::new(),
            request_id: RequestId::random().to_string(),
            chat_id: chat.to_string(),
            muted_until_ms: change.muted_until,
            archived: change.archived,
            pinned: change.pinned,
            marked_unread: change.marked_unread,
            draft: change.draft.map(Bytes::from),
            mentions_only: change.mentions_only,
        };
        let answer = self.api().set_chat_settings(request).await?;
        let (settings, seq) = (answer.settings.unwrap_or_default(), Seq(answer.own_seq));
        let set = Input::SettingsSet {
            chat,
            settings: settings.clone(),
            seq,
        };
        self.apply(set).await?;
        Ok(settings)
    }

    /// Deletes messages for this person alone, on all of their devices; others keep them. They are erased on this device
    /// when this returns, and [`crate::Event::Gone`] tells it. More than 100 messages take several calls; if one of them
    /// fails, those of the calls before are deleted.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], of the first of these calls that fails.
    pub async fn hide_messages(&self, chat: ChatId, messages: Vec<Seq>) -> Result<()> {
        for seqs in messages.chunks(HIDDEN_AT_ONCE) {
            let request = v1::HideMessagesRequest {
                user_id: String::new(),
                request_id: RequestId::random().to_string(),
                chat_id: chat.to_string(),
                seqs: seqs.iter().map(|seq| seq.0).collect(),
            };
            self.api().hide_messages(request).await?;
            let seqs = seqs.to_vec();
            self.apply(Input::Hidden { chat, seqs }).await?;
        }
        Ok(())
    }
}
