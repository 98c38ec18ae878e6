//! The simulated world: two nodes, a store, people with their devices, and time.
//!
//! - [`step`]: the steps that may happen
//! - [`device`]: a device and its gateway
//! - [`delivery`]: the delivery of entries to devices, and their acknowledgements
//! - [`checks`]: the rules that must hold

mod checks;
mod delivery;
mod device;
mod step;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tern_chat_core::change::Action;
use tern_chat_core::chat::{LookUp, Role};
use tern_chat_core::shard::{Effect, Event, Job, JobDone, Lane, LoadError, Pushed, ShardState};
use tern_chat_core::{Change, ChangeRefusal, Entry, Origin, Outcome, Refusal, Sending, Snapshot};
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

use device::{Device, about, history, message};
use step::Request;

use crate::memory::{Interval, Memory, away, locked};
pub use step::{Member, Step};

/// The number of devices at the start: Alice and Bob have two each, and Carol has none.
const DEVICES: usize = 4;
/// The most devices that there may be.
const MAX_DEVICES: usize = 8;
/// The number of entries in the log at the start. They are more than a chat remembers, so that only the store knows the
/// first requests.
const HISTORY: u64 = 300;
/// The number of requests from the start of the log that may be sent again, like later ones.
const OLD: u64 = 4;

/// A chat node's memory. A crash loses all of it, but statements that are already on their way are executed all the
/// same.
#[derive(Default)]
struct Node {
    state: ShardState,
    /// The job of each lane's writer.
    jobs: [Option<Job>; 2],
    /// The result of each lane's job, which the state has not got yet.
    done: [Option<JobDone>; 2],
    /// The loads that have not ended.
    loads: VecDeque<Loading>,
    /// The pushes that have not reached the gateways.
    pushes: VecDeque<(Vec<UserId>, Pushed)>,
    /// The wakes that have not been performed.
    wakes: VecDeque<(Seq, Vec<tern_chat_core::Missing>)>,
}

/// A load that has not ended.
struct Loading {
    number: u64,
    look_up: LookUp,
    /// The snapshot, once the store has read it.
    read: Option<Snapshot>,
}

/// One attempt of a request. A request may be sent any number of times.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// The request, as an index into `World::requests`.
    request: usize,
    /// True if an earlier attempt was answered with a seq.
    placed: bool,
}

/// The simulated world.
pub struct World {
    now: Timestamp,
    chat: ChatId,
    store: Memory,
    nodes: [Node; 2],
    /// The jobs of crashed nodes, which the store may still execute.
    late: Vec<Job>,
    devices: Vec<Device>,
    people: [UserId; 3],
    requests: Vec<Request>,
    attempts: Vec<Attempt>,
    /// The requests that have no final answer yet.
    unanswered: BTreeSet<usize>,
    /// The requests whose callers were told that they become no entry. An attempt that was under way may make one all
    /// the same.
    declined: BTreeSet<usize>,
    /// The requests whose callers were told a seq.
    placed: BTreeMap<usize, Seq>,
}

impl World {
    /// Makes a world with a group of Alice and Bob, a log of [`HISTORY`] entries that every device has, and two nodes
    /// that know nothing of it.
    pub fn new() -> Self {
        let people = [UserId::random(), UserId::random(), UserId::random()];
        let mut store = Memory::default();
        let mut devices = Vec::new();
        for n in 0..DEVICES {
            let (user, id) = (people[n / 2], DeviceId::random());
            store.link(user, id);
            devices.push(Device {
                online: n != 3,
                cursor: Some(Seq(HISTORY)),
                ..Device::new(user, id, Seq(HISTORY))
            });
        }
        let of = |user| {
            devices
                .iter()
                .filter(|device| device.user == user)
                .map(|device| device.id)
                .collect()
        };
        let roles = [(people[0], Role::Owner), (people[1], Role::Member)];
        let members = roles.map(|(user, role)| Interval {
            user,
            role,
            joined: Seq(1),
            left: None,
            devices: of(user),
        });
        store.members = members.to_vec();
        let chat = ChatId(Uuid::new_v4());
        let requests = history(&devices, HISTORY);
        let log = requests.iter().zip(1..).map(|(new, seq)| Entry {
            chat,
            seq: Seq(seq),
            ordinal: seq,
            sent_at: Timestamp(seq as i64),
            new: Arc::new(new.clone()),
        });
        store.log = log.collect();
        let old = requests.into_iter().take(OLD as usize);
        Self {
            now: Timestamp(1_000_000),
            chat,
            store,
            nodes: Default::default(),
            late: Vec::new(),
            devices,
            people,
            requests: old.map(Request::Send).collect(),
            attempts: Vec::new(),
            unanswered: BTreeSet::new(),
            declined: BTreeSet::new(),
            placed: (0..OLD).map(|n| (n as usize, Seq(n + 1))).collect(),
        }
    }

