//! The loading and forgetting of chats. A chat is loaded into memory when it is used, and forgotten when it is idle,
//! when another node owns it, or when the store is another one. No caller is forgotten with it: each gets an answer
//! first.

use std::collections::HashSet;
use std::time::Duration;

use tern_types::{ChatId, Seq, Slot, Timestamp};

use super::Loads;
use super::event::{Effect, Event, LoadError};
use super::{MAX_WAITING, SETTLE_AFTER, ShardState, not_written, schedule};
use crate::chat::{Chat, ChatKind, Snapshot, Stage};
use crate::{Making, Origin, Outcome, Refusal};

/// The time after its last use at which an idle chat is forgotten.
const IDLE: Duration = Duration::from_secs(300);
/// The most events that wait for chats to be loaded, as many as callers that wait ([`MAX_WAITING`]).
const MAX_AWAITING_LOAD: usize = 16_384;
/// The number of chats in memory beyond which idle ones are forgotten early. A chat without entries takes
/// about 2 KiB. The newest 256 requests and their senders, which a chat remembers, take about 73 KiB more,
/// and members add to it.
const MAX_CHATS: usize = 100_000;

impl ShardState {
    /// Keeps `event` until the chat is loaded, and begins a load if the chat is not in memory. Gives the event up if
    /// too many wait.
    pub(super) fn keep_until_loaded(
        &mut self,
        id: ChatId,
        event: Event,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        if self.awaiting_load_count >= MAX_AWAITING_LOAD {
            return self.given_up(vec![event], &Outcome::Noted(Err(Refusal::OVERLOADED)), out);
        }
        self.awaiting_load_count += 1;
        self.awaiting_load.entry(id).or_default().push(event);
        let loads = &mut self.loads;
        self.chats
            .entry(id)
            .or_insert_with(|| new_loading(loads, id, now, out));
    }

    /// Takes the result of a load. If the result counts, the chat is ready and the events that waited for it are
    /// applied. If the load failed or there is no such chat, the callers are refused and the chat leaves memory.
    pub(super) fn loaded(
        &mut self,
        id: ChatId,
        number: u64,
        result: Result<Option<Snapshot>, LoadError>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        debug_assert!(
            self.loads.under_way > 0 && number <= self.loads.begun,
            "a load ends once"
        );
        self.loads.under_way = self.loads.under_way.saturating_sub(1);
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if !chat.load_ended(number) {
            return;
        }
        let refusal = match result {
            // Another load, which may make the chat, is still under way.
            Ok(None) | Err(LoadError::StrangersLimited { .. }) if !chat.loads.is_empty() => return,
            Ok(Some(snapshot)) => {
                let (was_blocked, known) = (chat.is_blocked(), chat.unsettled);
                let answers = chat.load(snapshot);
                self.counts.recovered += u64::from(is_lower(chat.unsettled, known));
                if was_blocked && !chat.is_blocked() {
                    chat.receipts.tell_all();
                    self.risen.insert(id);
                }
                // A settle that is scheduled keeps its time, however often the chat is loaded.
                if chat.unsettled.is_some() && chat.settling.is_none() && chat.settle_at.is_none() {
                    schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
                }
                self.answer(answers, out);
                self.begin_trimming(id, out);
                self.mark_due(id);
                let events = self.awaiting_load.remove(&id).unwrap_or_default();
                self.awaiting_load_count -= events.len();
                for event in events {
                    self.apply(event, now, out);
                }
                return;
            }
            Ok(None) => Refusal::NotAMember,
            Err(LoadError::PeerNotFound) => Refusal::PeerNotFound,
            Err(LoadError::NotAccepted) => Refusal::NotAccepted,
            Err(LoadError::StrangersLimited { retry_after }) => Refusal::StrangersLimited { retry_after },
            Err(LoadError::Away) => Refusal::STORE_AWAY,
            Err(LoadError::Unreadable) => Refusal::Unreadable,
            Err(LoadError::Locked) => Refusal::LOCKED,
            Err(LoadError::Overloaded) => Refusal::OVERLOADED,
        };
        // A refusal other than `Unavailable` shows that the load has read the store. The callers that changed a block
        // then get their answer, although there is no chat.
        let mut answers = match refusal {
            Refusal::Unavailable { .. } => Vec::new(),
            _ => chat.heard(),
        };
        answers.extend(chat.refuse_all(&refusal));
        self.answer(answers, out);
        self.forget(id, out);
        self.give_up_awaiting(id, &Outcome::Noted(Err(refusal)), out);
    }

    /// Gives up the events that waited for the chat to be loaded.
    fn give_up_awaiting(&mut self, id: ChatId, outcome: &Outcome, out: &mut Vec<Effect>) {
        let events = self.awaiting_load.remove(&id).unwrap_or_default();
        self.awaiting_load_count -= events.len();
        debug_assert_eq!(
            self.awaiting_load.is_empty(),
            self.awaiting_load_count == 0,
            "each event that waits is counted"
        );
        self.given_up(events, outcome, out);
    }

    /// Gives up events that cannot be applied. Calls, which set read marks, get `outcome`, and lost deliveries are
    /// counted, because nobody repeats them. All others are dropped: clients repeat their read marks, and notices may
    /// be lost.
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

