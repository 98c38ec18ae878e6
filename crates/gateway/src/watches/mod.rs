//! The people whom this gateway's sessions look at.
//!
//! ```text
//!   session ──WatchPresence──> may it see them? (accounts) ──> table (pure) ──> links to the presence nodes
//!   sessions' mailboxes <────────────────────────────────────── table <──────── what people show
//! ```
//!
//! - [`table`]: who looks at whom, what is told when
//! - [`links`]: one stream to each presence node

pub mod links;
pub mod table;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tern_node::shedding::Level;
use tern_node::{NodeContext, Role};
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_proto::internal::{MayWatchRequest, MayWatchResponse};
use tern_proto::v1::{self, PresenceState, WatchErrorCode, WatchResult, server_event};
use tern_proto::{ApiError, raw};
use tern_types::{Clock, SessionId, UserId};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tonic::Status;
use tracing::Instrument;

use crate::presence_links::queues::Queues;
use crate::registry::{Handle, Registry};
use crate::session::Settings;
use crate::{metrics, nodes};
use links::Said;
use table::{Asked, Effect, Limited, Seen, State, Table};

/// Questions to accounts at a time: a new screen waits for few others, and accounts are left time for the rest.
const QUESTIONS: usize = 16;
/// Sessions that wait for their question: all of a full gateway, twice.
const QUEUE: usize = 200_000;
/// One question.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Tries before the device is told to come again.
const TRIES: usize = 2;
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Under load people's comings and goings are told of no more often than this.
const SLOW: Duration = Duration::from_secs(10);
/// People with several watchers who wait to be told of. What finds no room is told a second later.
const TELLINGS: usize = 4096;
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// A telling yields to others after this many sessions.
const TOLD_AT_ONCE: usize = 1000;
/// All watches are checked anew this often: a change of privacy may have missed this gateway.
const CHECK_EVERY: Duration = Duration::from_secs(300);
/// Nothing is due: looks again after this.
const IDLE: Duration = Duration::from_secs(10);

/// See the module.
pub struct Watches {
    ctx: NodeContext,
    registry: Arc<Registry>,
    table: Mutex<Table>,
    wanted: Mutex<HashMap<SessionId, Wanted>>,
    questions: mpsc::Sender<SessionId>,
    queues: Queues<Said>,
    told: mpsc::Sender<Told>,
    due_sooner: Notify,
    /// Number of the last WatchPresence.
    last_asked: AtomicU64,
}

/// What a session asked for and nobody has looked at.
struct Wanted {
    user: UserId,
    people: Vec<UserId>,
    /// WatchPresences to be answered; 0: to be checked anew.
    answers: u32,
    asked: Asked,
}

/// An event on its way into mailboxes.
struct Told {
    user: UserId,
    event: Bytes,
    sessions: Vec<SessionId>,
}

impl Watches {
    pub fn start(ctx: &NodeContext, registry: Arc<Registry>) -> Arc<Self> {
        let (questions, queue) = mpsc::channel(QUEUE);
        let (told, telling) = mpsc::channel(TELLINGS);
        let watches = Arc::new(Self {
            ctx: ctx.clone(),
            registry,
            table: Mutex::default(),
            wanted: Mutex::default(),
            questions,
            queues: Queues::default(),
            told,
            due_sooner: Notify::new(),
            last_asked: AtomicU64::new(0),
        });
        let span = tracing::info_span!("watches");
        for task in [
            Box::pin(watches.clone().ask_all(queue)) as futures::future::BoxFuture<'static, ()>,
            Box::pin(watches.clone().tell_all(telling)),
            Box::pin(watches.clone().keep_time()),
            Box::pin(watches.clone().check_all()),
            Box::pin(watches.clone().follow()),
        ] {
            tokio::spawn(task.instrument(span.clone()));
        }
        watches.clone().maintain();
        watches
    }

    /// The session looks at these people from now on; answered into its mailbox.
    pub fn watch(&self, session: &Handle, people: Vec<UserId>) {
        let wanted = Wanted {
            user: session.user,
            people,
            answers: 1,
            asked: Asked::Device(self.last_asked.fetch_add(1, Ordering::Relaxed) + 1),
        };
        self.want(session.id, wanted);
    }

