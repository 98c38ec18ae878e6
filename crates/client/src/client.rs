//! The handle that an app holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, UserId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Api, Auth};
use crate::config::{ClientConfig, StoreLocation, Tls};
use crate::connection::Gateways;
use crate::driver::{Command, Driver, entries, malformed};
use crate::engine::{Engine, Input, Settings};
use crate::error::{CallError, ClientError};
use crate::media::Http;
use crate::model::{
    Chat, Credentials, Entry, Event, ListedChat, Mark, MessageReceipts, Outgoing, QueuedMessage, To,
};
use crate::store::Store;

/// Commands on their way to the driver: it takes 64 at a time.
const COMMANDS: usize = 256;
/// Events between two looks of the app; more wait in the driver.
const EVENTS: usize = 256;
/// Users of one BatchGetUsers.
const USERS_PAGE: usize = 256;
/// Largest page of GetMessageReceipts.
const RECEIPTS_PAGE: u32 = 1024;
/// Largest page of ListMessages.
const MESSAGES_PAGE: usize = 256;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// One device. Clones share it; when the last is dropped the device disconnects.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    api: Api,
    /// Made with the first transfer: most clients of a load generator make none.
    http: OnceLock<Http>,
    tls: Tls,
    user: UserId,
    device: DeviceId,
}

/// What happens, in order. Where nobody takes them, events wait in bounded number, then the device disconnects until
/// there is room; no message is lost by that. Dropping the stream of events drops the events only.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Event>,
}

impl EventStream {
    /// None after [`Event::Stopped`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// What is at hand now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Client {
    /// Opens the store and begins to connect; returns before there is a connection.
    pub async fn start(config: ClientConfig) -> Result<(Self, EventStream)> {
        let gateways = Gateways::new(&config.gateways, &config.tls)?;
        let (store, me, stored) = open_store(&config).await?;
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (events, event_queue) = mpsc::channel(EVENTS);
        let (token, token_reader) = watch::channel(me.access_token.clone());
        let auth = Auth::Device {
            token: token_reader,
            driver: commands.downgrade(),
        };
        let api = Api::new(gateways.clone(), auth);
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
        let driver = Driver::new(engine, store, gateways, api, token, command_queue, events);
        tokio::spawn(driver.run());
        Ok((
            Self {
                shared: Arc::new(shared),
            },
            EventStream { events: event_queue },
        ))
    }

    pub fn user(&self) -> UserId {
        self.shared.user
    }

    pub fn device(&self) -> DeviceId {
        self.shared.device
    }

    /// For requests to the object store.
    pub(crate) fn http(&self) -> Result<&Http> {
        if let Some(http) = self.shared.http.get() {
            return Ok(http);
        }
        let made = Http::new(&self.shared.tls)?;
        Ok(self.shared.http.get_or_init(|| made))
    }

    /// Unary calls as this device.
    pub fn api(&self) -> &Api {
        &self.shared.api
    }

    /// Sends a plain message. Returns when it is durable in the outbox; what becomes of it comes as
    /// [`Event::Send`].
    ///
    /// # Errors
    ///
    /// [`ClientError::TooLarge`] for what no server would take, [`ClientError::OutboxFull`].
    pub async fn send(&self, to: impl Into<To>, body: impl Into<Bytes>) -> Result<RequestId> {
        self.send_message(Outgoing::new(to, body)).await
    }

    /// The same for any kind of message. The same request_id again is the same send.
    pub async fn send_message(&self, message: Outgoing) -> Result<RequestId> {
        let request = message.request;
        self.apply(Input::Send(message)).await?;
        Ok(request)
    }

    /// Forgets a message that was refused.
    pub async fn discard(&self, request: RequestId) -> Result<()> {
        self.apply(Input::Discard(request)).await
    }

    /// The person has read everything of the chat up to here.
    pub async fn mark_read(&self, chat: ChatId, seq: Seq) -> Result<()> {
        self.apply(Input::MarkRead { chat, seq }).await
    }

