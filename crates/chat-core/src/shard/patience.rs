//! Bounds two kinds of waiting. A chat that another transaction has locked in the store is tried again a
//! little later, apart from the others. The caller of a command that has waited for [`ANSWER_WITHIN`] is told
//! to send the request again, whatever the reason. Callers of reloads and unary read marks wait as long as
//! the load of their chat takes.

use std::time::Duration;

use tern_types::{ChatId, Timestamp};

use super::ShardState;
use super::event::Effect;
use crate::Refusal;

/// The time after which a command that still waits is refused, at the next multiple of [`LATE_TOGETHER`]. A device is
/// answered within 5 s; the rest of that is for the links and loops on the way.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// The interval at whose multiples late callers are answered, so that a shard does not wake for each
/// chat.
const LATE_TOGETHER: Duration = Duration::from_millis(250);
/// The time from the first try that found the chat locked to the next. It doubles with each try, up to
/// [`LOCKED_RETRY_MAX`], because most locks are short. A try does not wait for the lock, and so costs the other chats
/// nothing.
const LOCKED_RETRY: Duration = Duration::from_millis(50);
/// The longest time from a try that found the chat locked to the next.
const LOCKED_RETRY_MAX: Duration = Duration::from_millis(500);

impl ShardState {
    /// Parks a chat whose batch found a lock of another transaction. The batch's commands go back to the queue, and
    /// the chat is tried again later.
    pub(super) fn park(&mut self, id: ChatId, now: Timestamp) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        debug_assert!(chat.parked_until.is_none(), "a parked chat has no batch");
        let tries = chat.locked_out();
        let wait = LOCKED_RETRY
            .saturating_mul(1 << tries.min(8))
            .min(LOCKED_RETRY_MAX);
        chat.parked_until = Some(now + wait);
        self.parked.insert((now + wait, id));
    }

    /// Makes sure that a caller of this chat, which has waited since `since`, is answered in time.
    pub(super) fn answer_in_time(&mut self, id: ChatId, since: Timestamp) {
        let at = (since + ANSWER_WITHIN).rounded_up(LATE_TOGETHER);
        if let Some(chat) = self.chats.get_mut(&id)
            && chat.answer_by.is_none_or(|before| at < before)
        {
            if let Some(before) = chat.answer_by.replace(at) {
                self.answer_by.remove(&(before, id));
            }
            self.answer_by.insert((at, id));
        }
    }

    /// Makes parked chats due again when their time has come, and refuses commands that have waited too long.
    pub fn keep_patience(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while let Some((at, id)) = self.parked.first().copied().filter(|(at, _)| *at <= now) {
            self.parked.remove(&(at, id));
            if let Some(chat) = self.chats.get_mut(&id)
                && chat.parked_until == Some(at)
            {
                chat.parked_until = None;
                self.mark_due(id);
            }
        }
        while let Some((at, id)) = self.answer_by.first().copied().filter(|(at, _)| *at <= now) {
            self.answer_by.remove(&(at, id));
            self.answer_late(id, at, now, out);
        }
    }

    /// Refuses every command that waits in the chat once the oldest has waited too long. All are refused together: a
    /// later message must not be committed before an earlier one that is sent again.
    fn answer_late(&mut self, id: ChatId, at: Timestamp, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id).filter(|chat| chat.answer_by == Some(at)) else {
            return;
        };
        chat.answer_by = None;
        let Some(since) = chat.waits_since() else {
            return;
        };
        let due = since + ANSWER_WITHIN;
        if due > now {
            let at = due.rounded_up(LATE_TOGETHER);
            chat.answer_by = Some(at);
            self.answer_by.insert((at, id));
            return;
        }
        let answers = chat.give_up(&Refusal::TOO_LATE);
        self.answer(answers, out);
    }
}
