//! Runs the shards of a node, one for each cell of the store. A shard is one loop that waits in one place, decides in
//! [`ShardState`], and performs the effects. It has the chats of its cell in this node's slots and, through its two
//! [`writer`]s, two Postgres connections. Its queue of inputs is bounded: a full queue makes senders wait, and thereby
//! holds the gateways' links back.
//!
//! - [`writer`]: a connection that does one job at a time
//! - [`commit_turns`]: the order in which the shards of a busy node commit
//! - [`effects`]: performs loads, answers, pushes and wakes
//! - [`loader`]: loads chats; [`directs`]: makes direct chats; [`turns`]: limits both, and keeps them short while the
//!   store is away
//! - [`traces`]: opens and ends the spans of traced messages

pub mod commit_turns;
pub mod directs;
pub mod effects;
pub mod loader;
pub mod traces;
pub mod turns;
pub mod writer;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::shedding::{Level, Meter, Shedding};
use tern_types::{Cell, Cells, ChatId, Clock, Seq, Slot, Timestamp, UserId};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use commit_turns::{CommitTurns, Place};
use effects::{Effects, ShardEffects};
use tern_chat_core::receipts::Watermark;
use tern_chat_core::shard::{Busyness, Effect, Event, Inspected, Job, Lane, ShardState};
use tern_chat_core::target::Windows;
use traces::Traces;
use writer::Given;

use crate::metrics;

/// The most inputs that wait for a shard. A full queue holds the gateways' links back.
const INPUTS: usize = 4096;
/// The most inputs or results that the loop takes at once, of those that came while it was busy.
const GATHER: usize = 1024;
/// The most results of loads, jobs and wakes that wait for a shard. If the queue is full, their tasks wait for room.
const RESULTS: usize = 1024;
/// The longest time between two turns of the loop. Each turn has a tick, which forgets idle chats.
const TICK: Duration = Duration::from_secs(5);

/// An input of a shard.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "next to all of them are events")]
pub enum Input {
    /// An event for its state.
    Event(Event),
    /// Asks for the chat's watermarks. The answer is `None` if the chat is not loaded.
    Watermarks(ChatId, oneshot::Sender<Option<Vec<(UserId, Watermark)>>>),
    /// Asks for the user's read marks in these chats, as far as they are in memory. The answer has the chat,
    /// the mark, and the number of the user's own messages after the mark. These count as unread for others,
    /// not for the user.
    ReadMarks(UserId, Vec<ChatId>, oneshot::Sender<Vec<(ChatId, Seq, u32)>>),
    /// Asks for the facts about the chat that its owner knows beyond the store. The answer is `None` if the chat is not
    /// loaded.
    Inspect(ChatId, oneshot::Sender<Option<Inspected>>),
    /// Asks how busy the shard is.
    Busyness(oneshot::Sender<Busyness>),
    /// Asks to be answered as soon as nothing is under way. A drain waits for it.
    Quiet(oneshot::Sender<()>),
}

/// The shards of a node, in the order of their cells. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    inputs: Arc<[mpsc::Sender<Input>]>,
    cells: Cells,
}

/// The error that the shard's loop has ended, because the node is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the shard has ended")]
pub struct Ended;

impl Shards {
    /// Starts one shard for each cell of the store. `connect` gives the settings of its connections, which are opened
    /// when there is something to write: a node whose slots are all in other cells has none.
    pub fn start(
        cells: Cells,
        connect: impl Fn(Cell) -> writer::Connect,
        effects: &Effects,
        windows: Windows,
    ) -> Self {
        let turns = CommitTurns::new(cells);
        let shards = cells.all().map(|cell| {
            let (inputs, receiver) = mpsc::channel(INPUTS);
            let number = usize::from(cell.number());
            let span = tracing::info_span!("shard", number);
            let shard = run(
                number,
                receiver,
                connect(cell),
                effects.clone(),
                windows,
                turns.for_shard(),
            );
            tokio::spawn(shard.instrument(span));
            inputs
        });
        Self {
            inputs: shards.collect(),
            cells,
        }
    }

    /// Sends an event to the chat's shard. It waits for room, and so holds back a sender that brings more than the
    /// shard can take.
    pub async fn send(&self, chat: ChatId, event: Event) -> Result<(), Ended> {
        self.of(chat).send(Input::Event(event)).await.map_err(|_| Ended)
    }

