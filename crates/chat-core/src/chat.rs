//! One chat in its owner's memory: its members, its head, the commands that wait and the entries that are not settled.
//!
//! - [`snapshot`]: the chat as a load reads it from the store
//! - [`command`]: the commands that wait, and their answers
//! - [`batch`]: the way of commands from the queue into a commit, and the result of the commit
//! - [`authors`]: the senders of the newest entries
//! - [`acts`]: how much one person has done to a message
//! - `behind`: the devices that lack entries
//! - `expiry`: the time after which a message disappears
//! - [`typists`]: the people who are typing
//! - [`unread`]: the read mark that a send moves, and the sender's own messages after it
//! - `sending`: who may send by the group's policy, and how soon after their last message

pub mod acts;
pub mod authors;
pub mod batch;
mod behind;
pub mod command;
mod expiry;
mod sending;
pub mod snapshot;
pub mod typists;
pub mod unread;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tern_types::limits::MAX_TYPING_MEMBERS;
use tern_types::{ChatId, DeviceId, IdMap, IdSet, MediaId, Seq, Timestamp, TraceContext, UserId};

use super::bytes::QueuedBytes;
use super::group::Group;
use super::receipts::Receipts;
use super::recent::{Known, Recent};
use super::retention::Retention;
use super::target::Target;
use super::{Making, Origin, Outcome};

use acts::ActCounts;
use authors::Authors;
use behind::Behind;
use typists::Typists;

pub use acts::Acts;
pub use batch::{Batch, MAX_BATCH};
pub use command::{Command, Waiting};
pub use snapshot::{ChatKey, LookUp, Snapshot};

pub use super::group::{ChatKind, Member, Role};

/// The most traced entries that are remembered for each chat. Operators look at a trace soon after the message, and few
/// messages have one.
const MAX_TRACED: usize = 16;

/// The state of a chat in memory, compared with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A load is under way or about to begin. Nothing is decided until its snapshot arrives, and no batch is at the
    /// writer.
    Loading,
    /// A snapshot was loaded, and commands are decided from it.
    Ready,
}

/// A chat in its owner's memory: the last snapshot with what this owner committed since, the commands that wait, and
/// the entries that are not settled.
#[derive(Debug)]
pub struct Chat {
    /// The id of the chat.
    pub id: ChatId,
    /// The state of this memory, compared with the store.
    pub stage: Stage,
    /// The loads under way whose results count: the number of each, and the direct chat that it makes if it does not
    /// exist. All of them began after this owner's last commit.
    pub loads: Vec<(u64, Option<Making>)>,
    /// The direct chat that loads make if it does not exist; `None` if no load was told to make one.
    pub create: Option<Making>,
    /// The callers that asked for a reload. They are answered when a load has ended that began after they asked.
    reloads: Vec<Origin>,
    /// True from the call of [`Self::distrust`] until the reload begins. It does not begin while a batch is at the
    /// writer.
    stale: bool,
    blocked: bool,
    /// The kind, title, picture, policy, members and retention.
    group: Group,
    /// The data key; `None` until the first snapshot.
    key: Option<ChatKey>,
    head: Seq,
    /// The ordinal of the entry at the head: the number of entries so far that count as unread.
    ordinal: u64,
    /// The time of the newest entry, by the wall clock. No later entry has an earlier time.
    last_sent_at: Timestamp,
    recent: Recent,
    /// The watermarks of the members.
    pub receipts: Receipts,
    /// The time at which the gathered receipts are pushed; `None` if none are gathered.
    pub receipts_at: Option<Timestamp>,
    authors: Authors,
    /// The facts about the older entries that the last load was asked for.
    older: BTreeMap<Seq, Target>,
    /// How much the senders of the commands that the last load was for have done to the messages that these are about.
    acts: ActCounts,
    /// The people who are typing.
    pub typists: Typists,
    /// The commands that wait for a batch, in the order in which they came.
    queue: VecDeque<Waiting>,
    /// The bytes of the commands in the queue and at the writer.
    pub queued_bytes: QueuedBytes,
    /// The batch at the writer, and its commands, one for each entry.
    in_flight: Option<(Batch, Vec<Waiting>)>,
    /// True after the store refused a batch: each entry is then committed alone until the queue is empty.
    one_by_one: bool,
    /// The number of batches in a row that found the head moved or a request already in the log.
    tries: u32,
    /// The time until which no batch is taken, because another transaction holds a lock on the chat; `None` if none is
    /// known to.
    pub parked_until: Option<Timestamp>,
    /// The number of batches in a row that found the chat locked.
    locked_tries: u32,
    /// The time at which the shard checks whether callers have waited too long; `None` if no check is due.
    pub answer_by: Option<Timestamp>,
    /// The lowest seq that is not settled; `None` if everything is settled.
    pub unsettled: Option<Seq>,
    /// The time at which the next settle is due; `None` if none is scheduled.
    pub settle_at: Option<Timestamp>,
    /// The head when `settle_at` was set. Entries that were committed later have a settle of their own, which
    /// is scheduled when this one has ended.
    pub settle_upto: Seq,
    /// The number of settles in a row that failed.
    pub settle_tries: u32,
    /// The seq up to which the settle under way covers every entry; `None` if none is under way.
    pub settling: Option<Seq>,
    /// The highest acknowledgement of each device that acknowledged unsettled entries, and the device's user.
    acks: IdMap<DeviceId, (UserId, Seq)>,
    /// The devices that lack entries.
    pub(crate) behind: Behind,
    /// The trace context of the first traced entry that waits for its settle.
    pub settle_trace: Option<TraceContext>,
    /// The newest traced entries, so that an operator who asks where a message is can be shown its trace.
    pub traced: VecDeque<(Seq, TraceContext)>,
    /// The time at which somebody last used the chat, by the monotonic clock.
    pub last_used: Timestamp,
    /// True if the store has a time at which the chat is trimmed next.
    pub(crate) trims: bool,
}

