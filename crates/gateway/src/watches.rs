//! The users whose presence this gateway's sessions watch.
//!
//! ```text
//!   session ──WatchPresence──> may it see them? (accounts) ──> table (pure) ──> links to the presence nodes
//!   sessions' mailboxes <────────────────────────────────────── table <──────── presence of watched users
//! ```
//!
//! Only the newest state of a user is told. A slow session delays nobody: in its mailbox a newer state of a user
//! takes the place of an older one.
//!
//! - [`tern_gateway_core::watches`]: which sessions watch which users, and when they are told what
//! - [`waiting`]: the sets about which accounts are still to be asked
//! - [`turns`]: about which session accounts are asked next
//! - [`questions`]: the questions to accounts that are under way
//! - [`telling`]: the sessions' mailboxes
//! - [`links`]: one stream to each presence node

pub mod links;
pub mod questions;
mod telling;
pub mod turns;
mod waiting;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tern_cluster::shedding::Level;
use tern_cluster::{NodeContext, Role};
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_proto::internal::{MayWatchRequest, MayWatchResponse};
use tern_proto::v1::{WatchErrorCode, WatchResult, server_event};
use tern_proto::{ApiError, raw};
use tern_types::{Clock, SessionId, UserId};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tonic::Status;
use tracing::Instrument;

use links::Said;
use questions::Questions;
use telling::{TELLINGS, Told};
use tern_gateway_core::session::Settings;
use tern_gateway_core::watches::{Asked, Effect, Limited, Seen, Table};
use turns::{CHECKS, Next, Turns};
use waiting::Waiting;

use crate::presence_links::dialogue;
use crate::presence_links::queues::Queues;
use crate::registry::{Handle, Registry};
use crate::{metrics, nodes};

/// The most questions to accounts at a time: few enough that accounts have time for other calls.
const QUESTIONS: usize = 16;
/// The most times that a question is asked anew because settings changed while it was under way. After that the answer
/// is taken, and the session's watches are checked once more.
const ASKED_ANEW: usize = 3;
/// The longest time that accounts may take to answer one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The number of times that a failing question is asked before the device is told to send WatchPresence again.
const TRIES: usize = 2;
/// The time that a device is told to wait before it sends WatchPresence again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The least time between two changes of a user's presence that watchers are told of, while the gateway is
/// under load.
const SLOW: Duration = Duration::from_secs(10);
/// The interval at which all watches are checked against privacy and blocks, since this gateway may have missed a
/// change. Each round varies by a fifth, so that gateways do not ask together.
const CHECK_EVERY: Duration = Duration::from_secs(300);
/// The longest sleep of the task that runs the table's timers.
const IDLE: Duration = Duration::from_secs(10);

/// The presence watches of this gateway's sessions.
pub struct Watches {
    ctx: NodeContext,
    registry: Arc<Registry>,
    table: Mutex<Table>,
    /// The set of users that each session wants to watch, until accounts are asked about it.
    wanted: Mutex<Waiting>,
    /// The questions that accounts have not answered yet.
    asked: Questions,
    /// The sessions in `wanted` that can be asked about, and those that are to be checked.
    turns: turns::Queues,
    queues: Queues<Said>,
    /// The queue of changes for several mailboxes.
    told: mpsc::Sender<Told>,
    /// Notified when the table's next timer may be due earlier than before.
    due_sooner: Notify,
    /// The number of the last WatchPresence.
    last_asked: AtomicU64,
}

/// A set of users that a session wants to watch, and about which accounts are to be asked.
struct Wanted {
    user: UserId,
    people: Vec<UserId>,
    /// The number of WatchPresence items that wait for the answer. 0 means that the session watches the set already,
    /// and it is only checked again.
    answers: u32,
    /// The question that the answer belongs to.
    asked: Asked,
}

/// A question about a session's set. Dropping it lets accounts be asked about the next one.
struct Asking(Arc<Watches>, SessionId);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.answered(self.1);
    }
}

