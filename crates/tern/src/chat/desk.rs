//! Between keyboard and client: carries out what was typed, keeps the view up to date. Whatever waits for the server
//! runs beside it, so that typing never does.
//!
//! - [`chats`]: found, made, changed
//! - [`privacy`]: blocks, contacts, settings
//! - [`outbox`]: what was refused; a connection that has ended
//! - [`seen`]: whom messages reached; who is to be seen online; the rest here

mod chats;
mod outbox;
mod privacy;
mod seen;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tern_client::{
    BackEnd, Client, ClientConfig, Entry, Event, EventStream, Mark, MessageReceipts, Outgoing, To,
};
use tern_proto::v1;
use tern_types::{ChatId, Clock, Seq, Timestamp, UserId};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::command::{Command, HELP};
use super::files::Transfer;
use super::setup::Device;
use super::view::View;
use super::words;

/// Answers on their way to the view: as many as a person can ask for at once.
const UPDATES: usize = 64;
/// Messages loaded when a chat is opened or scrolled up.
const PAGE: usize = 100;

/// What came back from the server or the store.
#[derive(Debug)]
pub enum Update {
    History {
        chat: ChatId,
        entries: Vec<Entry>,
        complete: bool,
    },
    Marks {
        chat: ChatId,
        marks: HashMap<UserId, Mark>,
    },
    Members {
        chat: ChatId,
        members: Vec<UserId>,
    },
    Names(HashMap<UserId, String>),
    /// Whom an own message reached.
    Reached {
        chat: ChatId,
        seq: Seq,
        receipts: MessageReceipts,
    },
    /// To show this chat now.
    Open(ChatId),
    /// A file is further on its way, or is not any more.
    Transfer(u64, Option<Transfer>),
    /// Other people may be seen now than when presence was asked for.
    Watch,
    /// Something to tell the person.
    Notice(String),
}

/// What a line led to, for the screen.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Help,
    Quit,
    /// The client was started anew: these are its events.
    Connected,
}

/// Client and view of one device.
pub struct Desk {
    pub client: Client,
    pub view: View,
    back_end: Option<BackEnd>,
    updates: mpsc::Sender<Update>,
    update_queue: mpsc::Receiver<Update>,
    /// What waits for the server.
    work: TaskTracker,
    names_asked: bool,
    /// Whose presence the server was asked for.
    watched: Vec<UserId>,
    /// When it is to be asked for again.
    watch_at: Option<Timestamp>,
    /// Hidden people who, and to whom the person, has written since the connection: each made a new look worth it once.
    wrote: HashSet<(UserId, bool)>,
    config: ClientConfig,
    /// Of a client that was started anew, until the screen takes them.
    new_events: Option<EventStream>,
    /// Where files are saved.
    pub(super) downloads: PathBuf,
    /// Files on their way.
    pub(super) running: Arc<AtomicU64>,
    transfers: Cell<u64>,
}

impl Desk {
    pub async fn start(device: Device) -> anyhow::Result<(Self, EventStream)> {
        let (client, events) = Client::start(device.config.clone()).await?;
        let mut view = View::new(client.user(), client.device());
        let (updates, update_queue) = mpsc::channel(UPDATES);
        client
            .chats()
            .await?
            .into_iter()
            .for_each(|chat| view.set_chat(chat));
        view.set_queued(client.outbox().await?);
        let mut desk = Self {
            client,
            view,
            back_end: device.back_end,
            updates,
            update_queue,
            work: TaskTracker::new(),
            names_asked: false,
            watched: Vec::new(),
            watch_at: None,
            wrote: HashSet::new(),
            config: device.config,
            new_events: None,
            downloads: device.downloads,
            running: Arc::default(),
            transfers: Cell::new(0),
        };
        desk.ask_names();
        Ok((desk, events))
    }

    /// The next answer to something asked.
    pub async fn update(&mut self) -> Option<Update> {
        self.update_queue.recv().await
    }

    /// Whether something that was asked for has no answer yet, or one that [`Self::update`] has not given out.
    pub fn is_busy(&self) -> bool {
        !self.work.is_empty() || !self.update_queue.is_empty()
    }

