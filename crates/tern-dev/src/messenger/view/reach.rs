//! Tells who received and read own messages, and who is typing.

use tern_client::MessageReceipts;
use tern_proto::v1::ChatKind;
use tern_types::{ChatId, Seq, UserId};

use super::View;

/// The largest number of people that are listed by name; more are only counted.
const NAMED: usize = 5;

impl View {
    /// Returns the seq of the user's last message in a group, and the line below it that says who received and who read
    /// it. `None` in a direct chat, or if nobody received it yet.
    pub fn details(&self, chat: ChatId) -> Option<(Seq, String)> {
        let room = self.rooms.get(&chat)?;
        room.chat.as_ref().filter(|chat| chat.kind == ChatKind::Group)?;
        let others = room.others(self.me);
        let seq = self.own_message(chat, 1)?;
        let (mut read, mut delivered) = (Vec::new(), Vec::new());
        for (user, mark) in room.marks_of_others(self.me) {
            if mark.read >= seq {
                read.push(user);
            } else if mark.delivered >= seq {
                delivered.push(user);
            }
        }
        let mut parts = Vec::new();
        if !read.is_empty() {
            let names = match read.len() {
                ..=NAMED => format!(" ({})", self.names_of(&read)),
                _ => String::new(),
            };
            parts.push(format!("read by {} of {others}{names}", read.len()));
        }
        match delivered.len() {
            0 => {}
            1..=NAMED => parts.push(format!("delivered to {}", self.names_of(&delivered))),
            count => parts.push(format!("delivered to {count} more")),
        }
        (!parts.is_empty()).then(|| (seq, parts.join(" · ")))
    }

    /// Returns a text that lists everybody who read, who received, and who did not receive a message.
    pub fn reached(&self, chat: ChatId, seq: Seq, receipts: &MessageReceipts) -> String {
        let message = self.message(chat, seq);
        let text = message.as_ref().and_then(|message| message.entry.text());
        let mut parts = vec![format!(
            "“{}”: read by {} of {}",
            super::clean(&text.unwrap_or_default()),
            receipts.read.len(),
            receipts.members()
        )];
        let kinds = [
            ("read", &receipts.read),
            ("delivered", &receipts.delivered),
            ("not yet", &receipts.waiting),
        ];
        for (what, users) in kinds.into_iter().filter(|(_, users)| !users.is_empty()) {
            parts.push(format!("{what}: {}", self.names_of(users)));
        }
        parts.join(" · ")
    }

    /// Returns who is typing, as in "Alice is typing …", or `None` if nobody is.
    pub fn typing(&self, chat: ChatId) -> Option<String> {
        let typing: Vec<UserId> = self.rooms.get(&chat)?.typing.iter().copied().collect();
        match typing.as_slice() {
            [] => None,
            [one] => Some(format!("{} is typing …", self.name(*one))),
            [_, _] => Some(format!("{} are typing …", self.names_of(&typing))),
            more => Some(format!("{} people are typing …", more.len())),
        }
    }

    fn names_of(&self, users: &[UserId]) -> String {
        let mut names: Vec<String> = users.iter().map(|user| self.name(*user)).collect();
        names.sort();
        names.join(", ")
    }
}
