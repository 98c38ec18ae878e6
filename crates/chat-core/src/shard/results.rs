//! The results of the writers' jobs, and their effects. Callers and devices hear of an entry only after its commit
//! (rule 1), and a chat is closed only after every missing device was woken (fine print 5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, IdSet, Seq, Timestamp, UserId};

use super::event::{AckWrite, AckedRow, Committed, Effect, JobDone, Pushed, WakesDone, Woken};
use super::loads::begin_load;
use super::{SETTLE_AFTER, ShardState, not_written, schedule};
use crate::chat::{Chat, Stage};
use crate::{EntryKind, Missing, Outcome, Place, Refusal, WrittenAck};

/// The time from the first settle that fails to the next. It doubles with each failure, up to [`SETTLE_RETRY_MAX`]: a
/// look-up or a confirmation that was lost is soon repaired, a presence node that is away is not.
const SETTLE_RETRY: Duration = Duration::from_millis(250);
/// The longest time from a settle that failed to the next.
const SETTLE_RETRY_MAX: Duration = Duration::from_secs(4);
/// The longest time from a settle whose look-up was unsure to the next. Look-ups stay unsure until etcd is in sight
/// again, which may take an hour, and every chat with an offline device is settled again and again meanwhile.
const SETTLE_UNSURE_MAX: Duration = Duration::from_secs(30);

/// Returns the present members who are not in `before`, in the order of their ids.
fn newcomers(before: &[UserId], chat: &Chat) -> Vec<UserId> {
    let before: IdSet<UserId> = before.iter().copied().collect();
    let now = chat.members().map(|(user, _)| user);
    let mut added: Vec<UserId> = now.filter(|user| !before.contains(user)).collect();
    added.sort_unstable();
    added
}

/// Gives up the result of a job on a log that is gone. The callers of commits were answered when it went. Those of
/// acknowledgements are answered now, as if the store had not answered.
fn give_up(done: JobDone, out: &mut Vec<Effect>) {
    if let JobDone::Acks { acks, unwritten, .. } = done {
        not_written(acks.into_iter().chain(unwritten), &Refusal::STORE_AWAY, out);
    }
}

impl ShardState {
    /// Takes the result of a job, whose writer is free again. The result of a job on another log changes nothing.
    pub(super) fn job_done(&mut self, done: JobDone, now: Timestamp, out: &mut Vec<Effect>) {
        let lane = done.lane() as usize;
        self.busy[lane] = false;
        if std::mem::take(&mut self.outdated[lane]) {
            return give_up(done, out);
        }
        match done {
            JobDone::Commit(results) => {
                for (id, result) in results {
                    self.committed(id, result, now, out);
                }
            }
            JobDone::Acks {
                acks,
                rows,
                unwritten,
            } => {
                for ack in acks {
                    let row = rows.get(&(ack.chat, ack.device)).copied();
                    self.ack_written(ack, row, now, out);
                }
                not_written(unwritten, &Refusal::STORE_AWAY, out);
            }
            JobDone::Settle {
                chats,
                missing,
                failed,
            } => {
                self.settled(chats, missing, now, out);
                for (id, upto) in failed {
                    if let Some(chat) = self.chats.get_mut(&id) {
                        chat.behind.forget();
                    }
                    self.close_done(id, upto, false, now);
                }
            }
            JobDone::Close { chats, closed } => {
                for (id, upto) in chats {
                    self.close_done(id, upto, closed, now);
                    // The devices that were missing may have acknowledged everything before this.
                    if closed {
                        self.trim_delivered(id, out);
                    }
                }
            }
            JobDone::Reads { unwritten } => {
                for mark in unwritten {
                    match self.reads.get_mut(&(mark.chat, mark.user)) {
                        Some(newer) => newer.withdraws |= mark.withdraws,
                        None => self.write_read(mark, now),
                    }
                }
            }
        }
    }

    /// Takes the result of a chat's batch. A chat that was forgotten meanwhile has no callers left.
    fn committed(&mut self, id: ChatId, result: Committed, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let answers = match result {
            Committed::Stored => {
                self.stored(id, now, out);
                return;
            }
            Committed::Conflict => {
                let answers = chat.conflict();
                begin_load(&mut self.loads, chat, None, out);
                answers
            }
            Committed::Refused(refusal) => chat.refused(&refusal),
            Committed::NotPermitted(refusal) => chat.not_permitted(&refusal),
            Committed::Locked => {
                self.park(id, now);
                Vec::new()
            }
            Committed::Away => {
                let answers = chat.refuse_all(&Refusal::STORE_AWAY);
                // Nobody knows whether the batch is in the store. The chat is loaded anew on its next use, and a batch
                // that was committed is found unsettled.
                self.forget(id, out);
                answers
            }
        };
        self.answer(answers, out);
        self.reload_if_stale(id, out);
        self.mark_due(id);
    }