    /// Settles entries that the store says are unsettled: those of commits that begin at `low`, at `high` or
    /// between them. The chat is loaded first if it is not in memory, or if another owner has committed to it
    /// and no command waits. If commands wait, their commit finds that the head has moved, and the chat is
    /// loaded then. A chat that is being loaded or settled is left alone.
    pub(super) fn recover(&mut self, id: ChatId, low: Seq, high: Seq, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            self.chats.insert(id, new_loading(&mut self.loads, id, now, out));
            return;
        };
        if chat.stage == Stage::Loading || chat.settling.is_some() {
            return;
        }
        self.counts.recovered += u64::from(is_lower(Some(low), chat.unsettled));
        chat.unsettled = Some(chat.unsettled.map_or(low, |lowest| lowest.min(low)));
        if high > chat.head() && chat.waiting() == 0 {
            // Another owner has committed, so this memory of the chat is stale.
            chat.stage = Stage::Loading;
            begin_load(&mut self.loads, chat, None, out);
        } else if chat.settle_at.is_none() {
            schedule(&mut self.settle_due, chat, now);
        }
    }

    /// Loads the chat of two people anew, one of whom blocked or unblocked the other, and answers `origin` when the
    /// load has ended. A chat that is not in memory needs no load, because its next use reads the store.
    pub(super) fn blocks_changed(&mut self, origin: Origin, id: ChatId, out: &mut Vec<Effect>) {
        let outcome = match self.chats.get_mut(&id) {
            Some(_) if self.waiting >= MAX_WAITING => Outcome::Noted(Err(Refusal::OVERLOADED)),
            Some(chat) if chat.stage == Stage::Loading || chat.kind() == ChatKind::Direct => {
                self.waiting += 1;
                chat.distrust(origin);
                self.reload_if_stale(id, out);
                return;
            }
            Some(_) | None => Outcome::Noted(Ok(())),
        };
        out.push(Effect::Answer { origin, outcome });
    }

    /// Begins a reload that was asked for, unless a batch is at the writer.
    pub(super) fn reload_if_stale(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        if let Some(chat) = self.chats.get_mut(&id)
            && chat.reloads_now()
        {
            begin_load(&mut self.loads, chat, None, out);
        }
    }

    /// Forgets the chats whose slots this node does not own, and tells their callers so. A chat whose batch is at the
    /// writer stays until it is idle.
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
                // The result of the commit answers the callers, and the chat is forgotten once it is idle.
                continue;
            }
            self.turn_away(id, out);
            self.forget(id, out);
        }
    }

    /// Forgets every chat, because the store is another one. Every caller is told to send its request again, also those
    /// whose batch is at the writer: the next load shows whether it is in the log. Writes and pushes that wait are
    /// dropped, because they belong to another log. Jobs and wakes under way belong to it too, so their results
    /// change nothing.
    pub(super) fn forget_all(&mut self, out: &mut Vec<Effect>) {
        for id in self.chats.keys().copied().collect::<Vec<_>>() {
            self.turn_away(id, out);
        }
        self.chats.clear();
        self.log += 1;
        self.outdated = self.busy;
        self.change = None;
        self.due.clear();
        self.settle_due.clear();
        not_written(std::mem::take(&mut self.acks), &Refusal::STORE_AWAY, out);
        self.closes.clear();
        self.reads.clear();
        self.reads_due = None;
        self.risen.clear();
        self.receipts_due.clear();
        self.parked.clear();
        self.answer_by.clear();
    }

    /// Tells every caller that waits for the chat that this node is not its owner.
    fn turn_away(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        if let Some(chat) = self.chats.get_mut(&id) {
            let answers = chat.turn_away();
            self.answer(answers, out);
        }
        self.give_up_awaiting(id, &Outcome::NotOwner, out);
    }

    /// Removes a chat from memory. Its gathered receipts are pushed first, because nobody else would push them.
    pub(super) fn forget(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        debug_assert!(
            self.chats.get(&id).is_none_or(|chat| chat.waiting() == 0),
            "no caller is forgotten"
        );
        self.tell_receipts(id, out);
        self.chats.remove(&id);
    }

    /// Forgets idle chats that were not used for [`IDLE`], or for 5 s if there are more than [`MAX_CHATS`]. It looks at
    /// most once in a tenth of that time. A chat stays while events wait for it, or receipts that are pushed at the end
    /// of this turn.
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        let crowded = self.chats.len() > MAX_CHATS;
        let idle = if crowded { Duration::from_secs(5) } else { IDLE };
        if now.since(self.swept_at) < idle / 10 {
            return;
        }
        self.swept_at = now;
        let (awaiting_load, risen) = (&self.awaiting_load, &self.risen);
        self.chats.retain(|id, chat| {
            let awaited = awaiting_load.contains_key(id) || risen.contains(id);
            !chat.is_idle() || awaited || now.since(chat.last_used) < idle
        });
    }
}

/// Returns whether the lowest unsettled entry `found` is lower than the one that was known, or the first.
fn is_lower(found: Option<Seq>, known: Option<Seq>) -> bool {
    found.is_some_and(|found| known.is_none_or(|known| found < known))
}

/// Makes a chat whose load has begun.
fn new_loading(loads: &mut Loads, id: ChatId, now: Timestamp, out: &mut Vec<Effect>) -> Chat {
    let mut chat = Chat::loading(id, now);
    begin_load(loads, &mut chat, None, out);
    chat
}

/// Begins a load of the chat, which looks up what its waiting commands need.
pub(super) fn begin_load(loads: &mut Loads, chat: &mut Chat, create: Option<Making>, out: &mut Vec<Effect>) {
    loads.begun += 1;
    loads.under_way += 1;
    chat.load_begins(loads.begun, create);
    out.push(Effect::Load {
        chat: chat.id,
        number: loads.begun,
        create: chat.create,
        look_up: chat.look_up(),
    });
}
