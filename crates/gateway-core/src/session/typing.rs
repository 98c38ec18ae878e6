//! This module limits the typing notices of a device: for each chat one passes in 3 s. What is remembered for that is
//! forgotten soon after.

use std::time::Duration;

use tern_types::typing::Typist;
use tern_types::{ChatId, Timestamp};

/// The most chats that are remembered at a time. A person types in one. A chat is remembered for 6 s. So if a
/// client names a different chat each time, no more than this many of its notices pass in 6 s.
const MAX_CHATS: usize = 8;
/// The time by which a notice may come early: a client that sends one every 3 s sends it a little sooner or later.
const LEEWAY: Duration = Duration::from_millis(500);

/// The chats in which the device lately said that its user is typing.
#[derive(Debug, Default)]
pub(super) struct Typing(Vec<(ChatId, Typist)>);

impl Typing {
    /// Counts a typing notice for the chat. Returns whether it is passed on.
    pub(super) fn take(&mut self, chat: ChatId, stopped: bool, now: Timestamp) -> bool {
        self.0.retain(|(_, typist)| !typist.is_over(now));
        if let Some((_, typist)) = self.0.iter_mut().find(|(of, _)| *of == chat) {
            return typist.take(stopped, LEEWAY, now);
        }
        let mut typist = Typist::default();
        let passes = self.0.len() < MAX_CHATS && typist.take(stopped, LEEWAY, now);
        if passes {
            self.0.push((chat, typist));
        }
        passes
    }

    /// Notes that the user sent a message to the chat, which ends the typing there.
    pub(super) fn wrote(&mut self, chat: ChatId, now: Timestamp) {
        if let Some((_, typist)) = self.0.iter_mut().find(|(of, _)| *of == chat) {
            typist.wrote(now);
        }
    }
}
