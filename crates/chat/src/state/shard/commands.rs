//! What gateways and callers ask for.

use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, DeviceId, Seq, Timestamp, UserId};

use super::ShardState;
use super::event::{AckWrite, Effect, Event, ReadMark};
use super::loads::load;
use super::receipts::Rose;
use crate::state::chat::{Chat, Command, Stage};
use crate::state::entry::NewEntry;
use crate::state::{Making, Origin, Outcome, Refusal};

/// Read marks gather this long before they are written.
const READ_MARKS_AFTER: Duration = Duration::from_secs(1);
/// Commands that wait in a shard: some seconds of work. More are refused at once, and clients come again.
pub(super) const MAX_WAITING: usize = 16_384;
/// Commands that wait for one chat: sixteen batches. A hotter group is slowed down before it slows others.
pub(super) const MAX_WAITING_OF_CHAT: usize = 1024;
/// Bytes of the commands that wait in a shard: sixteen commits. A count alone would let 4 GiB wait.
pub(super) const MAX_WAITING_BYTES: usize = 64 << 20;
/// Bytes of the commands that wait for one chat: a quarter of its shard's, so that a chat alone does not fill it.
pub(super) const MAX_WAITING_BYTES_OF_CHAT: usize = 16 << 20;
/// Acknowledgements that wait to be written. More are dropped: gateways repeat what is not confirmed, unary calls are told.
pub(super) const MAX_WAITING_ACKS: usize = 65_536;

impl ShardState {
    pub(super) fn send(
        &mut self,
        origin: Origin,
        chat: ChatId,
        peer: Option<UserId>,
        entry: NewEntry,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let create = peer.map(|peer| Making {
            people: (entry.sender, peer),
            by_device: entry.device != DeviceId::BACK_END,
        });
        self.enqueue_with(origin, chat, create, Command::Send(Arc::new(entry)), now, out);
    }

    pub(super) fn enqueue(
        &mut self,
        origin: Origin,
        chat: ChatId,
        command: Command,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        self.enqueue_with(origin, chat, None, command, now, out);
    }

    fn enqueue_with(
        &mut self,
        origin: Origin,
        id: ChatId,
        create: Option<Making>,
        command: Command,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let overloaded = Effect::Answer {
            origin,
            outcome: Outcome::Refused(Refusal::OVERLOADED),
        };
        let bytes = command.bytes();
        let room = self.held_bytes.take(bytes, MAX_WAITING_BYTES);
        let Some(room) = room.filter(|_| self.waiting < MAX_WAITING) else {
            return out.push(overloaded);
        };
        let chat = self.chats.entry(id).or_insert_with(|| Chat::loading(id, now));
        chat.last_used = now;
        let room_of_chat = chat.held.take(bytes, MAX_WAITING_BYTES_OF_CHAT);
        let Some(room_of_chat) = room_of_chat.filter(|_| chat.waiting() < MAX_WAITING_OF_CHAT) else {
            return out.push(overloaded);
        };
        let since = command.since(now);
        let answer = chat.enqueue(origin, command, [room, room_of_chat], since);
        // After the command is in the queue: the load looks for its request too. A load that is under way may have been
        // asked for by somebody who could not make the chat.
        if chat.stage == Stage::Loading && (chat.loads.is_empty() || create.is_some()) {
            load(&mut self.loads, chat, create, out);
        }
        match answer {
            Some(outcome) => out.push(Effect::Answer { origin, outcome }),
            None => {
                self.waiting += 1;
                self.answer_in_time(id, since);
                self.mark_due(id);
            }
        }
    }

    pub(super) fn ack(&mut self, ack: AckWrite, write: bool, now: Timestamp, out: &mut Vec<Effect>) {
        if write {
            if self.acks.len() < MAX_WAITING_ACKS {
                self.acks.push(ack);
            } else {
                not_written([ack], &Refusal::OVERLOADED, out);
            }
            return;
        }
        // Without a row and not loaded: nothing of the chat is unsettled here, so nothing hangs on it.
        if let Some(chat) = self.chats.get_mut(&ack.chat)
            && chat.stage == Stage::Ready
            && chat.acknowledge(ack.user, ack.device, ack.seq)
        {
            self.rose(ack.chat, Rose::Delivered, now);
        }
    }

