//! The desk stands between the keyboard and the client: it carries out commands and keeps the view up to date. Work
//! that waits for the server runs as a task of its own, so typing never waits for it.
//!
//! - [`opening`]: opens chats and loads their history; [`chats`]: finds, creates and changes chats
//! - [`keeping`]: how the user keeps a chat; [`running`]: how a chat is run
//! - [`messages`]: answers, edits and deletes messages, reacts to them and pins them
//! - [`privacy`]: blocks, contacts and privacy settings; [`own`]: what the user's account tells this device
//! - [`outbox`]: sends or deletes messages that were refused, and starts the client anew after it has ended
//! - [`search`]: finds messages and shows them
//! - [`seen`]: read receipts, typing, and the people whose presence is watched
//! - [`update`]: what work brings to the view, and what a command leaves to the screen
//!
//! This file has the state, applies updates and events, and carries out commands.

mod chats;
mod keeping;
mod messages;
mod opening;
mod outbox;
mod own;
mod privacy;
mod running;
mod search;
mod seen;
#[cfg(test)]
pub mod testing;
mod update;

use std::cell::Cell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tern_client::{BackEnd, Client, ClientConfig, Event, EventStream, Outgoing, To};
use tern_types::{ChatId, Clock, Timestamp, UserId};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::command::{Command, HELP};
use super::setup::Device;
use super::view::View;
use super::words;

pub use update::{Outcome, Update};

/// The capacity of the queue of updates for the view: more than a person asks for at once.
const UPDATES: usize = 64;

/// The client and the view of one device.
pub struct Desk {
    /// The client of the device.
    pub client: Client,
    /// The chats and people, as they are shown.
    pub view: View,
    back_end: Option<BackEnd>,
    updates: mpsc::Sender<Update>,
    update_queue: mpsc::Receiver<Update>,
    /// The tasks that wait for the server.
    work: TaskTracker,
    /// True while a task asks for names.
    names_asked: bool,
    /// The people whose presence the server was asked for last.
    watched: Vec<UserId>,
    /// The monotonic time at which presence is to be asked for again, even if the people are the same.
    watch_at: Option<Timestamp>,
    /// The people that are hidden and have exchanged a message with the user since the connection was made. The flag is
    /// true for a message of the user, false for one of theirs. Each pair causes presence to be asked for once more.
    wrote: HashSet<(UserId, bool)>,
    /// The people who have exchanged a message with the user before the server said anything of their presence. The
    /// flag is that of `wrote`.
    wrote_unseen: HashSet<(UserId, bool)>,
    config: ClientConfig,
    /// The events of a client that was started anew, until the screen takes them.
    new_events: Option<EventStream>,
    /// The directory where files are saved.
    pub(super) downloads: PathBuf,
    /// The number of transfers that are running.
    pub(super) running: Arc<AtomicU64>,
    /// The id for the next transfer.
    transfers: Cell<u64>,
}

