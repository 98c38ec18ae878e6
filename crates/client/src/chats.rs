//! Gives an app what it shows: chats and their histories, receipts, the names of people. All of it comes from the store,
//! or from the server and is then stored.

use std::collections::{BTreeSet, HashMap};

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, UserId};

use tern_client_core::engine::Input;
use tern_client_core::model::{Chat, Entry, ListedChat, Mark, MessageReceipts, QueuedMessage};

use crate::client::Client;
use crate::driver::{entries, malformed};
use crate::error::ClientError;

/// The largest number of user ids in one BatchGetUsers call.
const USERS_PAGE: usize = 256;
/// The largest page of GetMessageReceipts, in receipts.
const RECEIPTS_PAGE: u32 = 1024;
/// The largest page of ListMessages, in messages.
const MESSAGES_PAGE: usize = 256;

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Client {
    /// Lists which other members received and read one own message. Reads all pages from the server.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with NOT_THE_SENDER if the message is somebody else's.
    pub async fn message_receipts(&self, chat: ChatId, seq: Seq) -> Result<MessageReceipts> {
        let (mut receipts, mut page_token) = (MessageReceipts::default(), String::new());
        loop {
            let request = v1::GetMessageReceiptsRequest {
                chat_id: chat.to_string(),
                seq: seq.0,
                page_size: RECEIPTS_PAGE,
                page_token,
                ..Default::default()
            };
            let page = self.api().get_message_receipts(request).await?;
            page_token = receipts.add(page).map_err(malformed)?;
            if page_token.is_empty() {
                return Ok(receipts);
            }
        }
    }

    /// Asks the server how far the other members have received and read the chat. [`crate::Event::Receipt`] tells what
    /// is new. Returns before the server has answered, and fails with [`ClientError::Stopped`] only.
    pub async fn ask_for_receipts(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::ReceiptsWanted(chat)).await
    }

    /// Returns all chats that this device knows, the most recently active first, also those that the person has left.
    /// Fails with [`ClientError::Stopped`], or with [`ClientError::Store`] if the store cannot be read.
    pub async fn chats(&self) -> Result<Vec<Chat>> {
        self.read(|store| store.chats()).await
    }

    /// Returns at most `limit` entries of a chat that this device has, ascending by seq: the newest ones, or with
    /// `before` the newest ones below that seq. All of them are in memory at once, so a page should be small. Fails as
    /// [`Client::chats`] does.
    pub async fn history(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>> {
        self.read(move |store| store.history(chat, before, limit)).await
    }

    /// Returns the same as [`Client::history`]. If this device has fewer than `limit` entries, it reads up to 256 older
    /// messages from the server. It stores those that join on to the stored entries, so that these have no hole: if
    /// `before` is further back, the messages are only returned. If the result is shorter than `limit`, there may still
    /// be older messages, unless it is empty.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`] if the server does not answer, or the person is not a member, and the errors of
    /// [`Client::history`]. If enough entries are stored, the server is not asked.
    pub async fn load_history(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>> {
        let (known, oldest) = self
            .read(move |store| Ok((store.history(chat, before, limit)?, store.oldest(chat)?)))
            .await?;
        let below = known.first().map(|entry| entry.seq).or(before);
        if known.len() >= limit || below.is_some_and(|seq| seq <= Seq(1)) {
            return Ok(known);
        }
        let missing = (limit - known.len()).min(MESSAGES_PAGE);
        let request = v1::ListMessagesRequest {
            chat_id: chat.to_string(),
            before_seq: below.unwrap_or_default().0,
            page_size: u32::try_from(missing).unwrap_or(0),
            ..Default::default()
        };
        let mut messages = entries(self.api().list_messages(request).await?.entries)?;
        messages.reverse();
        let joins = before.is_none_or(|before| oldest.is_some_and(|oldest| oldest <= before));
        if joins && !messages.is_empty() {
            self.apply(Input::History(messages.clone())).await?;
        }
        messages.extend(known);
        Ok(messages)
    }

    /// Returns the messages written on this device that are not in the log yet, in the order of writing, including
    /// refused ones. What was to be done to a message that was deleted is not kept after it was refused, because the
    /// text of an edit is mostly that of the message. Fails as [`Client::chats`] does.
    pub async fn outbox(&self) -> Result<Vec<QueuedMessage>> {
        self.read(|store| store.outbox()).await
    }

    /// Returns how far the other members of a chat have received and read it, as far as this device knows. Fails as
    /// [`Client::chats`] does.
    pub async fn receipts(&self, chat: ChatId) -> Result<HashMap<UserId, Mark>> {
        self.read(move |store| store.receipts(chat)).await
    }

    /// Returns display names. Names that this device does not know are read from the server and stored. A name that it
    /// knows is not read again, even if the user has changed it since: see [`Client::refresh_names`]. A user whom the
    /// server does not know is missing in the result. Fails as [`Client::refresh_names`] does.
    pub async fn names(&self, users: impl IntoIterator<Item = UserId>) -> Result<HashMap<UserId, String>> {
        let wanted: BTreeSet<UserId> = users.into_iter().collect();
        let mut names = self.read(|store| store.names()).await?;
        names.retain(|user, _| wanted.contains(user));
        let missing = wanted.into_iter().filter(|user| !names.contains_key(user));
        let missing: Vec<UserId> = missing.collect();
        names.extend(self.refresh_names(missing).await?);
        Ok(names)
    }

    /// Reads display names from the server, stores them in place of those that this device knows, and returns them. An
    /// app calls this for the people whom it shows, now and then, since no event says that a name has changed. A user
    /// whom the server does not know is missing in the result, and keeps the name that is stored.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`] if the server does not answer, [`ClientError::Store`] if the names cannot be stored.
    pub async fn refresh_names(
        &self,
        users: impl IntoIterator<Item = UserId>,
    ) -> Result<HashMap<UserId, String>> {
        let users: Vec<UserId> = users.into_iter().collect();
        let mut learned = Vec::new();
        for page in users.chunks(USERS_PAGE) {
            let user_ids = page.iter().map(ToString::to_string).collect();
            let request = v1::BatchGetUsersRequest {
                user_ids,
                ..Default::default()
            };
            for user in self.api().batch_get_users(request).await?.users {
                let id: UserId = user.user_id.parse().map_err(malformed)?;
                learned.push((id, user.display_name));
            }
        }
        let names = learned.iter().cloned().collect();
        if !learned.is_empty() {
            self.read(move |store| store.put_names(&learned)).await?;
        }
        Ok(names)
    }

    /// Creates a group of this person, who owns it, and at most 1,023 other members, and stores it. The title has at
    /// most 256 bytes on one line, and may be empty. People who have blocked this person are left out. Each call makes
    /// a new group, so after an error there may be one already.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with USER_NOT_FOUND if one of the members is no user, and with STRANGERS_LIMITED if too
    /// many of them are new to this person today.
    pub async fn create_group(&self, title: &str, members: &[UserId]) -> Result<Chat> {
        let request = v1::CreateGroupRequest {
            request_id: RequestId::random().to_string(),
            title: title.to_owned(),
            member_user_ids: members.iter().map(ToString::to_string).collect(),
            acting_user_id: String::new(),
        };
        let chat = self
            .api()
            .create_group(request)
            .await?
            .chat
            .ok_or_else(|| malformed("no chat"))?;
        self.learn(chat).await
    }

    /// Reads a chat from the server, stores it, and returns it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with CHAT_NOT_FOUND if there is no such chat or the person is not a member.
    pub async fn fetch_chat(&self, chat: ChatId) -> Result<Chat> {
        let request = v1::GetChatRequest {
            chat_id: chat.to_string(),
            ..Default::default()
        };
        let chat = self
            .api()
            .get_chat(request)
            .await?
            .chat
            .ok_or_else(|| malformed("no chat"))?;
        self.learn(chat).await
    }

    /// Stores a chat that the server has sent, and returns it as it is stored: this device may know more of it.
    async fn learn(&self, chat: v1::Chat) -> Result<Chat> {
        let listed = ListedChat::try_from(chat).map_err(malformed)?;
        let sent = listed.chat.clone();
        let (chat, result) = (sent.id, Ok(listed));
        self.apply(Input::LookedUp { chat, result }).await?;
        let stored = self.read(move |store| store.chat(chat)).await?;
        Ok(stored.unwrap_or(sent))
    }
}
