//! Plays one device: it runs a client, and records the client's events with their times.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tern_client::{
    Chat, Client, ClientConfig, Entry, Event, EventStream, FailureCode, Mark, Presence, SendState, StopReason,
};
use tern_types::{ChatId, RequestId, Seq, UserId};
use tokio::sync::watch;

/// The time after which an expected event counts as missing. It is far longer than anything here takes, even the loss
/// of a node, whose lease (4 s) may have to run out first.
pub const BOUND: Duration = Duration::from_secs(30);

/// The events that a device has received, with their times.
#[derive(Debug, Default)]
pub struct Heard {
    /// The entries, in the order in which they came.
    pub entries: Vec<(Instant, Entry)>,
    /// The states of each send, in the order in which they came.
    pub sends: HashMap<RequestId, Vec<(Instant, SendState)>>,
    /// The receipts, in the order in which they came.
    pub receipts: Vec<(Instant, ChatId, UserId, Mark)>,
    /// The newest presence of each person.
    pub presences: HashMap<UserId, (Instant, Presence)>,
    /// The newest sign of typing of each person in each chat; false if the person has stopped.
    pub typing: HashMap<(ChatId, UserId), (Instant, bool)>,
    /// The number of unread entries of each chat, and the seq up to which it is read.
    pub unread: HashMap<ChatId, (u32, Seq)>,
    /// The newest state of each chat.
    pub chats: HashMap<ChatId, Chat>,
    /// The messages that are gone from the device without a trace.
    pub gone: HashSet<(ChatId, Seq)>,
    /// The people who asked to join a group, in the order in which the device was told.
    pub asked: Vec<(Instant, ChatId, UserId)>,
    /// The last connection, with the URL of the gateway.
    pub connected: Option<(Instant, String)>,
    /// The time at which the device has last caught up.
    pub caught_up: Option<Instant>,
    /// The reason why the client has stopped.
    pub stopped: Option<StopReason>,
}

/// A device of a person.
#[derive(Debug)]
pub struct Phone {
    /// The person, as in "Alice".
    pub who: &'static str,
    /// The device, as in "Alice's laptop". A person's first device has the person's name.
    pub name: &'static str,
    /// The person's user id.
    pub user: UserId,
    config: ClientConfig,
    client: Option<Client>,
    heard: Arc<Mutex<Heard>>,
    changed: watch::Sender<()>,
}