    /// Sends an event to the chat's shard if its queue is less than half full. Returns false if the event was
    /// dropped.
    pub fn offer(&self, chat: ChatId, event: Event) -> bool {
        let inputs = self.of(chat);
        inputs.capacity() > INPUTS / 2 && inputs.try_send(Input::Event(event)).is_ok()
    }

    /// Returns the watermarks of the chat's members in this node's memory; `None` if the chat is not loaded.
    pub async fn watermarks(&self, chat: ChatId) -> Option<Vec<(UserId, Watermark)>> {
        let (answer, answered) = oneshot::channel();
        self.of(chat).send(Input::Watermarks(chat, answer)).await.ok()?;
        answered.await.ok()?
    }

    /// Returns the user's read marks in these chats, as far as they are in memory: see [`Input::ReadMarks`].
    /// It includes marks that were sent to the shards before this call.
    pub(crate) async fn read_marks(
        &self,
        user: UserId,
        chats: impl IntoIterator<Item = ChatId>,
    ) -> Vec<(ChatId, Seq, u32)> {
        let mut by_shard: Vec<Vec<ChatId>> = vec![Vec::new(); self.inputs.len()];
        for chat in chats {
            by_shard[self.number(chat)].push(chat);
        }
        let asked = by_shard.into_iter().zip(self.inputs.iter());
        let asked = asked.filter(|(chats, _)| !chats.is_empty());
        let answers = asked.map(|(chats, shard)| async move {
            let (answer, answered) = oneshot::channel();
            shard.send(Input::ReadMarks(user, chats, answer)).await.ok()?;
            answered.await.ok()
        });
        join_all(answers).await.into_iter().flatten().flatten().collect()
    }

    /// Returns the facts about the chat that this node knows beyond the store; `None` if the chat is not loaded.
    pub async fn inspect(&self, chat: ChatId) -> Option<Inspected> {
        let (answer, answered) = oneshot::channel();
        self.of(chat).send(Input::Inspect(chat, answer)).await.ok()?;
        answered.await.ok()?
    }

    /// Returns how busy each shard is, in the order of their numbers. It leaves out a shard that has ended.
    pub async fn busyness(&self) -> Vec<Busyness> {
        let mut of_shards = Vec::with_capacity(self.inputs.len());
        for shard in self.inputs.iter() {
            let (answer, answered) = oneshot::channel();
            if shard.send(Input::Busyness(answer)).await.is_ok() {
                of_shards.extend(answered.await);
            }
        }
        of_shards
    }

    /// Tells every shard which slots are this node's.
    pub async fn owned(&self, slots: &Arc<HashSet<Slot>>) {
        for shard in self.inputs.iter() {
            let _ended = shard.send(Input::Event(Event::Owned(slots.clone()))).await;
        }
    }

    /// Makes every shard forget its chats. An event that is sent afterwards finds its chat as the store has it.
    pub async fn restored(&self) {
        for shard in self.inputs.iter() {
            let _ended = shard.send(Input::Event(Event::Restored)).await;
        }
    }

    /// Waits until every shard has nothing under way and has answered everything.
    pub async fn quiet(&self) {
        for shard in self.inputs.iter() {
            let (quiet, is_quiet) = oneshot::channel();
            if shard.send(Input::Quiet(quiet)).await.is_ok() {
                let _ended = is_quiet.await;
            }
        }
    }

    fn of(&self, chat: ChatId) -> &mpsc::Sender<Input> {
        &self.inputs[self.number(chat)]
    }

    fn number(&self, chat: ChatId) -> usize {
        usize::from(self.cells.of_chat(chat).number())
    }
}

#[cfg(test)]
impl Shards {
    /// Makes the value of a node without shards, for tests in which nothing is sent to one.
    pub(crate) fn none(cells: Cells) -> Self {
        Self {
            inputs: Arc::from([]),
            cells,
        }
    }
}

