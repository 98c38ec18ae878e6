//! Makes the lines of a chat: its messages as they are now, what happened in it, and what this device is still to send.

use tern_client::media::safe_name;
use tern_client::{Act, Deletion, Entry, Mark, Message, Messages, Outgoing, QueuedMessage, SendState};
use tern_proto::v1::{AttachedFile, AttachmentBody};
use tern_types::{ChatId, Clock, RequestId, Seq, Timestamp, UserId};

use super::messages::{is_in, was_refused};
use super::{Room, View, author};
use crate::messenger::transfer::size;
use crate::messenger::words::{clean, refusal};

/// The largest number of characters of an earlier message that are repeated in another line.
const QUOTED: usize = 60;

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
    /// The beginning of the message that this one answers, as in "Bob: hello".
    pub quote: Option<String>,
    /// True if the message is pinned.
    pub pinned: bool,
    /// True if the message was passed on from another chat.
    pub forwarded: bool,
    /// True if the message was edited.
    pub edited: bool,
    /// True if the message was deleted. The text says so.
    pub deleted: bool,
    /// The reactions to the message, as in "👍 Bob" and "👍 3".
    pub reactions: Vec<String>,
    /// The number of replies in the thread that begins with the message, as far as they are loaded.
    pub replies: u32,
    /// The tick of an own message; `None` for other lines.
    pub tick: Option<Tick>,
}

impl Line {
    fn new(seq: Option<Seq>, at: Timestamp, who: Option<UserId>, text: String) -> Self {
        Self {
            seq,
            at,
            who,
            text,
            quote: None,
            pinned: false,
            forwarded: false,
            edited: false,
            deleted: false,
            reactions: Vec::new(),
            replies: 0,
            tick: None,
        }
    }

    /// Returns the text with all its signs, as in "📌 hello (edited)  [👍 2]  [3 replies]".
    pub fn shown(&self) -> String {
        let mut shown = String::new();
        if self.pinned {
            shown.push_str("📌 ");
        }
        if self.forwarded {
            shown.push_str("(forwarded) ");
        }
        shown.push_str(&self.text);
        if self.edited {
            shown.push_str(" (edited)");
        }
        for reaction in &self.reactions {
            shown.push_str(&format!("  [{reaction}]"));
        }
        match self.replies {
            0 => {}
            1 => shown.push_str("  [1 reply]"),
            replies => shown.push_str(&format!("  [{replies} replies]")),
        }
        shown
    }
}

impl View {
    /// Returns the timeline: messages and what happened in the chat, then messages that are not sent yet, then
    /// transfers. If a thread of the chat is open, only that is returned.
    pub fn lines(&self, chat: ChatId) -> Vec<Line> {
        self.lines_of(chat, self.thread.filter(|_| self.open == Some(chat)))
    }

    /// Returns the lines of the thread that begins with this message, as far as it is loaded; without one, the whole
    /// timeline.
    pub fn lines_of(&self, chat: ChatId, thread: Option<Seq>) -> Vec<Line> {
        let Some(room) = self.rooms.get(&chat) else {
            return Vec::new();
        };
        let messages = self.messages(room);
        let entries = room.entries.values().filter_map(|entry| {
            if let Some(message) = messages.get(entry.seq) {
                // The view of a thread has the replies below, so it does not count them.
                let line = || Line {
                    replies: thread.map_or(message.reply_count, |_| 0),
                    ..self.message_line(room, &messages, message)
                };
                return is_in(thread, message).then(line);
            }
            let text = self.happening(entry).filter(|_| thread.is_none())?;
            Some(Line::new(Some(entry.seq), entry.sent_at, None, text))
        });
        // What waits to be done to a message is shown there, unless it was refused.
        let apart = |queued: &&QueuedMessage| {
            let root = queued.message.envelope.thread_root_seq;
            let shown = thread.is_none_or(|thread| thread == Seq(root));
            shown && (queued.message.act() == Act::Message || was_refused(queued))
        };
        let queued = room.queued.iter().filter(apart);
        let queued = queued.map(|queued| self.queued_line(&messages, queued));
        let moving = self.transfers.values().filter(|moving| moving.chat == chat);
        let moving = moving.map(|moving| Line::new(None, Clock::wall(), None, moving.line()));
        entries.chain(queued).chain(moving).collect()
    }

    fn message_line(&self, room: &Room, messages: &Messages, message: &Message) -> Line {
        let entry = &message.entry;
        let text = author::signed(entry, self.said(message));
        let own = entry.sender == Some(self.me) && message.deleted.is_none();
        Line {
            quote: self.quote(messages, message.reply_to().or(message.thread_root())),
            pinned: message.pinned,
            forwarded: message.times_forwarded() > 0,
            edited: message.edited_at.is_some(),
            deleted: message.deleted.is_some(),
            reactions: self.reactions(message),
            tick: own.then(|| self.tick(room, entry.seq)),
            ..Line::new(Some(entry.seq), entry.sent_at, entry.sender, text)
        }
    }