    pub fn apply_update(&mut self, update: &Update) {
        match update {
            Update::History {
                chat,
                entries,
                complete,
            } => {
                entries.iter().cloned().for_each(|entry| self.view.add(entry));
                self.view.room(*chat).complete |= complete;
            }
            Update::Marks { chat, marks } => {
                let room = self.view.room(*chat);
                for (user, mark) in marks {
                    let known = room.marks.entry(*user).or_default();
                    *known = known.raise(*mark);
                }
            }
            Update::Members { chat, members } => {
                members.iter().for_each(|member| self.view.see(*member));
                self.view.room(*chat).members = members.iter().copied().collect();
            }
            Update::Names(names) => {
                self.names_asked = false;
                self.view.set_names(names.clone());
            }
            Update::Reached { chat, seq, receipts } => {
                self.notice(self.view.reached(*chat, *seq, receipts));
            }
            Update::Open(chat) => self.open(*chat),
            Update::Transfer(id, transfer) => self.view.set_transfer(*id, transfer.clone()),
            Update::Watch => self.watch_again(),
            Update::Notice(_) => {}
        }
        self.ask_names();
        self.watch();
    }

    /// `watching`: somebody sees the newest line of the open chat.
    pub fn apply_event(&mut self, event: &Event, watching: bool) {
        self.view.apply(event, Clock::monotonic());
        self.may_be_seen(event);
        match event {
            Event::Entry(entry) if watching && self.view.open == Some(entry.chat) => {
                self.mark_read(entry.chat)
            }
            Event::Reset => {
                if let Some(chat) = self.view.open {
                    self.open(chat);
                }
            }
            _ => {}
        }
        self.ask_names();
        self.watch();
    }

    /// Shows a chat: its history, who got how far, who is in it.
    pub fn open(&mut self, chat: ChatId) {
        self.view.open = Some(chat);
        let room = self.view.room(chat);
        room.new_from = room
            .chat
            .as_ref()
            .filter(|chat| chat.unread > 0)
            .map(|chat| chat.read.next());
        self.load(chat, None);
        self.spawn(|client, updates| async move {
            let marks = client.receipts(chat).await?;
            let _ = updates.send(Update::Marks { chat, marks }).await;
            Ok(client.ask_for_receipts(chat).await?)
        });
        self.load_members(chat);
        self.mark_read(chat);
        let peer = self.view.room(chat).chat.as_ref().and_then(|chat| chat.peer);
        if peer.is_some_and(|peer| self.view.is_hidden(peer)) {
            self.watch_again();
        }
    }

    fn load_members(&self, chat: ChatId) {
        self.spawn(move |client, updates| async move {
            let request = v1::ListMembersRequest {
                chat_id: chat.to_string(),
                page_size: 1024,
                ..Default::default()
            };
            // A direct chat that nobody wrote in yet is not there.
            let Ok(answer) = client.api().list_members(request).await else {
                return Ok(());
            };
            let members = answer
                .members
                .iter()
                .filter_map(|member| member.user_id.parse().ok())
                .collect();
            let _ = updates.send(Update::Members { chat, members }).await;
            Ok(())
        });
    }

    /// Older entries of the open chat.
    pub fn load_older(&mut self) {
        if let Some(chat) = self.view.open
            && !self.view.room(chat).complete
        {
            self.load(chat, self.view.oldest(chat));
        }
    }

    fn load(&self, chat: ChatId, before: Option<Seq>) {
        self.spawn(move |client, updates| async move {
            let entries = match client.load_history(chat, before, PAGE).await {
                Ok(entries) => entries,
                // Without the server there is what this device has.
                Err(_) => client.history(chat, before, PAGE).await?,
            };
            let complete = entries.is_empty() || entries.first().is_some_and(|first| first.seq <= Seq(1));
            let _ = updates
                .send(Update::History {
                    chat,
                    entries,
                    complete,
                })
                .await;
            Ok(())
        });
    }

    /// The person has seen the newest line.
    pub fn mark_read(&mut self, chat: ChatId) {
        let newest = self.view.newest(chat);
        let head = self
            .view
            .room(chat)
            .chat
            .as_ref()
            .filter(|chat| chat.unread > 0)
            .map(|chat| chat.head);
        if let Some(seq) = newest.max(head) {
            self.spawn(move |client, _| async move { Ok(client.mark_read(chat, seq).await?) });
        }
    }

