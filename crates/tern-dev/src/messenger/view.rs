//! Keeps chats, timelines and ticks as they are shown. The code is pure: events and answers go in, lines come out.
//!
//! - [`timeline`]: the lines of a chat; [`messages`]: messages as they are now, and which of them is selected
//! - [`happenings`]: what happened in a chat besides messages; [`vanish`]: takes messages away that have disappeared
//! - [`author`]: names the sender of an entry; [`members`]: the members of a chat, and what follows from them
//! - [`kept`]: how the user keeps chats, and their order in the list
//! - [`search`]: messages that were found
//! - [`presence`]: who is online or was last seen when; [`reach`]: who received and read messages, and who is typing

mod author;
mod happenings;
mod kept;
mod members;
mod messages;
mod presence;
mod reach;
mod search;
mod timeline;
mod vanish;

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};

use tern_client::{Chat, Entry, Event, Hit, Mark, Presence, QueuedMessage, SendState};
use tern_proto::v1::{ChatKind, entry_content::Content};
use tern_types::{ChatId, Clock, DeviceId, RequestId, Seq, Timestamp, UserId};

use super::transfer::Transfer;
use super::words::{self, clean};

pub use kept::is_muted;
pub use timeline::{Line, Tick};

use vanish::blank_if_over;

/// The number of entries of one chat above which each newer one drops the oldest. Scrolling up drops none.
const MAX_SHOWN: usize = 2000;

/// One chat, as far as it is known.
#[derive(Debug, Default)]
pub struct Room {
    /// The chat itself; `None` until the client has told it.
    pub chat: Option<Chat>,
    entries: BTreeMap<Seq, Entry>,
    queued: Vec<QueuedMessage>,
    /// The marks up to which people have received and read the chat.
    pub marks: HashMap<UserId, Mark>,
    /// The members; empty until they are loaded.
    pub members: BTreeSet<UserId>,
    /// The people who are typing now.
    pub typing: BTreeSet<UserId>,
    /// True if the oldest entry at the server has been loaded.
    pub complete: bool,
    /// The first entry that was unread when the chat was opened.
    pub new_from: Option<Seq>,
    /// The text that the user had begun to write when they left the chat, until the server has it.
    pub draft: Option<String>,
}

impl Room {
    fn entries_mut(&mut self) -> btree_map::ValuesMut<'_, Seq, Entry> {
        self.entries.values_mut()
    }
}

/// Everything that is to be shown: chats, people and the connection.
#[derive(Debug)]
pub struct View {
    /// The user of this device.
    pub me: UserId,
    device: DeviceId,
    /// All chats that are known.
    pub rooms: HashMap<ChatId, Room>,
    names: HashMap<UserId, String>,
    /// The people that occur in chats and whose names are not known yet.
    pub nameless: BTreeSet<UserId>,
    /// The chat that is open on the screen.
    pub open: Option<ChatId>,
    /// The message of the open chat that is selected on the screen.
    pub selected: Option<Seq>,
    /// The message of the open chat with which the thread begins that is shown in place of the chat.
    pub thread: Option<Seq>,
    /// True if the archived chats are shown in the list.
    pub archive_open: bool,
    /// The messages that the last search has found, the newest first.
    pub found: Vec<Hit>,
    /// The ids of a chat's invite links, in the order in which they were shown last.
    pub invites: Option<(ChatId, Vec<String>)>,
    pub connection: Connection,
    presences: HashMap<UserId, Presence>,
    /// The files that are being sent or saved, by the id of the transfer.
    transfers: BTreeMap<u64, Transfer>,
}

/// The state of the connection, as the status line shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    Connecting,
    Connected {
        gateway: String,
        caught_up: bool,
    },
    Waiting {
        reason: String,
        until: Option<Timestamp>,
    },
    /// The server has ended the connection, for this reason. It stays ended until the user types /connect.
    Ended(&'static str),
}

