//! Runs a shard's state and writers on a real store, without links and presence. Tests use it to see what an owner
//! answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tern_chat::bell::Bell;
use tern_chat::metrics::JobTimes;
use tern_chat::shard_loop::writer::{self, Given};
use tern_chat::store::load;
use tern_chat_core::change::Action;
use tern_chat_core::shard::{Effect, Event, GATHER_RECEIPTS, Job, JobDone, Lane, ShardState};
use tern_chat_core::{Change, NewEntry, Origin, Outcome, Sending};
use tern_cluster::shedding::Shedding;
use tern_store::postgres::cell_connect_options;
use tern_types::{Cell, Cells, ChatId, Clock, DeviceId, RequestId, UserId};
use tokio::sync::mpsc;

use crate::harness::Store;

/// The longest time between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// An owner. It does all that it is asked before it answers.
pub struct Owner<'a> {
    store: &'a Store,
    state: ShardState,
    writers: [(Lane, mpsc::Sender<Given>); 2],
    done: mpsc::Receiver<Event>,
    /// The number of jobs under way.
    busy: usize,
    /// True while a job that [`Self::begin_upkeep`] began is under way. Nobody waits for that job.
    hung: bool,
    /// The time by which the owner's clock is ahead.
    pub ahead: Duration,
    answers: Vec<(Origin, Outcome)>,
    /// The pushes so far, each with the users whom it goes to.
    pub pushed: Vec<(Vec<UserId>, tern_chat_core::shard::Pushed)>,
}

impl<'a> Owner<'a> {
    /// Starts an owner that knows no chat yet.
    pub fn new(store: &'a Store) -> Self {
        let (results, done) = mpsc::channel(8);
        Self {
            store,
            state: ShardState::default(),
            writers: Lane::ALL.map(|lane| (lane, writer(store, lane, results.clone()))),
            done,
            busy: 0,
            hung: false,
            ahead: Duration::ZERO,
            answers: Vec::new(),
            pushed: Vec::new(),
        }
    }

    /// Sends one entry, and returns its answer.
    pub async fn send(&mut self, chat: ChatId, entry: &NewEntry) -> Outcome {
        let entry = entry.clone();
        self.ask(|origin| Event::Send {
            origin,
            chat,
            peer: None,
            entry,
        })
        .await
    }

    /// Sends both entries at once. The answers are in the order of the entries.
    pub async fn send_both(&mut self, chat: ChatId, entries: [&NewEntry; 2]) -> [Outcome; 2] {
        self.send_all(entries.map(|entry| (chat, entry)))
            .await
            .map(|(_, outcome)| outcome)
    }

    /// Sends all entries at once. The answers are in the order of the entries, each with how many other answers came
    /// before it.
    pub async fn send_all<const N: usize>(
        &mut self,
        entries: [(ChatId, &NewEntry); N],
    ) -> [(usize, Outcome); N] {
        let sends = entries.map(|(chat, entry)| {
            let (origin, entry, peer) = (origin(), entry.clone(), None);
            let event = Event::Send {
                origin,
                chat,
                peer,
                entry,
            };
            (origin, event)
        });
        let origins = sends.each_ref().map(|(origin, _)| *origin);
        self.run(sends.into_iter().map(|(_, event)| event).collect())
            .await;
        let answers = std::mem::take(&mut self.answers);
        origins.map(|origin| {
            let mut answers = answers.iter().enumerate();
            let (place, (_, outcome)) = answers.find(|(_, (to, _))| *to == origin).expect("no answer");
            (place, outcome.clone())
        })
    }

    /// Makes a change of a group by a back end in the actor's name, and returns its answer.
    pub async fn change(
        &mut self,
        chat: ChatId,
        actor: UserId,
        request: RequestId,
        action: Action,
    ) -> Outcome {
        let change = Change {
            actor,
            device: DeviceId::BACK_END,
            request,
            fingerprint: [3; 16],
            action,
            sending: Sending::default(),
        };
        self.ask(|origin| Event::Change {
            origin,
            chat,
            change: Box::new(change),
        })
        .await
    }

    async fn ask(&mut self, event: impl FnOnce(Origin) -> Event) -> Outcome {
        let origin = origin();
        self.run(vec![event(origin)]).await;
        self.answer(origin)
    }

