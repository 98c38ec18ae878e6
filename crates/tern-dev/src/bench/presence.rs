//! Lets people come and go while others watch them.
//!
//! - [`watchers`]: the people who watch

mod watchers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tern_local::Role;
use tern_types::UserId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::meter::{Clock, Latency};
use super::people::{Person, make, share_presence};
use super::report::Report;
use super::target::{Spent, Target};
use super::{Common, join};

/// The interval at which a person who stays online says so. It is half of the time after which a silent person counts
/// as offline by default.
const STILL_HERE: Duration = Duration::from_secs(15);
/// The pause before memory is measured, after streams were opened or people watched.
const SETTLES: Duration = Duration::from_secs(3);
/// The time after the last change in which every watcher has to see it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// People who come and go, and people who watch them: latency, cost, memory
///
/// A change counts for each watcher to whom it is shown. Everybody shares presence with everyone; the watched people
/// are strangers.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// People who come and go
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    people: u32,
    /// People who watch them
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    watchers: u32,
    /// People that each watcher watches; below the number of strangers that one may watch a day
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=199))]
    watched: u32,
    /// Changes of presence a second in all
    #[arg(long, default_value_t = 500.0)]
    changes: f64,
    /// Changes a second of one more person, whom all watchers watch; 0 leaves them out
    #[arg(long, default_value_t = 0.0)]
    popular: f64,
}

/// Runs the load and returns its results. Fails if flags do not fit together, users cannot be created or a stream
/// breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    anyhow::ensure!(args.watched <= args.people, "--watched: there are only --people");
    anyhow::ensure!(args.changes > 0.0, "--changes: above 0");
    let stage = Stage::set(target, &args).await?;
    let before = Memory::settled(target).await;
    let movers = open(target, &stage.people).await?;
    let with_people = Memory::settled(target).await;
    let lines = open(target, &stage.watchers).await?;
    let with_watchers = Memory::settled(target).await;
    let watchers = watchers::watch(lines, &stage, args.watched as usize).await?;
    let with_watches = Memory::settled(target).await;
    let spent = measure(target, common, &args, &stage, movers).await?;
    let stale = watchers::stale(watchers, &stage).await?;

    let mut report = report(target, &args, &stage, &spent).await?;
    let memories = Memories {
        before,
        with_people,
        with_watchers,
        with_watches,
    };
    memories.add_to(&mut report, &args, &stage);
    if stale > 0 {
        report.fault(format!("{stale} watchers were left with what is no longer so"));
    }
    Ok(report)
}

/// Opens a stream for each of these people. All of them are online at first.
async fn open(target: &Target, people: &[Person]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::with_capacity(people.len());
    for (number, person) in people.iter().enumerate() {
        lines.push(Line::open(&target.gateways, number, Person::device(person)?).await?);
    }
    Ok(lines)
}

/// Lets the people come and go, and returns the cost of the measured time. When this returns, every watcher has had
/// the time to see the last change.
async fn measure(
    target: &Target,
    common: &Common,
    args: &Args,
    stage: &Arc<Stage>,
    movers: Vec<Line>,
) -> anyhow::Result<Spent> {
    let mut moving = JoinSet::new();
    for (number, line) in movers.into_iter().enumerate() {
        let period = stage.period(number, args);
        moving.spawn(come_and_go(line, stage.clone(), number, period));
    }
    sleep(common.warm_up).await;
    let mark = target.mark().await?;
    stage.from.store(stage.now(), Ordering::Relaxed);
    sleep(common.measure).await;
    stage.until.store(stage.now(), Ordering::Relaxed);
    let spent = target.since(&mark).await?;
    stage.stop.cancel();
    sleep(LAST_WORDS).await;
    stage.end.cancel();
    join(moving).await?;
    Ok(spent)
}

