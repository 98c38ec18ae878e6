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
    /// The setting [`crate::ClientConfig::search`] says which text of a message is searched.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tern_client_core::engine::Change;
    use tern_client_core::testing::{credentials, entry};

    use super::*;
    use crate::config::{ClientConfig, StoreLocation};
    use crate::store::Store;

    #[tokio::test]
    async fn messages_from_before_there_was_a_search_are_found_after_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let location = StoreLocation::File(directory.path().join("device.db"));
        let chat = ChatId(uuid::Uuid::from_u128(1));
        let mut store = Store::open(&location, true).unwrap();
        store.put_credentials(&credentials()).unwrap();
        let entries: Vec<_> = (1..=500).map(|seq| Change::Entry(entry(chat, seq))).collect();
        store.commit(&entries).unwrap();
        drop(store);

        let config = ClientConfig::new(vec!["http://127.0.0.1:1".into()], location);
        let (client, _events) = Client::start(config).await.unwrap();
        let complete = async {
            while !client.search_is_complete().await.unwrap() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), complete)
            .await
            .expect("all messages are in the index");
        let first = client.search("MESS", Some(chat), None, 1000).await.unwrap();
        let rest = client
            .search("MESS", Some(chat), first.last(), 1000)
            .await
            .unwrap();
        let found = first.iter().chain(&rest);
        let found: Vec<u64> = found.map(|hit| hit.message.entry.seq.0).collect();
        assert_eq!(found, (1..=500).rev().collect::<Vec<_>>());
        client.stop().await;
    }
}
