//! The handle that an app holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, UserId};
use tokio::sync::{mpsc, oneshot};

use tern_client_core::engine::{Engine, Input, Settings};
use tern_client_core::model::{
    Chat, Credentials, Entry, ListedChat, Mark, MessageReceipts, Outgoing, QueuedMessage, To,
};

use crate::access_token;
use crate::api::{Api, Auth};
use crate::config::{ClientConfig, StoreLocation, Tls};
use crate::connection::Gateways;
use crate::driver::command::Command;
use crate::driver::{Driver, entries, malformed};
use crate::error::{CallError, ClientError};
use crate::events::{self, EventStream};
use crate::http::Http;
use crate::store::Store;

/// The number of commands that may wait for the driver, which takes up to 64 at a time.
const COMMANDS: usize = 256;
/// The largest number of user ids in one BatchGetUsers call.
const USERS_PAGE: usize = 256;
/// The largest page of GetMessageReceipts, in receipts.
const RECEIPTS_PAGE: u32 = 1024;
/// The largest page of ListMessages, in messages.
const MESSAGES_PAGE: usize = 256;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// The handle of one device. Clones share it. When the last clone is dropped, the device disconnects.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    api: Api,
    /// The HTTP client for the object store. It is made with the first transfer, because most clients of a load
    /// generator never transfer a file.
    http: OnceLock<Http>,
    tls: Tls,
    user: UserId,
    device: DeviceId,
}

impl Client {
    /// Opens the store and begins to connect. Returns before there is a connection; [`crate::Event::Connected`]
    /// follows.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] for a bad address, bad certificates, missing credentials, or credentials of another
    /// device than the store's; [`ClientError::InUse`] if another program has the store open; [`ClientError::Store`]
    /// and [`ClientError::Corrupt`] if the store cannot be read.
    pub async fn start(config: ClientConfig) -> Result<(Self, EventStream)> {
        let gateways = Gateways::new(&config.gateways, &config.tls)?;
        let (store, me, stored) = open_store(&config).await?;
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (to_app, events) = events::channel();
        let (keeper, token) = access_token::channel(me.access_token.clone());
        let api = Api::new(gateways.clone(), Auth::Device(token));
        let shared = Shared {
            commands,
            api: api.clone(),
            http: OnceLock::new(),
            tls: config.tls.clone(),
            user: me.user,
            device: me.device,
        };
        let settings = Settings {
            client_version: config.client_version,
            active: config.active,
            sends_per_chat: config.sends_per_chat,
            seed: rand::random(),
        };
        let engine = Engine::new(me, stored, settings);
        let driver = Driver::new(engine, store, gateways, api, keeper, command_queue, to_app);
        tokio::spawn(driver.run());
        Ok((
            Self {
                shared: Arc::new(shared),
            },
            events,
        ))
    }

    /// Returns the user whose device this is.
    pub fn user(&self) -> UserId {
        self.shared.user
    }

    /// Returns the id of this device.
    pub fn device(&self) -> DeviceId {
        self.shared.device
    }

    /// Returns the HTTP client for the object store, which the first call makes. Fails if a certificate is invalid.
    pub(crate) fn http(&self) -> Result<&Http> {
        if let Some(http) = self.shared.http.get() {
            return Ok(http);
        }
        let made = Http::new(&self.shared.tls)?;
        Ok(self.shared.http.get_or_init(|| made))
    }

    /// Returns the unary calls, authorised as this device.
    pub fn api(&self) -> &Api {
        &self.shared.api
    }

    /// Sends a plain message. Returns when the message is durable in the outbox; [`crate::Event::Send`] then tells each
    /// new state of the send.
    ///
    /// # Errors
    ///
    /// [`ClientError::TooLarge`] if the body is over the limit of every server (262,144 bytes),
    /// [`ClientError::OutboxFull`], [`ClientError::Stopped`].
    pub async fn send(&self, to: impl Into<To>, body: impl Into<Bytes>) -> Result<RequestId> {
        self.send_message(Outgoing::new(to, body)).await
    }

    /// Sends a message of any kind, as [`Client::send`] does for plain ones. A second call with the same request_id
    /// does not send a second message. If the first message was refused, the second one takes its place.
    pub async fn send_message(&self, message: Outgoing) -> Result<RequestId> {
        let request = message.request;
        self.apply(Input::Send(message)).await?;
        Ok(request)
    }

    /// Sends a message in place of a refused one, and returns when that is durable in the outbox. The new message may
    /// have the request_id of the refused one. If this fails, the refused message stays in the outbox.
    pub async fn send_again(&self, refused: RequestId, message: Outgoing) -> Result<RequestId> {
        let request = message.request;
        self.apply(Input::SendAgain { refused, message }).await?;
        Ok(request)
    }

