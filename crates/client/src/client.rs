//! The handle that an app holds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tern_types::{ChatId, DeviceId, RequestId, Seq, UserId};
use tokio::sync::mpsc;

use tern_client_core::engine::{Engine, Input, Settings, Stored};
use tern_client_core::model::{Credentials, Outgoing, To};

use crate::access_token;
use crate::api::{Api, Auth};
use crate::config::{ClientConfig, StoreLocation, Tls};
use crate::connection::Gateways;
use crate::driver::Driver;
use crate::driver::command::{Command, apply, on_store};
use crate::error::{CallError, ClientError};
use crate::events::{self, EventStream};
use crate::http::Http;
use crate::reread;
use crate::store::Store;

/// The number of commands that may wait for the driver, which takes up to 64 at a time.
const COMMANDS: usize = 256;
/// The pause between two steps in which messages of an earlier version are put into the index of the search. The
/// store is free for everything else meanwhile.
const INDEX_PAUSE: Duration = Duration::from_millis(20);

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// The handle of one device. Clones share it. When the last clone is dropped, the device disconnects.
///
/// Each method fails with [`ClientError::Stopped`] once the client has ended. Those that call the server also fail with
/// [`ClientError::Call`], after the attempts that [`Api`] makes.
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
        let Opened {
            store,
            me,
            stored,
            has_unindexed,
            has_lost,
        } = open_store(&config).await?;
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (to_app, events) = events::channel();
        let (keeper, token) = access_token::channel(me.access_token.clone());
        let api = Api::new(gateways.clone(), Auth::Device(token));
        let indexer = has_unindexed.then(|| index_older(commands.downgrade()));
        let reader = has_lost.then(|| reread::read_lost(commands.downgrade(), api.clone()));
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
        if let Some(indexer) = indexer {
            tokio::spawn(indexer);
        }
        if let Some(reader) = reader {
            tokio::spawn(reader);
        }
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
    /// does not send a second message. If the first message was refused, the second one takes its place. Returns the
    /// request_id of the message.
    ///
    /// # Errors
    ///
    /// Fails as [`Client::send`] does, and also if the encoded envelope has more than 8,192 bytes.
    pub async fn send_message(&self, message: Outgoing) -> Result<RequestId> {
        let request = message.request;
        self.apply(Input::Send(message)).await?;
        Ok(request)
    }

    /// Sends a message in place of a refused one, and returns when that is durable in the outbox. The new message may
    /// have the request_id of the refused one. If this fails, the refused message stays in the outbox. The errors are
    /// those of [`Client::send_message`].
    pub async fn send_again(&self, refused: RequestId, message: Outgoing) -> Result<RequestId> {
        let request = message.request;
        self.apply(Input::SendAgain { refused, message }).await?;
        Ok(request)
    }

    /// Deletes a refused message from the outbox. A message that is still queued or on its way stays. Fails with
    /// [`ClientError::Stopped`] only.
    pub async fn discard(&self, request: RequestId) -> Result<()> {
        self.apply(Input::Discard(request)).await
    }

    /// Marks everything in the chat up to `seq` as read. A lower `seq` than before changes nothing; one above the
    /// chat's last known entry counts as that entry. In a chat that is not known it does nothing. Returns when the mark
    /// is durable on this device; the server is told on this stream or on the next one. Fails with
    /// [`ClientError::Stopped`] only.
    pub async fn mark_read(&self, chat: ChatId, seq: Seq) -> Result<()> {
        self.apply(Input::MarkRead { chat, seq }).await
    }

    /// Watches the presence of these people, at most 256, in place of the people watched before.
    /// [`crate::Event::Presence`] tells the present state of each, then [`crate::Event::Watching`] says that the watch
    /// has begun, then [`crate::Event::Presence`] tells each change. If there are more than 256,
    /// [`crate::Event::Watching`] has an error instead. After a reconnect the client renews the watch by itself. Fails
    /// with [`ClientError::Stopped`] only.
    pub async fn watch_presence(&self, users: Vec<UserId>) -> Result<()> {
        self.apply(Input::WatchPresence(users)).await
    }

    /// Says that the person opened (`true`) or left (`false`) the app, which others see as online and last seen.
    /// While the app is open the client repeats the sign to the server by itself. Fails with [`ClientError::Stopped`]
    /// only.
    pub async fn set_active(&self, active: bool) -> Result<()> {
        self.apply(Input::SetActive(active)).await
    }

    /// Says that the person is typing in a chat. An app may call this at each key press: the client tells the server at
    /// most once in 3 s. The server passes the sign on to those members who may see the person's presence (see `Typing`
    /// in messaging.proto). Without a connection the sign is dropped. Fails with [`ClientError::Stopped`] only.
    pub async fn typing(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::Typing { chat, stopped: false }).await
    }

    /// Says that the person stopped typing without sending. Sending a message needs no such call. Fails with
    /// [`ClientError::Stopped`] only.
    pub async fn stopped_typing(&self, chat: ChatId) -> Result<()> {
        self.apply(Input::Typing { chat, stopped: true }).await
    }

    /// Disconnects and ends the client. Messages without a result stay in the outbox for the next start.
    pub async fn stop(&self) {
        // An error means that the client has ended already.
        let _ = self.apply(Input::Stop).await;
        self.shared.commands.closed().await;
    }

    /// Hands an input to the driver, and returns when the changes that follow from it are durable.
    pub(crate) async fn apply(&self, input: Input) -> Result<()> {
        apply(&self.shared.commands, input).await
    }

    /// Lets the driver run `read` on the store, and returns the result. `read` may also write.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_store(&self.shared.commands, read).await
    }
}

