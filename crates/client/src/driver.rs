//! The one task that owns engine, store and stream. It waits in one place ([`Driver::wait`]), hands what happened to
//! the engine, and carries out the effects: first the store, then the app, then the wire.
//!
//! - [`command`]: the requests of the app's handles
//! - [`calls`]: the unary calls that the engine asks for
//! - [`server_stream`]: the stream, and the items that wait to be written to it

mod calls;
pub(crate) mod command;
mod server_stream;

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt;
use tern_types::{Clock, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use calls::{entries, malformed};

use command::{Command, Read, Reply};
use server_stream::{ServerStream, StreamStep};

use tern_client_core::engine::{Call, Change, Effects, Engine, Input};
use tern_client_core::model::{Event, StopReason};

use crate::access_token::{Keeper, Renew};
use crate::api::Api;
use crate::connection::Gateways;
use crate::error::{CallError, ClientError};
use crate::events::ToApp;
use crate::store::{Expired, Store};

/// The largest number of inputs that are applied and committed together.
const MAX_BATCH: usize = 64;
/// The number of waiting events from which on the driver reads no more frames, until the app takes some.
const MAX_PENDING_EVENTS: usize = 4096;
/// The time without room for events after which the driver gives the stream up, because a stream that is left unread
/// for longer breaks its HTTP/2 connection. The server sends again what was not acknowledged.
const SLOW_APP: Duration = Duration::from_secs(10);
/// The shortest time by which the wall clock is ahead after the machine slept. Less is how clocks are corrected.
const SLEPT: Duration = Duration::from_secs(10);
/// The time that the app has to read the events that wait when the client ends. The last one may be read at any time.
const LAST_EVENTS: Duration = Duration::from_secs(1);

pub(crate) struct Driver {
    engine: Engine,
    /// The store; `None` while a blocking thread works on it.
    store: Option<Store>,
    stream: ServerStream,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    last_event: oneshot::Sender<StopReason>,
    /// The events for which the channel to the app has no room yet.
    pending: VecDeque<Event>,
    /// The time at which `pending` became full, or at which the stream was given up for that; `None` while it has room.
    full_since: Option<Instant>,
    calls: JoinSet<Input>,
    api: Api,
    /// The access token for the calls, and their requests for a newer one.
    keeper: Keeper,
    /// The calls that wait for a new access token.
    renewals: Vec<oneshot::Sender<Result<(), CallError>>>,
    /// The time at which the driver started, by the wall clock and by the monotonic clock.
    started: (Timestamp, Instant),
}

/// The work of one round: the inputs for the engine, the replies to their senders, and the reads of the store.
#[derive(Default)]
struct Batch {
    inputs: Vec<Input>,
    replies: Vec<Reply>,
    reads: Vec<Read>,
}

/// The reason why the driver woke up.
enum Step {
    Command(Option<Command>),
    Renew(Renew),
    Stream(StreamStep),
    Answer(Box<Input>),
    EventsTaken,
    Wake,
}

impl Driver {
    pub(crate) fn new(
        engine: Engine,
        store: Store,
        gateways: Gateways,
        api: Api,
        keeper: Keeper,
        commands: mpsc::Receiver<Command>,
        to_app: ToApp,
    ) -> Self {
        Self {
            engine,
            store: Some(store),
            stream: ServerStream::new(gateways),
            commands,
            events: to_app.events,
            last_event: to_app.last,
            pending: VecDeque::new(),
            full_since: None,
            calls: JoinSet::new(),
            api,
            keeper,
            renewals: Vec::new(),
            started: (Clock::wall(), Instant::now()),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut batch = Batch {
            inputs: vec![Input::Start],
            ..Batch::default()
        };
        let reason = loop {
            if let Some(reason) = self.work(batch).await {
                break reason;
            }
            let step = self.wait().await;
            batch = self.gather(step);
        };
        self.stream.close().await;
        self.calls.abort_all();
        let rest = async {
            for event in self.pending.drain(..) {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        };
        // An app that reads no more events finds everything in the store.
        let _ = tokio::time::timeout(LAST_EVENTS, rest).await;
        // This fails if the app has dropped its event stream.
        let _ = self.last_event.send(reason);
    }

    /// Returns the wall-clock time. It advances by the monotonic clock, so it never goes back. The monotonic clock stands
    /// still while the machine sleeps, so the time is set forward after that: messages disappear on time.
    fn now(&mut self) -> Timestamp {
        let now = self.started.0 + self.started.1.elapsed();
        let slept = slept(now, Clock::wall());
        self.started.0 = self.started.0 + slept;
        now + slept
    }

    /// Waits for the next thing to do. Until the client ends, the driver waits nowhere else for the app, the server or
    /// a timer.
    async fn wait(&mut self) -> Step {
        let now = self.now();
        let engine = self.engine.next_wake().map(|at| Instant::now() + at.since(now));
        let wake = [engine, self.give_up_at()].into_iter().flatten().min();
        let reading = self.full_since.is_none();
        tokio::select! {
            command = self.commands.recv() => Step::Command(command),
            Some(renew) = self.keeper.requests.recv() => Step::Renew(renew),
            step = self.stream.step(reading) => Step::Stream(step),
            Some(answer) = self.calls.join_next() => Step::Answer(Box::new(calls::answer(answer))),
            permit = self.events.reserve(), if !self.pending.is_empty() => {
                if let (Ok(permit), Some(event)) = (permit, self.pending.pop_front()) {
                    permit.send(event);
                }
                Step::EventsTaken
            }
            () = sleep_until(wake) => Step::Wake,
        }
    }

    /// Collects the step, and the commands and frames that are ready, so that one transaction serves them all.
    fn gather(&mut self, step: Step) -> Batch {
        let mut batch = Batch::default();
        match step {
            Step::Command(Some(command)) => self.take(command, &mut batch),
            Step::Command(None) => batch.inputs.push(Input::Stop),
            Step::Renew(renew) => self.renew(renew, &mut batch),
            Step::Stream(StreamStep::Input(input)) => batch.inputs.push(*input),
            Step::Answer(input) => batch.inputs.push(*input),
            Step::Stream(StreamStep::Nothing) | Step::EventsTaken => {}
            Step::Wake => batch.inputs.push(self.woken()),
        }
        while batch.inputs.len() + batch.reads.len() < MAX_BATCH {
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            self.take(command, &mut batch);
        }
        while batch.inputs.len() < MAX_BATCH && self.full_since.is_none() {
            let Some(input) = self.stream.frame().now_or_never() else {
                break;
            };
            batch.inputs.push(input);
        }
        self.flush_events();
        batch
    }

    /// Handles a timer: gives the stream up if there has been no room for events for [`SLOW_APP`], else ticks the
    /// engine.
    fn woken(&mut self) -> Input {
        if self.give_up_at().is_some_and(|at| at <= Instant::now()) {
            self.stream.drop_stream();
            self.full_since = Some(Instant::now());
            return Input::StreamLost(CallError::unavailable("the app does not take its events"));
        }
        Input::Tick
    }

    /// Returns the time at which the stream is given up because the app takes no events.
    fn give_up_at(&self) -> Option<Instant> {
        give_up_at(self.full_since, self.stream.is_up())
    }

    fn take(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Apply { input, reply } => match self.admit(&input, batch) {
                Ok(()) => {
                    batch.inputs.push(*input);
                    batch.replies.push(reply);
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Read(read) => batch.reads.push(read),
        }
    }

    /// Has the token renewed, unless that was done in the meantime.
    fn renew(&mut self, renew: Renew, batch: &mut Batch) {
        if renew.stale == *self.keeper.token.borrow() {
            self.renewals.push(renew.reply);
            batch.inputs.push(Input::TokenRejected(renew.stale));
        } else {
            drop(renew.reply.send(Ok(())));
        }
    }

    /// Refuses a message that is too large, or that does not fit into the outbox beside the messages of the batch.
    /// Takes every input that sends no message.
    fn admit(&self, input: &Input, batch: &Batch) -> Result<(), ClientError> {
        let Some(message) = input.outgoing() else {
            return Ok(());
        };
        message.check_size().map_err(ClientError::TooLarge)?;
        let sends = batch.inputs.iter().filter_map(Input::outgoing);
        let bodies = sends.map(|message| message.body.len());
        let (messages, bytes) =
            bodies.fold((1, message.body.len()), |(n, bytes), body| (n + 1, bytes + body));
        let room = self.engine.has_room(messages, bytes);
        room.then_some(()).ok_or(ClientError::OutboxFull)
    }

    /// Applies the inputs, commits the changes, and answers the commands. Returns the reason if the client has ended.
    async fn work(&mut self, batch: Batch) -> Option<StopReason> {
        let renewed = batch.inputs.iter().find_map(|input| match input {
            Input::Refreshed(result) => Some(result.as_ref().map(|_| ()).map_err(Clone::clone)),
            _ => None,
        });
        let reason = match self.apply(batch.inputs).await {
            Ok(reason) => reason,
            // The replies are dropped, which tells their commands that nothing of this batch was stored.
            Err(error) => return Some(StopReason::StoreFailed(error.to_string())),
        };
        for reply in batch.replies {
            drop(reply.send(Ok(())));
        }
        if !batch.reads.is_empty() {
            let reads = batch.reads;
            let read = self.with_store(move |store| {
                reads.into_iter().for_each(|read| read(store));
                Ok(())
            });
            if let Err(error) = read.await {
                return Some(StopReason::StoreFailed(error.to_string()));
            }
        }
        if let Some(result) = renewed {
            self.renewals
                .drain(..)
                .for_each(|reply| drop(reply.send(result.clone())));
        }
        reason
    }

    async fn apply(&mut self, mut inputs: Vec<Input>) -> Result<Option<StopReason>, ClientError> {
        let mut stopped = None;
        loop {
            let now = self.now();
            let mut effects = self.engine.apply(inputs.drain(..), now);
            let reload = take(&mut effects.calls, &Call::ReloadOutbox);
            let expire = take(&mut effects.calls, &Call::Expire);
            self.commit(std::mem::take(&mut effects.changes)).await?;
            stopped = effects.stopped.take().or(stopped);
            self.perform(effects);
            if reload {
                inputs.push(Input::Outbox(self.with_store(|store| store.outbox()).await?));
            }
            if expire {
                let Expired { gone, next } = self.with_store(move |store| store.expire(now)).await?;
                inputs.push(Input::Expired { gone, next });
            }
            if inputs.is_empty() {
                return Ok(stopped);
            }
        }
    }

    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), ClientError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.with_store(move |store| store.commit(&changes)).await
    }

    /// Runs `work` on the store: on a blocking thread if the store is a file, since a disk may make it wait.
    async fn with_store<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        const LOST: ClientError = ClientError::Corrupt("lost in a panic");
        let Some(mut store) = self.store.take() else {
            return Err(LOST);
        };
        if store.is_in_memory() {
            let result = work(&mut store);
            self.store = Some(store);
            return result;
        }
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut store);
            (store, result)
        });
        let (store, result) = done.await.map_err(|_| LOST)?;
        self.store = Some(store);
        result
    }

    fn perform(&mut self, effects: Effects) {
        if let Some(token) = effects.access_token {
            self.keeper.token.send_replace(token);
        }
        if let Some(order) = effects.stream {
            self.stream.order(order);
        }
        for mut event in effects.events {
            if let Event::Connected { gateway, .. } = &mut event {
                *gateway = self.stream.gateway();
            }
            self.pending.push_back(event);
        }
        self.flush_events();
        self.stream.write(effects.items);
        let generation = self.engine.generation();
        for call in effects.calls {
            self.calls.spawn(calls::make(self.api.clone(), call, generation));
        }
    }

    fn flush_events(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    break;
                }
                // The app has dropped its event stream.
                Err(mpsc::error::TrySendError::Closed(_)) => self.pending.clear(),
            }
        }
        let full = self.pending.len() >= MAX_PENDING_EVENTS;
        self.full_since = full.then(|| self.full_since.unwrap_or_else(Instant::now));
    }
}

