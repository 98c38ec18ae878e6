//! One chat as its owner knows it.
//!
//! - [`snapshot`]: the chat as a load reads it from the store
//! - [`command`]: the commands that wait, and their answers
//! - `group`: how changes of a group change it
//! - [`batch`]: from the queue into a commit, and the result of the commit
//! - [`authors`]: who sent the newest entries; [`typists`]: who is typing
//! - [`unread`]: what a send says about what its sender has read

pub mod authors;
pub mod batch;
pub mod command;
mod group;
pub mod snapshot;
pub mod typists;
pub mod unread;

use std::collections::{BTreeSet, VecDeque};

use tern_types::limits::MAX_TYPING_MEMBERS;
use tern_types::{ChatId, DeviceId, IdMap, MediaId, RequestId, Seq, Timestamp, TraceContext, UserId};

use super::bytes::Held;
use super::receipts::Receipts;
use super::recent::{Known, Recent};
use super::{Making, Origin, Outcome};

use authors::Authors;
use typists::Typists;

pub use batch::{Batch, MAX_BATCH};
pub use command::{Command, Waiting};
pub use snapshot::{ChatKey, ChatKind, Member, Role, Snapshot};

/// Traced entries remembered for each chat. Operators look at a trace soon after the message, and few messages have
/// one.
const MAX_TRACED: usize = 16;

/// Where a chat stands between memory and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A load is under way or about to begin; nothing is decided until its snapshot arrives.
    Loading,
    /// A snapshot was loaded.
    Ready,
}

/// A chat in its owner's memory: what the last snapshot said and what this owner committed since, the commands that
/// wait, and the entries that are not settled.
#[derive(Debug)]
pub struct Chat {
    pub id: ChatId,
    pub stage: Stage,
    /// The numbers of the loads under way whose results count.
    pub loads: Vec<u64>,
    /// The people of the direct chat that a load makes if it does not exist, as one of the loads under way was told.
    pub create: Option<Making>,
    /// Callers that asked for a reload, and are answered by a load that began after they asked.
    reloads: Vec<Origin>,
    /// A reload was asked for and has not begun, because a batch is under way.
    stale: bool,
    blocked: bool,
    kind: ChatKind,
    title: String,
    picture: Option<MediaId>,
    key: Option<ChatKey>,
    head: Seq,
    ordinal: u64,
    last_sent_at: Timestamp,
    members: IdMap<UserId, Member>,
    recent: Recent,
    pub receipts: Receipts,
    /// When the receipts that are gathered are pushed; `None`: none are gathered.
    pub receipts_at: Option<Timestamp>,
    authors: Authors,
    pub typists: Typists,
    queue: VecDeque<Waiting>,
    /// The bytes of the commands that wait.
    pub held: Held,
    /// The batch at the writer, and the commands that it carries.
    in_flight: Option<(Batch, Vec<Waiting>)>,
    /// The store refused a batch, so each entry is committed alone until the queue is empty.
    one_by_one: bool,
    /// How often in a row a batch found the head moved or a request already in the log.
    tries: u32,
    /// Another transaction holds a lock on the chat; until then no batch is taken.
    pub parked_until: Option<Timestamp>,
    /// How often in a row a batch found the chat locked.
    held_tries: u32,
    /// When the shard checks whether callers have waited too long; `None`: nobody waits.
    pub answer_by: Option<Timestamp>,
    /// The lowest seq that is not settled; `None`: everything is settled.
    pub unsettled: Option<Seq>,
    /// When the next settle is due.
    pub settle_at: Option<Timestamp>,
    /// The head when `settle_at` was set. Entries that were committed later get their own half second.
    pub settle_upto: Seq,
    /// How many settles failed in a row.
    pub settle_tries: u32,
    /// The settle under way covers every entry up to here.
    pub settling: Option<Seq>,
    /// Each device's highest acknowledgement of unsettled entries.
    acks: IdMap<DeviceId, (UserId, Seq)>,
    /// The trace context of the first traced entry that waits for its settle.
    pub settle_trace: Option<TraceContext>,
    /// The newest traced entries, so that an operator who asks where a message is can be shown its trace.
    pub traced: VecDeque<(Seq, TraceContext)>,
    pub last_used: Timestamp,
}

