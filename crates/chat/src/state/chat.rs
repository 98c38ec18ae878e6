//! One chat as its owner knows it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, TraceContext, UserId};

use super::bytes::{Held, Share};
use super::change::{self, Action, Change, Permitted};
use super::entry::{Entry, NewEntry};
use super::receipts::{Receipts, Watermark};
use super::recent::{Known, Placed, Recent};
use super::{Origin, Outcome, Refusal};
use crate::content;

/// Entries of one chat in one commit: a hot group waits for its turn like everybody.
pub const MAX_BATCH: usize = 64;
/// Bytes of them, for the same reason: a quarter of a commit. A single entry always fits.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// What a command weighs besides its content.
const COMMAND_BYTES: usize = 256;
/// How often a batch is tried again because the head had moved; more means that another node commits to this chat
/// all the time, and the map will tell soon which of the two is right.
const MAX_TRIES: u32 = 8;

/// `tern.v1.ChatKind`; the number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum ChatKind {
    Direct = 1,
    Group = 2,
}

/// `tern.v1.Role`; the number is stored. Ordered by what they may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Role {
    Member = 1,
    Admin = 2,
    Owner = 3,
}

/// A present member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub role: Role,
    pub joined: Seq,
    /// No entry of theirs is above this one; 0: they never sent any. Too high, they are told of receipts that do not
    /// concern them; too low, they would miss some.
    pub last_sent: Seq,
}

/// The chat's data key; opened by the store's adapter, only carried here.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatKey(pub Arc<[u8; 32]>);

impl fmt::Debug for ChatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatKey(…)")
    }
}

/// A chat as the store had it at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub kind: ChatKind,
    pub title: String,
    pub key: ChatKey,
    pub head: Seq,
    pub ordinal: u64,
    pub members: Vec<(UserId, Member, Watermark)>,
    /// The lowest entry that is not settled yet.
    pub unsettled: Option<Seq>,
    /// The newest requests, and those that were asked for.
    pub placed: Vec<(UserId, RequestId, Placed)>,
    /// What was asked for: such a request that is not in `placed` has no place in the log.
    pub looked_up: Vec<(UserId, RequestId)>,
    pub last_sent_at: Timestamp,
}

/// A command that waits for its place in the log.
#[derive(Debug)]
pub struct Waiting {
    /// One, or more where the same request came again meanwhile.
    pub origins: Vec<Origin>,
    pub command: Command,
    /// The snapshot that the chat stands on was asked for this request: it is new. Otherwise it may be older than
    /// what is remembered, and only the store knows its answer (rule 5).
    pub looked_up: bool,
    /// Its part of what may wait: in the chat and in the shard.
    _room: [Share; 2],
}

#[derive(Debug, Clone)]
pub enum Command {
    Send(Arc<NewEntry>),
    Change(Change),
}

impl Command {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Send(entry) => entry.content.len(),
            Self::Change(change) => change.action.bytes(),
        };
        COMMAND_BYTES + content
    }

    fn request(&self) -> (UserId, RequestId) {
        match self {
            Self::Send(entry) => (entry.sender, entry.request),
            Self::Change(change) => (change.actor, change.request),
        }
    }

    fn fingerprint(&self) -> super::entry::Fingerprint {
        match self {
            Self::Send(entry) => entry.fingerprint,
            Self::Change(change) => change.fingerprint,
        }
    }
}

/// What one commit does to one chat.
#[derive(Debug, Clone)]
pub struct Batch {
    pub chat: ChatId,
    pub key: ChatKey,
    /// The head that the commit compares with.
    pub expected: Seq,
    pub ordinal: u64,
    pub entries: Vec<Entry>,
    /// Set for a change of the group: it is the only entry then, and is committed in a transaction of its own.
    pub change: Option<Action>,
}

impl Batch {
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.new.content.len()).sum()
    }

    pub fn head(&self) -> Seq {
        self.entries.last().map_or(self.expected, |entry| entry.seq)
    }
}