    /// The people whom the app shows now, at most 256, in place of those before: what they show comes as
    /// [`Event::Presence`], then [`Event::Watching`], then each change. Asked for anew after a reconnect.
    pub async fn watch_presence(&self, users: Vec<UserId>) -> Result<()> {
        self.apply(Input::WatchPresence(users)).await
    }

    /// The person opened or left the app: what others see as online and last seen. While they are there the client
    /// says so again and again by itself.
    pub async fn set_active(&self, active: bool) -> Result<()> {
        self.apply(Input::SetActive(active)).await
    }

    /// The person writes in a chat. May be called at each key press: others are told once in 3 s, where they are told at
    /// all (see `Typing` in messaging.proto). Lost while there is no connection.
    pub async fn typing(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::Typing { chat, stopped: false }).await
    }

    /// The person has stopped without sending. A message needs no such word.
    pub async fn stopped_typing(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::Typing { chat, stopped: true }).await
    }

    /// Who of the others received and who read one own message: all pages, readers first.
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

    /// Asks the server who got how far; what is news comes as [`Event::Receipt`].
    pub async fn ask_for_receipts(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::ReceiptsWanted(chat)).await
    }

    /// Disconnects and ends. The outbox keeps what has no result yet.
    pub async fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.apply(Input::Stop).await;
        self.shared.commands.closed().await;
    }

    /// All chats, most recently active first.
    pub async fn chats(&self) -> Result<Vec<Chat>> {
        self.read(|store| store.chats()).await
    }

    /// What this device has of a chat: at most `limit` entries below `before` (None: the newest), ascending.
    pub async fn history(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>> {
        self.read(move |store| store.history(chat, before, limit)).await
    }

    /// The same; where this device has less, older messages are read from the server and kept.
    pub async fn load_history(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>> {
        let known = self.history(chat, before, limit).await?;
        let oldest = known.first().map(|entry| entry.seq).or(before);
        if known.len() >= limit || oldest.is_some_and(|seq| seq <= Seq(1)) {
            return Ok(known);
        }
        let missing = (limit - known.len()).min(MESSAGES_PAGE);
        let request = v1::ListMessagesRequest {
            chat_id: chat.to_string(),
            before_seq: oldest.unwrap_or_default().0,
            page_size: u32::try_from(missing).unwrap_or(0),
            ..Default::default()
        };
        let older = entries(self.api().list_messages(request).await?.entries)?;
        if older.is_empty() {
            return Ok(known);
        }
        self.apply(Input::History(older)).await?;
        self.history(chat, before, limit).await
    }

    /// What was written here and is not in the log yet, refused messages too.
    pub async fn outbox(&self) -> Result<Vec<QueuedMessage>> {
        self.read(|store| store.outbox()).await
    }

    /// How far the others of a chat have got, as far as this device knows.
    pub async fn receipts(&self, chat: ChatId) -> Result<HashMap<UserId, Mark>> {
        self.read(move |store| store.receipts(chat)).await
    }

    /// Display names; those that this device does not know are asked for and kept.
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

    /// Makes a group of this person and these others.
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

    /// A chat as the server has it now.
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

    async fn learn(&self, chat: v1::Chat) -> Result<Chat> {
        let listed = ListedChat::try_from(chat).map_err(malformed)?;
        let chat = listed.chat.clone();
        self.apply(Input::LookedUp {
            chat: chat.id,
            result: Ok(listed),
        })
        .await?;
        Ok(chat)
    }

    /// Returns when what follows from the input is durable.
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

/// Who a store's device is, without starting a client. None: it was never linked.
pub async fn stored_credentials(location: StoreLocation) -> Result<Option<Credentials>> {
    blocking(move || Store::open(&location, true)?.credentials()).await
}

async fn open_store(config: &ClientConfig) -> Result<(Store, Credentials, crate::engine::Stored)> {
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

/// The store's, which are newer, unless it has none. A store belongs to one device.
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