/// Returns the time at which the stream is given up because there has been no room for events since `full_since`. `up`
/// says whether there is a stream. Without one there is nothing to give up, and a time that has passed would wake the
/// driver again and again.
fn give_up_at(full_since: Option<Instant>, up: bool) -> Option<Instant> {
    full_since.filter(|_| up).map(|since| since + SLOW_APP)
}

/// Returns the time by which `now` is behind the wall clock because the machine slept. Less than [`SLEPT`] is no sleep.
fn slept(now: Timestamp, wall: Timestamp) -> Duration {
    Some(wall.since(now))
        .filter(|behind| *behind >= SLEPT)
        .unwrap_or_default()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Removes a call that the driver carries out itself, on the store. Returns whether it was there.
fn take(calls: &mut Vec<Call>, own: &Call) -> bool {
    let before = calls.len();
    calls.retain(|call| call != own);
    calls.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_takes_no_events_wakes_the_driver_only_to_give_a_stream_up() {
        let since = Instant::now();
        assert_eq!(give_up_at(Some(since), true), Some(since + SLOW_APP));
        assert_eq!(give_up_at(Some(since), false), None);
        assert_eq!(give_up_at(None, true), None);
    }

    #[test]
    fn the_time_is_set_forward_by_a_sleep_of_the_machine_and_never_back() {
        let now = Timestamp(1_000_000);
        let hour = Duration::from_secs(3600);
        for (wall, expected) in [
            (now + hour, hour),
            (now + SLEPT, SLEPT),
            (now + SLEPT / 2, Duration::ZERO),
            (now - hour, Duration::ZERO),
        ] {
            assert_eq!(slept(now, wall), expected, "{wall:?}");
        }
    }
}
