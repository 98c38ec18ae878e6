//! A store in memory for one chat. It does on maps and lists what `store/*.rs` of the chat crate does in SQL.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tern_chat_core::change::Action;
use tern_chat_core::chat::{Acts, Batch, ChatKey, ChatKind, LookUp, Member, Role, Snapshot};
use tern_chat_core::content::stored_fingerprint;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::recent::Placed;
use tern_chat_core::shard::{AckWrite, AckedRow, Committed, Job, JobDone, SettleChat};
use tern_chat_core::target::Target;
use tern_chat_core::{Entry, EntryKind, Missing};
use tern_types::limits::MAX_ACTS_PER_PERSON;
use tern_types::{DeviceId, Seq, UserId};

/// The chat's data key.
const KEY: [u8; 32] = [0; 32];
/// The number of newest requests that are read with a chat, as in `store/load.rs`.
const RECENT: u64 = 256;

/// A row of `members`: one interval of a user's membership.
#[derive(Debug, Clone)]
pub struct Interval {
    pub user: UserId,
    pub role: Role,
    /// The seq of the entry that made the user a member.
    pub joined: Seq,
    /// The seq of the entry that ended the membership; `None` while it lasts.
    pub left: Option<Seq>,
    /// The devices of the user, as they were at the interval's end if it has ended.
    pub devices: Vec<DeviceId>,
}

impl Interval {
    /// Returns whether the member is entitled to the entry at `seq`.
    pub fn covers(&self, seq: Seq) -> bool {
        seq >= self.joined && self.left.is_none_or(|left| seq <= left)
    }
}

/// The store. The head is the seq of the log's last entry.
#[derive(Default)]
pub struct Memory {
    /// The intervals of membership, in the order in which they began.
    pub members: Vec<Interval>,
    /// The active devices.
    pub devices: Vec<(UserId, DeviceId)>,
    /// The entries, the first at seq 1.
    pub log: Vec<Entry>,
    /// The unsettled rows: the first seq of each commit that is not settled.
    pub unsettled: Vec<Seq>,
    /// The inbox rows: the seq from which each device lacks entries.
    pub inbox: BTreeMap<DeviceId, Seq>,
}

impl Memory {
    pub fn head(&self) -> Seq {
        Seq(self.log.len() as u64)
    }

    /// Returns the user's interval that covers an entry. There is at most one.
    pub fn interval(&self, user: UserId, seq: Seq) -> Option<&Interval> {
        let mut of_user = self.members.iter().filter(|interval| interval.user == user);
        of_user.find(|interval| interval.covers(seq))
    }

    /// Returns the user's interval that has not ended.
    pub fn membership(&self, user: UserId) -> Option<&Interval> {
        let mut open = self.members.iter().filter(|interval| interval.left.is_none());
        open.find(|interval| interval.user == user)
    }

    /// Returns the device's place, as `PLACE` of `store/entries.rs` does: the lowest seq that the device may still be
    /// owed. It has acknowledged every entry below, or is not owed it.
    pub fn place(&self, user: UserId, device: DeviceId) -> Seq {
        let mine = self.members.iter().filter(|interval| interval.user == user);
        let unsettled = mine.flat_map(|interval| {
            let reaches = |from: &&Seq| interval.left.is_none_or(|left| left >= **from);
            self.unsettled
                .iter()
                .filter(reaches)
                .map(|from| interval.joined.max(*from))
        });
        let owed = unsettled.chain(self.inbox.get(&device).copied());
        owed.chain([self.head().next()]).min().unwrap_or_default()
    }

    /// Returns the device's `resume_seq`, as in `store/listing.rs`; `None` if the user is not a member.
    pub fn resume(&self, user: UserId, device: DeviceId) -> Option<Seq> {
        self.membership(user)?;
        Some(self.place(user, device).previous())
    }

