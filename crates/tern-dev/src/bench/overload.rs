//! Offers twice as many messages as the platform can handle, with and without load shedding.
//!
//! The load has a bit of everything: messages with read marks, typing, and people who come and go while others watch.
//! First the bench looks for the highest rate at which messages arrive in time on a platform with shedding off. Then
//! it offers twice that rate to this platform, and to one with shedding on. The platform and the load generator have
//! processors of their own, so that the generator can offer this rate even when the platform has nothing left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tern_proto::v1::send_message::To;
use tern_types::ChatId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::line::{Heard, Line, Sends};
use super::meter::{Clock, Latency};
use super::people::{Person, make, share_presence};
use super::report::Report;
use super::target::{Parts, Target};
use super::{Common, join, processors};

/// The latency in milliseconds below which the 99th percentile has to be for a rate to be sustained. Besides, no
/// message may be refused or lost.
const IN_TIME_MS: f64 = 100.0;
/// The time for which one rate is measured while the highest one is looked for.
const PROBE: Duration = Duration::from_secs(5);
/// The first rate that is tried, in messages a second.
const FIRST_RATE: f64 = 250.0;
/// The number of times that the interval between a sustained and a failed rate is halved.
const HALVINGS: u32 = 3;
/// The longest time after each step for messages on their way to arrive.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// The pause of a loop that has nothing to do, before it looks again.
const IDLE: Duration = Duration::from_millis(200);

/// Twice the sustainable load, with and without shedding: latency of messages
///
/// Starts two platforms, one of them with --shedding off, and confines them to half of the processors; the load
/// generator has the other half.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// People; each writes to one other person
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(4..=8000))]
    people: u32,
    /// People that each person watches
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=256))]
    watched: u32,
    /// Changes of presence for each message
    #[arg(long, default_value_t = 1.0)]
    changes: f64,
    /// Typing notices for each message
    #[arg(long, default_value_t = 1.0)]
    typing: f64,
    /// Messages a second to double, instead of looking for the highest sustained rate
    #[arg(long)]
    rate: Option<f64>,
}

/// Runs the load and returns its results. Fails if the platform was not started for the bench, if it does not sustain
/// the first rate, or if a stream breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    anyhow::ensure!(
        target.is_own(),
        "overload is for a platform that was started for it"
    );
    let rigid = Target::start(common, Parts::default(), &[("TERN_SHEDDING", "off")]).await?;
    let servers = target.watched.iter().chain(&rigid.watched);
    let parted = processors::part(&servers.cloned().collect::<Vec<_>>())?;
    let crowd = Crowd::gather(&rigid, common, &args).await?;
    let sustained = match args.rate {
        Some(rate) => rate,
        None => crowd.highest_rate().await?,
    };
    let twice = sustained * 2.0;
    let without = crowd.offer(twice, common.warm_up, common.measure).await?;
    crowd.leave().await?;
    rigid.leave().await?;

    let crowd = Crowd::gather(target, common, &args).await?;
    // The warm-up is long enough for the platform to reach its level of shedding.
    let warm_up = common.warm_up.max(Duration::from_secs(5));
    let with = crowd.offer(twice, warm_up, common.measure).await?;
    let (level, shed) = (target.level().await?, target.shed().await?);
    crowd.leave().await?;

    let load = format!(
        "overload: {} people who watch {} each; a message with {} changes of presence and {} frames of typing",
        args.people, args.watched, args.changes, args.typing
    );
    let mut report = Report::on(target, load).await?;
    report.add_to_title(&format!("{:.0} s; {parted}", common.measure.as_secs_f64()));
    report.row("sustained: messages a second", sustained, "");
    report.row("offered: messages a second", twice, "");
    for (names, outcome) in [(WITHOUT, &without), (WITH, &with)] {
        report.row(names[0], outcome.delivered_a_second(), "");
        report.latency(names[1], &outcome.to_delivered);
        report.row(names[2], outcome.refused.load(Ordering::Relaxed) as f64, "");
    }
    report.noted(
        "level with it",
        f64::from(level.to_wire()),
        "",
        level.name().to_owned(),
    );
    report.noted("shed with it", shed.total(), "", shed.to_string());
    if let Some((with, without)) = with.to_delivered.ms(0.99).zip(without.to_delivered.ms(0.99)) {
        report.noted("p99 with / without", with / without, "", "bar: 0.2".to_owned());
    }
    for outcome in [&without, &with] {
        let lost = outcome.missing();
        if lost > 0 {
            report.fault(format!("{lost} messages were lost"));
        }
    }
    if let Some(found @ 1..) = target.sweep_found().await? {
        report.fault(format!("the sweep found {found} rows"));
    }
    Ok(report)
}