    fn ask_names(&mut self) {
        if self.names_asked || self.view.nameless.is_empty() {
            return;
        }
        self.names_asked = true;
        let nameless: Vec<UserId> = self.view.nameless.iter().copied().collect();
        self.spawn(|client, updates| async move {
            // Who has no name at the server stays without one; asked again with the next event.
            let names = client.names(nameless).await.unwrap_or_default();
            let _ = updates.send(Update::Names(names)).await;
            Ok(())
        });
    }

    /// Carries out a typed line.
    pub async fn submit(&mut self, line: &str) -> Outcome {
        match Command::parse(line) {
            Command::Say(text) => self.say(text).await,
            Command::Chat(name) => self.find(name),
            Command::Group { title, people } => self.create_group(title, people),
            Command::Add(people) => self.add(people),
            Command::Remove(name) => self.remove(name),
            Command::Role { who, role } => self.set_role(who, role),
            Command::Leave(heir) => self.leave(heir),
            Command::Title(title) => self.title(title),
            Command::Picture(path) => self.picture(path),
            Command::Block(name) => self.block(name),
            Command::Unblock(name) => self.unblock(name),
            Command::Blocked => self.blocked(),
            Command::Contacts(people) => self.contacts(people),
            Command::Forget(name) => self.forget(name),
            Command::Privacy(settings) => self.privacy(settings),
            Command::Send(path) => self.send_file(path),
            Command::Save { message, to } => self.save_files(message, to),
            Command::Forward { message, to } => self.forward_files(message, &to),
            Command::Retry(nth) => self.retry(nth).await,
            Command::Delete(nth) => self.delete(nth).await,
            Command::Connect => match self.connect().await {
                Ok(None) => {}
                Ok(events) => {
                    self.new_events = events;
                    return Outcome::Connected;
                }
                Err(error) => self.fault(&error),
            },
            Command::Who => self.who(),
            Command::Info(nth) => self.info(nth),
            Command::Chats => self.list(),
            Command::Help => return Outcome::Help,
            Command::Quit => return Outcome::Quit,
            Command::Nothing => {}
            Command::Wrong(what) => self.notice(what),
        }
        Outcome::Done
    }

    /// Returns when it is in the outbox, so that lines keep their order; that takes this machine only.
    async fn say(&mut self, text: String) {
        if let Some(chat) = self.writable() {
            let message = Outgoing::new(self.address(chat), text);
            self.put(chat, message).await;
        }
    }

    /// The open chat; where nothing can be written the person is told.
    pub(super) fn writable(&self) -> Option<ChatId> {
        let Some(chat) = self.view.open else {
            self.notice("no chat is open: /chat bob opens one".to_owned());
            return None;
        };
        if let Some(why) = self.view.closed(chat) {
            self.notice(why.to_owned());
            return None;
        }
        Some(chat)
    }

    /// A direct chat may not be there before the first message: it is named by the other person.
    pub(super) fn address(&self, chat: ChatId) -> To {
        let room = self.view.rooms.get(&chat).and_then(|room| room.chat.as_ref());
        let peer = room.and_then(|chat| chat.peer);
        peer.map_or(To::Chat(chat), To::Peer)
    }

    pub(super) fn updates(&self) -> mpsc::Sender<Update> {
        self.updates.clone()
    }

    pub(super) fn next_transfer(&self) -> u64 {
        self.transfers.replace(self.transfers.get() + 1)
    }

    pub fn notice(&self, text: String) {
        // With a full queue the person has more to read than this.
        let _ = self.updates.try_send(Update::Notice(text));
    }

    pub(super) fn fault(&self, error: &anyhow::Error) {
        self.notice(words::fault(error));
    }

    /// After [`Outcome::Connected`].
    pub fn new_events(&mut self) -> Option<EventStream> {
        self.new_events.take()
    }

    /// Runs beside; what fails is told.
    pub(super) fn spawn<F, Fut>(&self, work: F)
    where
        F: FnOnce(Client, mpsc::Sender<Update>) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let updates = self.updates.clone();
        let work = work(self.client.clone(), updates.clone());
        self.work.spawn(async move {
            if let Err(error) = work.await {
                let _ = updates.send(Update::Notice(words::fault(&error))).await;
            }
        });
    }
}

/// `/help` as lines of two columns.
pub fn help() -> Vec<String> {
    HELP.iter()
        .map(|(usage, what)| format!("{usage:<36} {what}"))
        .collect()
}