impl Chat {
    /// Makes a chat that has not been loaded yet. `now` counts as its last use.
    pub fn loading(id: ChatId, now: Timestamp) -> Self {
        Self {
            id,
            stage: Stage::Loading,
            loads: Vec::new(),
            create: None,
            reloads: Vec::new(),
            stale: false,
            blocked: false,
            group: Group::default(),
            key: None,
            head: Seq::ZERO,
            ordinal: 0,
            last_sent_at: Timestamp::default(),
            recent: Recent::default(),
            receipts: Receipts::default(),
            receipts_at: None,
            authors: Authors::default(),
            older: BTreeMap::new(),
            acts: ActCounts::default(),
            typists: Typists::default(),
            queue: VecDeque::new(),
            queued_bytes: QueuedBytes::default(),
            in_flight: None,
            one_by_one: false,
            tries: 0,
            parked_until: None,
            locked_tries: 0,
            answer_by: None,
            unsettled: None,
            settle_at: None,
            settle_upto: Seq::ZERO,
            settle_tries: 0,
            settling: None,
            acks: IdMap::default(),
            behind: Behind::default(),
            settle_trace: None,
            traced: VecDeque::new(),
            last_used: now,
            trims: false,
        }
    }

    /// Returns whether the chat is a direct chat, a group or an own log.
    pub fn kind(&self) -> ChatKind {
        self.group.kind
    }

    /// Returns the title, which is empty for direct chats.
    pub fn title(&self) -> &str {
        &self.group.title
    }

    /// Returns the picture, or `None` if there is none.
    pub fn picture(&self) -> Option<MediaId> {
        self.group.picture
    }

    /// Returns what the members chose for how long their messages are kept.
    pub fn retention(&self) -> Retention {
        self.group.retention
    }

    /// Returns the seq of the newest entry that is known.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Returns whether one of a direct chat's two people has blocked the other. Such a chat takes messages of the
    /// system only, but lets both take back what they said.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns the present member with this id, or `None` if the user is not a member.
    pub fn member(&self, user: UserId) -> Option<&Member> {
        self.group.member(user)
    }

