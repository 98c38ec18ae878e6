//! Two nodes, a store, devices, and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tern_chat::state::shard::{Effect, Event, Job, JobDone, Pushed, ShardState};
use tern_chat::state::{Entry, EntryKind, NewEntry, Origin, Outcome, Refusal};
use tern_types::{ChatId, DeviceId, RequestId, Seq, SessionId, Timestamp, UserId};
use uuid::Uuid;

use crate::memory::Memory;

/// Two users with two devices each.
pub const DEVICES: usize = 4;
/// Entries in the log at the start, more than a chat remembers the requests of: only the store still knows the first.
const HISTORY: u64 = 300;
/// So many of the first are sent again, like later ones.
const OLD: u64 = 4;

#[derive(Debug, Clone)]
pub enum Step {
    Send {
        node: usize,
        device: usize,
    },
    SendAgain {
        node: usize,
        which: proptest::sample::Index,
    },
    TakeJob {
        node: usize,
    },
    RunJob {
        node: usize,
    },
    FinishJob {
        node: usize,
    },
    FinishLoad {
        node: usize,
    },
    Push {
        node: usize,
        lost: bool,
    },
    Wake {
        node: usize,
        fails: bool,
    },
    Ack {
        node: usize,
        device: usize,
    },
    Time {
        ms: u64,
    },
    Crash {
        node: usize,
    },
    Recover {
        node: usize,
    },
    Disconnect {
        device: usize,
    },
    Connect {
        device: usize,
    },
}

/// A chat node's memory: all of it goes in a crash. Statements already on their way are executed all the same.
#[derive(Default)]
struct Node {
    state: ShardState,
    job: Option<Job>,
    done: Option<JobDone>,
    loads: VecDeque<Vec<(UserId, RequestId)>>,
    pushes: VecDeque<(Vec<UserId>, Pushed)>,
    wakes: VecDeque<(Seq, Vec<tern_chat::state::Missing>)>,
}

struct Device {
    user: UserId,
    id: DeviceId,
    online: bool,
    /// Stored without a gap up to here.
    cursor: Seq,
    /// Its gateway knows of a row: acknowledgements are written.
    row: bool,
    unacked: bool,
}

pub struct World {
    now: Timestamp,
    chat: ChatId,
    store: Memory,
    nodes: [Node; 2],
    late: Vec<Job>,
    devices: Vec<Device>,
    requests: Vec<NewEntry>,
    unanswered: BTreeSet<usize>,
    placed: BTreeMap<usize, Seq>,
}

