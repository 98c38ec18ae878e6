//! One chat as its owner knows it.
//!
//! - [`snapshot`]: what a load brings
//! - [`command`]: what waits, and its answers
//! - [`batch`]: from the queue into a commit, and what came of it
//! - [`authors`]: who sent the newest entries; [`typists`]: who writes
//! - [`unread`]: what a send says of what its sender has read

pub mod authors;
pub mod batch;
pub mod command;
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

/// Traced entries remembered: a trace is looked at soon, and few messages have one.
const MAX_TRACED: usize = 16;

/// Where a chat stands between memory and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A snapshot was asked for.
    Loading,
    Ready,
}

/// See the module.
#[derive(Debug)]
pub struct Chat {
    pub id: ChatId,
    pub stage: Stage,
    /// Loads under way whose results count, by their numbers.
    pub loads: Vec<u64>,
    /// Who make the chat where it does not exist, as one of these loads was told.
    pub create: Option<Making>,
    /// Asked that the chat be loaded anew: by a load that begins after they asked.
    reloads: Vec<Origin>,
    /// That load is still to begin: a batch is under way.
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
    /// What rose is told then.
    pub receipts_at: Option<Timestamp>,
    authors: Authors,
    pub typists: Typists,
    queue: VecDeque<Waiting>,
    /// Bytes of what waits.
    pub held: Held,
    in_flight: Option<(Batch, Vec<Waiting>)>,
    one_by_one: bool,
    tries: u32,
    /// Nothing is committed before: somebody holds the chat in the store.
    pub parked_until: Option<Timestamp>,
    /// Batches that found it held since the last that did not.
    held_tries: u32,
    /// When those who wait are looked at for whether they waited too long.
    pub answer_by: Option<Timestamp>,
    /// The lowest entry that is not settled.
    pub unsettled: Option<Seq>,
    pub settle_at: Option<Timestamp>,
    /// The head when that was decided: what was committed since gets its own half second.
    pub settle_upto: Seq,
    /// Settles that failed since the last that did not.
    pub settle_tries: u32,
    /// The settle under way covers everything up to here.
    pub settling: Option<Seq>,
    /// Acknowledgements of what is not settled.
    acks: IdMap<DeviceId, (UserId, Seq)>,
    /// Of the first traced entry that waits for its settle.
    pub settle_trace: Option<TraceContext>,
    /// The last traced entries, for who asks where a message is.
    pub traced: VecDeque<(Seq, TraceContext)>,
    pub last_used: Timestamp,
}

impl Chat {
    /// A chat that is about to be loaded.
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

    pub fn kind(&self) -> ChatKind {
        self.kind
    }

    pub fn title(&self) -> &str {
        &self.title
    }

    pub fn picture(&self) -> Option<MediaId> {
        self.picture
    }

    pub fn head(&self) -> Seq {
        self.head
    }

    /// A direct chat of two people one of whom has blocked the other: it takes no messages.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub fn member(&self, user: UserId) -> Option<&Member> {
        self.members.get(&user)
    }

    pub fn members(&self) -> impl Iterator<Item = (UserId, &Member)> {
        self.members.iter().map(|(user, member)| (*user, member))
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    pub fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.as_ref().map_or(0, |(_, waiting)| waiting.len())
    }

    /// Whether a batch can be taken now.
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

    /// What is known of the chat counts no more, nor do loads that have begun; `origin` waits for the next one. What is
    /// being committed was decided before.
    pub fn distrust(&mut self, origin: Origin) {
        self.reloads.push(origin);
        self.loads.clear();
        self.stale = true;
    }

    /// Whether a load is to begin now because of [`Self::distrust`]; the chat is [`Stage::Loading`] then.
    pub fn reloads_now(&mut self) -> bool {
        let now = self.stale && self.in_flight.is_none();
        if now {
            self.stage = Stage::Loading;
        }
        now
    }

    /// A load begins: it sees whatever was in the store before.
    pub fn load_begins(&mut self, number: u64, create: Option<Making>) {
        self.stale = false;
        self.create = create.or(self.create);
        self.loads.push(number);
    }

    /// A load has ended. False: it does not count.
    pub fn load_ended(&mut self, number: u64) -> bool {
        let counts = self.loads.iter().position(|load| *load == number);
        counts.map(|place| self.loads.swap_remove(place)).is_some()
    }

    /// The requests that a load should look for.
    pub fn requests(&self) -> Vec<(UserId, RequestId)> {
        self.queue
            .iter()
            .map(|waiting| waiting.command.request())
            .collect()
    }

    /// Takes over what the store says; answers what turned out to be placed already, and who waited for a reload.
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
        answers.extend(self.reloads.drain(..).map(|origin| (origin, Outcome::Unchanged)));
        answers
    }

    /// Remembers what a device has of the unsettled entries. Above the head: dropped.
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

    /// The acknowledgements that the settle takes into account.
    pub fn acks(&self) -> impl Iterator<Item = (DeviceId, Seq)> {
        self.acks.iter().map(|(device, (_, seq))| (*device, *seq))
    }

    /// Up to where a settle that is due goes: to the head where whoever acknowledges at all has everything, else to what has
    /// had its time. Both are ends of commits: an unsettled row says where a commit began, and goes as a whole.
    pub fn settles_upto(&self) -> Seq {
        let all_there = self.acks.values().all(|(_, seq)| *seq >= self.head);
        if all_there { self.head } else { self.settle_upto }
    }

    /// Everything up to `upto` is settled.
    pub fn settled(&mut self, upto: Seq) {
        (self.settling, self.settle_tries) = (None, 0);
        self.unsettled = (self.head > upto).then(|| upto.next());
        self.acks.retain(|_, (_, seq)| *seq > upto);
    }

    /// The members who sent anything of what lies after `since`, up to `upto`; where that is longer ago than what is known,
    /// all who sent anything since.
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

    /// Whether anybody is told that a member writes.
    pub fn takes_typing(&self) -> bool {
        match self.kind {
            ChatKind::Direct => true,
            ChatKind::Group => self.members.len() <= MAX_TYPING_MEMBERS,
        }
    }
}