    /// Links a device. Returns the seq up to which it is owed nothing.
    pub fn link(&mut self, user: UserId, device: DeviceId) -> Seq {
        self.devices.push((user, device));
        let taken_over = self.inbox.remove(&DeviceId::reserved(user));
        let mut from = taken_over;
        for interval in &mut self.members {
            if interval.user == user && interval.left.is_none() {
                interval.devices.push(device);
                let unsettled = self.unsettled.iter().min();
                from = from
                    .into_iter()
                    .chain(unsettled.map(|low| interval.joined.max(*low)))
                    .min();
            }
        }
        self.inbox.extend(from.map(|from| (device, from)));
        let base = self.head();
        from.map_or(base, |from| from.previous().min(base))
    }

    fn active(&self, user: UserId) -> Vec<DeviceId> {
        let of_user = self.devices.iter().filter(|(of, _)| *of == user);
        of_user.map(|(_, device)| *device).collect()
    }

    /// Returns the entries that were deleted.
    pub fn erased(&self) -> BTreeSet<Seq> {
        let deletions = self
            .log
            .iter()
            .filter(|entry| entry.new.kind == EntryKind::Delete);
        deletions
            .filter_map(|entry| Some(entry.new.about.as_ref()?.target))
            .collect()
    }

    /// Reads the chat in one snapshot, and looks up what it is told to.
    pub fn load(&self, look_up: &LookUp) -> Snapshot {
        let open = self.members.iter().filter(|interval| interval.left.is_none());
        let members = open.map(|interval| {
            let member = Member {
                role: interval.role,
                ..Member::joined_at(interval.joined)
            };
            (interval.user, member, Watermark::default())
        });
        let (newest, erased) = (self.head().0.saturating_sub(RECENT), self.erased());
        let placed = self.log.iter().filter(|entry| {
            entry.seq.0 > newest || look_up.requests.contains(&(entry.new.sender, entry.new.request))
        });
        let placed = placed.map(|entry| {
            let placed = Placed {
                seq: entry.seq,
                ordinal: entry.ordinal,
                sent_at: entry.sent_at,
                fingerprint: stored_fingerprint(&entry.new, &KEY),
                is_message: entry.new.kind == EntryKind::Message,
                erased: erased.contains(&entry.seq),
                expires_after_s: 0,
            };
            (entry.new.sender, entry.new.request, placed)
        });
        Snapshot {
            head: self.head(),
            members: members.collect(),
            unsettled: self.unsettled.iter().min().copied(),
            placed: placed.collect(),
            looked_up: look_up.requests.clone(),
            targets: self.targets(&look_up.targets, &erased),
            acts: look_up
                .acts
                .iter()
                .map(|acts| (*acts, self.count(*acts)))
                .collect(),
            ..Snapshot::of_new_chat(ChatKind::Group, [], ChatKey(Arc::new(KEY)))
        }
    }

    /// Returns how often this was done.
    pub fn count(&self, acts: Acts) -> u32 {
        let done = self.log.iter().filter(|entry| Acts::of(&entry.new) == Some(acts));
        done.count() as u32
    }

    fn targets(&self, seqs: &[Seq], erased: &BTreeSet<Seq>) -> Vec<(Seq, Target)> {
        let found = self.log.iter().filter(|entry| seqs.contains(&entry.seq));
        let targets = found.map(|entry| {
            let target = Target {
                sender: entry.new.sender,
                sent_at: entry.sent_at,
                is_message: entry.new.kind == EntryKind::Message,
                erased: erased.contains(&entry.seq),
                expires_after_s: 0,
            };
            (entry.seq, target)
        });
        targets.collect()
    }