impl Watches {
    /// Starts the tasks that keep the watches and the links to the presence nodes.
    pub fn start(ctx: &NodeContext, registry: Arc<Registry>) -> Arc<Self> {
        let (queues, turns) = turns::queues();
        let (told, telling) = mpsc::channel(TELLINGS);
        let watches = Arc::new(Self {
            ctx: ctx.clone(),
            registry,
            table: Mutex::default(),
            wanted: Mutex::default(),
            asked: Questions::default(),
            turns: queues,
            queues: Queues::default(),
            told,
            due_sooner: Notify::new(),
            last_asked: AtomicU64::new(0),
        });
        let span = tracing::info_span!("watches");
        for task in [
            Box::pin(watches.clone().ask_all(turns)) as futures::future::BoxFuture<'static, ()>,
            Box::pin(watches.clone().tell_all(telling)),
            Box::pin(watches.clone().keep_time()),
            Box::pin(watches.clone().check_all()),
            Box::pin(dialogue::follow(watches.clone())),
        ] {
            tokio::spawn(task.instrument(span.clone()));
        }
        dialogue::maintain(&watches);
        watches
    }

    /// Watches these users for the session from now on, in place of the ones before. The answer is put into its
    /// mailbox.
    pub fn watch(&self, session: &Handle, people: Vec<UserId>) {
        let wanted = Wanted {
            user: session.user,
            people,
            answers: 1,
            asked: Asked::Device(self.last_asked.fetch_add(1, Ordering::Relaxed) + 1),
        };
        self.want(session.id, wanted);
    }

    /// Ends the watches of a session that has ended.
    pub fn ended(&self, session: SessionId) {
        lock(&self.wanted).remove(session);
        let mut table = self.table();
        let effects = table.remove(session);
        self.perform(&mut table, effects);
    }

    /// Checks all watches in which one of these users is the watcher or is watched, after their settings, contacts or
    /// blocks have changed.
    pub fn privacy_changed(&self, users: &HashSet<UserId>) {
        // The open questions are marked before the table is read. A question that is not open any more has put its
        // answer into the table, and its session is found there.
        self.asked.settings_changed(users);
        let concerned = self.table().concerned(users);
        self.check(&concerned);
    }

    /// Queues the sets of these sessions, so that accounts are asked about them again.
    fn check(&self, sessions: &[SessionId]) {
        for session in sessions {
            if let Some(wanted) = self.again(*session) {
                self.want(*session, wanted);
            }
        }
    }

    /// Returns the session's set, for a question whether it still may see these users. `None` if it has no set.
    fn again(&self, session: SessionId) -> Option<Wanted> {
        let (user, people, number) = self.table().asked_for(session)?;
        Some(Wanted {
            user,
            people,
            answers: 0,
            asked: Asked::Again(number),
        })
    }

    /// Queues the set that the session wants. If there is no room, a WatchPresence is refused, and a check is dropped.
    fn want(&self, session: SessionId, new: Wanted) {
        let mut waiting = lock(&self.wanted);
        if waiting.put(session, new) {
            self.queue(session, waiting);
        }
    }

    /// Notes that the session's set was asked about, so that accounts can be asked about its next one.
    fn answered(&self, session: SessionId) {
        let mut waiting = lock(&self.wanted);
        if waiting.answered(session) {
            self.queue(session, waiting);
        }
    }

    /// Gives the session, whose set waits, a place in the queue. If there is none, its WatchPresence items are refused.
    fn queue(&self, session: SessionId, mut waiting: MutexGuard<'_, Waiting>) {
        if self.turns.wanted.try_send(session).is_ok() {
            return;
        }
        let wanted = waiting.remove(session);
        drop(waiting);
        if let Some(wanted) = wanted.filter(|wanted| wanted.answers > 0) {
            self.refuse(session, wanted.answers);
        }
    }

    /// Asks accounts about each waiting session, [`QUESTIONS`] at a time.
    async fn ask_all(self: Arc<Self>, mut turns: Turns) {
        let free = Arc::new(Semaphore::new(QUESTIONS));
        loop {
            // A session is taken only when it can be asked about, so that a check keeps no newer set waiting.
            let Ok(permit) = free.clone().acquire_owned().await else {
                return;
            };
            let next = turns.next().await;
            let watches = self.clone();
            match next {
                Some(Next::Wanted(session)) => {
                    let Some(wanted) = lock(&self.wanted).take(session) else {
                        continue;
                    };
                    let asking = Asking(watches, session);
                    let ask = async move {
                        asking.0.look_up(session, wanted).await;
                        drop((asking, permit));
                    };
                    tokio::spawn(ask.in_current_span());
                }
                Some(Next::Check(session)) => {
                    let Some(wanted) = self.again(session) else {
                        continue;
                    };
                    let check = async move {
                        watches.look_up(session, wanted).await;
                        drop(permit);
                    };
                    tokio::spawn(check.in_current_span());
                }
                None => return,
            }
        }
    }