    fn answer(&mut self, origin: Origin) -> Outcome {
        let place = self.answers.iter().position(|(to, _)| *to == origin);
        self.answers.swap_remove(place.expect("no answer")).1
    }

    /// Does the work that is due within a second.
    pub async fn upkeep(&mut self) {
        self.run_at(Vec::new(), Duration::from_secs(1)).await;
    }

    /// Gives the upkeep writer the job that is due, and does not wait for it now or later. Returns the kind of the
    /// job.
    pub async fn begin_upkeep(&mut self) -> &'static str {
        let now = Clock::monotonic() + self.ahead;
        let job = self
            .state
            .next_job(Lane::Upkeep, now, Clock::wall(), &mut Vec::new());
        let job = job.expect("nothing is due");
        let name = match &job {
            Job::Acks(_) => "acknowledgements",
            Job::Settle(_) => "settle",
            _ => "something else",
        };
        self.hung = true;
        self.writers[Lane::Upkeep as usize]
            .1
            .send(job.into())
            .await
            .unwrap();
        name
    }

    /// Applies the events, and does all work that is due now.
    pub async fn run(&mut self, events: Vec<Event>) {
        self.run_at(events, Duration::ZERO).await;
    }

    async fn run_at(&mut self, events: Vec<Event>, ahead: Duration) {
        let (mut events, mut out) = (VecDeque::from(events), Vec::new());
        loop {
            let now = Clock::monotonic() + self.ahead + ahead;
            while let Some(event) = events.pop_front() {
                self.state.apply(event, now, &mut out);
            }
            // The receipts that are gathered are pushed now.
            self.state.flush_receipts(now + GATHER_RECEIPTS, &mut out);
            self.state.keep_patience(now, &mut out);
            for (lane, jobs) in &self.writers {
                if let Some(job) = self.state.next_job(*lane, now, Clock::wall(), &mut out) {
                    self.busy += 1;
                    jobs.send(job.into()).await.unwrap();
                }
            }
            for effect in out.drain(..) {
                match effect {
                    Effect::Load {
                        chat,
                        number,
                        look_up,
                        ..
                    } => {
                        let (pools, master) = (&self.store.pools, &self.store.master);
                        let result = Ok(load::chat(pools, master, chat, &look_up).await.unwrap());
                        events.push_back(Event::Loaded { chat, number, result });
                    }
                    Effect::Answer { origin, outcome } => self.answers.push((origin, outcome)),
                    Effect::Push { users, what, .. } => self.pushed.push((users.to_vec(), what)),
                    Effect::Wake { .. } | Effect::Trim { .. } => {}
                }
            }
            if !events.is_empty() {
                continue;
            }
            if self.busy == 0 && self.state.waiting() == 0 {
                return;
            }
            let now = Clock::monotonic() + self.ahead;
            let until = self.state.next_wake().map_or(TICK, |at| at.since(now));
            tokio::select! {
                done = self.done.recv() => {
                    let done = done.unwrap();
                    let hung = matches!(&done, Event::JobDone(done) if self.hung && done.lane() == Lane::Upkeep);
                    if hung {
                        self.hung = false;
                    } else {
                        self.busy -= 1;
                    }
                    events.push_back(done);
                }
                () = tokio::time::sleep(until.min(TICK)) => {}
            }
        }
    }
}

/// Starts one of a shard's two writers.
pub fn writer(store: &Store, lane: Lane, results: mpsc::Sender<Event>) -> mpsc::Sender<Given> {
    let (meter, times) = (Shedding::off().meter("commit"), JobTimes::new(0));
    let connect = cell_connect_options(&store.args, Cell::FIRST);
    let rope = Bell::new(Cells::DEFAULT).rope(0);
    writer::spawn(
        Arc::new(move || connect.clone()),
        lane,
        meter,
        times,
        rope,
        results,
    )
}

/// Runs one job on a new writer.
pub async fn run_job(store: &Store, job: Job) -> JobDone {
    let (results, mut done) = mpsc::channel(1);
    let jobs = writer(store, job.lane(), results);
    jobs.send(job.into()).await.unwrap();
    match done.recv().await.unwrap() {
        Event::JobDone(done) => done,
        event => panic!("{event:?}"),
    }
}

fn origin() -> Origin {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Origin::Call(NEXT.fetch_add(1, Ordering::Relaxed))
}
