//! A shard's state and its writer on the real store, without links and presence: what an owner answers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tern_chat::metrics::JobTimes;
use tern_chat::shard::writer;
use tern_chat::state::change::Action;
use tern_chat::state::shard::{Effect, Event, GATHER_RECEIPTS, Job, ShardState};
use tern_chat::state::{Change, NewEntry, Origin, Outcome};
use tern_chat::store::load;
use tern_node::postgres::hot_connect_options;
use tern_node::shedding::Shedding;
use tern_types::{ChatId, Clock, DeviceId, RequestId, UserId};
use tokio::sync::mpsc;

use crate::harness::Store;

/// Everything asked of it is done before it answers.
pub struct Owner<'a> {
    store: &'a Store,
    state: ShardState,
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<Event>,
    answers: Vec<(Origin, Outcome)>,
    pub pushed: Vec<(Vec<UserId>, tern_chat::state::shard::Pushed)>,
}

impl<'a> Owner<'a> {
    /// Knows nothing of any chat yet.
    pub fn new(store: &'a Store) -> Self {
        let (results, done) = mpsc::channel(8);
        Self {
            store,
            state: ShardState::default(),
            jobs: writer::spawn(
                hot_connect_options(&store.args),
                Shedding::off().meter("commit"),
                JobTimes::new(0),
                results,
            ),
            done,
            answers: Vec::new(),
            pushed: Vec::new(),
        }
    }

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

    /// Both at once; the answers in this order.
    pub async fn send_both(&mut self, chat: ChatId, entries: [&NewEntry; 2]) -> [Outcome; 2] {
        let [first, second] = entries.map(|entry| {
            let origin = origin();
            let entry = entry.clone();
            let event = Event::Send {
                origin,
                chat,
                peer: None,
                entry,
            };
            (origin, event)
        });
        self.run(vec![first.1, second.1]).await;
        [self.answer(first.0), self.answer(second.0)]
    }

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
        };
        self.ask(|origin| Event::Change { origin, chat, change }).await
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

    /// What is due within a second is done.
    pub async fn upkeep(&mut self) {
        self.run_at(Vec::new(), Duration::from_secs(1)).await;
    }

    pub async fn run(&mut self, events: Vec<Event>) {
        self.run_at(events, Duration::ZERO).await;
    }

    async fn run_at(&mut self, events: Vec<Event>, ahead: Duration) {
        let (mut events, mut out) = (VecDeque::from(events), Vec::new());
        loop {
            let now = Clock::monotonic() + ahead;
            while let Some(event) = events.pop_front() {
                self.state.apply(event, now, &mut out);
            }
            // Nobody waits here for what is gathered.
            self.state.flush_receipts(now + GATHER_RECEIPTS, &mut out);
            let job = self.state.next_job(now, Clock::wall(), &mut out);
            for effect in out.drain(..) {
                match effect {
                    Effect::Load {
                        chat,
                        number,
                        requests,
                        ..
                    } => {
                        let (pool, master) = (&self.store.pool, &self.store.master);
                        let result = Ok(load::chat(pool, master, chat, &requests).await.unwrap());
                        events.push_back(Event::Loaded { chat, number, result });
                    }
                    Effect::Answer { origin, outcome } => self.answers.push((origin, outcome)),
                    Effect::Push { users, what, .. } => self.pushed.push((users, what)),
                    Effect::Wake { .. } => {}
                }
            }
            match job {
                Some(job) => {
                    self.jobs.send(job).await.unwrap();
                    events.push_back(self.done.recv().await.unwrap());
                }
                None if events.is_empty() => return,
                None => {}
            }
        }
    }
}

fn origin() -> Origin {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Origin::Call(NEXT.fetch_add(1, Ordering::Relaxed))
}
