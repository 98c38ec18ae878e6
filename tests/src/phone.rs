//! A good client that is written from the comments in messaging.proto alone, so that it gets what any app would get. It
//! keeps its log in memory, acknowledges what it has stored, sends its outbox again on each new stream, and reconnects.
//! It remembers the first breach of the protocol by the server; the next wait of the test then fails.
//!
//! It leaves out what tests do not need: it does not renew its access token, waits for the end of a stream
//! that is draining, pauses 0.1 s before each reconnect whatever `Closing` says, and goes on reconnecting
//! after PROTOCOL_ERROR and USER_SUSPENDED.

mod run;
mod state;

use tern_proto::v1::{CreateGroupRequest, Entry, Envelope, Receipt, Sent, entry_content::Content};
use tern_types::{ChatId, RequestId, UserId};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

pub use state::{Log, State};

use crate::bounds::BOUND;
use crate::{Api, Device, User, World, wire};

/// The address of a message.
#[derive(Debug, Clone, Copy)]
pub enum To {
    Chat(ChatId),
    Person(UserId),
}

impl From<ChatId> for To {
    fn from(chat: ChatId) -> Self {
        Self::Chat(chat)
    }
}

impl From<UserId> for To {
    fn from(peer: UserId) -> Self {
        Self::Person(peer)
    }
}

/// A command of the test to the phone.
#[derive(Debug)]
enum Command {
    Send {
        request: RequestId,
        to: To,
        envelope: Envelope,
        body: Vec<u8>,
    },
    /// Sends a message of the outbox again, after the server could not take it.
    Retry(RequestId),
    Read {
        chat: ChatId,
        seq: u64,
    },
    Typing {
        chat: ChatId,
        stopped: bool,
    },
    /// Goes online or offline. `None` as the gateway means that each stream may choose another one.
    Online {
        wanted: bool,
        gateway: Option<usize>,
    },
    /// Turns acknowledgements on or off. When they are turned on, everything stored so far is acknowledged.
    Acknowledge(bool),
    /// Takes receipts that were asked for.
    Receipts(Vec<Receipt>),
}

/// The number of commands that may wait. Tests do not send faster than a stream accepts.
const COMMANDS: usize = 4096;

