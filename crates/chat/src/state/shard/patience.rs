//! Two kinds of waiting, both bounded: a chat that somebody holds in the store is tried again a little later, alone, and
//! whoever has waited for as long as a caller is kept waiting is told to come again, whatever the reason.

use std::time::Duration;

use tern_types::{ChatId, Timestamp};

use super::ShardState;
use super::event::Effect;
use crate::state::Refusal;

/// From a command to its answer at the latest: a device is answered within 5 s, and links and loops take their part of it.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Milliseconds. Answers that are late are due at multiples of it, so that a shard does not wake for each chat.
const LATE_TOGETHER: i64 = 250;
/// From a try that found the chat held to the next: doubled with each, since most locks are short. Such a try waits for
/// nothing, and so costs the other chats nothing.
const HELD_RETRY: Duration = Duration::from_millis(50);
const HELD_RETRY_MAX: Duration = Duration::from_millis(500);

impl ShardState {
    /// Somebody else holds a lock that the chat's batch needs: it goes back to the queue, and its chat waits alone.
    pub(super) fn park(&mut self, id: ChatId, now: Timestamp) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let tries = chat.held_back();
        let wait = HELD_RETRY.saturating_mul(1 << tries.min(8)).min(HELD_RETRY_MAX);
        chat.parked_until = Some(now + wait);
        self.parked.insert((now + wait, id));
    }

    /// Somebody waits for an answer of this chat's since then.
    pub(super) fn answer_in_time(&mut self, id: ChatId, since: Timestamp) {
        let at = together(since + ANSWER_WITHIN);
        if let Some(chat) = self.chats.get_mut(&id)
            && chat.answer_by.is_none_or(|before| at < before)
        {
            if let Some(before) = chat.answer_by.replace(at) {
                self.answer_by.remove(&(before, id));
            }
            self.answer_by.insert((at, id));
        }
    }

    /// Tries parked chats again, and tells whoever has waited long enough to come again.
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

    /// All who wait in the chat are told together: what was sent later must not get its place before what is sent again.
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
            let at = together(due);
            chat.answer_by = Some(at);
            self.answer_by.insert((at, id));
            return;
        }
        let answers = chat.give_up(&Refusal::TOO_LATE);
        self.answer(answers, out);
    }
}

fn together(at: Timestamp) -> Timestamp {
    let rounds = at.0.saturating_add(LATE_TOGETHER - 1).div_euclid(LATE_TOGETHER);
    Timestamp(rounds.saturating_mul(LATE_TOGETHER))
}
