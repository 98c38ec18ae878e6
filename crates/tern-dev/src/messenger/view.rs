//! Keeps chats, timelines and ticks as they are shown. The code is pure: events and answers go in, lines come out.
//!
//! - [`author`]: names the sender of an entry; [`members`]: the members of a chat, and what follows from them
//! - [`presence`]: who is online or was last seen when; [`reach`]: who received and read messages, and who is typing

mod author;
mod members;
mod presence;
mod reach;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tern_client::media::safe_name;
use tern_client::{Chat, Entry, Event, Mark, Presence, QueuedMessage, SendState};
use tern_proto::v1::{AttachedFile, AttachmentBody, ChatKind, MessageKind, entry_content::Content};
use tern_types::{ChatId, Clock, DeviceId, RequestId, Seq, Timestamp, UserId};

use super::transfer::{Transfer, size};
use super::words::{self, clean, refusal};

/// The number of entries of one chat above which each newer one drops the oldest. Scrolling up drops none.
const MAX_SHOWN: usize = 2000;

/// The sign beside an own message, which says how far the message has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tick {
    Waiting,
    Sent,
    Delivered,
    Read,
    Failed(String),
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The seq; `None` for a message that is not in the chat's log yet.
    pub seq: Option<Seq>,
    /// The time of the message.
    pub at: Timestamp,
    /// The writer; `None` if no person wrote the line, as in "Bob left".
    pub who: Option<UserId>,
    pub text: String,
    /// The reactions to the message, as in "👍 Bob".
    pub reactions: Vec<String>,
    /// The tick of an own message; `None` for other lines.
    pub tick: Option<Tick>,
}

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
}

