//! Chats come into memory and leave it.

use std::collections::HashSet;
use std::time::Duration;

use tern_types::{ChatId, Seq, Slot, Timestamp};

use super::Loads;
use super::commands::{MAX_WAITING, not_written};
use super::event::{Effect, Event, LoadError};
use super::{SETTLE_AFTER, ShardState, schedule};
use crate::state::chat::{Chat, ChatKind, Snapshot, Stage};
use crate::state::{Making, Origin, Outcome, Refusal};

/// A chat that nobody used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(300);
/// Events that wait for chats to be loaded.
const MAX_HELD: usize = 16_384;
/// Chats in memory; beyond it idle ones go early. About 2 KiB each, more with many members.
const MAX_CHATS: usize = 100_000;

impl ShardState {
    /// Keeps `event` until the chat is loaded, and has it loaded.
    pub(super) fn hold(&mut self, id: ChatId, event: Event, now: Timestamp, out: &mut Vec<Effect>) {
        if self.held_count >= MAX_HELD {
            return self.given_up(vec![event], &Outcome::Refused(Refusal::OVERLOADED), out);
        }
        self.held_count += 1;
        self.held.entry(id).or_default().push(event);
        let loads = &mut self.loads;
        self.chats
            .entry(id)
            .or_insert_with(|| load_new(loads, id, now, out));
    }

    pub(super) fn loaded(
        &mut self,
        id: ChatId,
        number: u64,
        result: Result<Option<Snapshot>, LoadError>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        self.loads.under_way = self.loads.under_way.saturating_sub(1);
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if !chat.load_ended(number) || chat.stage != Stage::Loading {
            return;
        }
        let refusal = match result {
            // A load that may make the chat is still under way.
            Ok(None) | Err(LoadError::StrangersLimited { .. }) if !chat.loads.is_empty() => return,
            Ok(Some(snapshot)) => {
                let was_blocked = chat.is_blocked();
                let answers = chat.load(snapshot);
                if was_blocked && !chat.is_blocked() {
                    chat.receipts.tell_all();
                    self.risen.insert(id);
                }
                if chat.unsettled.is_some() && chat.settling.is_none() {
                    schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
                }
                self.answer(answers, out);
                self.mark_due(id);
                let held = self.held.remove(&id).unwrap_or_default();
                self.held_count -= held.len();
                for event in held {
                    self.apply(event, now, out);
                }
                return;
            }
            Ok(None) => Refusal::NotAMember,
            Err(LoadError::PeerNotFound) => Refusal::PeerNotFound,
            Err(LoadError::NotAccepted) => Refusal::NotAccepted,
            Err(LoadError::StrangersLimited { retry_after }) => Refusal::StrangersLimited { retry_after },
            Err(LoadError::Away) => Refusal::STORE_AWAY,
            Err(LoadError::Held) => Refusal::HELD,
            Err(LoadError::Overloaded) => Refusal::OVERLOADED,
        };
        let answers = chat.refuse_all(&refusal);
        self.answer(answers, out);
        self.forget(id, out);
        self.drop_held(id, &Outcome::Refused(refusal), out);
    }

    /// What waited for the chat to be loaded waits in vain.
    fn drop_held(&mut self, id: ChatId, outcome: &Outcome, out: &mut Vec<Effect>) {
        let held = self.held.remove(&id).unwrap_or_default();
        self.held_count -= held.len();
        self.given_up(held, outcome, out);
    }

    /// What marks say is said again by who sent them, or asked for by who wants to know; of what was delivered somebody has
    /// to be told, and calls wait for an answer.
    fn given_up(&mut self, events: Vec<Event>, outcome: &Outcome, out: &mut Vec<Effect>) {
        for event in events {
            match event {
                Event::Delivered { .. } => self.counts.receipts_lost += 1,
                Event::MarkRead { origin, .. } => out.push(Effect::Answer {
                    origin,
                    outcome: outcome.clone(),
                }),
                _ => {}
            }
        }
    }