/// Runs the loop of one shard until nobody can send it inputs any more.
async fn run(
    number: usize,
    mut inputs: mpsc::Receiver<Input>,
    connect: writer::Connect,
    effects: Effects,
    windows: Windows,
    mut commit_turn: Place,
) {
    let (results, mut results_in) = mpsc::channel(RESULTS);
    let mut shard = Shard::new(number, &connect, effects, windows, &results);
    let (mut taken, mut done) = (Vec::new(), Vec::new());
    loop {
        let until = shard.next_wake();
        tokio::select! {
            biased;
            // A turn that has come and is not taken would hold the other shards up.
            () = commit_turn.came() => {}
            _ = results_in.recv_many(&mut done, GATHER) => {}
            count = inputs.recv_many(&mut taken, GATHER) => if count == 0 { return },
            () = tokio::time::sleep(until) => {}
        }
        let now = Clock::monotonic();
        for event in done.drain(..) {
            shard.apply(event, now);
        }
        for input in taken.drain(..) {
            shard.take(input, now);
        }
        shard.follow_up(now);
        shard.give_commit(now, &mut commit_turn);
        shard.give_upkeep(now);
        shard.perform();
    }
}

/// The state of one shard's loop, and the parts that perform its effects. None of the methods waits.
struct Shard {
    state: ShardState,
    /// The effects that are to be performed.
    out: Vec<Effect>,
    /// The queue of each [`Lane`]'s writer.
    writers: [mpsc::Sender<Given>; 2],
    effects: ShardEffects,
    shedding: Shedding,
    queue_time: Arc<Meter>,
    figures: metrics::ShardMetrics,
    traces: Traces,
    /// The callers that wait until nothing is under way.
    quiet: Vec<oneshot::Sender<()>>,
}

impl Shard {
    /// Starts the shard's writers and its fan-out task. The results of jobs, loads and wakes go to `results`.
    fn new(
        number: usize,
        connect: &writer::Connect,
        effects: Effects,
        windows: Windows,
        results: &mpsc::Sender<Event>,
    ) -> Self {
        let shedding = effects.shedding.clone();
        let (queue_time, commit_time) = (shedding.meter("shard_queue"), shedding.meter("commit"));
        let kept_by_default = effects.trims.default_mode();
        let rope = effects.bell.rope(number);
        let effects = effects.for_shard(results.clone());
        let writer = |lane| {
            let times = metrics::JobTimes::new(number);
            let (commit_time, rope) = (commit_time.clone(), rope.clone());
            writer::spawn(connect.clone(), lane, commit_time, times, rope, results.clone())
        };
        Self {
            state: ShardState::new(windows).keeping(kept_by_default),
            out: Vec::new(),
            writers: Lane::ALL.map(writer),
            effects,
            shedding,
            queue_time,
            figures: metrics::ShardMetrics::new(number),
            traces: Traces::default(),
            quiet: Vec::new(),
        }
    }

    /// Returns how long the shard may sleep if nothing comes.
    fn next_wake(&self) -> Duration {
        self.state
            .next_wake()
            .map_or(TICK, |at| at.since(Clock::monotonic()).min(TICK))
    }

    fn apply(&mut self, event: Event, now: Timestamp) {
        self.state.apply(event, now, &mut self.out);
    }

    /// Applies the event, or answers the question.
    fn take(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Event(event) => {
                self.traces.arrived(&event);
                self.apply(event, now);
            }
            Input::Watermarks(chat, answer) => {
                let _gone = answer.send(self.state.watermarks(chat));
            }
            Input::ReadMarks(user, chats, answer) => {
                let mark = |chat| {
                    let (seq, own_unread) = self.state.read_mark(chat, user)?;
                    Some((chat, seq, own_unread))
                };
                let _gone = answer.send(chats.into_iter().filter_map(mark).collect());
            }
            Input::Inspect(chat, answer) => {
                let _gone = answer.send(self.state.inspect(chat));
            }
            Input::Busyness(answer) => {
                let _gone = answer.send(self.state.busyness());
            }
            Input::Quiet(answer) => self.quiet.push(answer),
        }
    }

    /// Does the work that is due after all events that came together: it forgets idle chats, pushes receipts, and
    /// refuses commands that have waited too long.
    fn follow_up(&mut self, now: Timestamp) {
        self.apply(Event::Tick, now);
        self.state
            .defer_delivered(self.shedding.level() >= Level::Receipts);
        self.state.flush_receipts(now, &mut self.out);
        self.state.keep_patience(now, &mut self.out);
    }

    /// Gives the writer that commits its next job, if it is free and the shard's turn has come.
    fn give_commit(&mut self, now: Timestamp, place: &mut Place) {
        if !self.state.wants_to_commit() {
            place.give_back();
        } else if let Some(turn) = place.take() {
            self.give_job(Lane::Commit, now, |job| Given::in_turn(job, turn));
        }
    }

    /// Gives the writer of the upkeep its next job, if it is free.
    fn give_upkeep(&mut self, now: Timestamp) {
        self.give_job(Lane::Upkeep, now, Given::from);
    }

    fn give_job(&mut self, lane: Lane, now: Timestamp, given: impl FnOnce(Job) -> Given) {
        let Some(job) = self.state.next_job(lane, now, Clock::wall(), &mut self.out) else {
            return;
        };
        self.figures.job(&job);
        waited(&job, now, &self.queue_time);
        self.traces.taken(&job);
        // A writer's queue has room for one job, and the state gives it one only when it is free.
        let _ended = self.writers[lane as usize].try_send(given(job));
    }

    /// Performs the effects, updates the metrics, and, if nothing is under way, answers the callers that wait for that.
    fn perform(&mut self) {
        self.effects.perform(&mut self.out, &mut self.traces);
        self.figures.holds(&self.state);
        let counts = self.state.take_counts();
        if counts.receipts_lost > 0 {
            self.effects.receipts_lost();
        }
        self.figures.count(&counts);
        if self.state.is_quiet() {
            self.quiet.drain(..).for_each(|answer| {
                let _gone = answer.send(());
            });
        }
    }
}

