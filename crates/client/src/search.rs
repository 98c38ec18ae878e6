//! Finds messages by their words in the device's own history. The server is not asked, so it works without a connection
//! and for encrypted messages too. It finds what the device has stored: an app that wants older messages to be found
//! loads them by [`Client::load_history`].

use tern_types::ChatId;

use crate::client::Client;
use crate::error::ClientError;
use crate::store::Hit;

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Client {
    /// Returns messages in which all of these words occur, as they are now: of one chat by their seqs, or without a
    /// chat those of all chats by their times, the newest first. The last word may be the beginning of one. Case and
    /// accents make no difference, and nothing that is typed has a special meaning. At most `limit` messages are
    /// returned, and at most 256; `before` is the last hit of the page before.
    ///
    /// By which text a message is found is a setting: [`crate::ClientConfig::search`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] if the search is off or there is no history, and the errors of [`Client::chats`].
    pub async fn search(
        &self,
        words: &str,
        chat: Option<ChatId>,
        before: Option<&Hit>,
        limit: usize,
    ) -> Result<Vec<Hit>> {
        let (words, before) = (words.to_owned(), before.map(Hit::place));
        self.read(move |store| store.search(&words, chat, before, limit))
            .await
    }

    /// Returns whether the search finds all messages that this device has. After an update from a version without
    /// search, older messages are found after some seconds or minutes only. Fails as [`Client::chats`] does.
    pub async fn search_is_complete(&self) -> Result<bool> {
        self.read(|store| Ok(!store.has_unindexed()?)).await
    }
}
