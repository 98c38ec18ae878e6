//! The events that come from gateways and unary calls: sends, changes, acknowledgements, read marks.

use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, DeviceId, Seq, Timestamp, UserId};

use super::event::{AckWrite, Effect, Event, ReadMark};
use super::loads::begin_load;
use super::receipts::Rose;
use super::{MAX_WAITING, ShardState, not_written};
use crate::chat::{Chat, Command, Stage};
use crate::entry::{EntryKind, NewEntry};
use crate::{Making, Origin, Outcome, Refusal};

/// The time for which read marks gather before they are written.
const READ_MARKS_AFTER: Duration = Duration::from_secs(1);
/// The most commands that wait for one chat: sixteen batches. A hotter group is slowed down before it slows others.
pub(super) const MAX_WAITING_OF_CHAT: usize = 1024;
/// The most bytes of the commands that wait in a shard: sixteen commits. A count alone would let 4 GiB wait.
pub(super) const MAX_WAITING_BYTES: usize = 64 << 20;
/// The most bytes of the commands that wait for one chat: a quarter of its shard's, so that one chat does not fill the
/// shard.
pub(super) const MAX_WAITING_BYTES_OF_CHAT: usize = 16 << 20;
/// The most acknowledgements that wait to be written. More are dropped: a gateway repeats an acknowledgement that is
/// not confirmed, and a unary call is refused.
pub(super) const MAX_WAITING_ACKS: usize = 65_536;
/// The most read marks that wait to be written. A further one is not noted, not even in memory: a device repeats its
/// mark when it reconnects, a later mark or send makes up for that of a send, and a unary call is refused.
pub(super) const MAX_WAITING_READS: usize = 65_536;

impl ShardState {
    /// Puts a message into the queue of its chat. With `peer` the direct chat of the two is made if it does not exist.
    /// It is not made for what is done to a message: where there is no chat there is no message.
    pub(super) fn send(
        &mut self,
        origin: Origin,
        chat: ChatId,
        peer: Option<UserId>,
        entry: NewEntry,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let peer = peer.filter(|_| entry.kind == EntryKind::Message);
        let create = peer.map(|peer| Making {
            people: (entry.sender, peer),
            by_device: entry.device != DeviceId::BACK_END,
        });
        self.enqueue_with(origin, chat, create, Command::Send(Arc::new(entry)), now, out);
    }

    /// Puts a command into the queue of a chat that is not made if it does not exist.
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