    fn queued_line(&self, messages: &Messages, queued: &QueuedMessage) -> Line {
        let tick = match &queued.state {
            SendState::Queued => Tick::Waiting,
            SendState::Sent { .. } => Tick::Sent,
            SendState::Failed {
                code,
                message,
                retry_at,
            } => Tick::Failed(refusal(*code, message, *retry_at)),
        };
        let (message, envelope) = (&queued.message, &queued.message.envelope);
        let answered = [envelope.reply_to_seq, envelope.thread_root_seq];
        let answered = answered.into_iter().find(|seq| *seq > 0).map(Seq);
        Line {
            quote: self.quote(messages, answered),
            forwarded: envelope.times_forwarded > 0,
            tick: Some(tick),
            ..Line::new(
                None,
                queued.created_at,
                Some(self.me),
                self.attempted(messages, message),
            )
        }
    }

    /// Returns the text of a message that is not sent, or says what was to be done to an earlier one. Returns `None` if
    /// no such message waits or was refused.
    pub fn unsent(&self, chat: ChatId, request: RequestId) -> Option<String> {
        let room = self.rooms.get(&chat)?;
        let mut queued = room.queued.iter();
        let queued = queued.find(|queued| queued.message.request == request)?;
        Some(self.attempted(&self.messages(room), &queued.message))
    }

    /// Returns the text of a message that is not sent, or says what was to be done to an earlier one.
    fn attempted(&self, messages: &Messages, message: &Outgoing) -> String {
        let text = || text(&message.body, message.attached(), None);
        let target = message.act().target().and_then(|target| messages.get(target));
        let about = target.map_or(String::new(), |target| format!(" “{}”", self.first_line(target)));
        match message.act() {
            Act::Edit { .. } => format!("(edit of{about}) {}", text()),
            Act::Delete { .. } => format!("(deletion of{about})"),
            Act::React { take_back, .. } => {
                let what = if take_back { "no reaction" } else { "reaction" };
                format!("({what} to{about}) {}", text())
            }
            Act::Pin { take_back: true, .. } => format!("(end of the pin of{about})"),
            Act::Pin { .. } => format!("(pin of{about})"),
            Act::Message | Act::Erased | Act::Nothing => text(),
        }
    }

    /// Returns what a message says now, with its files. If it was deleted, the text says so.
    pub(super) fn said(&self, message: &Message) -> String {
        if let Some(deletion) = message.deleted {
            return self.deleted(&message.entry, deletion);
        }
        let entry = &message.entry;
        let body = entry.message().map_or(&[][..], |message| &message.body[..]);
        text(body, entry.attached(), Some(entry.seq))
    }

    fn deleted(&self, entry: &Entry, deletion: Deletion) -> String {
        match deletion.by {
            Some(by) if by == self.me => "You deleted this message".to_owned(),
            Some(by) if Some(by) != entry.sender => format!("This message was deleted by {}", self.name(by)),
            _ => "This message was deleted".to_owned(),
        }
    }

    /// Returns the first line of a message, cut off if it is long.
    pub(super) fn first_line(&self, message: &Message) -> String {
        let said = self.said(message);
        let line = said.lines().next().unwrap_or_default();
        if line.chars().count() <= QUOTED {
            return line.to_owned();
        }
        line.chars().take(QUOTED - 1).chain(['…']).collect()
    }

    /// Returns the author and the first line of the message that another one answers.
    fn quote(&self, messages: &Messages, answered: Option<Seq>) -> Option<String> {
        Some(match messages.get(answered?) {
            Some(message) => format!("{}: {}", self.author(&message.entry), self.first_line(message)),
            None => "an earlier message".to_owned(),
        })
    }

    /// Returns the reactions to a message, equal ones together: with the name of a single person, else with a number.
    fn reactions(&self, message: &Message) -> Vec<String> {
        let shown = message.reactions.iter().map(|reaction| {
            let key = clean(&reaction.text());
            match reaction.users.as_slice() {
                [user] => format!("{key} {}", self.actor(*user)),
                users if reaction.is_by(self.me) => format!("{key} {}, you too", users.len()),
                users => format!("{key} {}", users.len()),
            }
        });
        shown.collect()
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
}

/// Returns a message's text followed by its files, each file with the command that saves it.
fn text(body: &[u8], attached: Option<AttachmentBody>, seq: Option<Seq>) -> String {
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