impl World {
    pub fn new() -> Self {
        let users = [UserId::random(), UserId::random()];
        let devices: Vec<Device> = (0..DEVICES)
            .map(|n| {
                let (user, id) = (users[n / 2], DeviceId::random());
                Device {
                    user,
                    id,
                    online: n != 3,
                    cursor: Seq(HISTORY),
                    row: false,
                    unacked: false,
                }
            })
            .collect();
        let chat = ChatId(Uuid::new_v4());
        let of = |user| {
            devices
                .iter()
                .filter(|device| device.user == user)
                .map(|device| device.id)
                .collect()
        };
        let members = users.map(|user| (user, of(user))).to_vec();
        let requests: Vec<NewEntry> = (0..HISTORY)
            .map(|n| message(&devices[n as usize % DEVICES]))
            .collect();
        let log = requests.iter().zip(1..).map(|(new, seq)| Entry {
            chat,
            seq: Seq(seq),
            ordinal: seq,
            sent_at: Timestamp(seq as i64),
            new: Arc::new(new.clone()),
        });
        let store = Memory {
            members,
            log: log.collect(),
            unsettled: Vec::new(),
            inbox: BTreeMap::new(),
        };
        Self {
            now: Timestamp(1_000_000),
            chat,
            store,
            nodes: Default::default(),
            late: Vec::new(),
            devices,
            requests: requests.into_iter().take(OLD as usize).collect(),
            unanswered: BTreeSet::new(),
            placed: (0..OLD).map(|n| (n as usize, Seq(n + 1))).collect(),
        }
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Send { node, device } => {
                self.requests.push(message(&self.devices[*device]));
                self.send(*node, self.requests.len() - 1);
            }
            Step::SendAgain { node, which } if !self.requests.is_empty() => {
                self.send(*node, which.index(self.requests.len()));
            }
            Step::SendAgain { .. } => {}
            Step::TakeJob { node } => self.take_job(*node),
            Step::RunJob { node } => self.run_job(*node),
            Step::FinishJob { node } => {
                if let Some(done) = self.nodes[*node].done.take() {
                    self.apply(*node, Event::JobDone(done));
                }
            }
            Step::FinishLoad { node } => {
                if let Some(requests) = self.nodes[*node].loads.pop_front() {
                    let result = Ok(Some(self.store.load(&requests)));
                    self.apply(
                        *node,
                        Event::Loaded {
                            chat: self.chat,
                            result,
                        },
                    );
                }
            }
            Step::Push { node, lost } => {
                if let Some((users, what)) = self.nodes[*node].pushes.pop_front()
                    && !lost
                {
                    self.push(&users, &what);
                }
            }
            Step::Wake { node, fails } => self.wake(*node, *fails),
            Step::Ack { node, device } => self.ack(*node, *device),
            Step::Time { ms } => {
                self.now = self.now + std::time::Duration::from_millis(*ms);
                for node in 0..2 {
                    self.apply(node, Event::Tick);
                }
            }
            Step::Crash { node } => {
                let crashed = std::mem::take(&mut self.nodes[*node]);
                self.late.extend(crashed.job);
            }
            Step::Recover { node } => {
                // A dead node's statement lands late.
                if let Some(job) = self.late.pop() {
                    self.store.run(job);
                }
                let (low, high) = (
                    self.store.unsettled.iter().min(),
                    self.store.unsettled.iter().max(),
                );
                if let (Some(low), Some(high)) = (low.copied(), high.copied()) {
                    self.apply(
                        *node,
                        Event::Recover {
                            chat: self.chat,
                            low,
                            high,
                        },
                    );
                }
            }
            Step::Disconnect { device } => {
                let device = &mut self.devices[*device];
                (device.online, device.row) = (false, false);
            }
            Step::Connect { device } => self.connect(*device),
        }
    }

    fn apply(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let state = &mut self.nodes[node].state;
        state.apply(event, self.now, &mut effects);
        state.flush_receipts(&mut effects);
        self.perform(node, effects);
    }

    fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            let to = &mut self.nodes[node];
            match effect {
                Effect::Load { requests, .. } => to.loads.push_back(requests),
                Effect::Push { users, what, .. } => to.pushes.push_back((users, what)),
                Effect::Wake { upto, missing, .. } => to.wakes.push_back((upto, missing)),
                Effect::Answer { origin, outcome } => self.answer(origin, outcome),
            }
        }
    }

    fn send(&mut self, node: usize, request: usize) {
        self.unanswered.insert(request);
        let entry = self.requests[request].clone();
        let origin = Origin::Call(request as u64);
        self.apply(
            node,
            Event::Send {
                origin,
                chat: self.chat,
                peer: None,
                entry,
            },
        );
    }

    fn answer(&mut self, origin: Origin, outcome: Outcome) {
        let Origin::Call(request) = origin else { return };
        match outcome {
            Outcome::Placed { seq, .. } => {
                self.unanswered.remove(&(request as usize));
                let before = self.placed.insert(request as usize, seq);
                assert!(
                    before.is_none_or(|before| before == seq),
                    "rule 5: the same result, not {before:?} and {seq:?}"
                );
            }
            Outcome::Refused(Refusal::Unavailable { .. }) | Outcome::NotOwner => {}
            other => panic!("{other:?}"),
        }
    }

    fn take_job(&mut self, node: usize) {
        if self.nodes[node].job.is_some() || self.nodes[node].done.is_some() {
            return;
        }
        let mut effects = Vec::new();
        self.nodes[node].job = self.nodes[node].state.next_job(self.now, &mut effects);
        self.perform(node, effects);
    }

    fn run_job(&mut self, node: usize) {
        if let Some(job) = self.nodes[node].job.take() {
            self.nodes[node].done = Some(self.store.run(job));
        }
    }

    fn push(&mut self, users: &[UserId], what: &Pushed) {
        let Pushed::Entry(entry) = what else { return };
        for device in self
            .devices
            .iter_mut()
            .filter(|device| device.online && users.contains(&device.user))
        {
            device.take(entry.seq);
        }
    }

    /// The gateways of the devices that are online take the duty on.
    fn wake(&mut self, node: usize, fails: bool) {
        let Some((upto, missing)) = self.nodes[node].wakes.pop_front() else {
            return;
        };
        if !fails {
            for missing in missing {
                if let Some(n) = self
                    .devices
                    .iter()
                    .position(|device| device.id == missing.device && device.online)
                {
                    self.drain(n, missing.from);
                }
            }
        }
        self.apply(
            node,
            Event::WakesDone {
                chat: self.chat,
                upto,
                ok: !fails,
            },
        );
    }

    fn connect(&mut self, n: usize) {
        self.devices[n].online = true;
        if let Some(from) = self.store.inbox.get(&self.devices[n].id).copied() {
            self.drain(n, from);
        }
    }

    fn drain(&mut self, n: usize, from: Seq) {
        let head = self.store.head();
        let device = &mut self.devices[n];
        device.row = true;
        for seq in from.0..=head.0 {
            device.take(Seq(seq));
        }
        device.unacked = true;
    }

    fn ack(&mut self, node: usize, n: usize) {
        let device = &mut self.devices[n];
        if !device.online || !device.unacked {
            return;
        }
        let origin = Origin::Link {
            link: n as u64,
            reference: 0,
            session: SessionId(0),
            request: RequestId(Uuid::nil()),
        };
        let (user, id, seq, write) = (device.user, device.id, device.cursor, device.row);
        // A written acknowledgement is repeated until its row is gone.
        device.unacked = write;
        self.apply(
            node,
            Event::Ack {
                origin,
                chat: self.chat,
                user,
                device: id,
                seq,
                write,
            },
        );
    }

    /// Everybody is online, nothing is lost any more, and time passes.
    pub fn become_quiet(&mut self) {
        for job in std::mem::take(&mut self.late) {
            self.store.run(job);
        }
        for round in 0..60 {
            for request in self.unanswered.clone() {
                if round % 10 == 0 {
                    self.send(round / 10 % 2, request);
                }
            }
            for n in 0..DEVICES {
                // Who is online reads its inbox again only where its gateway knows of a row: nobody sweeps here.
                if !self.devices[n].online || self.devices[n].row {
                    self.connect(n);
                }
                self.ack(0, n);
                let gone = !self.store.inbox.contains_key(&self.devices[n].id);
                if gone {
                    (self.devices[n].row, self.devices[n].unacked) =
                        (false, self.devices[n].unacked && !gone);
                }
            }
            for node in 0..2 {
                for _ in 0..20 {
                    let steps = [
                        Step::FinishLoad { node },
                        Step::TakeJob { node },
                        Step::RunJob { node },
                        Step::FinishJob { node },
                        Step::Push { node, lost: false },
                        Step::Wake { node, fails: false },
                    ];
                    steps.iter().for_each(|step| self.step(step));
                }
                self.step(&Step::Recover { node });
            }
            self.step(&Step::Time { ms: 700 });
        }
    }

    pub fn check_always(&self) {
        for (place, entry) in self.store.log.iter().enumerate() {
            assert_eq!(entry.seq, Seq(place as u64 + 1), "rule 2: no gaps");
        }
        for (request, seq) in &self.placed {
            let entry = &self.store.log[seq.0 as usize - 1];
            assert_eq!(
                entry.new.request, self.requests[*request].request,
                "rule 1: acknowledged is in the log"
            );
        }
    }

    pub fn check_quiet(&self) {
        self.check_always();
        assert!(
            self.unanswered.is_empty(),
            "everybody got an answer: {:?}",
            self.unanswered
        );
        let requests: BTreeSet<_> = self.store.log.iter().map(|entry| entry.new.request).collect();
        assert_eq!(requests.len(), self.store.log.len(), "rule 5: nothing twice");
        assert_eq!(requests.len() as u64, self.requests.len() as u64 + HISTORY - OLD);
        for device in &self.devices {
            assert_eq!(device.cursor, self.store.head(), "every device has everything");
        }
        assert!(
            self.store.inbox.is_empty(),
            "nothing is owed: {:?}",
            self.store.inbox
        );
        assert!(
            self.store.unsettled.is_empty(),
            "everything is settled: {:?}",
            self.store.unsettled
        );
    }
}

fn message(from: &Device) -> NewEntry {
    NewEntry {
        trace: None,
        kind: EntryKind::Message,
        sender: from.user,
        device: from.id,
        request: RequestId::random(),
        fingerprint: [1; 16],
        counts: true,
        content: Bytes::new(),
    }
}

impl Device {
    /// Rule 6: a forward is a hint; applied once, in order. What is ahead is dropped here: the hardest case.
    fn take(&mut self, seq: Seq) {
        if seq == self.cursor.next() {
            self.cursor = seq;
        }
        self.unacked = true;
    }
}