/// A good client with one device. Dropping it breaks its stream.
pub struct Phone {
    device: Device,
    channel: Channel,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Phone {
    /// Makes a phone that is offline.
    pub fn new(world: &World, device: &Device) -> Self {
        let gateways: Vec<Channel> = (0..world.gateways())
            .map(|gateway| world.new_channel(gateway))
            .collect();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let mut known = State::new(device.user);
        if device.own_log > 0 {
            known.begin(ChatId::own(device.user), device.own_log);
        }
        let (writer, state) = watch::channel(known);
        let task =
            tokio::spawn(run::Run::new(device.clone(), gateways, inbox, commands.downgrade(), writer).run());
        Self {
            device: device.clone(),
            channel: world.channel(0),
            commands,
            state,
            task,
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn user(&self) -> UserId {
        self.device.user
    }

    /// Returns the unary services, called as this device.
    pub fn api(&self) -> Api {
        Api::new(self.channel.clone(), &self.device.access_token)
    }

    /// Goes online, and waits until it is caught up.
    pub async fn connect(&self) {
        self.connect_to(None).await;
    }

    /// Goes online at this gateway, to which it also reconnects.
    pub async fn connect_at(&self, gateway: usize) {
        self.connect_to(Some(gateway)).await;
    }

    async fn connect_to(&self, gateway: Option<usize>) {
        let before = self.state.borrow().sessions;
        self.command(Command::Online {
            wanted: true,
            gateway,
        })
        .await;
        self.until("online and caught up", |state| {
            state.sessions > before && state.caught_up
        })
        .await;
    }

    /// Goes offline. The stream has ended when this returns.
    pub async fn disconnect(&self) {
        self.command(Command::Online {
            wanted: false,
            gateway: None,
        })
        .await;
        self.until("offline", |state| !state.online).await;
    }

    /// Turns the acknowledgements on or off.
    pub async fn acknowledge(&self, on: bool) {
        self.command(Command::Acknowledge(on)).await;
    }

    /// Puts a message into the outbox.
    pub async fn send(&self, to: impl Into<To>, body: impl Into<Vec<u8>>) -> RequestId {
        let request = RequestId::random();
        self.send_as(request, to, body).await;
        request
    }

    /// Sends as [`Phone::send`] does, with a request_id of the test's choice.
    pub async fn send_as(&self, request: RequestId, to: impl Into<To>, body: impl Into<Vec<u8>>) {
        self.send_with(request, to, wire::plain(), body).await;
    }

    /// Sends as [`Phone::send_as`] does, with this envelope.
    pub async fn send_with(
        &self,
        request: RequestId,
        to: impl Into<To>,
        envelope: Envelope,
        body: impl Into<Vec<u8>>,
    ) {
        self.command(Command::Send {
            request,
            to: to.into(),
            envelope,
            body: body.into(),
        })
        .await;
    }

    /// Waits for the result of a send. Panics unless it was sent.
    pub async fn sent(&self, request: RequestId) -> Sent {
        let state = self
            .until("a SendResult", |state| state.results.contains_key(&request))
            .await;
        match &state.results[&request] {
            Ok(sent) => sent.clone(),
            Err(error) => panic!("the send failed: {error:?}"),
        }
    }

    /// Waits for the result of a send. Panics unless it was refused.
    pub async fn refused(&self, request: RequestId) -> tern_proto::v1::SendError {
        let state = self
            .until("a SendResult", |state| state.results.contains_key(&request))
            .await;
        match &state.results[&request] {
            Ok(sent) => panic!("the send should have failed: {sent:?}"),
            Err(error) => error.clone(),
        }
    }

    /// Sends a message, and waits until it is sent.
    pub async fn say(&self, to: impl Into<To>, body: impl Into<Vec<u8>>) -> Sent {
        let request = self.send(to, body).await;
        self.sent(request).await
    }

    /// Marks a chat as read up to `seq`.
    pub async fn read(&self, chat: ChatId, seq: u64) {
        self.command(Command::Read { chat, seq }).await;
    }

    /// Says that the person is typing, or has stopped.
    pub async fn typing(&self, chat: ChatId, stopped: bool) {
        self.command(Command::Typing { chat, stopped }).await;
    }

    /// Creates a group with these other members.
    pub async fn create_group(&self, others: &[&User]) -> ChatId {
        let request = CreateGroupRequest {
            request_id: RequestId::random().to_string(),
            title: "a group".to_owned(),
            member_user_ids: others.iter().map(|user| user.id.to_string()).collect(),
            ..Default::default()
        };
        let reply = self.api().chats().create_group(request).await.expect("a group");
        reply
            .into_inner()
            .chat
            .expect("a chat")
            .chat_id
            .parse()
            .expect("an id")
    }

    async fn command(&self, command: Command) {
        self.commands.send(command).await.expect("the phone's task runs");
    }

    /// Waits until the phone's state is as wanted, and returns it.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.clone();
        let found = tokio::time::timeout(
            BOUND,
            state.wait_for(|state| state.broken.is_some() || holds(state)),
        )
        .await;
        let found = match found {
            Ok(found) => found.expect("the phone's task runs").clone(),
            Err(_) => panic!(
                "not within {BOUND:?}: {what}; the phone has {:?}",
                self.state.borrow()
            ),
        };
        if let Some(broken) = &found.broken {
            panic!("the server broke the protocol: {broken}");
        }
        found
    }

    /// Waits until the log of a chat reaches a seq, and returns it.
    pub async fn has(&self, chat: ChatId, seq: u64) -> Log {
        let state = self
            .until(&format!("entry {seq} of {chat}"), |state| {
                state.cursor(chat) >= seq
            })
            .await;
        state.logs[&chat].clone()
    }

    /// Waits until a chat has a message with this text, and returns its log.
    pub async fn has_text(&self, chat: ChatId, text: &str) -> Log {
        let state = self
            .until(&format!("{text:?} in {chat}"), |state| {
                state
                    .logs
                    .get(&chat)
                    .is_some_and(|log| log.texts().iter().any(|have| have == text))
            })
            .await;
        state.logs[&chat].clone()
    }

    /// Waits for receipts which say that a member has received and read a chat at least this far.
    pub async fn receipt(&self, chat: ChatId, user: UserId, delivered: u64, read: u64) {
        self.until(
            &format!("{user} has {delivered} and has read {read} of {chat}"),
            |state| {
                state
                    .receipts
                    .get(&(chat, user))
                    .is_some_and(|receipt| receipt.0 >= delivered && receipt.1 >= read)
            },
        )
        .await;
    }

    /// Returns everything that the phone has stored and heard so far.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Returns the messages of a chat as text.
    pub fn texts(&self, chat: ChatId) -> Vec<String> {
        self.state
            .borrow()
            .logs
            .get(&chat)
            .map(Log::texts)
            .unwrap_or_default()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    /// Links a device, and returns its phone, online.
    pub async fn phone(&self, user: &User) -> Phone {
        let device = self.device(user).await;
        self.phone_of(&device).await
    }

    /// Returns a phone for this device, online.
    pub async fn phone_of(&self, device: &Device) -> Phone {
        let phone = Phone::new(self, device);
        phone.connect().await;
        phone
    }
}

/// Waits until all phones have a chat up to `head`. Checks that they have the same log, with each of `texts` exactly
/// once and no other messages.
pub async fn agree(phones: &[&Phone], chat: ChatId, head: u64, texts: &[String]) {
    let mut logs = Vec::new();
    for phone in phones {
        logs.push(phone.has(chat, head).await);
    }
    let order = |log: &Log| -> Vec<(u64, String)> {
        log.entries
            .iter()
            .filter_map(|(seq, entry)| Some((*seq, text(entry)?)))
            .collect()
    };
    for (phone, log) in phones.iter().zip(&logs) {
        assert_eq!(
            order(log),
            order(&logs[0]),
            "the log of {:?} is another",
            phone.device().id
        );
        let mut have = log.texts();
        let mut want = texts.to_vec();
        have.sort_unstable();
        want.sort_unstable();
        assert_eq!(
            have,
            want,
            "{:?} lacks messages or has some twice",
            phone.device().id
        );
    }
}

/// Returns the text of an entry that is a message.
pub fn text(entry: &Entry) -> Option<String> {
    match entry.decoded_content().ok()?.content? {
        Content::Message(message) => Some(String::from_utf8_lossy(&message.body).into_owned()),
        _ => None,
    }
}