    /// The session is over.
    pub fn ended(&self, session: SessionId) {
        lock(&self.wanted).remove(&session);
        let mut table = self.table();
        let effects = table.remove(session);
        self.perform(&mut table, effects);
    }

    /// These users' settings have changed: checks who sees them and whom they see.
    pub fn privacy_changed(&self, users: &HashSet<UserId>) {
        let concerned = self.table().concerned(users);
        self.check(&concerned);
    }

    fn check(&self, sessions: &[SessionId]) {
        for session in sessions {
            let Some((user, people, number)) = self.table().asked_for(*session) else {
                continue;
            };
            let wanted = Wanted {
                user,
                people,
                answers: 0,
                asked: Asked::Again(number),
            };
            self.want(*session, wanted);
        }
    }

    fn want(&self, session: SessionId, new: Wanted) {
        let mut wanted = lock(&self.wanted);
        match wanted.get_mut(&session) {
            // It waits already: the device's newest wish counts, and each of them is answered.
            Some(older) if new.answers == 0 && older.answers > 0 => {}
            Some(older) => {
                let answers = older.answers + new.answers;
                *older = Wanted { answers, ..new };
            }
            None => {
                if self.questions.try_send(session).is_ok() {
                    wanted.insert(session, new);
                } else if new.answers > 0 {
                    drop(wanted);
                    self.refuse(session, new.answers);
                }
            }
        }
    }

    async fn ask_all(self: Arc<Self>, mut queue: mpsc::Receiver<SessionId>) {
        let free = Arc::new(Semaphore::new(QUESTIONS));
        while let Some(session) = queue.recv().await {
            let Ok(permit) = free.clone().acquire_owned().await else {
                return;
            };
            let Some(wanted) = lock(&self.wanted).remove(&session) else {
                continue;
            };
            let watches = self.clone();
            tokio::spawn(
                async move {
                    watches.look_up(session, wanted).await;
                    drop(permit);
                }
                .in_current_span(),
            );
        }
    }