impl Desk {
    /// Starts the client of a device. Returns the desk, which knows the chats and the outbox of the device's store,
    /// and the client's events. Fails if the store cannot be opened or read.
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
            wrote_unseen: HashSet::new(),
            config: device.config,
            new_events: None,
            downloads: device.downloads,
            running: Arc::default(),
            transfers: Cell::new(0),
        };
        desk.ask_names();
        Ok((desk, events))
    }

    /// Waits for the next update, which the caller gives to [`Self::apply_update`].
    pub async fn update(&mut self) -> Option<Update> {
        self.update_queue.recv().await
    }

    /// Returns whether work is still running, or has left an update that [`Self::update`] has not returned yet.
    pub fn is_busy(&self) -> bool {
        !self.work.is_empty() || !self.update_queue.is_empty()
    }

    /// Applies an update to the view. [`Update::Open`] opens the chat. [`Update::Show`], [`Update::Lines`] and
    /// [`Update::Notice`] change nothing here.
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
            Update::Made(chat) => {
                if self.view.room(chat.id).chat.is_none() {
                    self.view.set_chat((**chat).clone());
                }
            }
            Update::Open(chat) => self.open(*chat),
            Update::Transfer(id, transfer) => self.view.set_transfer(*id, transfer.clone()),
            Update::Watch => self.watch_again(),
            Update::Found { hits, .. } => self.view.found.clone_from(hits),
            Update::Outbox(queued) => self.view.set_queued(queued.clone()),
            Update::Invites { chat, ids } => self.view.invites = Some((*chat, ids.clone())),
            Update::Hidden { chat, seqs } => self.view.hide(*chat, seqs),
            Update::DraftKept { chat, draft } => self.view.draft_kept(*chat, draft),
            Update::Show { .. } | Update::Lines { .. } | Update::Notice(_) => {}
        }
        self.ask_names();
        self.watch();
    }

    /// Applies an event of the client. `watching` says that the newest line of the open chat is on the screen, so an
    /// entry that arrives there counts as read.
    pub fn apply_event(&mut self, event: &Event, watching: bool) {
        self.view.apply(event, Clock::monotonic());
        self.may_be_seen(event);
        match event {
            Event::Entry(entry) if watching && self.view.open == Some(entry.chat) => {
                self.mark_read(entry.chat)
            }
            Event::JoinRequested { chat, user } => self.tell_request(*chat, *user),
            Event::AccountChanged { change, subject } => self.tell_account(*change, subject),
            Event::Reset => {
                self.load_outbox();
                if let Some(chat) = self.view.open {
                    self.open(chat);
                }
            }
            _ => {}
        }
        self.ask_names();
        self.watch();
    }

    /// Asks for the names that the view lacks, unless a task does so already.
    fn ask_names(&mut self) {
        if self.names_asked || self.view.nameless.is_empty() {
            return;
        }
        self.names_asked = true;
        let nameless: Vec<UserId> = self.view.nameless.iter().copied().collect();
        self.spawn(|client, updates| async move {
            // A user without a name at the server stays nameless, and is asked for again with the next event.
            let names = client.names(nameless).await.unwrap_or_default();
            let _ = updates.send(Update::Names(names)).await;
            Ok(())
        });
    }

    /// Carries out a typed line, and returns the work that is left to the screen.
    pub async fn submit(&mut self, line: &str) -> Outcome {
        match Command::parse(line) {
            Command::Say(text) => return self.say(text).await,
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
            Command::Forward { message, to } => self.forward(message, &to),
            Command::Reply { message, text } => return self.reply(message, text).await,
            Command::Thread { message, text } => return self.thread(message, text).await,
            Command::Edit { message, text } => return self.edit(message, text).await,
            Command::ShowThread(message) => return self.show_thread(message),
            Command::React { message, reaction } => self.react(message, reaction).await,
            Command::Pin(message) => self.pin(message, false).await,
            Command::Unpin(message) => self.pin(message, true).await,
            Command::Delete(message) => self.delete(message).await,
            Command::Hide(message) => self.hide(message),
            Command::Pins => self.pins(),
            Command::Search { words, everywhere } => self.search(words, everywhere),
            Command::Hit(nth) => self.go_to(nth),
            Command::Retry(nth) => self.retry(nth).await,
            Command::Discard(nth) => self.discard(nth).await,
            Command::Connect => return self.connect_again().await,
            Command::Who => self.who(),
            Command::Info(nth) => self.info(nth),
            Command::Chats => self.list(),
            Command::Archived => self.archived(),
            Command::Keep(keeping) => self.keep(keeping),
            Command::Run(running) => self.run(running),
            Command::Help => return Outcome::Help,
            Command::Quit => return Outcome::Quit,
            Command::Nothing => {}
            Command::Wrong(what) => self.notice(what),
        }
        Outcome::Done
    }

    /// Sends a text to the open chat, or into the thread that is open there. Returns when the message is in the outbox,
    /// so messages keep the order of the lines. This takes only this machine's disk, not the server.
    async fn say(&mut self, text: String) -> Outcome {
        let Some(chat) = self.writable() else {
            return Outcome::Kept(text);
        };
        let mut message = Outgoing::new(self.address(chat), text);
        if let Some(root) = self.view.thread {
            message = message.in_thread(root);
        }
        self.put(chat, message).await;
        Outcome::Done
    }

    /// Returns the open chat. If there is none, tells the user so and returns `None`.
    pub(super) fn chat_open(&self) -> Option<ChatId> {
        if self.view.open.is_none() {
            self.notice("no chat is open: /chat bob opens one".to_owned());
        }
        self.view.open
    }

    /// Returns the open chat if the user may write in it. Otherwise tells the user why not and returns `None`.
    pub(super) fn writable(&self) -> Option<ChatId> {
        let chat = self.chat_open()?;
        if let Some(why) = self.view.silent(chat) {
            self.notice(why.to_owned());
            return None;
        }
        Some(chat)
    }

    /// Returns the address for a message to this chat. A direct chat is addressed by the other person, because it may
    /// not exist at the server before its first message.
    pub(super) fn address(&self, chat: ChatId) -> To {
        let room = self.view.rooms.get(&chat).and_then(|room| room.chat.as_ref());
        let peer = room.and_then(|chat| chat.peer);
        peer.map_or(To::Chat(chat), To::Peer)
    }

    pub(super) fn updates(&self) -> mpsc::Sender<Update> {
        self.updates.clone()
    }

    /// Returns the id for a new transfer.
    pub(super) fn next_transfer(&self) -> u64 {
        self.transfers.replace(self.transfers.get() + 1)
    }

    /// Shows a text to the user.
    pub fn notice(&self, text: String) {
        // If the queue is full, the notice is dropped, because the user has more to read than that.
        let _ = self.updates.try_send(Update::Notice(text));
    }

    /// Shows an error to the user.
    pub(super) fn fault(&self, error: &anyhow::Error) {
        self.notice(words::fault(error));
    }

    /// Takes the events of the client that was started anew, after [`Outcome::Connected`].
    pub fn new_events(&mut self) -> Option<EventStream> {
        self.new_events.take()
    }

    /// Runs `work` as a task of its own. If it fails, the user is told why.
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

/// Returns the text of `/help`: lines with two columns, usage and meaning.
pub fn help() -> Vec<String> {
    HELP.iter()
        .map(|(usage, what)| format!("{usage:<36} {what}"))
        .collect()
}
