//! The hints to the trimmer, which takes out of the store what need not be kept any more. The shard gives one when the
//! last device may have acknowledged a message of a chat that keeps messages until they are delivered, and when it
//! loads a chat that the trimmer does not know of. A chat that keeps its messages pays a comparison for that.

use tern_types::ChatId;

use super::ShardState;
use super::event::Effect;
use crate::retention::Mode;

impl ShardState {
    /// Sets the operator's choice of how long chats keep messages whose members chose nothing.
    #[must_use]
    pub fn keeping(self, kept_by_default: Mode) -> Self {
        Self {
            kept_by_default,
            ..self
        }
    }

    /// Gives the trimmer a hint if the chat keeps messages until they are delivered: some are now.
    pub(super) fn trim_delivered(&self, id: ChatId, out: &mut Vec<Effect>) {
        if self.mode(id) == Some(Mode::UntilDelivered) {
            out.push(Effect::Trim { chat: id });
        }
    }

    /// Gives the trimmer a hint if it is to look at the chat, which was just loaded, and does not know of it yet: the
    /// chat is new, or the operator's choice is.
    pub(super) fn begin_trimming(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        if self.mode(id).is_some_and(|mode| mode != Mode::Forever)
            && let Some(chat) = self.chats.get_mut(&id)
            && !std::mem::replace(&mut chat.trims, true)
        {
            out.push(Effect::Trim { chat: id });
        }
    }

    /// Returns the mode that holds in the chat; `None` if the chat is not in memory.
    fn mode(&self, id: ChatId) -> Option<Mode> {
        let chat = self.chats.get(&id)?;
        Some(chat.retention().mode.or(self.kept_by_default))
    }
}