/// The names of the report's rows about the platform with shedding off.
const WITHOUT: [&str; 3] = [
    "shedding off: delivered a second",
    "shedding off: delivered",
    "shedding off: refused",
];
/// The names of the report's rows about the platform with shedding on.
const WITH: [&str; 3] = [
    "shedding on: delivered a second",
    "shedding on: delivered",
    "shedding on: refused",
];

/// The counts of the messages that were sent within an interval, no matter when they arrive.
struct Step {
    /// The beginning of the interval, as the time since the clock's start; `until` is its end.
    from: Duration,
    until: Duration,
    sent: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    to_delivered: Latency,
}

impl Step {
    fn new(from: Duration, until: Duration) -> Self {
        Self {
            from,
            until,
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            to_delivered: Latency::new(),
        }
    }

    fn covers(&self, at: Duration) -> bool {
        (self.from..self.until).contains(&at)
    }

    fn missing(&self) -> u64 {
        let count = |what: &AtomicU64| what.load(Ordering::Relaxed);
        count(&self.sent).saturating_sub(count(&self.refused) + count(&self.delivered))
    }

    fn delivered_a_second(&self) -> f64 {
        self.delivered.load(Ordering::Relaxed) as f64 / (self.until - self.from).as_secs_f64()
    }

    /// Returns whether the rate of this step was sustained.
    fn in_time(&self) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        refused == 0 && self.missing() == 0 && self.to_delivered.ms(0.99).is_some_and(|ms| ms < IN_TIME_MS)
    }
}

/// State that all devices share.
struct Load {
    clock: Clock,
    body: u32,
    /// The number of events a second of one person, as the bits of an f64.
    pace: AtomicU64,
    /// The share of the events that are messages. Events that are neither messages nor changes are typing.
    messages: f64,
    /// The share of the events that are changes of presence.
    changes: f64,
    step: ArcSwap<Step>,
    end: CancellationToken,
}

/// The people of the load, with their streams.
struct Crowd {
    load: Arc<Load>,
    people: f64,
    running: JoinSet<anyhow::Result<()>>,
}

impl Crowd {
    /// Creates the people, opens their streams, and offers a first load, which creates their chats.
    async fn gather(target: &Target, common: &Common, args: &Args) -> anyhow::Result<Self> {
        // An even number of people, because they write in pairs.
        let count = args.people as usize / 2 * 2;
        let people = make(&target.back_end, count, 1).await?;
        share_presence(&target.back_end, &people).await?;
        let events = 1.0 + args.changes + args.typing;
        let load = Arc::new(Load {
            clock: Clock::start(),
            body: common.body,
            pace: AtomicU64::new(0f64.to_bits()),
            messages: 1.0 / events,
            changes: args.changes / events,
            step: ArcSwap::from_pointee(Step::new(Duration::ZERO, Duration::ZERO)),
            end: CancellationToken::new(),
        });
        let mut running = JoinSet::new();
        for (number, person) in people.iter().enumerate() {
            let peer = people[number ^ 1].user;
            let mut line = Line::open(&target.gateways, number, Person::device(person)?)
                .await?
                .reading(true);
            let watched = (1..=args.watched as usize).map(|step| people[(number + step) % count].user);
            line.watch(watched);
            line.flush().await?;
            let member = Member {
                line,
                load: load.clone(),
                to: To::PeerUserId(peer.to_string()),
                chat: ChatId::direct(person.user, peer),
                active: true,
                sends: Sends::default(),
            };
            running.spawn(member.run());
        }
        let crowd = Self {
            load,
            people: count as f64,
            running,
        };
        // A first load creates all chats before anything is measured.
        crowd
            .offer(crowd.people / 4.0, Duration::ZERO, Duration::from_secs(8))
            .await?;
        Ok(crowd)
    }