    /// Executes a job and returns its result.
    pub fn run(&mut self, job: Job) -> JobDone {
        match job {
            Job::Commit(batches) => JobDone::Commit(
                batches
                    .iter()
                    .map(|batch| (batch.chat, self.commit(batch)))
                    .collect(),
            ),
            Job::Change(batch) => JobDone::Commit(vec![(batch.chat, self.commit(&batch))]),
            Job::Acks(acks) => {
                let rows = acks
                    .iter()
                    .filter_map(|ack| Some(((ack.chat, ack.device), self.ack(ack)?)))
                    .collect();
                JobDone::Acks {
                    acks,
                    rows,
                    unwritten: Vec::new(),
                }
            }
            Job::Settle(chats) => {
                let missing: HashMap<_, _> = chats
                    .iter()
                    .map(|settle| (settle.chat, self.settle(settle)))
                    .collect();
                let chats = chats
                    .into_iter()
                    .map(|settle| (settle.chat, settle.upto))
                    .collect();
                JobDone::Settle {
                    chats,
                    missing,
                    failed: Vec::new(),
                }
            }
            Job::Close(chats) => {
                for (_, upto) in &chats {
                    self.unsettled.retain(|from| from > upto);
                }
                JobDone::Close { chats, closed: true }
            }
            Job::Reads(_) => JobDone::Reads {
                unwritten: Vec::new(),
            },
        }
    }

    /// Commits a batch, unless the head has moved, a request is in the log already (rules 2 and 5), or somebody has
    /// done enough to a message.
    fn commit(&mut self, batch: &Batch) -> Committed {
        let repeated = batch.entries.iter().any(|entry| {
            let request = (entry.new.sender, entry.new.request);
            self.log
                .iter()
                .any(|old| (old.new.sender, old.new.request) == request)
        });
        let mut acts = batch.entries.iter().filter_map(|entry| Acts::of(&entry.new));
        let spent = acts.any(|acts| self.count(acts) >= MAX_ACTS_PER_PERSON);
        if batch.expected != self.head() || repeated || spent {
            return Committed::Conflict;
        }
        self.unsettled.push(batch.expected.next());
        self.log.extend(batch.entries.iter().cloned());
        if let Some(action) = &batch.change {
            self.change(action);
        }
        Committed::Stored
    }

    /// Changes the members as the entry at the head says.
    fn change(&mut self, action: &Action) {
        let seq = self.head();
        match action {
            Action::Add(users) => {
                for user in users {
                    self.join(*user, seq);
                }
            }
            Action::Remove(user) => {
                let open = self.members.iter_mut().filter(|interval| interval.left.is_none());
                for interval in open.filter(|interval| interval.user == *user) {
                    interval.left = Some(seq);
                }
            }
            Action::Join { user, .. } => self.join(*user, seq),
            Action::HandOver { from, to } => {
                self.set_role(*from, Role::Admin);
                self.set_role(*to, Role::Owner);
            }
            Action::Succeed { owner, heir } => {
                self.change(&Action::Remove(*owner));
                self.set_role(*heir, Role::Owner);
            }
            Action::SetRole(user, role) => self.set_role(*user, *role),
            Action::SetTitle(_)
            | Action::SetPicture(_)
            | Action::SetDescription(_)
            | Action::SetPolicy(_)
            | Action::Freeze(_)
            | Action::SetRetention(_)
            | Action::Own(_) => {}
        }
    }

    /// Begins a membership with the entry at `seq`.
    fn join(&mut self, user: UserId, seq: Seq) {
        let devices = self.active(user);
        self.members.push(Interval {
            user,
            role: Role::Member,
            joined: seq,
            left: None,
            devices,
        });
    }

    /// Gives a present member another role.
    fn set_role(&mut self, user: UserId, role: Role) {
        let open = self.members.iter_mut().filter(|interval| interval.left.is_none());
        for interval in open.filter(|interval| interval.user == user) {
            interval.role = role;
        }
    }

    /// Returns the devices that are owed any of `low..=upto`, each with the first and last seq that it is owed.
    fn owed(&self, low: Seq, upto: Seq) -> Vec<(UserId, DeviceId, Seq, Seq)> {
        let overlapping = self
            .members
            .iter()
            .filter(|interval| interval.joined <= upto && interval.left.unwrap_or(upto) >= low);
        let owed = overlapping.flat_map(|interval| {
            let mut devices = interval.devices.clone();
            if devices.is_empty() {
                devices.push(DeviceId::reserved(interval.user));
            }
            let range = (low.max(interval.joined), interval.left.unwrap_or(upto).min(upto));
            devices
                .into_iter()
                .map(move |device| (interval.user, device, range.0, range.1))
        });
        owed.collect()
    }

