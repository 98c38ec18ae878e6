//! The facts that a worker found out about a push that is due, right before it would send it. Times are those of the
//! store's clock.

use tern_types::{Seq, Timestamp, UserId};

use crate::quiet::QuietHours;

/// A push as it was claimed: an inbox row of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The time since which the push is due.
    pub since: Timestamp,
    /// True if a notification of the chat was shown since the device last acknowledged something of it.
    pub notified: bool,
}

/// The device, as its user's account has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recipient {
    /// True if the device is linked and was not revoked.
    pub active: bool,
    /// True if its user is suspended.
    pub suspended: bool,
    /// True if the device has said where it gets its pushes.
    pub has_token: bool,
}

/// The reason why an entry is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A message that is to wake the app, but to show nothing.
    Silent,
    /// A message.
    Message,
    /// A message that mentions the user.
    Mention,
    /// A reaction to a message of the user.
    Reaction,
    /// The user was added to the group.
    Added,
    /// An entry of the user's own log that the person should see at once.
    OwnLog,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Silent,
        Self::Message,
        Self::Mention,
        Self::Reaction,
        Self::Added,
        Self::OwnLog,
    ];

    /// Returns the number, which is that of `tern.v1.NotificationReason`, and 0 for a message that shows nothing.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Returns the reason with this number, and `None` if there is none.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }
}

/// The newest entry that one person announces for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The seq of the entry.
    pub seq: Seq,
    /// The sender. [`UserId::SYSTEM`] stands for the server or a back end.
    pub sender: UserId,
    /// The reason why it is announced.
    pub reason: Reason,
    /// The time at which it was sent.
    pub sent_at: Timestamp,
    /// True if the user has blocked the sender.
    pub blocked: bool,
}

/// The part of a chat that waits for the device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// True if the user is a member of the chat, or was one.
    pub is_member: bool,
    /// True if the chat has entries that the user may read and that are after their read mark.
    pub unread: bool,
    /// The entries that announce something, are after the read mark, and were not acknowledged by the device.
    pub announced: Vec<Announced>,
}

/// The user's settings of the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// The time until which the chat is muted. If it has passed, the chat is not muted.
    pub muted_until: Timestamp,
    /// True if only messages that mention the user are announced.
    pub mentions_only: bool,
}

/// The answer to whether the device has a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has none.
    Offline,
    /// It has one, and nobody is at the app.
    Live,
    /// It has one, and the person is at the app on this device.
    Active,
    /// It is not known.
    Unsure,
}

/// All that decides about a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The device.
    pub recipient: Recipient,
    /// The part of the chat that waits for it; `None` if the row has ended or changed since it was claimed.
    pub waiting: Option<Waiting>,
    /// The user's settings of the chat; `None` if they could not be read.
    pub settings: Option<Settings>,
    /// The user's quiet hours, if there are any.
    pub quiet: Option<QuietHours>,
    /// The presence of the device.
    pub presence: Presence,
    /// The number of pushes to the device in the last minute.
    pub pushed_lately: u32,
}