    async fn look_up(&self, session: SessionId, wanted: Wanted) {
        let seen = match self.may_watch(&wanted).await {
            Ok(answer) => seen(&wanted, &answer),
            Err(status) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "who may be watched is not known");
                if wanted.answers == 0 {
                    return;
                }
                self.refuse(session, wanted.answers);
                Seen {
                    asked: wanted.asked,
                    ..Seen::default()
                }
            }
        };
        let mut table = self.table();
        // Under the lock: who ends the session afterwards finds it here.
        if self.registry.get(session).is_some() {
            let effects = table.set(session, wanted.user, seen, Clock::monotonic());
            self.perform(&mut table, effects);
        }
    }

    async fn may_watch(&self, wanted: &Wanted) -> Result<MayWatchResponse, Status> {
        if wanted.people.is_empty() {
            return Ok(MayWatchResponse::default());
        }
        let request = MayWatchRequest {
            watcher_id: wanted.user.to_vec().into(),
            user_ids: wanted.people.iter().map(|user| user.to_vec().into()).collect(),
        };
        let mut failed = Status::unavailable("not asked");
        for _ in 0..TRIES {
            let answer = timeout(ANSWER_WITHIN, self.ask(request.clone())).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
                Ok(answer) => return Ok(answer),
                Err(status) => failed = status,
            }
        }
        Err(failed)
    }

    async fn ask(&self, request: MayWatchRequest) -> Result<MayWatchResponse, Status> {
        let (node, _) = nodes::find(&self.ctx.map, |map| map.any(Role::Accounts)).await?;
        let mut client = AccountsNodeClient::new(self.ctx.channels.get(&node.address)?);
        Ok(client.may_watch(request).await?.into_inner())
    }

    /// It cannot be found out whom the session may see.
    fn refuse(&self, session: SessionId, answers: u32) {
        let error = ApiError::unavailable("who may be seen cannot be found out now");
        let result = WatchResult {
            error: WatchErrorCode::Unavailable.into(),
            message: error.message,
            limited_user_ids: Vec::new(),
            retry_after_ms: Settings::millis(RETRY_AFTER),
        };
        self.answer(session, &result, answers);
    }

    fn answer(&self, session: SessionId, result: &WatchResult, answers: u32) {
        let Some(session) = self.registry.get(session) else {
            return;
        };
        let event = raw::event(server_event::Event::WatchResult(result.clone()));
        for _ in 0..answers {
            session.mailbox.push_watched(event.clone());
        }
    }

    /// The table's lock is held, so that effects are carried out in the order in which they came about.
    fn perform(&self, table: &mut Table, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Watch(user) => self.tell_owner(user, true),
                Effect::Unwatch(user) => self.tell_owner(user, false),
                Effect::Tell {
                    user,
                    state,
                    sessions,
                } => {
                    if !self.tell(user, state, sessions) {
                        table.again(user, Clock::monotonic() + TELL_AGAIN);
                    }
                }
                Effect::Complete {
                    session,
                    limited,
                    answers,
                } => self.answer(session, &complete(&limited), answers),
            }
        }
        metrics::watches(table.watches());
        self.due_sooner.notify_one();
    }

    /// One session is told at once, many by and by: nobody waits for it. False: there is no room.
    fn tell(&self, user: UserId, state: State, sessions: Vec<SessionId>) -> bool {
        let event = event(user, state);
        if let [session] = sessions[..] {
            metrics::presence_told(1);
            if let Some(session) = self.registry.get(session) {
                session.mailbox.push_seen(user, event);
            }
            return true;
        }
        let told = Told {
            user,
            event,
            sessions,
        };
        self.told.try_send(told).is_ok()
    }

    async fn tell_all(self: Arc<Self>, mut telling: mpsc::Receiver<Told>) {
        let mut since_yield = 0;
        while let Some(told) = telling.recv().await {
            metrics::presence_told(told.sessions.len());
            for session in told.sessions {
                if let Some(session) = self.registry.get(session) {
                    session.mailbox.push_seen(told.user, told.event.clone());
                }
                since_yield += 1;
                if since_yield >= TOLD_AT_ONCE {
                    since_yield = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.table().next_tick();
            let wait = next.map_or(IDLE, |at| at.since(Clock::monotonic()).min(IDLE));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.due_sooner.notified() => continue,
                () = self.ctx.drain.ended() => return,
            }
            let mut table = self.table();
            let effects = table.tick(self.slow(), Clock::monotonic());
            self.perform(&mut table, effects);
        }
    }

    async fn check_all(self: Arc<Self>) {
        loop {
            let jitter = rand::rng().random_range(0.8..1.2);
            tokio::select! {
                () = tokio::time::sleep(CHECK_EVERY.mul_f64(jitter)) => {}
                () = self.ctx.drain.ended() => return,
            }
            let sessions = self.table().sessions();
            self.check(&sessions);
        }
    }

    /// How slowly people's comings and goings are told of, where that is for load.
    fn slow(&self) -> Option<Duration> {
        (self.ctx.shedding.level() >= Level::Presence).then_some(SLOW)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

fn seen(wanted: &Wanted, answer: &MayWatchResponse) -> Seen {
    let ids = |ids: &[Bytes]| ids.iter().filter_map(|id| UserId::from_slice(id).ok()).collect();
    let (visible, limited): (Vec<UserId>, Vec<UserId>) = (ids(&answer.visible), ids(&answer.limited));
    let others = wanted.people.iter().copied();
    let hidden = others.filter(|user| !visible.contains(user) && !limited.contains(user));
    Seen {
        hidden: hidden.collect(),
        visible,
        limited: Limited {
            users: limited,
            retry_after: Duration::from_millis(u64::try_from(answer.retry_after_ms).unwrap_or(0)),
        },
        answers: wanted.answers,
        asked: wanted.asked,
    }
}

fn complete(limited: &Limited) -> WatchResult {
    WatchResult {
        error: WatchErrorCode::Unspecified.into(),
        message: String::new(),
        limited_user_ids: limited.users.iter().map(ToString::to_string).collect(),
        retry_after_ms: Settings::millis(limited.retry_after),
    }
}

fn event(user: UserId, state: State) -> Bytes {
    let (state, last_seen_ms) = match state {
        State::Hidden => (PresenceState::Hidden, 0),
        State::Online => (PresenceState::Online, 0),
        State::Offline(at) => (PresenceState::Offline, at.0),
    };
    raw::event(server_event::Event::Presence(v1::Presence {
        user_id: user.to_string(),
        state: state.into(),
        last_seen_ms,
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
