//! The view of a shard that operators and metrics have. Nothing here changes anything.

use std::collections::HashMap;

use tern_types::{ChatId, DeviceId, Seq, TraceContext, UserId};

use super::ShardState;
use crate::chat::Stage;
use crate::receipts::Watermark;

/// The facts about a chat that its owner knows beyond the store.
#[derive(Debug, Clone, Default)]
pub struct Inspected {
    /// The watermarks of the present members.
    pub marks: HashMap<UserId, Watermark>,
    /// The highest acknowledgement of each device that acknowledged unsettled entries.
    pub acks: HashMap<DeviceId, Seq>,
    /// The newest traced entries, and the trace context of each.
    pub traces: Vec<(Seq, TraceContext)>,
}

/// The measures of how busy a shard is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busyness {
    /// True if one of its writers has a job.
    pub busy: bool,
    /// The number of callers that wait for an answer.
    pub waiting: usize,
    /// The number of chats in memory.
    pub chats: usize,
    /// The number of chats with unsettled entries.
    pub unsettled: usize,
}

impl ShardState {
    /// Returns the facts about a chat that this owner knows beyond the store; `None` if the chat is not loaded.
    pub fn inspect(&self, chat: ChatId) -> Option<Inspected> {
        let chat = self.chats.get(&chat).filter(|chat| chat.stage == Stage::Ready)?;
        Some(Inspected {
            marks: chat
                .members()
                .map(|(user, _)| (user, chat.receipts.mark(user)))
                .collect(),
            acks: chat.acks().collect(),
            traces: chat.traced.iter().copied().collect(),
        })
    }

    /// Returns how busy this shard is.
    pub fn busyness(&self) -> Busyness {
        Busyness {
            busy: self.busy != [false; 2],
            waiting: self.waiting(),
            chats: self.chats(),
            unsettled: self.unsettled(),
        }
    }
}