/// Makes the report of everything but memory.
async fn report(target: &Target, args: &Args, stage: &Stage, spent: &Spent) -> anyhow::Result<Report> {
    let popular = match args.popular > 0.0 {
        true => format!(" and of one who changes {} times a second", args.popular),
        false => String::new(),
    };
    let load = format!(
        "presence: {} people, {} changes a second, {} watchers of {} each{popular}",
        args.people, args.changes, args.watchers, args.watched
    );
    let mut report = Report::on(target, load).await?;
    report.add_duration(spent);
    let changes = stage.changes.load(Ordering::Relaxed);
    report.a_second("changes a second", changes, spent);
    let overtaken = stage.overtaken.load(Ordering::Relaxed);
    report.noted(
        "told to watchers a second",
        stage.told.load(Ordering::Relaxed) as f64 / spent.seconds,
        "",
        format!("{overtaken} besides that a newer change had overtaken"),
    );
    report.latency("change to watcher", &stage.latency);
    if args.popular > 0.0 {
        report.latency("popular one's", &stage.popular);
    }
    report.spent(spent, changes);
    Ok(report)
}

/// The resident memory of all gateways and of all presence nodes, in KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    gateway: u64,
    presence: u64,
}

impl Memory {
    /// Measures the memory after a pause of [`SETTLES`].
    async fn settled(target: &Target) -> Self {
        sleep(SETTLES).await;
        Self {
            gateway: target.resident_kib(Role::Gateway.as_str()),
            presence: target.resident_kib(Role::Presence.as_str()),
        }
    }
}

/// The memory after each stage of the set-up.
struct Memories {
    before: Memory,
    with_people: Memory,
    with_watchers: Memory,
    with_watches: Memory,
}

impl Memories {
    /// Adds rows for the memory that a person and a watch need.
    fn add_to(&self, report: &mut Report, args: &Args, stage: &Stage) {
        let each = |from: u64, to: u64, count: f64| to.saturating_sub(from) as f64 * 1024.0 / count;
        let watches = f64::from(args.watchers) * f64::from(args.watched);
        let watched_once = stage.watched_once(args.watched as usize) as f64;
        report.row(
            "presence memory a person",
            each(
                self.before.presence,
                self.with_people.presence,
                stage.people.len() as f64,
            ),
            "bytes",
        );
        let (before, after) = (self.with_watchers, self.with_watches);
        report.row(
            "gateway memory a watch",
            each(before.gateway, after.gateway, watches),
            "bytes",
        );
        report.noted(
            "presence memory a watch",
            each(before.presence, after.presence, watched_once),
            "bytes",
            format!("{watched_once} people, each once for all {watches} watches of a gateway"),
        );
    }
}

/// State that all streams share.
struct Stage {
    people: Vec<Person>,
    watchers: Vec<Person>,
    /// The index in `people`, by user id as text.
    numbers: HashMap<Bytes, usize>,
    /// The last change of each person: its time in nanoseconds, shifted left by one bit, with the lowest bit 1 for
    /// online.
    last: Vec<AtomicU64>,
    /// The index of the person whom everybody watches, who is the last one of the people; `None` if there is none.
    popular_one: Option<usize>,
    clock: Clock,
    /// The beginning of the measured time, in nanoseconds since the clock's start; `until` is its end.
    from: AtomicU64,
    until: AtomicU64,
    /// The number of changes in the measured time.
    changes: AtomicU64,
    /// The number of times that a watcher was shown one of these changes.
    told: AtomicU64,
    /// The number of times that a watcher was shown a state that a newer change had overtaken.
    overtaken: AtomicU64,
    /// The latency from a change to a watcher.
    latency: Latency,
    /// The same latency for the person whom everybody watches.
    popular: Latency,
    /// The token that is cancelled when people come and go no more.
    stop: CancellationToken,
    /// The token that is cancelled when all streams end.
    end: CancellationToken,
}

