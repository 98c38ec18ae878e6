//! That the person writes: passed on once in 3 s for each chat, and never remembered for long.

use std::time::Duration;

use tern_types::typing::Typist;
use tern_types::{ChatId, Timestamp};

use super::{Effect, Session};

/// Chats at once. A person writes in one; a client that names ever others is passed on no faster than this many in 3 s.
const MAX_CHATS: usize = 8;
/// Frames of a client that keeps to 3 s come a little sooner or later.
const LEEWAY: Duration = Duration::from_millis(500);

/// The chats in which the device said so lately.
#[derive(Debug, Default)]
pub(super) struct Typing(Vec<(ChatId, Typist)>);

impl Typing {
    /// Whether it is passed on.
    fn take(&mut self, chat: ChatId, stopped: bool, now: Timestamp) -> bool {
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

    /// The message itself ends it.
    pub(super) fn wrote(&mut self, chat: ChatId, now: Timestamp) {
        if let Some((_, typist)) = self.0.iter_mut().find(|(of, _)| *of == chat) {
            typist.wrote(now);
        }
    }
}

impl Session {
    pub(super) fn typing(&mut self, chat: ChatId, stopped: bool, now: Timestamp) {
        self.sign(now);
        let effect = if self.typing.take(chat, stopped, now) {
            Effect::Typing { chat, stopped }
        } else {
            Effect::TypingThrottled
        };
        self.effects.push(effect);
    }
}