    /// Takes one step. A step that is not possible now does nothing.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Send { node, device } => {
                let from = &self.devices[device.index(self.devices.len())];
                self.ask_for(*node, Request::Send(message(from)));
            }
            Step::Do {
                node,
                device,
                kind,
                target,
                take_back,
            } => {
                let from = &self.devices[device.index(self.devices.len())];
                let act = about(from, *kind, self.target(target.index(24)), *take_back);
                self.ask_for(*node, Request::Send(act));
            }
            Step::AskAgain { node, which } => self.ask(*node, which.index(self.requests.len())),
            Step::Add { node, member } => {
                self.change(*node, UserId::SYSTEM, Action::Add(vec![self.user(*member)]))
            }
            Step::Remove { node, member } => {
                self.change(*node, UserId::SYSTEM, Action::Remove(self.user(*member)));
            }
            Step::Leave { node, member } => {
                let user = self.user(*member);
                self.change(*node, user, Action::Remove(user));
            }
            Step::Link { member } => self.link(self.user(*member)),
            Step::TakeJob { node, lane } => self.take_job(*node, *lane),
            Step::RunJob { node, lane } => self.run_job(*node, *lane),
            Step::JobLocked { node, lane } => self.lock_job(*node, *lane),
            Step::JobAway { node, lane, landed } => self.lose_job(*node, *lane, *landed),
            Step::FinishJob { node, lane } => {
                if let Some(done) = self.nodes[*node].done[*lane as usize].take() {
                    self.apply(*node, Event::JobDone(done));
                }
            }
            Step::ReadLoads { node } => {
                for load in &mut self.nodes[*node].loads {
                    load.read.get_or_insert_with(|| self.store.load(&load.look_up));
                }
            }
            Step::FinishLoad { node } => {
                if let Some(load) = self.nodes[*node].loads.pop_front() {
                    let read = load.read.unwrap_or_else(|| self.store.load(&load.look_up));
                    self.loaded(*node, load.number, Ok(Some(read)));
                }
            }
            Step::LoadAway { node } => {
                if let Some(load) = self.nodes[*node].loads.pop_front() {
                    self.loaded(*node, load.number, Err(LoadError::Away));
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
            Step::Ack { node, device } => self.ack(*node, device.index(self.devices.len())),
            Step::Time { ms } => self.pass(Duration::from_millis(*ms)),
            Step::Crash { node } => self.crash(*node),
            Step::Recover { node } => self.recover(*node),
            Step::Disconnect { device } => self.disconnect(device.index(self.devices.len())),
            Step::Connect { device } => self.connect(device.index(self.devices.len())),
        }
    }

    fn user(&self, member: Member) -> UserId {
        match member {
            Member::Bob => self.people[1],
            Member::Carol => self.people[2],
        }
    }

    fn link(&mut self, user: UserId) {
        if self.devices.len() < MAX_DEVICES {
            let id = DeviceId::random();
            let base = self.store.link(user, id);
            self.devices.push(Device::new(user, id, base));
        }
    }

    fn loaded(&mut self, node: usize, number: u64, result: Result<Option<Snapshot>, LoadError>) {
        let loaded = Event::Loaded {
            chat: self.chat,
            number,
            result,
        };
        self.apply(node, loaded);
    }

    fn apply(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let state = &mut self.nodes[node].state;
        state.apply(event, self.now, &mut effects);
        state.flush_receipts(self.now, &mut effects);
        state.keep_patience(self.now, &mut effects);
        self.perform(node, effects);
    }

    fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            let to = &mut self.nodes[node];
            match effect {
                Effect::Load { number, look_up, .. } => to.loads.push_back(Loading {
                    number,
                    look_up,
                    read: None,
                }),
                Effect::Push { users, what, .. } => to.pushes.push_back((users.to_vec(), what)),
                Effect::Wake { upto, missing, .. } => to.wakes.push_back((upto, missing)),
                Effect::Answer { origin, outcome } => self.answer(origin, outcome),
                Effect::Trim { .. } => {}
            }
        }
    }

    fn change(&mut self, node: usize, actor: UserId, action: Action) {
        let change = Change {
            actor,
            device: DeviceId::BACK_END,
            request: RequestId::random(),
            fingerprint: [2; 16],
            action,
            sending: Sending::default(),
        };
        self.ask_for(node, Request::Change(change));
    }

    fn disconnect(&mut self, device: usize) {
        let device = &mut self.devices[device];
        (device.online, device.row) = (false, false);
    }

    /// Returns one of the newest 12 entries, which a node remembers, or of the oldest 12, which it has to look up.
    fn target(&self, place: usize) -> Seq {
        let place = place as u64;
        match place {
            0..12 => Seq(self.store.head().0 - place),
            _ => Seq(place - 11),
        }
    }

    fn ask_for(&mut self, node: usize, request: Request) {
        self.requests.push(request);
        self.ask(node, self.requests.len() - 1);
    }

    fn ask(&mut self, node: usize, request: usize) {
        self.unanswered.insert(request);
        let (origin, chat) = (Origin::Call(self.attempts.len() as u64), self.chat);
        let placed = self.placed.contains_key(&request);
        self.attempts.push(Attempt { request, placed });
        let event = match self.requests[request].clone() {
            Request::Send(entry) => Event::Send {
                origin,
                chat,
                // The messages of several people, each of which would make the chat, have several loads under way.
                peer: self.people.into_iter().find(|person| *person != entry.sender),
                entry,
            },
            Request::Change(change) => Event::Change {
                origin,
                chat,
                change: Box::new(change),
            },
        };
        self.apply(node, event);
    }

    fn answer(&mut self, origin: Origin, outcome: Outcome) {
        let Origin::Call(attempt) = origin else { return };
        let Attempt { request, placed } = self.attempts[attempt as usize];
        let is_of_its_kind = match self.requests[request] {
            Request::Send(_) => matches!(outcome, Outcome::Sent(_) | Outcome::NotOwner),
            Request::Change(_) => matches!(outcome, Outcome::Changed(_) | Outcome::NotOwner),
        };
        assert!(is_of_its_kind, "{outcome:?}");
        if let (Request::Send(entry), Outcome::Sent(Err(refusal))) = (&self.requests[request], &outcome) {
            self.check_refusal(entry, refusal);
        }
        match outcome {
            Outcome::Sent(Ok(place)) | Outcome::Changed(Ok(Some(place))) => {
                let seq = place.seq;
                let before = self.placed.insert(request, seq);
                assert!(
                    before.is_none_or(|before| before == seq),
                    "rule 5: the same result, not {before:?} and {seq:?}"
                );
            }
            Outcome::Sent(Err(Refusal::Unavailable { .. }))
            | Outcome::Changed(Err(ChangeRefusal::Common(Refusal::Unavailable { .. })))
            | Outcome::NotOwner => return,
            Outcome::Sent(Err(
                Refusal::NotAMember
                | Refusal::TargetNotFound
                | Refusal::NotAllowed
                | Refusal::TooOld
                | Refusal::TooManyActs,
            ))
            | Outcome::Changed(Err(ChangeRefusal::Common(Refusal::NotAMember))) => {
                assert!(!placed, "rule 5: refused after it was placed");
                self.declined.insert(request);
            }
            Outcome::Changed(Ok(None)) => {
                self.declined.insert(request);
            }
            other => panic!("{other:?}"),
        }
        self.unanswered.remove(&request);
    }

    fn take_job(&mut self, node: usize, lane: Lane) {
        let to = &mut self.nodes[node];
        if to.jobs[lane as usize].is_some() || to.done[lane as usize].is_some() {
            return;
        }
        let mut effects = Vec::new();
        to.jobs[lane as usize] = to.state.next_job(lane, self.now, self.now, &mut effects);
        self.perform(node, effects);
    }

    fn run_job(&mut self, node: usize, lane: Lane) {
        let lane = lane as usize;
        if let Some(job) = self.nodes[node].jobs[lane].take() {
            self.nodes[node].done[lane] = Some(self.store.run(job));
        }
    }

    /// Ends the lane's job with the result that the chat is locked.
    fn lock_job(&mut self, node: usize, lane: Lane) {
        let node = &mut self.nodes[node];
        if let Some(job) = node.jobs[lane as usize].take() {
            node.done[lane as usize] = Some(locked(&job));
        }
    }

    /// Ends the lane's job without an answer of the store. If it `landed`, it is executed all the same.
    fn lose_job(&mut self, node: usize, lane: Lane, landed: bool) {
        let lane = lane as usize;
        if let Some(job) = self.nodes[node].jobs[lane].take() {
            self.nodes[node].done[lane] = Some(away(&job));
            if landed {
                self.store.run(job);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for node in 0..2 {
            self.apply(node, Event::Tick);
        }
    }

    fn crash(&mut self, node: usize) {
        let crashed = std::mem::take(&mut self.nodes[node]);
        self.late.extend(crashed.jobs.into_iter().flatten());
    }

    fn recover(&mut self, node: usize) {
        // The store executes a statement of a crashed node late.
        if let Some(job) = self.late.pop() {
            self.store.run(job);
        }
        let unsettled = &self.store.unsettled;
        let (low, high) = (unsettled.iter().min(), unsettled.iter().max());
        if let (Some(&low), Some(&high)) = (low, high) {
            let chat = self.chat;
            self.apply(node, Event::Recover { chat, low, high });
        }
    }

    /// Brings the world to rest: every device is online, nothing is lost any more, and time passes.
    pub fn become_quiet(&mut self) {
        for job in std::mem::take(&mut self.late) {
            self.store.run(job);
        }
        for round in 0..60 {
            for request in self.unanswered.clone() {
                if round % 10 == 0 {
                    self.ask(round / 10 % 2, request);
                }
            }
            for n in 0..self.devices.len() {
                // A device that is online reads its inbox again only if its gateway knows of a row: no sweep runs
                // here.
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
                    self.step(&Step::FinishLoad { node });
                    for lane in Lane::ALL {
                        self.step(&Step::TakeJob { node, lane });
                        self.step(&Step::RunJob { node, lane });
                        self.step(&Step::FinishJob { node, lane });
                    }
                    self.step(&Step::Push { node, lost: false });
                    self.step(&Step::Wake { node, fails: false });
                }
                self.step(&Step::Recover { node });
            }
            self.step(&Step::Time { ms: 700 });
        }
    }
}
