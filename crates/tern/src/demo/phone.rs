//! One device: a client, and everything that it was told with the time of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tern_client::{
    Client, ClientConfig, Entry, Event, EventStream, FailureCode, Mark, Presence, SendState, StopReason,
};
use tern_types::{ChatId, RequestId, Seq, UserId};
use tokio::sync::watch;

/// Far beyond what anything here takes, the loss of a node included (its lease of 6 s has to run out first): what did
/// not happen by then does not happen.
pub const BOUND: Duration = Duration::from_secs(30);

/// What a device was told.
#[derive(Debug, Default)]
pub struct Heard {
    pub entries: Vec<(Instant, Entry)>,
    pub sends: HashMap<RequestId, Vec<(Instant, SendState)>>,
    pub receipts: Vec<(Instant, ChatId, UserId, Mark)>,
    pub presences: HashMap<UserId, (Instant, Presence)>,
    pub typing: HashMap<(ChatId, UserId), (Instant, bool)>,
    pub unread: HashMap<ChatId, (u32, Seq)>,
    pub connected: Option<(Instant, String)>,
    pub caught_up: Option<Instant>,
    pub stopped: Option<StopReason>,
}

/// A person's device.
#[derive(Debug)]
pub struct Phone {
    /// "Alice"
    pub who: &'static str,
    /// "Alice's laptop", or just "Bob"
    pub name: &'static str,
    pub user: UserId,
    config: ClientConfig,
    client: Option<Client>,
    heard: Arc<Mutex<Heard>>,
    changed: watch::Sender<()>,
}

impl Phone {
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

    /// Connects, and returns when it has caught up; how long that took.
    pub async fn connect(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let (client, events) = Client::start(self.config.clone()).await?;
        self.client = Some(client);
        tokio::spawn(listen(events, self.heard.clone(), self.changed.clone()));
        let caught_up = |heard: &Heard| heard.caught_up.filter(|at| *at >= began);
        Ok(self.until("is connected and has caught up", caught_up).await? - began)
    }

    /// Switches it off; its store stays.
    pub async fn disconnect(&mut self) -> anyhow::Result<()> {
        let client = self.client.take().context("it is off already")?;
        client.stop().await;
        self.until("has stopped", |heard| heard.stopped.clone()).await?;
        self.heard().stopped = None;
        Ok(())
    }

    pub fn client(&self) -> anyhow::Result<&Client> {
        self.client
            .as_ref()
            .with_context(|| format!("{} is switched off", self.name))
    }

    /// Which gateway it is on: `gateway-0`, by its place among `gateways`.
    pub fn gateway(&self, gateways: &[String]) -> String {
        let heard = self.heard();
        let at = heard
            .connected
            .as_ref()
            .map(|(_, gateway)| gateway.trim_end_matches('/'));
        let number = gateways.iter().position(|url| Some(url.as_str()) == at);
        number.map_or_else(|| "no gateway".to_owned(), |number| format!("gateway-{number}"))
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was heard; an error that says what, when it was not within [`BOUND`].
    pub async fn until<T>(&self, what: &str, find: impl Fn(&Heard) -> Option<T>) -> anyhow::Result<T> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = find(&self.heard()) {
                    return found;
                }
                // The sender lives as long as this phone.
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

    /// When the entry with this request_id was applied.
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

    /// When the server had the message.
    pub async fn sent(&self, request: RequestId) -> anyhow::Result<(Instant, Seq)> {
        let found = self.until("is told what became of its message", |heard| {
            heard
                .sends
                .get(&request)?
                .iter()
                .find_map(|(at, state)| match state {
                    SendState::Sent { seq, .. } => Some(Ok((*at, *seq))),
                    SendState::Failed { code, message } => {
                        Some(Err(format!("{}: {message}", code.as_str_name())))
                    }
                    SendState::Queued => None,
                })
        });
        found
            .await?
            .map_err(|why| anyhow::anyhow!("{}: the server refused the message: {why}", self.name))
    }

    /// Why the server refused the message.
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

    /// When all of these people had got as far as `reached` says.
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

    /// Texts of a chat, in the order in which they were applied.
    pub fn texts(&self, chat: ChatId) -> Vec<String> {
        let heard = self.heard();
        let entries = heard.entries.iter().filter(|(_, entry)| entry.chat == chat);
        entries
            .filter_map(|(_, entry)| entry.text().map(std::borrow::Cow::into_owned))
            .collect()
    }

    /// Everything of a chat that was applied: seq and request_id.
    pub fn log(&self, chat: ChatId) -> Vec<(Seq, Option<RequestId>)> {
        let heard = self.heard();
        let entries = heard.entries.iter().filter(|(_, entry)| entry.chat == chat);
        entries.map(|(_, entry)| (entry.seq, entry.request)).collect()
    }

    pub fn unread(&self, chat: ChatId) -> u32 {
        self.heard().unread.get(&chat).map_or(0, |(count, _)| *count)
    }
}

/// Writes down what comes, until the client ends.
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
    fn take(&mut self, event: Event, at: Instant) {
        match event {
            Event::Entry(entry) => self.entries.push((at, entry)),
            Event::Send { request, state, .. } => self.sends.entry(request).or_default().push((at, state)),
            Event::Receipt { chat, user, mark } => self.receipts.push((at, chat, user, mark)),
            Event::Chat(chat) => drop(self.unread.insert(chat.id, (chat.unread, chat.read))),
            Event::Connected { gateway, .. } => self.connected = Some((at, gateway)),
            Event::CaughtUp => self.caught_up = Some(at),
            Event::Stopped(reason) => self.stopped = Some(reason),
            Event::Presence { user, presence } => drop(self.presences.insert(user, (at, presence))),
            Event::Typing { chat, user, typing } => drop(self.typing.insert((chat, user), (at, typing))),
            Event::Watching { .. } | Event::Disconnected { .. } | Event::Skipped { .. } | Event::Reset => {}
        }
    }
}
