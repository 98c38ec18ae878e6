//! What a shard tells operators: nothing here changes anything.

use std::collections::HashMap;

use tern_types::{ChatId, DeviceId, Seq, TraceContext, UserId};

use super::ShardState;
use crate::state::chat::Stage;
use crate::state::receipts::Watermark;

/// What the owner knows of a chat beyond the store.
#[derive(Debug, Clone, Default)]
pub struct Inspected {
    pub marks: HashMap<UserId, Watermark>,
    /// Acknowledgements of what is not settled.
    pub acks: HashMap<DeviceId, Seq>,
    /// Of the last traced entries.
    pub traces: Vec<(Seq, TraceContext)>,
}

/// How much a shard has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub busy: bool,
    pub waiting: usize,
    pub chats: usize,
    pub unsettled: usize,
}

impl ShardState {
    /// `None`: the chat is not loaded.
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

    pub fn load(&self) -> Load {
        Load {
            busy: self.busy != [false; 2],
            waiting: self.waiting(),
            chats: self.chats(),
            unsettled: self.unsettled(),
        }
    }
}