    /// Returns the present members, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = (UserId, &Member)> {
        self.group.members.iter().map(|(user, member)| (*user, member))
    }

    /// Returns the number of present members.
    pub fn member_count(&self) -> usize {
        self.group.members.len()
    }

    /// Returns the number of commands in the queue and at the writer.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.as_ref().map_or(0, |(_, waiting)| waiting.len())
    }

    /// Returns whether [`Self::take_batch`] may be called now: the chat is loaded, commands wait, no batch is at the
    /// writer, and no lock of another transaction is known.
    pub(crate) fn is_due(&self) -> bool {
        self.stage == Stage::Ready
            && self.in_flight.is_none()
            && self.parked_until.is_none()
            && !self.queue.is_empty()
    }

    /// Returns whether a batch is at the writer.
    pub(crate) fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns whether this chat may be forgotten without a loss: nobody waits for it, its entries are settled, and no
    /// receipts are gathered. The shard knows of the receipts that are pushed at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting() == 0
            && self.unsettled.is_none()
            && self.settling.is_none()
            && self.receipts_at.is_none()
            && self.stage == Stage::Ready
    }

    /// Notes that the chat must be loaded anew. The results of loads that have begun count no more, and `origin` is
    /// answered when the next load has ended. A batch at the writer was decided before, and stays.
    pub(crate) fn distrust(&mut self, origin: Origin) {
        self.reloads.push(origin);
        self.loads.clear();
        self.stale = true;
    }

    /// Takes the answers to the callers of [`Self::distrust`], after a load that began later has read the store.
    pub fn heard(&mut self) -> Vec<(Origin, Outcome)> {
        let origins = self.reloads.drain(..);
        origins.map(|origin| (origin, Outcome::Noted(Ok(())))).collect()
    }

    /// Returns whether a load must begin now because of [`Self::distrust`]. If so, the chat becomes [`Stage::Loading`].
    pub(crate) fn reloads_now(&mut self) -> bool {
        let now = self.stale && self.in_flight.is_none();
        if now {
            self.stage = Stage::Loading;
        }
        now
    }

    /// Returns whether a load must begin for a command that was just put into the queue: the chat is being loaded, and
    /// no load under way makes this direct chat. With `None` any load will do.
    pub(crate) fn needs_load(&self, create: Option<Making>) -> bool {
        let will_do = |(_, making): &(u64, Option<Making>)| create.is_none() || *making == create;
        self.stage == Stage::Loading && !self.loads.iter().any(will_do)
    }

    /// Notes that the load with this number begins. It reads everything that was committed before. `create` is the
    /// direct chat that it makes if it does not exist; if that is `None`, an earlier load's stays.
    pub(crate) fn load_begins(&mut self, number: u64, create: Option<Making>) {
        debug_assert!(
            self.stage == Stage::Loading && self.in_flight.is_none(),
            "a load must find the store as this owner left it"
        );
        self.stale = false;
        self.create = create.or(self.create);
        self.loads.push((number, self.create));
    }

    /// Notes that a load has ended. Returns false if its result does not count, because of [`Self::distrust`] or
    /// because another load's snapshot was taken over since it began.
    pub(crate) fn load_ended(&mut self, number: u64) -> bool {
        debug_assert!(
            self.loads.is_empty() || self.stage == Stage::Loading,
            "a load that counts finds the chat as it left it"
        );
        let counts = self.loads.iter().position(|(load, _)| *load == number);
        counts.map(|place| self.loads.swap_remove(place)).is_some()
    }

    /// Returns what a load looks up for the commands in the queue. Messages that are known now are among it: the load
    /// replaces what is known, and another owner may have committed so much that it does not reach back to them.
    pub fn look_up(&self) -> LookUp {
        let commands = || self.queue.iter().map(|waiting| &waiting.command);
        let targets: BTreeSet<Seq> = commands()
            .filter_map(|command| Some(command.about()?.target))
            .collect();
        LookUp {
            requests: commands().map(Command::request).collect(),
            targets: targets.into_iter().collect(),
            acts: commands().filter_map(Command::acts).collect(),
        }
    }

    /// Returns what decides about doing something to the entry at `seq`; `None` if nothing is known of the entry.
    fn target(&self, seq: Seq) -> Option<Target> {
        self.authors.target(seq).or_else(|| self.older.get(&seq).copied())
    }

    /// Notes that the content of the entry at `seq` is gone.
    fn erased(&mut self, seq: Seq) {
        self.authors.erase(seq);
        if let Some(older) = self.older.get_mut(&seq) {
            older.erased = true;
        }
    }

    /// Takes over the snapshot. The results of other loads under way count no more, because they may lack what is
    /// committed from now on. Returns the answers to commands that are in the log already, and to callers of a reload.
    pub fn load(&mut self, snapshot: Snapshot) -> Vec<(Origin, Outcome)> {
        debug_assert!(self.in_flight.is_none(), "a batch stands on the head");
        self.stage = Stage::Ready;
        self.loads.clear();
        self.create = None;
        // Another owner may have settled what this one does not know of.
        self.behind.forget();
        self.blocked = snapshot.blocked;
        self.group.kind = snapshot.kind;
        self.group.title = snapshot.title;
        self.group.picture = snapshot.picture;
        self.group.description = snapshot.description;
        self.group.policy = snapshot.policy;
        self.group.frozen = snapshot.frozen;
        self.group.retention = snapshot.retention;
        self.trims = snapshot.trims;
        self.key = Some(snapshot.key);
        self.head = snapshot.head;
        self.ordinal = snapshot.ordinal;
        self.last_sent_at = self.last_sent_at.max(snapshot.last_sent_at);
        self.group.members.clear();
        for (user, member, mark) in snapshot.members {
            self.receipts.load(user, mark);
            self.group.members.insert(user, member);
        }
        self.unsettled = match (self.unsettled, snapshot.unsettled) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        let entries = snapshot.placed.iter();
        self.authors
            .load(self.head, entries.map(|(user, _, placed)| (*user, placed)));
        self.older = snapshot.targets.into_iter().collect();
        if self.acts.load(snapshot.acts) {
            // The store refused the batch for an act too many, and that is not another owner's doing.
            self.tries = 0;
        }
        self.count_own_unread();
        for (user, _, placed) in &snapshot.placed {
            if let Some(member) = self.group.members.get_mut(user) {
                member.last_sent = member.last_sent.max(placed.seq);
                if placed.is_message {
                    member.last_message = member.last_message.max(Some(placed.sent_at));
                }
            }
        }
        let mut answers = self.answer_placed(&snapshot.placed, &snapshot.looked_up);
        for (user, request, placed) in snapshot.placed {
            self.recent.insert(user, request, Known::Placed(placed));
        }
        answers.extend(self.heard());
        answers
    }

    /// Notes that the device has stored every entry up to `seq`. An acknowledgement above the head is dropped (fine
    /// print 2). Returns true if somebody is to be told that the user's delivered watermark rose.
    pub fn acknowledge(&mut self, user: UserId, device: DeviceId, seq: Seq) -> bool {
        if seq > self.head {
            return false;
        }
        if self.unsettled.is_some_and(|lowest| seq >= lowest) {
            let mark = self.acks.entry(device).or_insert((user, Seq::ZERO));
            mark.1 = mark.1.max(seq);
        }
        self.group.members.contains_key(&user) && self.receipts.delivered(user, seq)
    }

    /// Remembers the trace context of a committed entry, and forgets the oldest if there are too many.
    fn remember_trace(&mut self, seq: Seq, trace: TraceContext) {
        if self.traced.len() == MAX_TRACED {
            self.traced.pop_front();
        }
        self.traced.push_back((seq, trace));
    }

    /// Returns the acknowledgements that the next settle takes into account.
    pub fn acks(&self) -> impl Iterator<Item = (DeviceId, Seq)> {
        self.acks.iter().map(|(device, (_, seq))| (*device, *seq))
    }

    /// Returns the seq up to which a settle that is due goes. It is the head if every device that acknowledged
    /// unsettled entries has acknowledged the head (or no device acknowledged any), else `settle_upto`. Both are ends
    /// of commits, as they must be: an unsettled row covers a whole commit and is deleted as a whole.
    pub(crate) fn settles_upto(&self) -> Seq {
        let all_there = self.acks.values().all(|(_, seq)| *seq >= self.head);
        if all_there { self.head } else { self.settle_upto }
    }

    /// Returns whether every member has acknowledged the head, with one device at least. A settle then most likely finds
    /// no device missing.
    pub(crate) fn has_reached_everybody(&self) -> bool {
        let reached = self.acks.values().filter(|(_, seq)| *seq >= self.head);
        let reached: IdSet<UserId> = reached.map(|(user, _)| *user).collect();
        self.members().all(|(user, _)| reached.contains(&user))
    }

    /// Notes that every entry up to `upto` is settled.
    pub fn settled(&mut self, upto: Seq) {
        (self.settling, self.settle_tries) = (None, 0);
        self.unsettled = (self.head > upto).then(|| upto.next());
        self.acks.retain(|_, (_, seq)| *seq > upto);
    }

    /// Returns the members who sent an entry after `since`, up to `upto`. If the senders are not remembered as far back
    /// as `since`, it returns all members who may have sent an entry since: a few too many, never too few.
    pub(crate) fn senders_of(&self, since: Seq, upto: Seq) -> Vec<UserId> {
        match self.authors.between(since, upto) {
            Some(senders) => {
                let senders: BTreeSet<UserId> = senders.collect();
                senders
                    .into_iter()
                    .filter(|sender| self.group.members.contains_key(sender))
                    .collect()
            }
            None => {
                let senders = self
                    .group
                    .members
                    .iter()
                    .filter(|(_, member)| member.last_sent > since);
                senders.map(|(sender, _)| *sender).collect()
            }
        }
    }

    /// Returns whether the chat passes typing on: a direct chat does, a group only up to [`MAX_TYPING_MEMBERS`]
    /// members, an own log has nobody to tell, and no chat that is frozen does.
    pub(crate) fn takes_typing(&self) -> bool {
        if self.group.frozen {
            return false;
        }
        match self.group.kind {
            ChatKind::Direct => true,
            ChatKind::Group => self.group.members.len() <= MAX_TYPING_MEMBERS,
            ChatKind::Own => false,
        }
    }
}