    /// Offers this many messages a second in all, waits for those on their way, and returns the counts of those that
    /// were sent after the warm-up.
    async fn offer(&self, rate: f64, warm_up: Duration, measure: Duration) -> anyhow::Result<Arc<Step>> {
        let from = self.load.clock.elapsed() + warm_up;
        let step = Arc::new(Step::new(from, from + measure));
        self.load.step.store(step.clone());
        let pace = rate / self.people / self.load.messages;
        self.load.pace.store(pace.to_bits(), Ordering::Relaxed);
        sleep(warm_up + measure).await;
        self.load.pace.store(0f64.to_bits(), Ordering::Relaxed);
        let until = Instant::now() + LAST_WORDS;
        while step.missing() > 0 && Instant::now() < until {
            sleep(IDLE).await;
        }
        // Clients that were told to come back later do so in this time.
        sleep(IDLE * 2).await;
        Ok(step)
    }

    /// Looks for the highest sustained rate, in messages a second: doubles the rate until it fails, then halves the
    /// interval. Fails if [`FIRST_RATE`] is not sustained.
    async fn highest_rate(&self) -> anyhow::Result<f64> {
        let mut low = 0.0;
        let mut high = FIRST_RATE;
        while self.sustains(high).await? {
            (low, high) = (high, high * 2.0);
        }
        anyhow::ensure!(low > 0.0, "not even {FIRST_RATE} messages a second are sustained");
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            if self.sustains(middle).await? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    async fn sustains(&self, rate: f64) -> anyhow::Result<bool> {
        Ok(self.offer(rate, PROBE / 2, PROBE).await?.in_time())
    }

    async fn leave(self) -> anyhow::Result<()> {
        self.load.end.cancel();
        join(self.running).await
    }
}

/// One person with a device.
struct Member {
    line: Line,
    load: Arc<Load>,
    to: To,
    chat: ChatId,
    active: bool,
    /// The sends without a result, each with its time.
    sends: Sends<Duration>,
}

impl Member {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut heard = Vec::new();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                came = self.line.hear(&mut heard) => { came?; self.take(&mut heard); }
                () = sleep_until(next) => next = self.act(next),
                () = self.load.end.cancelled() => return Ok(()),
            }
            self.line.flush().await?;
        }
    }

    /// Causes one event, and returns when the next one is due.
    fn act(&mut self, due: Instant) -> Instant {
        let pace = f64::from_bits(self.load.pace.load(Ordering::Relaxed));
        if pace <= 0.0 {
            return Instant::now() + IDLE.mul_f64(0.5 + rand::random::<f64>());
        }
        let kind = rand::random::<f64>();
        if kind < self.load.messages {
            self.send();
        } else if kind < self.load.messages + self.load.changes {
            self.active = !self.active;
            self.line.set_active(self.active);
        } else {
            self.line.type_in(self.chat);
        }
        // Events are a Poisson process. If the machine is too slow, at most one second's worth of them is caught up.
        let wait = -(1.0 - rand::random::<f64>()).ln() / pace;
        let behind = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(due);
        due.max(behind) + Duration::from_secs_f64(wait.min(60.0))
    }

    fn send(&mut self) {
        let at = self.load.clock.elapsed();
        let request = self.line.say(&self.to, self.load.body, &self.load.clock);
        self.sends.sent(request, at);
        let step = self.load.step.load();
        if step.covers(at) {
            step.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&mut self, heard: &mut Vec<Heard>) {
        let step = self.load.step.load();
        for heard in heard.drain(..) {
            match heard {
                Heard::Entry { content, .. } => {
                    let Some(age) = self.load.clock.age(&content, self.load.body) else {
                        continue;
                    };
                    if step.covers(self.load.clock.elapsed().saturating_sub(age)) {
                        step.to_delivered.record(age);
                        step.delivered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Heard::Sent { request, .. } => drop(self.sends.answered(&request)),
                Heard::Refused { request, .. } => {
                    if self.sends.answered(&request).is_some_and(|at| step.covers(at)) {
                        step.refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Heard::Receipt { .. } | Heard::CaughtUp | Heard::Presence { .. } | Heard::Watched { .. } => {}
            }
        }
    }
}