    /// Deletes a refused message from the outbox. A message that is still queued or on its way stays.
    pub async fn discard(&self, request: RequestId) -> Result<()> {
        self.apply(Input::Discard(request)).await
    }

    /// Marks everything in the chat up to `seq` as read. A lower `seq` than before changes nothing; one above the
    /// chat's last known entry counts as that entry.
    pub async fn mark_read(&self, chat: ChatId, seq: Seq) -> Result<()> {
        self.apply(Input::MarkRead { chat, seq }).await
    }

    /// Watches the presence of these people, at most 256, in place of the people watched before.
    /// [`crate::Event::Presence`] tells the present state of each, then [`crate::Event::Watching`] says that the watch
    /// has begun, then [`crate::Event::Presence`] tells each change. If there are more than 256,
    /// [`crate::Event::Watching`] has an error instead. After a reconnect the client renews the watch by itself.
    pub async fn watch_presence(&self, users: Vec<UserId>) -> Result<()> {
        self.apply(Input::WatchPresence(users)).await
    }

    /// Says that the person opened (`true`) or left (`false`) the app, which others see as online and last seen.
    /// While the app is open the client repeats the sign to the server by itself.
    pub async fn set_active(&self, active: bool) -> Result<()> {
        self.apply(Input::SetActive(active)).await
    }

    /// Says that the person is typing in a chat. An app may call this at each key press: the client tells the server at
    /// most once in 3 s. The server passes the sign on to those members who may see the person's presence (see `Typing`
    /// in messaging.proto). Without a connection the sign is dropped.
    pub async fn typing(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::Typing { chat, stopped: false }).await
    }

    /// Says that the person stopped typing without sending. Sending a message needs no such call.
    pub async fn stopped_typing(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::Typing { chat, stopped: true }).await
    }

    /// Lists which other members received and read one own message. Reads all pages from the server.
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
    /// is new.
    pub async fn ask_for_receipts(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::ReceiptsWanted(chat)).await
    }

    /// Disconnects and ends the client. Messages without a result stay in the outbox for the next start.
    pub async fn stop(&self) {
        // An error means that the client has ended already.
        let _ = self.apply(Input::Stop).await;
        self.shared.commands.closed().await;
    }

    /// Returns all chats, the most recently active first.
    pub async fn chats(&self) -> Result<Vec<Chat>> {
        self.read(|store| store.chats()).await
    }

    /// Returns at most `limit` entries of a chat that this device has, ascending by seq: the newest ones, or with
    /// `before` the newest ones below that seq.
    pub async fn history(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>> {
        self.read(move |store| store.history(chat, before, limit)).await
    }

    /// Returns the same as [`Client::history`]. If this device has fewer than `limit` entries, it reads up to 256 older
    /// messages from the server. It stores those that join on to the stored entries, so that these have no hole: if
    /// `before` is further back, the messages are only returned.
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

    /// Returns the messages written on this device that are not in the log yet, including refused ones.
    pub async fn outbox(&self) -> Result<Vec<QueuedMessage>> {
        self.read(|store| store.outbox()).await
    }

    /// Returns how far the other members of a chat have received and read it, as far as this device knows.
    pub async fn receipts(&self, chat: ChatId) -> Result<HashMap<UserId, Mark>> {
        self.read(move |store| store.receipts(chat)).await
    }

    /// Returns display names. Names that this device does not know are read from the server and stored. A
    /// name that it knows is not read again, even if the user has changed it since. A user whom the server
    /// does not know is missing in the result.
    pub async fn names(&self, users: impl IntoIterator<Item = UserId>) -> Result<HashMap<UserId, String>> {
        let wanted: BTreeSet<UserId> = users.into_iter().collect();
        let mut names = self.read(|store| store.names()).await?;
        names.retain(|user, _| wanted.contains(user));
        let missing: Vec<UserId> = wanted
            .into_iter()
            .filter(|user| !names.contains_key(user))
            .collect();
        let mut learned = Vec::new();
        for page in missing.chunks(USERS_PAGE) {
            let user_ids = page.iter().map(ToString::to_string).collect();
            let request = v1::BatchGetUsersRequest {
                user_ids,
                ..Default::default()
            };
            for user in self.api().batch_get_users(request).await?.users {
                learned.push((
                    user.user_id.parse::<UserId>().map_err(malformed)?,
                    user.display_name,
                ));
            }
        }
        if !learned.is_empty() {
            names.extend(learned.iter().cloned());
            self.read(move |store| store.put_names(&learned)).await?;
        }
        Ok(names)
    }

    /// Creates a group of this person, who owns it, and the given members.
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

    /// Hands an input to the driver, and returns when the changes that follow from it are durable.
    async fn apply(&self, input: Input) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Apply { input, reply };
        self.shared
            .commands
            .send(command)
            .await
            .map_err(|_| ClientError::Stopped)?;
        answer.await.map_err(|_| ClientError::Stopped)?
    }

    /// Lets the driver run `read` on the store, and returns the result. `read` may also write.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |store: &mut Store| {
            let _ = reply.send(read(store));
        });
        self.shared
            .commands
            .send(Command::Read(read))
            .await
            .map_err(|_| ClientError::Stopped)?;
        answer.await.map_err(|_| ClientError::Stopped)?
    }
}

