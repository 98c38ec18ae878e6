//! Batches: how commands come from the queue into a commit, and what the result of the commit changes. A batch stands
//! on the head that it was numbered from, and a chat has at most one batch that is not committed.

use std::sync::Arc;

use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::command::{Command, Waiting};
use super::{Chat, ChatKey, ChatKind, Stage};
use crate::change::{self, Action, Change, Permitted};
use crate::entry::{Entry, MediaRef, NewEntry};
use crate::recent::{Known, Placed};
use crate::target::{self, Actor, Windows};
use crate::{ChangeRefusal, EntryKind, Origin, Outcome, Refusal};

/// The most entries of one chat in one commit, so that a busy group does not keep the others waiting.
pub const MAX_BATCH: usize = 64;
/// The most bytes of one chat in one commit, for the same reason: a quarter of a commit. A single entry always fits.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The number of times that a batch is tried again because of a conflict. If all these tries fail, another
/// node commits to this chat all the time, and the map will soon tell which of the two owns it.
const MAX_TRIES: u32 = 8;

/// The entries that one commit adds to one chat.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The chat.
    pub chat: ChatId,
    /// The chat's data key, with which the store seals the contents.
    pub key: ChatKey,
    /// The head before the batch. The commit writes nothing if the store has another one.
    pub expected: Seq,
    /// The chat's ordinal after the batch.
    pub ordinal: u64,
    /// The entries, with the seqs that follow `expected`. There is at least one.
    pub entries: Vec<Entry>,
    /// The change that the entry stands for, if it is one. It is then the only entry, and has a transaction of its own.
    pub change: Option<Action>,
}

impl Batch {
    /// Returns the bytes of the entries' contents.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.new.content.len()).sum()
    }

    /// Returns the head after the batch.
    pub fn head(&self) -> Seq {
        self.entries.last().map_or(self.expected, |entry| entry.seq)
    }

    /// Returns whether the command is about a message that an entry of the batch is about too, and would be decided or
    /// written differently after that entry. Reactions of different people do not meet in this way.
    fn meets(&self, command: &Command) -> bool {
        let (Command::Send(new), Some(about)) = (command, command.about()) else {
            return false;
        };
        self.entries.iter().any(|entry| {
            let same = entry
                .new
                .about
                .as_ref()
                .is_some_and(|its| its.target == about.target);
            let reactions = entry.new.kind == EntryKind::Reaction && new.kind == EntryKind::Reaction;
            same && !(reactions && entry.new.sender != new.sender)
        })
    }
}

/// An entry that may be made, and the change that it stands for; `None` if it is a message.
type Admitted = (Arc<NewEntry>, Option<Action>);

impl Chat {
    /// Takes the next batch from the queue and gives its entries their seqs; `None` if there is nothing to
    /// commit. The batch has at most about `room` bytes, or one entry. `wall` is the wall clock's time. The
    /// entries get it, or that of the last entry if it is later, and tickets and `windows` are compared with it. Also
    /// returns the answers to commands that become no entry.
    ///
    /// Before a command is refused or found to change nothing, the log must be asked whether it is a repetition (rule
    /// 5). If such a command is first in the queue and was not looked up yet, the chat becomes [`Stage::Loading`],
    /// and the caller must begin a load.
    pub(crate) fn take_batch(
        &mut self,
        room: usize,
        wall: Timestamp,
        windows: Windows,
    ) -> (Option<Batch>, Vec<(Origin, Outcome)>) {
        debug_assert!(self.is_due(), "a chat has one batch at a time");
        let room = room.min(MAX_BATCH_BYTES);
        let mut answers = Vec::new();
        let Some(mut batch) = self.empty_batch() else {
            return (None, answers);
        };
        let sent_at = wall.max(self.last_sent_at);
        let most = if self.one_by_one { 1 } else { MAX_BATCH };
        let mut taken = Vec::new();
        while batch.entries.len() < most && batch.change.is_none() {
            let Some(front) = self.queue.front() else { break };
            let alone = matches!(front.command, Command::Change(_));
            let full = batch.bytes() + front.command.bytes() > room;
            let waits = || batch.meets(&front.command) || self.follows_too_soon(&batch, &front.command);
            if !batch.entries.is_empty() && (alone || full || waits()) {
                break;
            }
            let Some(waiting) = self.queue.pop_front() else {
                break;
            };
            let admitted = self.admit(&waiting.command, wall, windows);
            if !matches!(admitted, Ok(Some(_))) && !waiting.looked_up {
                self.queue.push_front(waiting);
                // If entries of this batch precede it, it is decided after they are committed.
                if batch.entries.is_empty() {
                    self.stage = Stage::Loading;
                }
                break;
            }
            match admitted {
                Ok(None) => {
                    let (sender, request) = waiting.command.request();
                    let unchanged = Known::Unchanged(waiting.command.fingerprint());
                    self.recent.insert(sender, request, unchanged);
                    answers.extend(waiting.answers(Outcome::Changed(Ok(None))));
                }
                Err(refused) => answers.extend(waiting.answers(refused)),
                Ok(Some((new, change))) => {
                    batch.ordinal += u64::from(new.counts);
                    let seq = batch.head().next();
                    batch.entries.push(Entry {
                        chat: self.id,
                        seq,
                        ordinal: batch.ordinal,
                        sent_at,
                        new,
                    });
                    batch.change = change;
                    taken.push(waiting);
                }
            }
        }
        if batch.entries.is_empty() {
            return (None, answers);
        }
        self.in_flight = Some((batch.clone(), taken));
        (Some(batch), answers)
    }

