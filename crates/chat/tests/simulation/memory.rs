//! The store's statements on maps: what `store/*.rs` says in SQL, for one chat.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tern_chat::state::chat::{Batch, ChatKey, ChatKind, Member, Role, Snapshot};
use tern_chat::state::receipts::Watermark;
use tern_chat::state::recent::Placed;
use tern_chat::state::shard::{AckWrite, AckedRow, Committed, Job, JobDone, SettleChat};
use tern_chat::state::{Entry, Missing};
use tern_types::{DeviceId, RequestId, Seq, Timestamp, UserId};

/// Requests that come with a load, as in `store/load.rs`.
const RECENT: u64 = 256;

pub struct Memory {
    /// User and their devices.
    pub members: Vec<(UserId, Vec<DeviceId>)>,
    pub log: Vec<Entry>,
    pub unsettled: Vec<Seq>,
    pub inbox: BTreeMap<DeviceId, Seq>,
}

impl Memory {
    pub fn head(&self) -> Seq {
        Seq(self.log.len() as u64)
    }

    pub fn load(&self, requests: &[(UserId, RequestId)]) -> Snapshot {
        let member = |user| {
            (
                user,
                Member {
                    role: Role::Member,
                    joined: Seq(1),
                    last_sent: Seq::ZERO,
                },
                Watermark::default(),
            )
        };
        let newest = self.head().0.saturating_sub(RECENT);
        let placed = self.log.iter().filter(|entry| {
            entry.seq.0 > newest || requests.contains(&(entry.new.sender, entry.new.request))
        });
        let placed = placed.map(|entry| {
            let placed = Placed {
                seq: entry.seq,
                sent_at: entry.sent_at,
                fingerprint: entry.new.fingerprint,
            };
            (entry.new.sender, entry.new.request, placed)
        });
        Snapshot {
            kind: ChatKind::Group,
            title: String::new(),
            key: ChatKey(Arc::new([0; 32])),
            head: self.head(),
            ordinal: 0,
            members: self.members.iter().map(|(user, _)| member(*user)).collect(),
            unsettled: self.unsettled.iter().min().copied(),
            placed: placed.collect(),
            looked_up: requests.to_vec(),
            last_sent_at: Timestamp::default(),
        }
    }

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
                    rows: Some(rows),
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
                    missing: Some(missing),
                }
            }
            Job::Close(chats) => {
                for (_, upto) in &chats {
                    self.unsettled.retain(|from| from > upto);
                }
                JobDone::Close { chats, closed: true }
            }
            Job::Reads(reads) => JobDone::Reads { reads, written: true },
        }
    }

    fn commit(&mut self, batch: &Batch) -> Committed {
        let repeated = batch.entries.iter().any(|entry| {
            let request = (entry.new.sender, entry.new.request);
            self.log
                .iter()
                .any(|old| (old.new.sender, old.new.request) == request)
        });
        if batch.expected != self.head() || repeated {
            return Committed::Behind;
        }
        self.unsettled.push(batch.expected.next());
        self.log.extend(batch.entries.iter().cloned());
        Committed::Moved
    }

    fn settle(&mut self, settle: &SettleChat) -> Vec<Missing> {
        let low = self
            .unsettled
            .iter()
            .filter(|from| **from <= settle.upto)
            .min()
            .copied();
        let Some(low) = low else { return Vec::new() };
        let mut missing = Vec::new();
        for (user, devices) in &self.members {
            for device in devices {
                let acked = settle
                    .acks
                    .iter()
                    .find(|(acked, _)| acked == device)
                    .map_or(Seq::ZERO, |(_, seq)| *seq);
                if acked < settle.upto {
                    missing.push(Missing {
                        user: *user,
                        device: *device,
                        from: low.max(acked.next()),
                    });
                }
            }
        }
        let head = self.head();
        for (device, acked) in &settle.acks {
            let acked = (*acked).min(settle.upto);
            if self.inbox.get(device).is_some_and(|from| *from <= acked) {
                self.inbox.insert(*device, acked.next());
                if head <= acked {
                    self.inbox.remove(device);
                }
            }
        }
        for row in &missing {
            self.inbox.entry(row.device).or_insert(row.from);
        }
        if missing.is_empty() {
            self.unsettled.retain(|from| *from > settle.upto);
        }
        missing
    }

    fn ack(&mut self, ack: &AckWrite) -> Option<AckedRow> {
        let head = self.head();
        let was = *self.inbox.get(&ack.device)?;
        if ack.seq <= head && was <= ack.seq {
            if ack.seq >= head {
                self.inbox.remove(&ack.device);
            } else {
                self.inbox.insert(ack.device, ack.seq.next());
            }
        }
        let now = self.inbox.get(&ack.device).copied();
        Some(AckedRow { was, now })
    }
}
