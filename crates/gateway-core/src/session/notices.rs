//! This module passes on the device's notices to the others of a chat. Each kind has a limit of its own here,
//! which keeps a device from sending more of them than the others could use.

use tern_types::{ChatId, Notice, Timestamp};

use super::{Effect, Session};

impl Session {
    /// Passes a notice on to the chat's owner, or drops it if its kind's limit says so.
    pub(super) fn notice(&mut self, chat: ChatId, notice: Notice, now: Timestamp) {
        let passes = match notice {
            // Typing counts as activity of the person.
            Notice::Typing { stopped } => {
                self.sign(now);
                self.typing.take(chat, stopped, now)
            }
        };
        self.effects.push(if passes {
            Effect::Notice { chat, notice }
        } else {
            Effect::NoticeThrottled(notice.kind())
        });
    }
}