    /// Begins a batch on the present head. `None` if the chat was never loaded.
    fn empty_batch(&self) -> Option<Batch> {
        Some(Batch {
            chat: self.id,
            key: self.key.clone()?,
            expected: self.head,
            ordinal: self.ordinal,
            entries: Vec::new(),
            change: None,
        })
    }

    /// Moves the head, because the batch at the writer is committed. Returns its entries, each with its command and the
    /// callers that wait for it. Returns nothing if the batch belonged to a memory of the chat that was forgotten
    /// since.
    pub fn committed(&mut self, now: Timestamp) -> Vec<(Entry, Waiting)> {
        let Some((batch, taken)) = self.in_flight.take() else {
            return Vec::new();
        };
        debug_assert_eq!(batch.expected, self.head, "the head waits for the batch");
        debug_assert_eq!(batch.entries.len(), taken.len(), "each entry has its command");
        (self.tries, self.locked_tries) = (0, 0);
        if self.queue.is_empty() {
            self.one_by_one = false;
        }
        let first = batch.expected.next();
        self.unsettled = Some(self.unsettled.map_or(first, |lowest| lowest.min(first)));
        self.head = batch.head();
        self.ordinal = batch.ordinal;
        for entry in &batch.entries {
            self.last_sent_at = entry.sent_at;
            self.settle_trace = self.settle_trace.or(entry.new.sending.trace);
            if let Some(trace) = entry.new.sending.trace {
                self.remember_trace(entry.seq, trace);
            }
            let placed = Placed {
                seq: entry.seq,
                ordinal: entry.ordinal,
                sent_at: entry.sent_at,
                fingerprint: entry.new.fingerprint,
                is_message: entry.new.kind == EntryKind::Message,
                erased: false,
                expires_after_s: entry.new.expires_after_s,
            };
            let (sender, request) = (entry.new.sender, entry.new.request);
            self.recent.insert(sender, request, Known::Placed(placed));
            self.authors
                .push(entry.seq, placed.target(sender), entry.new.counts);
            if let Some(about) = &entry.new.about
                && entry.new.kind == EntryKind::Delete
            {
                self.erased(about.target);
            }
            self.acts.committed(&entry.new);
            self.typists.wrote(sender, now);
            if let Some(member) = self.group.members.get_mut(&entry.new.sender) {
                member.last_sent = entry.seq;
                if placed.is_message {
                    member.last_message = Some(entry.sent_at);
                }
                member.own_unread = member.own_unread.saturating_add(entry.new.counts.into());
            }
        }
        if let Some(action) = batch.change {
            action.apply(&mut self.group, batch.expected.next());
            if action.removes() {
                // The receipts of a member who has left are forgotten.
                let members = self.group.members.keys().copied().collect();
                self.receipts.retain(&members);
            }
        }
        batch.entries.into_iter().zip(taken).collect()
    }

    /// Puts the commands of the batch at the writer back into the queue, because the head had moved, a request is in
    /// the log already, or somebody has done enough to a message. The chat must be loaded. If that happened more than
    /// [`MAX_TRIES`] times in a row, every waiting caller is refused, and the refusals are returned.
    pub fn conflict(&mut self) -> Vec<(Origin, Outcome)> {
        self.stage = Stage::Loading;
        self.tries += 1;
        let Some((_, taken)) = self.in_flight.take() else {
            return Vec::new();
        };
        for waiting in taken.into_iter().rev() {
            self.queue.push_front(waiting);
        }
        if self.tries > MAX_TRIES {
            self.tries = 0;
            return self.refuse_all(&Refusal::Unavailable {
                reason: "another node commits to this chat",
                retry_after: std::time::Duration::from_secs(1),
            });
        }
        Vec::new()
    }

    /// Puts the commands of the batch at the writer back into the queue, because another transaction holds a lock that
    /// the batch needs. Returns how often in a row this happened before.
    pub fn locked_out(&mut self) -> u32 {
        if let Some((_, taken)) = self.in_flight.take() {
            for waiting in taken.into_iter().rev() {
                self.queue.push_front(waiting);
            }
        }
        let before = self.locked_tries;
        self.locked_tries = before.saturating_add(1);
        before
    }