    /// Settles the chat: writes an inbox row for each device that has not acknowledged, and returns those devices. If
    /// there are none, deletes the unsettled rows.
    fn settle(&mut self, settle: &SettleChat) -> Vec<Missing> {
        let low = self
            .unsettled
            .iter()
            .filter(|from| **from <= settle.upto)
            .min()
            .copied();
        let mut missing: BTreeMap<DeviceId, Missing> = BTreeMap::new();
        for (user, device, from, to) in low.map_or(Vec::new(), |low| self.owed(low, settle.upto)) {
            let acked = settle.acks.iter().find(|(acked, _)| *acked == device);
            let acked = acked.map_or(Seq::ZERO, |(_, seq)| *seq);
            if acked >= to {
                continue;
            }
            let from = from.max(acked.next());
            let row = missing.entry(device).or_insert(Missing { user, device, from });
            row.from = row.from.min(from);
        }
        for (device, acked) in &settle.acks {
            self.end_or_move(*device, (*acked).min(settle.upto));
        }
        for row in missing.values() {
            self.inbox.entry(row.device).or_insert(row.from);
        }
        if missing.is_empty() {
            self.unsettled.retain(|from| *from > settle.upto);
        }
        missing.into_values().collect()
    }

    /// Writes an acknowledgement. Returns the inbox row that it met, or `None` if the device has none.
    fn ack(&mut self, ack: &AckWrite) -> Option<AckedRow> {
        let was = *self.inbox.get(&ack.device)?;
        if ack.seq <= self.head() {
            self.end_or_move(ack.device, ack.seq);
        }
        let now = self.inbox.get(&ack.device).copied();
        Some(AckedRow { was, now })
    }

    /// Ends or moves a device's row by an acknowledgement (fine print 2).
    fn end_or_move(&mut self, device: DeviceId, acked: Seq) {
        if self.inbox.get(&device).is_none_or(|from| *from > acked) {
            return;
        }
        let user = self.devices.iter().find(|(_, of)| *of == device);
        let newest =
            user.and_then(|(user, _)| self.members.iter().rev().find(|interval| interval.user == *user));
        let left = newest.and_then(|interval| interval.left);
        if acked >= left.map_or(self.head(), |left| left.min(self.head())) {
            self.inbox.remove(&device);
        } else {
            self.inbox.insert(device, acked.next());
        }
    }
}

/// Returns the result of a job if the store does not answer. The job may be executed all the same.
pub fn away(job: &Job) -> JobDone {
    fails(job, &Committed::Away)
}

/// Returns the result of a job if another transaction has locked the chat.
pub fn locked(job: &Job) -> JobDone {
    fails(job, &Committed::Locked)
}

fn fails(job: &Job, committed: &Committed) -> JobDone {
    match job {
        Job::Commit(batches) => JobDone::Commit(
            batches
                .iter()
                .map(|batch| (batch.chat, committed.clone()))
                .collect(),
        ),
        Job::Change(batch) => JobDone::Commit(vec![(batch.chat, committed.clone())]),
        Job::Acks(acks) => JobDone::Acks {
            acks: Vec::new(),
            rows: HashMap::new(),
            unwritten: acks.clone(),
        },
        Job::Settle(chats) => JobDone::Settle {
            chats: Vec::new(),
            missing: HashMap::new(),
            failed: chats.iter().map(|settle| (settle.chat, settle.upto)).collect(),
        },
        Job::Close(chats) => JobDone::Close {
            chats: chats.clone(),
            closed: false,
        },
        Job::Reads(reads) => JobDone::Reads {
            unwritten: reads.clone(),
        },
    }
}