/// Returns the credentials in a store, without starting a client, or `None` if the store has never had a device. A
/// missing store is made.
pub async fn stored_credentials(location: StoreLocation) -> Result<Option<Credentials>> {
    blocking(move || Store::open(&location, true)?.credentials()).await
}

async fn open_store(config: &ClientConfig) -> Result<(Store, Credentials, tern_client_core::engine::Stored)> {
    let (location, keep_history) = (config.store.clone(), config.keep_history);
    let given = config.credentials.clone();
    let open = move || {
        let mut store = Store::open(&location, keep_history)?;
        let me = credentials(&mut store, given)?;
        let stored = store.load()?;
        Ok((store, me, stored))
    };
    match config.store {
        StoreLocation::Memory => open(),
        StoreLocation::File(_) => blocking(open).await,
    }
}

/// Returns the store's credentials, which are newer than the given ones. If the store is new, it returns the given ones
/// and stores them. A store belongs to one device, so credentials of another device are an error.
fn credentials(store: &mut Store, given: Option<Credentials>) -> Result<Credentials> {
    match (store.credentials()?, given) {
        (Some(stored), Some(given)) if stored.device != given.device => Err(ClientError::Config(format!(
            "the store belongs to device {}",
            stored.device
        ))),
        (Some(stored), _) => Ok(stored),
        (None, Some(given)) => {
            store.put_credentials(&given)?;
            Ok(given)
        }
        (None, None) => Err(ClientError::Config(
            "the store is new: credentials are needed".into(),
        )),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let failed = |_| CallError::unavailable("a blocking task failed");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use tern_client_core::engine::Change;
    use tern_client_core::model::{Event, FailureCode, SendState, StopReason};
    use tern_client_core::testing::{NOW, credentials};
    use tern_types::limits::MAX_BODY_BYTES;

    use super::*;

    #[tokio::test]
    async fn an_app_that_reads_its_events_late_learns_all_the_same_why_the_client_has_ended() {
        let config = ClientConfig::new(vec!["http://127.0.0.1:1".into()], StoreLocation::Memory);
        let (client, mut events) = Client::start(config.credentials(credentials())).await.unwrap();
        // Each send is an event, so more events wait than the channel to the app holds.
        for _ in 0..2 * events::EVENTS {
            client
                .send(ChatId(uuid::Uuid::from_u128(1)), "hello")
                .await
                .unwrap();
        }
        client.stop().await;
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Stopped(StopReason::ByApp)));
        assert_eq!((events.next().await, events.try_next()), (None, None));
    }

    #[tokio::test]
    async fn a_refused_message_stays_until_another_has_taken_its_place() {
        // Nothing listens at this address, and nothing has to.
        let config = ClientConfig::new(vec!["http://127.0.0.1:1".into()], StoreLocation::Memory);
        let (client, _events) = Client::start(config.credentials(credentials())).await.unwrap();
        let chat = ChatId(uuid::Uuid::from_u128(1));
        let refused = QueuedMessage {
            message: Outgoing::new(chat, "refused"),
            chat,
            created_at: NOW,
            state: SendState::Failed {
                code: FailureCode::MediaTicket,
                message: "expired".into(),
            },
        };
        let (request, queue) = (refused.message.request, Change::Queue(refused.clone()));
        client.read(move |store| store.commit(&[queue])).await.unwrap();

        let large = Outgoing::new(chat, vec![0; MAX_BODY_BYTES + 1]);
        let error = client.send_again(request, large).await;
        assert!(matches!(error, Err(ClientError::TooLarge(_))), "{error:?}");
        assert_eq!(client.outbox().await.unwrap(), std::slice::from_ref(&refused));

        let again = Outgoing {
            body: "again".into(),
            ..refused.message
        };
        client.send_again(request, again.clone()).await.unwrap();
        let outbox = client.outbox().await.unwrap();
        let messages: Vec<_> = outbox
            .iter()
            .map(|queued| (&queued.message, &queued.state))
            .collect();
        assert_eq!(messages, [(&again, &SendState::Queued)]);
    }
}