impl Chat {
    /// A chat that has not been loaded yet. `now` counts as its last use.
    pub fn loading(id: ChatId, now: Timestamp) -> Self {
        Self {
            id,
            stage: Stage::Loading,
            loads: Vec::new(),
            create: None,
            reloads: Vec::new(),
            stale: false,
            blocked: false,
            kind: ChatKind::Group,
            title: String::new(),
            picture: None,
            key: None,
            head: Seq::ZERO,
            ordinal: 0,
            last_sent_at: Timestamp::default(),
            members: IdMap::default(),
            recent: Recent::default(),
            receipts: Receipts::default(),
            receipts_at: None,
            authors: Authors::default(),
            typists: Typists::default(),
            queue: VecDeque::new(),
            held: Held::default(),
            in_flight: None,
            one_by_one: false,
            tries: 0,
            parked_until: None,
            held_tries: 0,
            answer_by: None,
            unsettled: None,
            settle_at: None,
            settle_upto: Seq::ZERO,
            settle_tries: 0,
            settling: None,
            acks: IdMap::default(),
            settle_trace: None,
            traced: VecDeque::new(),
            last_used: now,
        }
    }

    /// Whether the chat is a direct chat or a group.
    pub fn kind(&self) -> ChatKind {
        self.kind
    }

    /// The title; empty for direct chats.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The picture; `None` if there is none.
    pub fn picture(&self) -> Option<MediaId> {
        self.picture
    }