impl View {
    /// Makes a view without chats.
    pub fn new(me: UserId, device: DeviceId) -> Self {
        Self {
            me,
            device,
            rooms: HashMap::new(),
            names: HashMap::new(),
            nameless: [me].into(),
            open: None,
            selected: None,
            thread: None,
            archive_open: false,
            found: Vec::new(),
            invites: None,
            connection: Connection::Connecting,
            presences: HashMap::new(),
            transfers: BTreeMap::new(),
        }
    }

    /// Applies an event of the client. `now` is the time by the monotonic clock.
    pub fn apply(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::Entry(entry) => {
                self.room(entry.chat).members_changed(entry);
                self.take_from_found(entry);
                self.add(entry.clone());
            }
            Event::Chat(chat) => self.set_chat(chat.clone()),
            Event::Send { request, chat, state } => self.sent(*request, *chat, state),
            Event::Receipt { chat, user, mark } => {
                self.see(*user);
                self.room(*chat).marks.insert(*user, *mark);
            }
            Event::Typing { chat, user, typing } => {
                self.see(*user);
                let room = self.room(*chat);
                if *typing {
                    room.typing.insert(*user);
                } else {
                    room.typing.remove(user);
                }
            }
            Event::Connected { gateway, .. } => {
                self.connection = Connection::Connected {
                    gateway: gateway.clone(),
                    caught_up: false,
                };
            }
            Event::CaughtUp => {
                if let Connection::Connected { caught_up, .. } = &mut self.connection {
                    *caught_up = true;
                }
            }
            Event::Disconnected { reason, retry_in } => {
                let until = retry_in.map(|delay| now + delay);
                // Without a connection the server tells of no changes, so all presence is unknown.
                self.presences.clear();
                self.connection = Connection::Waiting {
                    reason: words::lost(reason),
                    until,
                };
            }
            Event::Presence { user, presence } => drop(self.presences.insert(*user, *presence)),
            Event::Reset => {
                self.rooms.clear();
                (self.selected, self.thread) = (None, None);
                self.found.clear();
            }
            Event::Gone { chat, seqs } => self.hide(*chat, seqs),
            Event::JoinRequested { user, .. } => self.see(*user),
            Event::AccountChanged { .. } => {}
            Event::Watching { .. } | Event::Skipped { .. } | Event::Stopped(_) => {}
        }
    }

    /// Adds a chat, or replaces its former state.
    pub fn set_chat(&mut self, chat: Chat) {
        chat.peer.into_iter().for_each(|peer| self.see(peer));
        let id = chat.id;
        self.room(id).chat = Some(chat);
    }

    /// Adds names of people, without control characters.
    pub fn set_names(&mut self, names: HashMap<UserId, String>) {
        self.names
            .extend(names.into_iter().map(|(user, name)| (user, clean(&name))));
        self.nameless.retain(|user| !self.names.contains_key(user));
    }

    /// Adds the messages of the outbox that are not here yet. They stand in the order in which they were written.
    pub fn set_queued(&mut self, queued: Vec<QueuedMessage>) {
        for message in queued {
            let chat = message.chat;
            self.queue(message);
            self.room(chat).queued.sort_by_key(|queued| queued.created_at);
        }
    }

    /// Adds a message that this device is to send, unless it is here or its entry has come already.
    pub fn queue(&mut self, queued: QueuedMessage) {
        let (room, request) = (self.room(queued.chat), queued.message.request);
        let is_queued = room.queued.iter().any(|queued| queued.message.request == request);
        if !is_queued && !room.entries.values().any(|entry| entry.request == Some(request)) {
            room.queued.push(queued);
        }
    }

    /// Adds an entry, new or old. If this device sent it, its message leaves the queue.
    pub fn add(&mut self, mut entry: Entry) {
        entry.sender.into_iter().for_each(|sender| self.see(sender));
        for id in people_in(&entry) {
            self.see(id);
        }
        let own = entry.device == Some(self.device);
        let room = self.room(entry.chat);
        if own {
            room.queued
                .retain(|queued| entry.request != Some(queued.message.request));
        }
        let is_new = room
            .entries
            .last_key_value()
            .is_some_and(|(newest, _)| *newest < entry.seq);
        blank_if_over(&mut entry, Clock::wall());
        room.entries.insert(entry.seq, entry);
        if is_new && room.entries.len() > MAX_SHOWN {
            room.entries.pop_first();
            room.complete = false;
        }
    }

    fn sent(&mut self, request: RequestId, chat: ChatId, state: &SendState) {
        let room = self.room(chat);
        if let Some(queued) = room
            .queued
            .iter_mut()
            .find(|queued| queued.message.request == request)
        {
            queued.state = state.clone();
        }
    }

    /// Returns a chat, which is created empty if it is not known.
    pub fn room(&mut self, chat: ChatId) -> &mut Room {
        self.rooms.entry(chat).or_default()
    }

    /// Notes a person who occurs in a chat, so that the person's name is asked for.
    pub fn see(&mut self, user: UserId) {
        if !self.names.contains_key(&user) {
            self.nameless.insert(user);
        }
    }

    /// Returns a person's name: "you" for the user, "…" if it is not known yet.
    pub fn name(&self, user: UserId) -> String {
        if user == self.me {
            return "you".to_owned();
        }
        self.names.get(&user).cloned().unwrap_or_else(|| "…".to_owned())
    }

    /// Returns a person with this name, compared without case. If several have the name, it is any of them.
    pub fn person(&self, name: &str) -> Option<UserId> {
        self.names
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(user, _)| *user)
    }

    /// Returns the title of a chat to show; "…" if it is not known.
    pub fn title(&self, chat: ChatId) -> String {
        let Some(room) = self.rooms.get(&chat) else {
            return "…".to_owned();
        };
        match room.chat.as_ref() {
            Some(Chat {
                kind: ChatKind::Group,
                title,
                ..
            }) if !title.is_empty() => clean(title),
            Some(Chat {
                kind: ChatKind::Group,
                ..
            }) => "a group".to_owned(),
            Some(Chat {
                kind: ChatKind::Self_,
                ..
            }) => "your own notes".to_owned(),
            Some(Chat { peer: Some(peer), .. }) => self.name(*peer),
            _ => "…".to_owned(),
        }
    }

    /// Returns the chat with this number in the list (from 1) or with this title, compared without case.
    pub fn chat_named(&self, name: &str) -> Option<ChatId> {
        let chats = self.chats();
        if let Some(chat) = name
            .parse::<usize>()
            .ok()
            .and_then(|number| chats.get(number.checked_sub(1)?).copied())
        {
            return Some(chat.id);
        }
        chats
            .iter()
            .map(|chat| chat.id)
            .find(|chat| self.title(*chat).eq_ignore_ascii_case(name))
    }

    /// Returns the seq of the oldest entry that is loaded.
    pub fn oldest(&self, chat: ChatId) -> Option<Seq> {
        self.rooms.get(&chat)?.entries.keys().next().copied()
    }

    /// Returns the seq of the newest entry that is loaded.
    pub fn newest(&self, chat: ChatId) -> Option<Seq> {
        self.rooms.get(&chat)?.entries.keys().next_back().copied()
    }

    /// Sets the progress of a transfer; `None` removes it, because the transfer has ended.
    pub fn set_transfer(&mut self, id: u64, transfer: Option<Transfer>) {
        match transfer {
            Some(transfer) => drop(self.transfers.insert(id, transfer)),
            None => drop(self.transfers.remove(&id)),
        }
    }
}

fn people_in(entry: &Entry) -> Vec<UserId> {
    let ids: Vec<&String> = match &entry.content.content {
        Some(Content::MembersAdded(added)) => added.user_ids.iter().collect(),
        Some(Content::MemberRemoved(removed)) => vec![&removed.user_id, &removed.new_owner_user_id],
        Some(Content::RoleChanged(changed)) => vec![&changed.user_id],
        _ => Vec::new(),
    };
    ids.into_iter().filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
