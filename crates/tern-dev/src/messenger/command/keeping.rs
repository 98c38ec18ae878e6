//! The commands about how the user keeps the open chat. The user's other devices follow, and nobody else is told.

use super::parts::seconds;

/// A change of how the user keeps the open chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Mutes the chat for this many seconds; `None` is for ever.
    Mute(Option<u32>),
    /// Ends that the chat is muted.
    Unmute,
    /// Puts the chat into the archive, or with false takes it out.
    Archive(bool),
    /// Pins the chat to the top of the list, or with false ends that.
    Pin(bool),
    /// Shows the chat as unread, until it is read again.
    Unread,
}

impl Keeping {
    /// Returns the command that begins with `word` and goes on with `rest`. `None` if there is no such command, or if
    /// `rest` does not fit it.
    pub(super) fn of_word(word: &str, rest: &str) -> Option<Self> {
        Some(match (word, rest) {
            ("mute", "" | "always") => Self::Mute(None),
            ("mute", "off") => Self::Unmute,
            ("mute", time) => Self::Mute(Some(seconds(time)?)),
            ("archive", "") => Self::Archive(true),
            ("unarchive", "") => Self::Archive(false),
            ("pinchat", "") => Self::Pin(true),
            ("unpinchat", "") => Self::Pin(false),
            ("unread", "") => Self::Unread,
            _ => return None,
        })
    }
}