impl Phone {
    /// Makes a device that is not connected.
    pub fn new(who: &'static str, name: &'static str, user: UserId, config: ClientConfig) -> Self {
        Self {
            who,
            name,
            user,
            config,
            client: None,
            heard: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Connects and waits until the device has caught up. Returns how long that took.
    pub async fn connect(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let (client, events) = Client::start(self.config.clone()).await?;
        self.client = Some(client);
        tokio::spawn(listen(events, self.heard.clone(), self.changed.clone()));
        let caught_up = |heard: &Heard| heard.caught_up.filter(|at| *at >= began);
        Ok(self.until("is connected and has caught up", caught_up).await? - began)
    }

    /// Stops the client. Its store stays, so the device can connect again. Fails if the device is switched off.
    pub async fn disconnect(&mut self) -> anyhow::Result<()> {
        let client = self.client.take().context("it is off already")?;
        client.stop().await;
        self.until("has stopped", |heard| heard.stopped.clone()).await?;
        self.heard().stopped = None;
        Ok(())
    }

    /// Returns the client, or an error if the device is switched off.
    pub fn client(&self) -> anyhow::Result<&Client> {
        self.client
            .as_ref()
            .with_context(|| format!("{} is switched off", self.name))
    }

    /// Returns the node name of the gateway that the device is connected to, as in `gateway-0`. The number is the
    /// gateway's place in `gateways`.
    pub fn gateway(&self, gateways: &[String]) -> String {
        let heard = self.heard();
        let at = heard
            .connected
            .as_ref()
            .map(|(_, gateway)| gateway.trim_end_matches('/'));
        let number = gateways.iter().position(|url| Some(url.as_str()) == at);
        number.map_or_else(|| "no gateway".to_owned(), |number| format!("gateway-{number}"))
    }

    /// Locks the record of events. The lock must not be held across an await.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `find` returns something. After [`BOUND`] it returns an error that says `what` was expected.
    pub async fn until<T>(&self, what: &str, find: impl Fn(&Heard) -> Option<T>) -> anyhow::Result<T> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = find(&self.heard()) {
                    return found;
                }
                // This cannot fail, because the sender lives as long as this phone.
                let _ = changed.changed().await;
            }
        };
        let found = tokio::time::timeout(BOUND, wait).await;
        found.map_err(|_| {
            anyhow::anyhow!(
                "{}: expected that it {what}, but it did not within {BOUND:?}",
                self.name
            )
        })
    }

    /// Waits for the entry with this request_id. Returns the time at which it was applied, and the entry.
    pub async fn hears(&self, request: RequestId) -> anyhow::Result<(Instant, Entry)> {
        let find = |heard: &Heard| {
            heard
                .entries
                .iter()
                .find(|(_, entry)| entry.request == Some(request))
                .cloned()
        };
        self.until(&format!("hears the message {request}"), find).await
    }

    /// Waits for the result of a send. Returns its time and the message's seq, or an error if the server refused it.
    pub async fn sent(&self, request: RequestId) -> anyhow::Result<(Instant, Seq)> {
        let found = self.until("is told what became of its message", |heard| {
            heard
                .sends
                .get(&request)?
                .iter()
                .find_map(|(at, state)| match state {
                    SendState::Sent { seq, .. } => Some(Ok((*at, *seq))),
                    SendState::Failed { code, message, .. } => {
                        Some(Err(format!("{}: {message}", code.as_str_name())))
                    }
                    SendState::Queued => None,
                })
        });
        found
            .await?
            .map_err(|why| anyhow::anyhow!("{}: the server refused the message: {why}", self.name))
    }

    /// Waits until the server refuses a message, and returns why.
    pub async fn refused(&self, request: RequestId) -> anyhow::Result<FailureCode> {
        let find = |heard: &Heard| {
            heard
                .sends
                .get(&request)?
                .iter()
                .find_map(|(_, state)| match state {
                    SendState::Failed { code, .. } => Some(*code),
                    _ => None,
                })
        };
        self.until("is told that its message was refused", find).await
    }

    /// Waits until the marks of all these people satisfy `reached`. Returns the time at which the last one did.
    pub async fn receipts(
        &self,
        what: &str,
        chat: ChatId,
        users: &[UserId],
        reached: impl Fn(&Mark) -> bool,
    ) -> anyhow::Result<Instant> {
        let find = |heard: &Heard| {
            let first = |user: &UserId| {
                let mut marks = heard.receipts.iter();
                marks
                    .find(|(_, of, by, mark)| *of == chat && by == user && reached(mark))
                    .map(|(at, ..)| *at)
            };
            users
                .iter()
                .map(first)
                .collect::<Option<Vec<Instant>>>()?
                .into_iter()
                .max()
        };
        self.until(what, find).await
    }

    /// Returns the texts of a chat in the order in which they were applied.
    pub fn texts(&self, chat: ChatId) -> Vec<String> {
        let heard = self.heard();
        let entries = heard.entries.iter().filter(|(_, entry)| entry.chat == chat);
        entries
            .filter_map(|(_, entry)| entry.text().map(std::borrow::Cow::into_owned))
            .collect()
    }

    /// Returns the seq and request_id of all entries of a chat, in the order in which they were applied.
    pub fn log(&self, chat: ChatId) -> Vec<(Seq, Option<RequestId>)> {
        let heard = self.heard();
        let entries = heard.entries.iter().filter(|(_, entry)| entry.chat == chat);
        entries.map(|(_, entry)| (entry.seq, entry.request)).collect()
    }

    /// Returns the number of unread entries of a chat.
    pub fn unread(&self, chat: ChatId) -> u32 {
        self.heard().unread.get(&chat).map_or(0, |(count, _)| *count)
    }
}

/// Records events until the client ends.
async fn listen(mut events: EventStream, heard: Arc<Mutex<Heard>>, changed: watch::Sender<()>) {
    while let Some(event) = events.next().await {
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(event, Instant::now());
        changed.send_replace(());
    }
}

impl Heard {
    /// Records an event.
    fn take(&mut self, event: Event, at: Instant) {
        match event {
            Event::Entry(entry) => self.entries.push((at, entry)),
            Event::Send { request, state, .. } => self.sends.entry(request).or_default().push((at, state)),
            Event::Receipt { chat, user, mark } => self.receipts.push((at, chat, user, mark)),
            Event::Chat(chat) => {
                self.unread.insert(chat.id, (chat.unread, chat.read));
                self.chats.insert(chat.id, chat);
            }
            Event::Connected { gateway, .. } => self.connected = Some((at, gateway)),
            Event::CaughtUp => self.caught_up = Some(at),
            Event::Stopped(reason) => self.stopped = Some(reason),
            Event::Presence { user, presence } => drop(self.presences.insert(user, (at, presence))),
            Event::Typing { chat, user, typing } => drop(self.typing.insert((chat, user), (at, typing))),
            Event::Watching { .. } | Event::Disconnected { .. } | Event::Skipped { .. } | Event::Reset => {}
            Event::Gone { chat, seqs } => self.gone.extend(seqs.into_iter().map(|seq| (chat, seq))),
            Event::JoinRequested { chat, user } => self.asked.push((at, chat, user)),
            Event::AccountChanged { .. } => {}
        }
    }
}