impl Stage {
    /// Creates the people and the watchers.
    async fn set(target: &Target, args: &Args) -> anyhow::Result<Arc<Self>> {
        let popular = args.popular > 0.0;
        let count = args.people as usize + usize::from(popular);
        let people = make(&target.back_end, count, 1).await?;
        let watchers = make(&target.back_end, args.watchers as usize, 1).await?;
        share_presence(&target.back_end, &people).await?;
        let number = |(number, person): (usize, &Person)| (Bytes::from(person.user.to_string()), number);
        Ok(Arc::new(Self {
            numbers: people.iter().enumerate().map(number).collect(),
            last: people.iter().map(|_| AtomicU64::new(1)).collect(),
            popular_one: popular.then_some(count - 1),
            people,
            watchers,
            clock: Clock::start(),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
            changes: AtomicU64::new(0),
            told: AtomicU64::new(0),
            overtaken: AtomicU64::new(0),
            latency: Latency::new(),
            popular: Latency::new(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
        }))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_measured(&self, at: u64) -> bool {
        (self.from.load(Ordering::Relaxed)..self.until.load(Ordering::Relaxed)).contains(&at)
    }

    /// Returns the time between two changes of a person.
    fn period(&self, number: usize, args: &Args) -> Duration {
        let a_second = match self.popular_one == Some(number) {
            true => args.popular,
            false => args.changes / f64::from(args.people),
        };
        Duration::from_secs_f64((1.0 / a_second).min(86_400.0))
    }

    /// Returns the users that a watcher watches.
    fn of_watcher(&self, watcher: usize, watched: usize) -> impl Iterator<Item = UserId> {
        let ordinary = self.people.len() - usize::from(self.popular_one.is_some());
        let some = (0..watched).map(move |step| (watcher * watched + step) % ordinary);
        some.chain(self.popular_one)
            .map(|number| self.people[number].user)
    }

    /// Returns how many people are watched by anybody.
    fn watched_once(&self, watched: usize) -> usize {
        let ordinary = self.people.len() - usize::from(self.popular_one.is_some());
        ordinary.min(self.watchers.len() * watched) + usize::from(self.popular_one.is_some())
    }

    /// Records that a person has come or gone.
    fn changed(&self, number: usize, online: bool) {
        let now = self.now();
        self.last[number].store(now << 1 | u64::from(online), Ordering::Relaxed);
        if self.is_measured(now) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that a watcher was shown somebody's presence. If it is not the last change, a newer one has overtaken
    /// it.
    fn shown(&self, number: usize, online: bool) {
        let last = self.last[number].load(Ordering::Relaxed);
        let at = last >> 1;
        if !self.is_measured(at) {
            return;
        }
        if (last & 1 == 1) != online {
            self.overtaken.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let latency = if self.popular_one == Some(number) {
            &self.popular
        } else {
            &self.latency
        };
        latency.record(Duration::from_nanos(self.now().saturating_sub(at)));
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    fn is_online(&self, number: usize) -> bool {
        self.last[number].load(Ordering::Relaxed) & 1 == 1
    }
}

/// Changes a person's presence in each period. The person is online at first, because the stream was opened so.
async fn come_and_go(
    mut line: Line,
    stage: Arc<Stage>,
    number: usize,
    period: Duration,
) -> anyhow::Result<()> {
    let mut online = true;
    let mut heard = Vec::new();
    let mut next = Instant::now() + period.mul_f64(rand::random());
    let mut repeat = Instant::now() + STILL_HERE;
    loop {
        tokio::select! {
            came = line.hear(&mut heard) => { came?; heard.clear(); continue }
            () = sleep_until(next) => {
                online = !online;
                next += period;
                stage.changed(number, online);
            }
            () = sleep_until(repeat), if online => {}
            () = stage.stop.cancelled() => break,
        }
        repeat = Instant::now() + STILL_HERE;
        line.set_active(online);
        line.flush().await?;
    }
    // The stream is kept open, because its end would be one more change.
    stage.end.cancelled().await;
    Ok(())
}