    /// The user has `from..=seq` now, and a load may have said so already.
    pub(super) fn delivered(
        &mut self,
        id: ChatId,
        user: UserId,
        from: Seq,
        seq: Seq,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        match self.chats.get_mut(&id).filter(|chat| chat.stage == Stage::Ready) {
            Some(chat) => {
                if chat.member(user).is_some() && chat.receipts.delivered_since(user, from, seq) {
                    self.rose(id, Rose::Delivered, now);
                }
            }
            None => {
                let event = Event::Delivered {
                    chat: id,
                    user,
                    from,
                    seq,
                };
                self.hold(id, event, now, out);
            }
        }
    }

    /// `read`: how far, and whether read receipts are off.
    pub(super) fn read(
        &mut self,
        chat: ChatId,
        user: UserId,
        read: (Seq, bool),
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let (seq, off) = read;
        let Some(known) = self
            .chats
            .get_mut(&chat)
            .filter(|chat| chat.stage == Stage::Ready)
        else {
            return self.hold(chat, Event::Read { chat, user, seq, off }, now, out);
        };
        if known.member(user).is_none() || !known.receipts.read(user, seq.min(known.head()), off) {
            return;
        }
        known.last_used = now;
        known.recount_own_unread(user);
        self.rose(chat, Rose::Read, now);
        self.write_mark_of(chat, user, now);
    }

    /// The user's message has its place: it is a read mark too, as far as what lies before it was delivered.
    pub(super) fn read_by_sending(&mut self, id: ChatId, entry: &NewEntry, seq: Seq, now: Timestamp) {
        let (user, off) = (entry.sender, entry.read_receipts_off);
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if let Some(read) = chat.read_by_sending(entry, seq) {
            let news = chat.receipts.sent(user, read.upto, off, read.passes_others);
            chat.recount_own_unread(user);
            if news {
                self.rose(id, Rose::Read, now);
            }
        }
        self.write_mark_of(id, user, now);
    }

    fn write_mark_of(&mut self, id: ChatId, user: UserId, now: Timestamp) {
        let Some(chat) = self.chats.get(&id) else {
            return;
        };
        let mark = chat.receipts.mark(user);
        let mark = ReadMark {
            chat: id,
            user,
            seq: mark.read,
            off: mark.read_receipts_off,
            own_unread: chat.own_unread(user),
        };
        self.write_read(mark, now);
    }

    /// The same by a call.
    pub(super) fn mark_read(
        &mut self,
        origin: Origin,
        (chat, user): (ChatId, UserId),
        (seq, off): (Seq, bool),
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let ready = self.chats.get(&chat).filter(|chat| chat.stage == Stage::Ready);
        let outcome = match ready.map(|chat| chat.member(user).is_some()) {
            None => {
                let event = Event::MarkRead {
                    origin,
                    chat,
                    user,
                    seq,
                    off,
                };
                return self.hold(chat, event, now, out);
            }
            Some(false) => Outcome::Refused(Refusal::NotAMember),
            Some(true) => {
                self.read(chat, user, (seq, off), now, out);
                Outcome::Unchanged
            }
        };
        out.push(Effect::Answer { origin, outcome });
    }

    pub(super) fn write_read(&mut self, mark: ReadMark, now: Timestamp) {
        self.reads.insert((mark.chat, mark.user), mark);
        self.reads_due.get_or_insert(now + READ_MARKS_AFTER);
    }
}

/// Unconfirmed, the gateways repeat them; a unary call is told.
pub(super) fn not_written(
    acks: impl IntoIterator<Item = AckWrite>,
    refusal: &Refusal,
    out: &mut Vec<Effect>,
) {
    let calls = acks
        .into_iter()
        .filter(|ack| matches!(ack.origin, Origin::Call(_)));
    out.extend(calls.map(|ack| Effect::Answer {
        origin: ack.origin,
        outcome: Outcome::Refused(refusal.clone()),
    }));
}