impl Room {
    /// Returns the entry with this seq if it is among those that are shown.
    pub fn entry(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(&seq)
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
            Event::Reset => self.rooms.clear(),
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

    /// Replaces the queued messages of all chats by these.
    pub fn set_queued(&mut self, queued: Vec<QueuedMessage>) {
        self.rooms.values_mut().for_each(|room| room.queued.clear());
        for message in queued {
            self.room(message.chat).queued.push(message);
        }
    }

    /// Adds a message that this device is to send, unless its entry has come already.
    pub fn queue(&mut self, queued: QueuedMessage) {
        let room = self.room(queued.chat);
        if !room
            .entries
            .values()
            .any(|entry| entry.request == Some(queued.message.request))
        {
            room.queued.push(queued);
        }
    }

    /// Adds an entry, new or old. If this device sent it, its message leaves the queue.
    pub fn add(&mut self, entry: Entry) {
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

    /// Returns the chats for the list, most recently active first.
    pub fn chats(&self) -> Vec<&Chat> {
        let mut chats: Vec<&Chat> = self
            .rooms
            .values()
            .filter_map(|room| room.chat.as_ref())
            .collect();
        chats.retain(|chat| chat.kind != ChatKind::Self_);
        chats.sort_by_key(|chat| (std::cmp::Reverse(chat.active_at), chat.id));
        chats
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

    /// Returns the timeline: the entries with their reactions, then messages that are not sent yet, then transfers.
    pub fn lines(&self, chat: ChatId) -> Vec<Line> {
        let Some(room) = self.rooms.get(&chat) else {
            return Vec::new();
        };
        let mut lines: BTreeMap<Seq, Line> = BTreeMap::new();
        for (seq, entry) in &room.entries {
            match self.line(room, entry) {
                Folded::Line(line) => drop(lines.insert(*seq, line)),
                Folded::Into(target, reaction) => {
                    if let Some(line) = lines.get_mut(&target) {
                        line.reactions.push(reaction);
                    }
                }
                Folded::Nothing => {}
            }
        }
        let queued = room.queued.iter().map(|queued| self.queued_line(queued));
        let moving = self.transfers.values().filter(|moving| moving.chat == chat);
        let moving = moving.map(|moving| Line {
            seq: None,
            at: Clock::wall(),
            who: None,
            text: moving.line(),
            reactions: Vec::new(),
            tick: None,
        });
        lines.into_values().chain(queued).chain(moving).collect()
    }

    /// Sets the progress of a transfer; `None` removes it, because the transfer has ended.
    pub fn set_transfer(&mut self, id: u64, transfer: Option<Transfer>) {
        match transfer {
            Some(transfer) => drop(self.transfers.insert(id, transfer)),
            None => drop(self.transfers.remove(&id)),
        }
    }

    fn line(&self, room: &Room, entry: &Entry) -> Folded {
        let line = |who, text| Line {
            seq: Some(entry.seq),
            at: entry.sent_at,
            who,
            text,
            reactions: Vec::new(),
            tick: None,
        };
        let Some(message) = entry.message() else {
            return self
                .happening(entry)
                .map_or(Folded::Nothing, |text| Folded::Line(line(None, text)));
        };
        let text = said(&message.body, entry.attached(), Some(entry.seq));
        let envelope = message.envelope.clone().unwrap_or_default();
        let target = Seq(envelope.target_seq);
        match MessageKind::try_from(envelope.kind) {
            Ok(MessageKind::Reaction) => {
                let who = self.author(entry);
                Folded::Into(target, format!("{text} {who}"))
            }
            Ok(MessageKind::Message | MessageKind::Unspecified) => {
                let tick = (entry.sender == Some(self.me)).then(|| self.tick(room, entry.seq));
                let text = author::signed(entry, text);
                Folded::Line(Line {
                    tick,
                    ..line(entry.sender, text)
                })
            }
            // The messages are shown as they were sent.
            Ok(MessageKind::Edit | MessageKind::Delete | MessageKind::Pin) => Folded::Nothing,
            // This version does not know the kind of the message.
            Err(_) => Folded::Nothing,
        }
    }

    fn queued_line(&self, queued: &QueuedMessage) -> Line {
        let tick = match &queued.state {
            SendState::Queued => Tick::Waiting,
            SendState::Sent { .. } => Tick::Sent,
            SendState::Failed { code, message } => Tick::Failed(refusal(*code, message)),
        };
        Line {
            seq: None,
            at: queued.created_at,
            who: Some(self.me),
            text: said(&queued.message.body, queued.message.attached(), None),
            reactions: Vec::new(),
            tick: Some(tick),
        }
    }

    /// Returns the tick of an own message. It is delivered or read only when that holds for all other members.
    fn tick(&self, room: &Room, seq: Seq) -> Tick {
        // A message that has no other recipients stays at "sent".
        let others = room.others(self.me).max(1);
        let count = |reached: fn(&Mark) -> Seq| {
            let marks = room.marks_of_others(self.me);
            marks.filter(|(_, mark)| reached(mark) >= seq).count()
        };
        if count(|mark| mark.read) >= others {
            Tick::Read
        } else if count(|mark| mark.delivered) >= others {
            Tick::Delivered
        } else {
            Tick::Sent
        }
    }

    /// Returns the text for an entry that is not a message, as in "Bob left".
    fn happening(&self, entry: &Entry) -> Option<String> {
        let who = self.author(entry);
        let name = |id: &String| id.parse().map_or_else(|_| "…".to_owned(), |id| self.name(id));
        let names = |ids: &[String]| ids.iter().map(name).collect::<Vec<_>>().join(", ");
        Some(match entry.content.content.as_ref()? {
            Content::ChatCreated(created) => format!("{who} made the group “{}”", clean(&created.title)),
            Content::MembersAdded(added) => format!("{who} added {}", names(&added.user_ids)),
            Content::MemberRemoved(removed) if removed.left => format!("{} left", name(&removed.user_id)),
            Content::MemberRemoved(removed) => format!("{who} removed {}", name(&removed.user_id)),
            Content::RoleChanged(changed) => {
                format!(
                    "{who} made {} {}",
                    name(&changed.user_id),
                    words::role(changed.role())
                )
            }
            Content::ChatUpdated(updated) => format!("{who} named the group “{}”", clean(&updated.title)),
            Content::ChatPictureChanged(changed) if changed.media_id.is_empty() => {
                format!("{who} removed the group's picture")
            }
            Content::ChatPictureChanged(_) => format!("{who} set a new picture of the group"),
            Content::Erased(erased) if is_message(erased.kind) => format!("a message of {who} was deleted"),
            Content::Erased(_) | Content::Message(_) => return None,
        })
    }
}

/// Returns whether an entry of this kind is a message, and does nothing to another.
fn is_message(kind: i32) -> bool {
    matches!(
        MessageKind::try_from(kind),
        Ok(MessageKind::Message | MessageKind::Unspecified)
    )
}

/// Returns a message's text followed by its files, each file with the command that saves it.
fn said(body: &[u8], attached: Option<AttachmentBody>, seq: Option<Seq>) -> String {
    let Some(attached) = attached else {
        return clean(&String::from_utf8_lossy(body));
    };
    let file = |file: &AttachedFile| {
        let name = safe_name(&file.name);
        let save = seq.map_or(String::new(), |seq| format!(" · /save {seq}"));
        format!("[{name} · {}{save}]", size(file.length))
    };
    let text = (!attached.text.is_empty()).then(|| clean(&attached.text));
    let parts: Vec<String> = text.into_iter().chain(attached.files.iter().map(file)).collect();
    parts.join(" ")
}

/// The form of an entry in the timeline: a line, a part of another line, or nothing.
enum Folded {
    Line(Line),
    /// A reaction to the message with this seq.
    Into(Seq, String),
    Nothing,
}

fn people_in(entry: &Entry) -> Vec<UserId> {
    let ids: &[String] = match &entry.content.content {
        Some(Content::MembersAdded(added)) => &added.user_ids,
        Some(Content::MemberRemoved(removed)) => std::slice::from_ref(&removed.user_id),
        Some(Content::RoleChanged(changed)) => std::slice::from_ref(&changed.user_id),
        _ => &[],
    };
    ids.iter().filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