    /// The seq of the newest entry that is known.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Whether one of a direct chat's two people has blocked the other. Such a chat takes messages of the system
    /// only.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// A present member; `None` if the user is none.
    pub fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user)
    }

    /// The present members, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = (UserId, &Member)> {
        self.members.iter().map(|(user, member)| (*user, member))
    }

    /// The number of present members.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The number of commands in the queue and at the writer.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.as_ref().map_or(0, |(_, waiting)| waiting.len())
    }

    /// Whether [`Self::take_batch`] may be called now.
    pub fn is_due(&self) -> bool {
        self.stage == Stage::Ready
            && self.in_flight.is_none()
            && self.parked_until.is_none()
            && !self.queue.is_empty()
    }

    /// Whether a batch is under way at the writer.
    pub fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether forgetting this chat loses nothing that is not in the store.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0
            && self.unsettled.is_none()
            && self.settling.is_none()
            && self.receipts_at.is_none()
            && self.stage == Stage::Ready
    }

    /// Discards what is known of the chat: loads that have begun count no more, and `origin` is answered by the next
    /// one. A batch at the writer was decided before, and stays.
    pub fn distrust(&mut self, origin: Origin) {
        self.reloads.push(origin);
        self.loads.clear();
        self.stale = true;
    }

    /// The answers to every caller of [`Self::distrust`], once a load that began afterwards has read the store.
    pub fn heard(&mut self) -> Vec<(Origin, Outcome)> {
        let origins = self.reloads.drain(..);
        origins.map(|origin| (origin, Outcome::Unchanged)).collect()
    }

    /// Whether a load must begin now because of [`Self::distrust`]. If so, the chat becomes [`Stage::Loading`].
    pub fn reloads_now(&mut self) -> bool {
        let now = self.stale && self.in_flight.is_none();
        if now {
            self.stage = Stage::Loading;
        }
        now
    }

    /// Notes that the load with this number begins. It reads whatever was in the store before.
    pub fn load_begins(&mut self, number: u64, create: Option<Making>) {
        self.stale = false;
        self.create = create.or(self.create);
        self.loads.push(number);
    }

    /// Notes that a load has ended. Returns false if its result does not count.
    pub fn load_ended(&mut self, number: u64) -> bool {
        let counts = self.loads.iter().position(|load| *load == number);
        counts.map(|place| self.loads.swap_remove(place)).is_some()
    }

    /// The requests of the waiting commands, which a load looks up in the log.
    pub fn requests(&self) -> Vec<(UserId, RequestId)> {
        self.queue
            .iter()
            .map(|waiting| waiting.command.request())
            .collect()
    }

    /// Takes over the snapshot. Returns the answers to commands that are in the log already, and to callers of a
    /// reload.
    pub fn load(&mut self, snapshot: Snapshot) -> Vec<(Origin, Outcome)> {
        self.stage = Stage::Ready;
        self.create = None;
        self.blocked = snapshot.blocked;
        self.kind = snapshot.kind;
        self.title = snapshot.title;
        self.picture = snapshot.picture;
        self.key = Some(snapshot.key);
        self.head = snapshot.head;
        self.ordinal = snapshot.ordinal;
        self.last_sent_at = self.last_sent_at.max(snapshot.last_sent_at);
        self.members.clear();
        for (user, member, mark) in snapshot.members {
            self.receipts.load(user, mark);
            self.members.insert(user, member);
        }
        self.unsettled = match (self.unsettled, snapshot.unsettled) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        let entries = snapshot.placed.iter();
        self.authors.load(
            self.head,
            entries.map(|(user, _, placed)| (placed.seq, *user, placed.ordinal)),
        );
        self.count_own_unread();
        for (user, _, placed) in &snapshot.placed {
            if let Some(member) = self.members.get_mut(user) {
                member.last_sent = member.last_sent.max(placed.seq);
            }
        }
        let mut answers = self.answer_placed(&snapshot.placed, &snapshot.looked_up);
        for (user, request, placed) in snapshot.placed {
            self.recent.insert(user, request, Known::Placed(placed));
        }
        answers.extend(self.heard());
        answers
    }

    /// Notes that the device has stored every entry up to `seq`. An acknowledgement above the head is dropped.
    /// Returns true if somebody is to be told that the user's delivered watermark rose.
    pub fn acknowledge(&mut self, user: UserId, device: DeviceId, seq: Seq) -> bool {
        if seq > self.head {
            return false;
        }
        if self.unsettled.is_some_and(|lowest| seq >= lowest) {
            let mark = self.acks.entry(device).or_insert((user, Seq::ZERO));
            mark.1 = mark.1.max(seq);
        }
        self.members.contains_key(&user) && self.receipts.delivered(user, seq)
    }

    fn remember_trace(&mut self, seq: Seq, trace: TraceContext) {
        if self.traced.len() == MAX_TRACED {
            self.traced.pop_front();
        }
        self.traced.push_back((seq, trace));
    }

    /// The acknowledgements that the next settle takes into account.
    pub fn acks(&self) -> impl Iterator<Item = (DeviceId, Seq)> {
        self.acks.iter().map(|(device, (_, seq))| (*device, *seq))
    }

    /// The seq up to which a settle that is due goes: the head if every device with an acknowledgement of unsettled
    /// entries has acknowledged the head (or there is none), else `settle_upto`. Both are ends of commits, as they
    /// must be: an unsettled row covers a whole commit and is deleted as a whole.
    pub fn settles_upto(&self) -> Seq {
        let all_there = self.acks.values().all(|(_, seq)| *seq >= self.head);
        if all_there { self.head } else { self.settle_upto }
    }

    /// Notes that every entry up to `upto` is settled.
    pub fn settled(&mut self, upto: Seq) {
        (self.settling, self.settle_tries) = (None, 0);
        self.unsettled = (self.head > upto).then(|| upto.next());
        self.acks.retain(|_, (_, seq)| *seq > upto);
    }

    /// The members who sent an entry after `since`, up to `upto`. If `since` is too far back to know, all members who
    /// sent anything since: a few too many, never too few.
    pub fn senders_of(&self, since: Seq, upto: Seq) -> Vec<UserId> {
        match self.authors.between(since, upto) {
            Some(senders) => {
                let senders: BTreeSet<UserId> = senders.collect();
                senders
                    .into_iter()
                    .filter(|sender| self.members.contains_key(sender))
                    .collect()
            }
            None => {
                let senders = self.members.iter().filter(|(_, member)| member.last_sent > since);
                senders.map(|(sender, _)| *sender).collect()
            }
        }
    }

    /// Whether the chat passes typing on: a direct chat does, a group only up to [`MAX_TYPING_MEMBERS`] members.
    pub fn takes_typing(&self) -> bool {
        match self.kind {
            ChatKind::Direct => true,
            ChatKind::Group => self.members.len() <= MAX_TYPING_MEMBERS,
        }
    }
}