    /// Handles a batch that is committed: answers its callers, pushes its entries, raises the senders' read marks, and
    /// schedules the settle. Nobody was told anything before (rule 1).
    fn stored(&mut self, id: ChatId, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let before: Vec<UserId> = chat.members().map(|(user, _)| user).collect();
        let placed = chat.committed(now);
        if chat.settling.is_none() && chat.settle_at.is_none() {
            schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
        }
        let chat = &*chat;
        // A member who was removed still gets the entry that says so (rule 7).
        let mut users = before;
        let adds = placed
            .iter()
            .any(|(entry, _)| entry.new.kind == EntryKind::MembersAdded);
        let added = if adds { newcomers(&users, chat) } else { Vec::new() };
        users.extend(chat.members().map(|(user, _)| user));
        users.sort_unstable();
        users.dedup();
        if adds {
            users.retain(|user| added.binary_search(user).is_err());
        }
        let users: Arc<[UserId]> = users.into();
        let added: Option<Arc<[UserId]>> = adds.then(|| added.into());
        let mut reads = Vec::new();
        for (entry, waiting) in placed {
            let outcome = waiting.command.placed(Place {
                chat: id,
                seq: entry.seq,
                sent_at: entry.sent_at,
            });
            let origins = waiting.origins;
            debug_assert!(origins.len() <= self.waiting, "every caller is answered once");
            self.waiting = self.waiting.saturating_sub(origins.len());
            out.extend(origins.iter().map(|origin| Effect::Answer {
                origin: *origin,
                outcome: outcome.clone(),
            }));
            if entry.new.kind.is_message() && chat.member(entry.new.sender).is_some() {
                reads.push((entry.new.clone(), entry.seq));
            }
            if let Some(added) = &added {
                out.push(Effect::Push {
                    chat: id,
                    users: added.clone(),
                    except: Vec::new(),
                    what: Pushed::Added(entry.seq),
                });
            }
            out.push(Effect::Push {
                chat: id,
                users: users.clone(),
                except: origins,
                what: Pushed::Entry(entry),
            });
        }
        for (entry, seq) in reads {
            self.read_by_sending(id, &entry, seq, now);
        }
        self.reload_if_stale(id, out);
        self.mark_due(id);
    }

    /// Answers the caller of an acknowledgement that is written, and raises the user's delivered watermark. `row` is
    /// the inbox row that it met, if there was one.
    fn ack_written(&mut self, ack: AckWrite, row: Option<AckedRow>, now: Timestamp, out: &mut Vec<Effect>) {
        let written = WrittenAck {
            chat: ack.chat,
            seq: ack.seq,
            row: row.and_then(|row| row.now),
        };
        out.push(Effect::Answer {
            origin: ack.origin,
            outcome: Outcome::Acked(Ok(written)),
        });
        let mut is_ready = false;
        if let Some(chat) = self.chats.get_mut(&ack.chat) {
            if row.and_then(|row| row.now).is_none() {
                chat.behind.caught_up(ack.user, ack.device);
            }
            is_ready = chat.stage == Stage::Ready;
        }
        if is_ready {
            let id = ack.chat;
            self.ack(ack, false, now, out);
            if row.is_some() {
                self.trim_delivered(id, out);
            }
        } else if let Some(row) = row.filter(|row| row.now != Some(row.was)) {
            // The senders' delivered ticks depend on this acknowledgement, and a load would not show that it is news.
            self.delivered(ack.chat, ack.user, row.was, ack.seq, now, out);
        }
    }

    /// Takes the result of a settle. Wakes the missing devices of each chat; a chat without missing devices is settled.
    fn settled(
        &mut self,
        chats: Vec<(ChatId, Seq)>,
        mut missing: HashMap<ChatId, Vec<Missing>>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        for (id, upto) in chats {
            let missing = missing.remove(&id).filter(|missing| !missing.is_empty());
            if let Some(chat) = self.chats.get_mut(&id) {
                chat.behind.settled(missing.as_deref().unwrap_or_default());
            }
            match missing {
                Some(missing) => out.push(Effect::Wake {
                    chat: id,
                    log: self.log,
                    upto,
                    missing,
                }),
                None => {
                    self.close_done(id, upto, true, now);
                    self.trim_delivered(id, out);
                }
            }
        }
    }

    /// Takes the result of a wake: has the unsettled rows deleted if every device is accounted for, and settles the
    /// chat again if not. A wake of another log says nothing about the devices that lack entries of this one.
    pub(super) fn wakes_done(&mut self, done: WakesDone, now: Timestamp) {
        if done.log != self.log {
            return;
        }
        match done.woken {
            Woken::All => self.closes.push((done.chat, done.upto)),
            Woken::NotAll => self.close_done(done.chat, done.upto, false, now),
            Woken::Unsure => self.settles_again(done.chat, SETTLE_UNSURE_MAX, now),
        }
    }

    /// Notes whether the unsettled rows up to `upto` are deleted. If they are not, the chat is settled again.
    pub(super) fn close_done(&mut self, id: ChatId, upto: Seq, closed: bool, now: Timestamp) {
        if closed && let Some(chat) = self.chats.get_mut(&id) {
            chat.settled(upto);
            if chat.unsettled.is_some() && chat.settle_at.is_none() {
                schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
            }
        } else if !closed {
            self.settles_again(id, SETTLE_RETRY_MAX, now);
        }
    }

    /// Schedules another settle after one that failed: [`SETTLE_RETRY`] later the first time, then after twice the time
    /// of the last, at most `max`.
    fn settles_again(&mut self, id: ChatId, max: Duration, now: Timestamp) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let tries = chat.settle_tries;
        (chat.settling, chat.settle_tries) = (None, tries.saturating_add(1));
        if chat.unsettled.is_some() && chat.settle_at.is_none() {
            let after = SETTLE_RETRY.saturating_mul(1 << tries.min(8)).min(max);
            schedule(&mut self.settle_due, chat, now + after);
        }
    }
}