    /// Asks accounts which users of the set the session may see, and enters them into the table.
    async fn look_up(&self, session: SessionId, wanted: Wanted) {
        let mut asked_anew = 0;
        loop {
            let concerns = wanted.people.iter().copied().chain([wanted.user]);
            let question = self.asked.begin(concerns.collect());
            let answer = self.may_watch(&wanted).await;
            // The table stays locked until the answer is in it, so that a later change of settings finds the session
            // there.
            let mut table = self.table();
            let is_stale = question.is_stale();
            if is_stale && answer.is_ok() && asked_anew < ASKED_ANEW {
                asked_anew += 1;
                continue;
            }
            self.seen(session, &wanted, answer, &mut table);
            drop((table, question));
            if is_stale {
                self.check(&[session]);
            }
            return;
        }
    }

    /// Enters the answer into the table. If accounts did not answer, a WatchPresence is refused and the session watches
    /// nobody; a check changes nothing.
    fn seen(
        &self,
        session: SessionId,
        wanted: &Wanted,
        answer: Result<MayWatchResponse, Status>,
        table: &mut Table,
    ) {
        let (seen, is_refused) = match answer {
            Ok(answer) => (seen(wanted, &answer), false),
            Err(status) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "who may be watched is not known");
                if wanted.answers == 0 {
                    return;
                }
                let nobody = Seen {
                    asked: wanted.asked,
                    ..Seen::default()
                };
                (nobody, true)
            }
        };
        // This is done under the table's lock: if the session ends after this, `ended` finds it in the table.
        if self.registry.get(session).is_some() {
            let effects = table.set(session, wanted.user, seen, Clock::monotonic());
            self.perform(table, effects);
        }
        if is_refused {
            // An older WatchPresence, whose set is replaced now, was answered before this.
            self.refuse(session, wanted.answers);
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

    /// Answers that it cannot be found out now which users the session may see.
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

    /// Carries out effects. The caller holds the table's lock, so that they are carried out in the order in which
    /// they arose.
    fn perform(&self, table: &mut Table, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Watch(user) => self.tell_owner(user, true),
                Effect::Unwatch(user) => self.tell_owner(user, false),
                Effect::Tell {
                    user,
                    state,
                    sessions,
                } => self.tell(table, user, state, sessions),
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

    /// Runs the table's timers until the drain has ended.
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

    /// Checks all watches every [`CHECK_EVERY`] until the drain has ended.
    async fn check_all(self: Arc<Self>) {
        loop {
            let jitter = rand::rng().random_range(0.8..1.2);
            tokio::select! {
                () = tokio::time::sleep(CHECK_EVERY.mul_f64(jitter)) => {}
                () = self.ctx.drain.ended() => return,
            }
            tokio::select! {
                () = self.check_each() => {}
                () = self.ctx.drain.ended() => return,
            }
        }
    }

    /// Queues the sets of all sessions, [`CHECKS`] at a time and no faster than accounts answer.
    async fn check_each(&self) {
        let mut after = None;
        loop {
            let sessions = self.table().sessions_after(after, CHECKS);
            let Some(last) = sessions.last() else { return };
            after = Some(*last);
            for session in sessions {
                if self.turns.checks.send(session).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Returns the least time between two changes of a user that watchers are told of, if load makes it
    /// longer than usual.
    fn slow(&self) -> Option<Duration> {
        (self.ctx.shedding.level() >= Level::Presence).then_some(SLOW)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// Sorts the users that a session asked for by the answer of accounts: visible, limited, and hidden ones.
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

/// Returns the answer to a WatchPresence whose set is watched.
fn complete(limited: &Limited) -> WatchResult {
    WatchResult {
        error: WatchErrorCode::Unspecified.into(),
        message: String::new(),
        limited_user_ids: limited.users.iter().map(ToString::to_string).collect(),
        retry_after_ms: Settings::millis(limited.retry_after),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