    /// Handles a batch that the store refused because of its content or of its cost. Its commands go back to the queue and
    /// are committed one by one, so that only the bad one fails. The callers of a batch of one entry are refused.
    pub fn refused(&mut self, refusal: &Refusal) -> Vec<(Origin, Outcome)> {
        let Some((batch, taken)) = self.in_flight.take() else {
            return Vec::new();
        };
        if batch.entries.len() > 1 {
            self.one_by_one = true;
            for waiting in taken.into_iter().rev() {
                self.queue.push_front(waiting);
            }
            return Vec::new();
        }
        taken
            .iter()
            .flat_map(|waiting| waiting.refused(refusal))
            .collect()
    }

    /// Refuses the callers of the change at the writer, because the store's facts do not allow it. A change is the only
    /// entry of its batch.
    pub fn not_permitted(&mut self, refusal: &ChangeRefusal) -> Vec<(Origin, Outcome)> {
        let Some((batch, taken)) = self.in_flight.take() else {
            return Vec::new();
        };
        debug_assert!(batch.change.is_some(), "only changes are permitted");
        taken
            .iter()
            .flat_map(|waiting| waiting.answers(Outcome::Changed(Err(refusal.clone()))))
            .collect()
    }

    /// Decides whether a command may become an entry now. Returns `Ok(None)` if it is a change of nothing, and `Err`
    /// with the answer if it is refused.
    fn admit(
        &self,
        command: &Command,
        wall: Timestamp,
        windows: Windows,
    ) -> Result<Option<Admitted>, Outcome> {
        match command {
            Command::Send(entry) => {
                let taken = self.takes(entry, wall, windows);
                let admitted = taken.map(|()| Some((self.with_expiry(entry, wall), None)));
                admitted.map_err(|refusal| Outcome::Sent(Err(refusal)))
            }
            Command::Change(change) => {
                let permitted = self.permits(change, wall);
                permitted.map_err(|refusal| Outcome::Changed(Err(refusal)))
            }
        }
    }

    /// Refuses a message that the chat does not take now. Expired tickets are refused only here, after repetitions were
    /// answered: a repeated request gets its result even if its ticket has expired since.
    fn takes(&self, entry: &NewEntry, wall: Timestamp, windows: Windows) -> Result<(), Refusal> {
        self.takes_from(entry)?;
        self.policy_allows(entry, wall)?;
        if let Some(about) = &entry.about {
            let actor = Actor {
                user: entry.sender,
                member: self.member(entry.sender),
                chat: self.kind(),
                edit_role: self.group.policy.edit_role,
            };
            let target = self.target(about.target);
            target::permit(entry.kind, about.target, target, &actor, wall, windows)?;
            if self.acts.are_spent(entry) {
                return Err(Refusal::TooManyActs);
            }
        }
        in_time(&entry.media, wall)
    }

    /// Returns the entry that a change becomes, and `None` if there is nothing to change. Refuses a change that the
    /// group's rules do not permit, or whose ticket has expired, and one in a chat of two people of whom one has
    /// blocked the other.
    fn permits(&self, change: &Change, wall: Timestamp) -> Result<Option<Admitted>, ChangeRefusal> {
        let Permitted::Entry(action) = change::permit(&self.group, change)? else {
            return Ok(None);
        };
        if self.is_blocked() && change.actor != UserId::SYSTEM {
            return Err(Refusal::NotAccepted.into());
        }
        // A change is the only entry of its batch.
        let new = change.entry(&action, &self.group, self.head.next());
        in_time(&new.media, wall)?;
        Ok(Some((Arc::new(new), Some(action))))
    }

    /// Refuses a message that the chat does not take from its sender. A message of the system has no user as its
    /// sender, so it needs no membership, and a block, which is between two people, does not concern it. It is also taken
    /// while the chat is frozen. After a block each of the two may still take back what they said. An own log takes
    /// messages from nobody.
    fn takes_from(&self, entry: &NewEntry) -> Result<(), Refusal> {
        let sender = entry.sender;
        if self.kind() == ChatKind::Own && (sender == UserId::SYSTEM || self.member(sender).is_some()) {
            return Err(Refusal::NotAllowed);
        }
        if sender == UserId::SYSTEM {
            return Ok(());
        }
        self.member(entry.sender).ok_or(Refusal::NotAMember)?;
        if self.is_blocked() && !takes_back(entry) {
            return Err(Refusal::NotAccepted);
        }
        if self.group.frozen {
            return Err(Refusal::Frozen);
        }
        Ok(())
    }
}

/// Returns whether the entry only ends what its sender said before: in a direct chat people delete their own messages
/// only, and everywhere they take back their own reactions only.
fn takes_back(entry: &NewEntry) -> bool {
    let back = entry.about.as_ref().is_some_and(|about| about.take_back);
    entry.kind == EntryKind::Delete || (entry.kind == EntryKind::Reaction && back)
}

/// Refuses media of which a ticket has expired.
fn in_time(media: &[MediaRef], wall: Timestamp) -> Result<(), Refusal> {
    if media.iter().any(|media| media.expires_at <= wall) {
        return Err(Refusal::MediaTicket);
    }
    Ok(())
}