/// Records how long the first message of each chat in a commit waited for this commit.
fn waited(job: &Job, now: Timestamp, queue_time: &Meter) {
    let Job::Commit(batches) = job else { return };
    for first in batches.iter().filter_map(|batch| batch.entries.first()) {
        if let Some(arrived) = first.new.sending.arrived {
            queue_time.record(now.since(arrived));
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tern_chat_core::chat::{ChatKey, ChatKind, Snapshot};
    use tern_chat_core::retention::Mode;
    use tern_cluster::{ClusterMap, MapHandle, NodeContext};
    use tern_store::Pools;

    use super::*;
    use crate::bell::Bell;
    use crate::fanout::Fanout;
    use crate::gateways::Gateways;
    use crate::lookup::{Lookup, Patience};
    use crate::ownership::Ownership;
    use crate::store::seal::MasterKey;
    use crate::trimming::Trims;

    /// Makes the parts of a node that is alone. It has no store: nothing connects before it is asked for.
    fn effects(connect: &PgConnectOptions) -> Effects {
        let ctx = NodeContext::alone("chat-0", 1, MapHandle::fixed(ClusterMap::default()));
        let people = PgPoolOptions::new().connect_lazy_with(connect.clone());
        let pools = Pools::new(people, Cells::DEFAULT, 1, |_| connect.clone());
        let master = MasterKey::from_hex(&"00".repeat(32)).unwrap();
        let gateways = Gateways::default();
        Effects {
            loader: loader::Loader::new(pools, master, 1),
            calls: Arc::default(),
            gateways: gateways.clone(),
            fanout: Fanout::new(Lookup::start(&ctx, gateways, Patience::default())),
            ownership: Ownership::new(ctx),
            shedding: Shedding::off(),
            trims: Trims::new(Cells::DEFAULT, Mode::Default).0,
            bell: Bell::new(Cells::DEFAULT),
        }
    }

    #[tokio::test]
    async fn idle_chats_are_forgotten_in_a_turn_that_events_began() {
        let options = PgConnectOptions::new_without_pgpass();
        let effects = effects(&options);
        let connect: writer::Connect = Arc::new(move || options.clone());
        let (results, _results_in) = mpsc::channel(1);
        let mut shard = Shard::new(0, &connect, effects, Windows::default(), &results);
        let (chat, now) = (ChatId::own(UserId::random()), Clock::monotonic());
        let (low, high) = (Seq(1), Seq(1));
        shard.take(Input::Event(Event::Recover { chat, low, high }), now);
        let Some(Effect::Load { number, .. }) = shard.out.pop() else {
            panic!("no load")
        };
        let empty = Snapshot::of_new_chat(ChatKind::Direct, [], ChatKey(Arc::new([0; 32])));
        let result = Ok(Some(empty));
        shard.apply(Event::Loaded { chat, number, result }, now);
        shard.follow_up(now);
        assert_eq!(shard.state.chats(), 1);
        shard.follow_up(now + Duration::from_secs(600));
        assert_eq!(shard.state.chats(), 0);
    }
}