/// Puts the messages that were stored before the store had an index into it, step by step, until all of them are there
/// or the client has ended. The next start goes on.
async fn index_older(commands: mpsc::WeakSender<Command>) {
    loop {
        // A sender that is kept would keep the client from ending when the app drops its last handle.
        let Some(sender) = commands.upgrade() else { return };
        let more = on_store(&sender, Store::index_older).await;
        drop(sender);
        match more {
            Ok(true) => tokio::time::sleep(INDEX_PAUSE).await,
            Ok(false) | Err(ClientError::Stopped) => return,
            Err(error) => {
                tracing::warn!(%error, "older messages are not in the index of the search");
                return;
            }
        }
    }
}

/// Returns the credentials in a store, without starting a client, or `None` if the store has never had a device. A
/// missing store is made.
///
/// # Errors
///
/// [`ClientError::InUse`], [`ClientError::Config`], [`ClientError::Store`] and [`ClientError::Corrupt`], as with
/// [`Client::start`].
pub async fn stored_credentials(location: StoreLocation) -> Result<Option<Credentials>> {
    blocking(move || Store::open(&location, true)?.credentials()).await
}

/// A store and what a client needs of it at its start.
struct Opened {
    store: Store,
    me: Credentials,
    stored: Stored,
    has_unindexed: bool,
    has_lost: bool,
}

async fn open_store(config: &ClientConfig) -> Result<Opened> {
    let (location, keep_history) = (config.store.clone(), config.keep_history);
    let (given, search) = (config.credentials.clone(), config.search.clone());
    let open = move || {
        let mut store = Store::open(&location, keep_history)?;
        store.set_search(&search)?;
        let me = credentials(&mut store, given)?;
        let (stored, has_unindexed) = (store.load()?, store.has_unindexed()?);
        let has_lost = store.first_lost()?.is_some();
        Ok(Opened {
            store,
            me,
            stored,
            has_unindexed,
            has_lost,
        })
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
    use tern_client_core::model::{Event, FailureCode, QueuedMessage, SendState, StopReason};
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
                retry_at: None,
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