/// An entry that may be made, and the change that it stands for.
type Admitted = (Arc<NewEntry>, Option<Action>);

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
    /// Loads under way.
    pub loads: u32,
    kind: ChatKind,
    title: String,
    key: Option<ChatKey>,
    head: Seq,
    ordinal: u64,
    last_sent_at: Timestamp,
    members: HashMap<UserId, Member>,
    recent: Recent,
    pub receipts: Receipts,
    queue: VecDeque<Waiting>,
    /// Bytes of what waits.
    pub held: Held,
    in_flight: Option<(Batch, Vec<Waiting>)>,
    one_by_one: bool,
    tries: u32,
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
    acks: HashMap<DeviceId, (UserId, Seq)>,
    /// Of the first traced entry that waits for its settle.
    pub settle_trace: Option<TraceContext>,
    pub last_used: Timestamp,
}

impl Chat {
    /// A chat that is about to be loaded.
    pub fn loading(id: ChatId, now: Timestamp) -> Self {
        Self {
            id,
            stage: Stage::Loading,
            loads: 0,
            kind: ChatKind::Group,
            title: String::new(),
            key: None,
            head: Seq::ZERO,
            ordinal: 0,
            last_sent_at: Timestamp::default(),
            members: HashMap::new(),
            recent: Recent::default(),
            receipts: Receipts::default(),
            queue: VecDeque::new(),
            held: Held::default(),
            in_flight: None,
            one_by_one: false,
            tries: 0,
            unsettled: None,
            settle_at: None,
            settle_upto: Seq::ZERO,
            settle_tries: 0,
            settling: None,
            acks: HashMap::new(),
            settle_trace: None,
            last_used: now,
        }
    }

    pub fn kind(&self) -> ChatKind {
        self.kind
    }

    pub fn title(&self) -> &str {
        &self.title
    }

    pub fn head(&self) -> Seq {
        self.head
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
        self.stage == Stage::Ready && self.in_flight.is_none() && !self.queue.is_empty()
    }