    pub(super) fn recover(&mut self, id: ChatId, low: Seq, high: Seq, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            self.chats.insert(id, load_new(&mut self.loads, id, now, out));
            return;
        };
        if chat.stage == Stage::Loading || chat.settling.is_some() {
            return;
        }
        chat.unsettled = Some(chat.unsettled.map_or(low, |lowest| lowest.min(low)));
        if high > chat.head() && chat.waiting() == 0 {
            // Another owner committed: what is believed of this chat is stale.
            chat.stage = Stage::Loading;
            load(&mut self.loads, chat, None, out);
        } else if chat.settle_at.is_none() {
            schedule(&mut self.settle_due, chat, now);
        }
    }

    /// A chat that is not in memory is loaded on its next use, and so from what the store has now.
    pub(super) fn blocks_changed(&mut self, origin: Origin, id: ChatId, out: &mut Vec<Effect>) {
        let outcome = match self.chats.get_mut(&id) {
            Some(_) if self.waiting >= MAX_WAITING => Outcome::Refused(Refusal::OVERLOADED),
            Some(chat) if chat.stage == Stage::Loading || chat.kind() == ChatKind::Direct => {
                self.waiting += 1;
                chat.distrust(origin);
                self.reload_if_stale(id, out);
                return;
            }
            Some(_) | None => Outcome::Unchanged,
        };
        out.push(Effect::Answer { origin, outcome });
    }

    /// Begins the load that somebody waits for, unless a batch is under way.
    pub(super) fn reload_if_stale(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        if let Some(chat) = self.chats.get_mut(&id)
            && chat.reloads_now()
        {
            load(&mut self.loads, chat, None, out);
        }
    }

    pub(super) fn keep_only(&mut self, slots: &HashSet<Slot>, out: &mut Vec<Effect>) {
        let lost: Vec<ChatId> = self
            .chats
            .keys()
            .copied()
            .filter(|id| !slots.contains(&Slot::of_chat(*id)))
            .collect();
        for id in lost {
            let Some(chat) = self.chats.get(&id) else {
                continue;
            };
            if chat.is_committing() {
                // It ends with its own answer, and the chat goes when it is idle.
                continue;
            }
            self.turn_away(id, out);
            self.forget(id, out);
        }
    }

    /// Whoever waits is told to come again and finds the chat as the store has it, also for what is under way at the
    /// writer: whether that is in the log shows when the chat is loaded. What was still to be written or told is dropped,
    /// for it was true of another log.
    pub(super) fn forget_all(&mut self, out: &mut Vec<Effect>) {
        for id in self.chats.keys().copied().collect::<Vec<_>>() {
            self.turn_away(id, out);
        }
        self.chats.clear();
        not_written(std::mem::take(&mut self.acks), &Refusal::STORE_AWAY, out);
        self.closes.clear();
        self.reads.clear();
        self.risen.clear();
        self.receipts_due.clear();
        self.parked.clear();
        self.answer_by.clear();
    }

    fn turn_away(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        if let Some(chat) = self.chats.get_mut(&id) {
            let answers = chat.answer_all(&Outcome::NotOwner);
            self.answer(answers, out);
        }
        self.drop_held(id, &Outcome::NotOwner, out);
    }

    /// The chat leaves memory. What rose in it was not told yet; nobody else would.
    pub(super) fn forget(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        self.tell_receipts(id, out);
        self.chats.remove(&id);
    }

    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        let crowded = self.chats.len() > MAX_CHATS;
        let idle = if crowded { Duration::from_secs(5) } else { IDLE };
        if now.since(self.swept_at) < idle / 10 {
            return;
        }
        self.swept_at = now;
        let held = &self.held;
        self.chats
            .retain(|id, chat| !chat.is_idle() || held.contains_key(id) || now.since(chat.last_used) < idle);
    }
}

fn load_new(loads: &mut Loads, id: ChatId, now: Timestamp, out: &mut Vec<Effect>) -> Chat {
    let mut chat = Chat::loading(id, now);
    load(loads, &mut chat, None, out);
    chat
}

pub(super) fn load(loads: &mut Loads, chat: &mut Chat, create: Option<Making>, out: &mut Vec<Effect>) {
    loads.begun += 1;
    loads.under_way += 1;
    chat.load_begins(loads.begun, create);
    out.push(Effect::Load {
        chat: chat.id,
        number: loads.begun,
        create: chat.create,
        requests: chat.requests(),
    });
}
