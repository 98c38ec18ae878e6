//! The results that work beside the screen brings to the view, and the work that a command leaves to the screen.

use std::collections::HashMap;

use tern_client::{Chat, Entry, Hit, Mark, Message, MessageReceipts, QueuedMessage};
use tern_types::{ChatId, Seq, UserId};

use crate::messenger::transfer::Transfer;

/// A result of work that ran as a task of its own, to be applied to the view.
#[derive(Debug)]
pub enum Update {
    /// Entries of a chat. `complete` says that there are no older ones.
    History {
        chat: ChatId,
        entries: Vec<Entry>,
        complete: bool,
    },
    /// The marks up to which the other members have received and read a chat.
    Marks {
        chat: ChatId,
        marks: HashMap<UserId, Mark>,
    },
    /// All members of a chat.
    Members { chat: ChatId, members: Vec<UserId> },
    /// The names of people.
    Names(HashMap<UserId, String>),
    /// The people that one of the user's own messages reached.
    Reached {
        chat: ChatId,
        seq: Seq,
        receipts: MessageReceipts,
    },
    /// A chat that the server has just made. The client tells the same by an event, which may come later.
    Made(Box<Chat>),
    /// A chat that is to be opened on the screen now.
    Open(ChatId),
    /// Messages that were found, and a title for the list of them.
    Found { title: &'static str, hits: Vec<Hit> },
    /// A message that is to be shown, with its neighbours.
    Show {
        chat: ChatId,
        seq: Seq,
        around: Vec<Message>,
        /// The chat's entries from there to the newest one. They are none if there are too many for the screen.
        entries: Vec<Entry>,
    },
    /// The progress of the transfer with this id; `None` if it has ended.
    Transfer(u64, Option<Transfer>),
    /// A sign that the user may now see the presence of other people than before, so that presence has to be asked for
    /// again.
    Watch,
    /// The messages that this device is still to send.
    Outbox(Vec<QueuedMessage>),
    /// Lines to read in peace, with a title.
    Lines { title: &'static str, lines: Vec<String> },
    /// The ids of a chat's invite links, in the order in which they were shown.
    Invites { chat: ChatId, ids: Vec<String> },
    /// Messages that the user has deleted for themselves.
    Hidden { chat: ChatId, seqs: Vec<Seq> },
    /// The server has this draft now.
    DraftKept { chat: ChatId, draft: String },
    /// A text to show to the user.
    Notice(String),
}

/// The work that a command leaves to the screen.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do.
    Done,
    /// The text was not taken, because of what the user is told. It is to stay where it was typed.
    Kept(String),
    /// The thread that begins with this message of the open chat is to be shown.
    Thread(Seq),
    /// The help is to be shown.
    Help,
    /// The program is to end.
    Quit,
    /// The client was started anew. [`super::Desk::new_events`] has its events.
    Connected,
}