    /// Whether forgetting this chat loses nothing that is not in the store.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0
            && self.unsettled.is_none()
            && self.settling.is_none()
            && self.stage == Stage::Ready
    }

    /// The requests that a load should look for.
    pub fn requests(&self) -> Vec<(UserId, RequestId)> {
        self.queue
            .iter()
            .map(|waiting| waiting.command.request())
            .collect()
    }

    /// Takes over what the store says; answers what turned out to be placed already.
    pub fn load(&mut self, snapshot: Snapshot) -> Vec<(Origin, Outcome)> {
        self.stage = Stage::Ready;
        self.kind = snapshot.kind;
        self.title = snapshot.title;
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
        for (user, _, placed) in &snapshot.placed {
            if let Some(member) = self.members.get_mut(user) {
                member.last_sent = member.last_sent.max(placed.seq);
            }
        }
        let answers = self.answer_placed(&snapshot.placed, &snapshot.looked_up);
        for (user, request, placed) in snapshot.placed {
            self.recent.insert(user, request, Known::Placed(placed));
        }
        answers
    }

    /// Answers whoever waits for what has its place already. The old ones among `placed` do not stay among the recent, so
    /// it is these that are asked.
    fn answer_placed(
        &mut self,
        placed: &[(UserId, RequestId, Placed)],
        looked_up: &[(UserId, RequestId)],
    ) -> Vec<(Origin, Outcome)> {
        let placed: HashMap<(UserId, RequestId), &Placed> = placed
            .iter()
            .map(|(user, request, placed)| ((*user, *request), placed))
            .collect();
        let looked_up: HashSet<&(UserId, RequestId)> = looked_up.iter().collect();
        let mut answers = Vec::new();
        for mut waiting in std::mem::take(&mut self.queue) {
            let request = waiting.command.request();
            match placed.get(&request) {
                Some(placed) => {
                    let outcome = self.answer_of(Known::Placed(**placed), &waiting.command);
                    answers.extend(waiting.origins.iter().map(|origin| (*origin, outcome.clone())));
                }
                None => {
                    waiting.looked_up = looked_up.contains(&request);
                    self.queue.push_back(waiting);
                }
            }
        }
        answers
    }

    /// Takes a command; `Some` is its answer where there is one at once. `room`: held while it waits.
    pub fn enqueue(&mut self, origin: Origin, command: Command, room: [Share; 2]) -> Option<Outcome> {
        if let Some(outcome) = self.repetition(&command) {
            return Some(outcome);
        }
        let request = command.request();
        let in_flight = self
            .in_flight
            .iter_mut()
            .flat_map(|(_, waiting)| waiting.iter_mut());
        if let Some(same) = in_flight
            .chain(self.queue.iter_mut())
            .find(|waiting| waiting.command.request() == request)
        {
            if same.command.fingerprint() != command.fingerprint() {
                return Some(Outcome::Refused(Refusal::RequestIdReused));
            }
            same.origins.push(origin);
            return None;
        }
        self.queue.push_back(Waiting {
            origins: vec![origin],
            command,
            looked_up: false,
            _room: room,
        });
        None
    }

    /// The next batch, numbered, at most about `room` bytes, and the answers to commands that become no entry. What would become none and may be old
    /// is looked up first: the chat is then [`Stage::Loading`], and the caller has it loaded.
    pub fn take_batch(&mut self, room: usize, now: Timestamp) -> (Option<Batch>, Vec<(Origin, Outcome)>) {
        let room = room.min(MAX_BATCH_BYTES);
        let mut answers = Vec::new();
        let Some(key) = self.key.clone() else {
            return (None, answers);
        };
        let sent_at = now.max(self.last_sent_at);
        let most = if self.one_by_one { 1 } else { MAX_BATCH };
        let mut batch = Batch {
            chat: self.id,
            key,
            expected: self.head,
            ordinal: self.ordinal,
            entries: Vec::new(),
            change: None,
        };
        let mut taken = Vec::new();
        while batch.entries.len() < most && batch.change.is_none() {
            let Some(front) = self.queue.front() else { break };
            let alone = matches!(front.command, Command::Change(_));
            if !batch.entries.is_empty() && (alone || batch.bytes() + front.command.bytes() > room) {
                break;
            }
            let Some(waiting) = self.queue.pop_front() else {
                break;
            };
            let admitted = self.admit(&waiting.command);
            if !matches!(admitted, Ok(Some(_))) && !waiting.looked_up {
                self.queue.push_front(waiting);
                // Behind entries of this batch it has its turn after them.
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
                    answers.extend(waiting.origins.iter().map(|origin| (*origin, Outcome::Unchanged)));
                }
                Err(refusal) => {
                    let refused = Outcome::Refused(refusal);
                    answers.extend(waiting.origins.iter().map(|origin| (*origin, refused.clone())));
                }
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

    /// The batch under way is in the store: its entries, each with who waits for it.
    pub fn committed(&mut self) -> Vec<(Entry, Vec<Origin>)> {
        let Some((batch, taken)) = self.in_flight.take() else {
            return Vec::new();
        };
        self.tries = 0;
        if self.queue.is_empty() {
            self.one_by_one = false;
        }
        let first = batch.expected.next();
        self.unsettled = Some(self.unsettled.map_or(first, |lowest| lowest.min(first)));
        self.head = batch.head();
        self.ordinal = batch.ordinal;
        for entry in &batch.entries {
            self.last_sent_at = entry.sent_at;
            self.settle_trace = self.settle_trace.or(entry.new.trace);
            let placed = Placed {
                seq: entry.seq,
                sent_at: entry.sent_at,
                fingerprint: entry.new.fingerprint,
            };
            let (sender, request) = (entry.new.sender, entry.new.request);
            self.recent.insert(sender, request, Known::Placed(placed));
            if let Some(member) = self.members.get_mut(&entry.new.sender) {
                member.last_sent = entry.seq;
            }
        }
        if let Some(action) = batch.change {
            self.apply_change(action, batch.expected.next());
        }
        batch
            .entries
            .into_iter()
            .zip(taken.into_iter().map(|waiting| waiting.origins))
            .collect()
    }

    /// The head had moved, or a request is in the log already: back to the queue, to be loaded and tried again.
    pub fn behind(&mut self) -> Vec<(Origin, Outcome)> {
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

    /// The store refused the batch for what is in it: its entries are tried one by one, and a single one is refused.
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
        let refused = Outcome::Refused(refusal.clone());
        taken
            .iter()
            .flat_map(|waiting| &waiting.origins)
            .map(|origin| (*origin, refused.clone()))
            .collect()
    }

    /// Everybody who waits is told `refusal`.
    pub fn refuse_all(&mut self, refusal: &Refusal) -> Vec<(Origin, Outcome)> {
        self.answer_all(&Outcome::Refused(refusal.clone()))
    }

    /// Everybody who waits is told `outcome`.
    pub fn answer_all(&mut self, outcome: &Outcome) -> Vec<(Origin, Outcome)> {
        let in_flight = self.in_flight.take().map(|(_, taken)| taken).unwrap_or_default();
        let waiting = in_flight.into_iter().chain(self.queue.drain(..));
        waiting
            .flat_map(|waiting| waiting.origins)
            .map(|origin| (origin, outcome.clone()))
            .collect()
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

    /// The acknowledgements that the settle takes into account.
    pub fn acks(&self) -> impl Iterator<Item = (DeviceId, Seq)> {
        self.acks.iter().map(|(device, (_, seq))| (*device, *seq))
    }

    /// Everything up to `upto` is settled.
    pub fn settled(&mut self, upto: Seq) {
        (self.settling, self.settle_tries) = (None, 0);
        self.unsettled = (self.head > upto).then(|| upto.next());
        self.acks.retain(|_, (_, seq)| *seq > upto);
    }

    /// Who is told of `user`'s watermark: the senders of what they got, and the user themselves for a mark of
    /// theirs.
    pub fn told_of(&self, user: UserId, since: Seq, marked: bool) -> Vec<UserId> {
        let senders = self
            .members
            .iter()
            .filter(|(other, member)| **other != user && member.last_sent > since);
        senders
            .map(|(other, _)| *other)
            .chain(marked.then_some(user))
            .collect()
    }

    fn repetition(&self, command: &Command) -> Option<Outcome> {
        let (sender, request) = command.request();
        let known = self.recent.get(sender, request)?;
        Some(self.answer_of(*known, command))
    }

    fn answer_of(&self, known: Known, command: &Command) -> Outcome {
        match known {
            _ if known.fingerprint() != command.fingerprint() => Outcome::Refused(Refusal::RequestIdReused),
            Known::Placed(placed) => Outcome::Placed {
                chat: self.id,
                seq: placed.seq,
                sent_at: placed.sent_at,
            },
            Known::Unchanged(_) => Outcome::Unchanged,
        }
    }

    fn admit(&self, command: &Command) -> Result<Option<Admitted>, Refusal> {
        match command {
            Command::Send(entry) => {
                self.member(entry.sender).ok_or(Refusal::NotAMember)?;
                Ok(Some((entry.clone(), None)))
            }
            Command::Change(change) => match change::permit(self, change)? {
                Permitted::Nothing => Ok(None),
                Permitted::Entry(action) => {
                    let new = NewEntry {
                        kind: action.kind(),
                        sender: change.actor,
                        device: change.device,
                        request: change.request,
                        fingerprint: change.fingerprint,
                        counts: false,
                        content: content::of_change(change.actor, &action),
                        trace: None,
                    };
                    Ok(Some((Arc::new(new), Some(action))))
                }
            },
        }
    }

    fn apply_change(&mut self, action: Action, seq: Seq) {
        match action {
            Action::Add(users) => {
                for user in users {
                    self.members.insert(
                        user,
                        Member {
                            role: Role::Member,
                            joined: seq,
                            last_sent: Seq::ZERO,
                        },
                    );
                }
            }
            Action::Remove(user) => {
                self.members.remove(&user);
                let members: HashSet<UserId> = self.members.keys().copied().collect();
                self.receipts.retain(&members);
            }
            Action::SetRole(user, role) => {
                if let Some(member) = self.members.get_mut(&user) {
                    member.role = role;
                }
            }
            Action::SetTitle(title) => self.title = title,
        }
    }
}