    /// Puts a command into the queue of its chat, or answers it at once if its result is known or a bound is reached.
    /// Begins a load if the chat is not in memory.
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
            outcome: command.refused(Refusal::OVERLOADED),
        };
        let bytes = command.bytes();
        let room = self.queued_bytes.take(bytes, MAX_WAITING_BYTES);
        let Some(room) = room.filter(|_| self.waiting < MAX_WAITING) else {
            return out.push(overloaded);
        };
        let chat = self.chats.entry(id).or_insert_with(|| Chat::loading(id, now));
        chat.last_used = now;
        let room_of_chat = chat.queued_bytes.take(bytes, MAX_WAITING_BYTES_OF_CHAT);
        let Some(room_of_chat) = room_of_chat.filter(|_| chat.waiting() < MAX_WAITING_OF_CHAT) else {
            return out.push(overloaded);
        };
        let since = command.since(now);
        let answer = chat.enqueue(origin, command, [room, room_of_chat], since);
        // The load begins after the command is in the queue, so that it looks up this request too. With `create`
        // another load begins although one is under way, if that makes no chat or makes it for somebody else: whether
        // the chat may be made depends on its maker. A person's outbox of a hundred messages begins one load.
        if chat.needs_load(create) {
            begin_load(&mut self.loads, chat, create, out);
        }
        match answer {
            Some(outcome) => out.push(Effect::Answer { origin, outcome }),
            None => {
                self.waiting += 1;
                debug_assert!(self.waiting <= MAX_WAITING, "too many callers wait");
                self.answer_in_time(id, since);
                self.mark_due(id);
            }
        }
    }

    /// Takes an acknowledgement. With `write` it is put among those to be written, or refused if there are too many.
    /// Otherwise it raises the user's watermark, and the next settle takes it into account.
    pub(super) fn ack(&mut self, ack: AckWrite, write: bool, now: Timestamp, out: &mut Vec<Effect>) {
        if write {
            if self.acks.len() < MAX_WAITING_ACKS {
                self.acks.push(ack);
            } else {
                not_written([ack], &Refusal::OVERLOADED, out);
            }
            return;
        }
        // The device has no inbox row, or its row is written already. If the chat is not in memory, this owner has
        // nothing unsettled of it. If it is being loaded anew, the next settle counts the device as missing, which
        // costs an inbox row and no message.
        if let Some(chat) = self.chats.get_mut(&ack.chat)
            && chat.stage == Stage::Ready
            && chat.acknowledge(ack.user, ack.device, ack.seq)
        {
            self.rose(ack.chat, Rose::Delivered, now);
        }
    }

    /// Notes that a device of the user acknowledged `from..=seq`, and that this is written. A load of the chat may
    /// include it already. If the chat is not loaded, the event waits for the load.
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
                self.trim_delivered(id, out);
            }
            None => {
                let event = Event::Delivered {
                    chat: id,
                    user,
                    from,
                    seq,
                };
                self.keep_until_loaded(id, event, now, out);
            }
        }
    }

    /// Raises the user's read mark. `read` is the new mark, and true if read receipts were turned off. If the chat is
    /// not loaded, the event waits for the load.
    pub(super) fn read(
        &mut self,
        chat: ChatId,
        user: UserId,
        read: (Seq, bool),
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let (seq, off) = read;
        let room = self.has_room_for_mark(chat, user);
        let Some(known) = self
            .chats
            .get_mut(&chat)
            .filter(|chat| chat.stage == Stage::Ready)
        else {
            return self.keep_until_loaded(chat, Event::Read { chat, user, seq, off }, now, out);
        };
        let before = known.receipts.mark(user).read;
        if !room || known.member(user).is_none() || !known.receipts.read(user, seq.min(known.head()), off) {
            return;
        }
        let rose = known.receipts.mark(user).read > before;
        known.last_used = now;
        known.recount_own_unread(user);
        self.rose(chat, Rose::Read, now);
        self.write_mark_of(chat, user, rose, now);
    }

    /// Raises the read mark of a sender whose message is committed at `seq`. A send reads the entries before it that
    /// were delivered to the sender.
    pub(super) fn read_by_sending(&mut self, id: ChatId, entry: &NewEntry, seq: Seq, now: Timestamp) {
        let (user, off) = (entry.sender, entry.sending.read_receipts_off);
        if !self.has_room_for_mark(id, user) {
            return;
        }
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let mut withdraws = false;
        if let Some(read) = chat.read_by_sending(entry, seq) {
            withdraws = read.passes_others && read.upto > chat.receipts.mark(user).read;
            let news = chat.receipts.sent(user, read.upto, off, read.passes_others);
            chat.recount_own_unread(user);
            if news {
                self.rose(id, Rose::Read, now);
            }
        }
        self.write_mark_of(id, user, withdraws, now);
    }

    /// Notes that the user's read mark is to be written. It `withdraws` if it has passed entries of others.
    fn write_mark_of(&mut self, id: ChatId, user: UserId, withdraws: bool, now: Timestamp) {
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
            withdraws,
        };
        self.write_read(mark, now);
    }

    /// Raises the user's read mark on behalf of a unary call, and answers the call once the mark is noted here. If the
    /// chat is not loaded, the event waits for the load.
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
                return self.keep_until_loaded(chat, event, now, out);
            }
            Some(false) => Outcome::Noted(Err(Refusal::NotAMember)),
            Some(true) if !self.has_room_for_mark(chat, user) => Outcome::Noted(Err(Refusal::OVERLOADED)),
            Some(true) => {
                self.read(chat, user, (seq, off), now, out);
                Outcome::Noted(Ok(()))
            }
        };
        out.push(Effect::Answer { origin, outcome });
    }

    /// Returns whether a read mark of the user may be noted, in place of one that waits or as a further one.
    fn has_room_for_mark(&self, chat: ChatId, user: UserId) -> bool {
        self.reads.len() < MAX_WAITING_READS || self.reads.contains_key(&(chat, user))
    }

    /// Notes a read mark that is to be written, in place of an older one of the same user and chat. What the older one
    /// withdraws, the newer one does.
    pub(super) fn write_read(&mut self, mut mark: ReadMark, now: Timestamp) {
        debug_assert_eq!(
            self.reads.is_empty(),
            self.reads_due.is_none(),
            "read marks that wait have a time at which they are written"
        );
        let waiting = self.reads.entry((mark.chat, mark.user)).or_insert(mark);
        mark.withdraws |= waiting.withdraws;
        *waiting = mark;
        self.reads_due.get_or_insert(now + READ_MARKS_AFTER);
    }
}
