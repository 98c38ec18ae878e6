//! Loads one group whose members are all online. Some of them write, and all acknowledge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::send_message::To;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::line::{Heard, Line, Sends};
use super::meter::Meter;
use super::people::{Person, make};
use super::report::Report;
use super::target::{Spent, Target};
use super::{Common, join};

/// The time after the load for messages on their way to arrive. Messages that have not arrived by then count as lost.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// The interval between two checks whether all messages have arrived.
const LOOK: Duration = Duration::from_millis(50);
/// The number of delivery counters, one for each seq. At most half as many messages are sent.
const MOST_MESSAGES: usize = 1 << 20;

/// One group with everybody online: deliveries a second, latency to the last member, cost
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Members of the group
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1024))]
    members: u32,
    /// Devices of each member
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    devices: u32,
    /// Members who write, on their first devices; at most all members
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    writers: u32,
    /// Messages in flight in all; each that has reached everybody makes room for the next
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=128))]
    window: u32,
    /// Messages a second in all, instead of a window
    #[arg(long)]
    rate: Option<f64>,
}

/// State that all devices share.
struct Group {
    to: To,
    /// The size of a message's body in bytes.
    body: u32,
    meter: Meter,
    /// The number of devices that have received the entry, by seq. The writer's own device is not counted.
    counts: Vec<AtomicU32>,
    /// The number of devices that receive a message: all but the writer's.
    others: u32,
    /// The number of sends that have a result.
    answered: AtomicU64,
    /// The highest seq among the results.
    last: AtomicU64,
    /// A permit for each message that may still be sent within the window.
    room: Semaphore,
    /// A permit for each device that has the group's first entry, which says that the group was created. Writing
    /// begins when all have it. An entry that a device gets before the first one would be sent to it again.
    here: Semaphore,
    begin: CancellationToken,
    end: CancellationToken,
}

impl Group {
    /// Creates a group of these people. The first one is its owner.
    async fn create(
        target: &Target,
        common: &Common,
        args: &Args,
        people: &[Person],
    ) -> anyhow::Result<Self> {
        let others: Vec<_> = people[1..].iter().map(|person| person.user).collect();
        let chat = target
            .back_end
            .create_group(people[0].user, "Bench", &others)
            .await?;
        Ok(Self {
            to: To::ChatId(chat.to_string()),
            body: common.body,
            meter: Meter::new(),
            counts: (0..MOST_MESSAGES).map(|_| AtomicU32::new(0)).collect(),
            others: args.members * args.devices - 1,
            answered: AtomicU64::new(0),
            last: AtomicU64::new(0),
            room: Semaphore::new(args.window as usize),
            here: Semaphore::new(0),
            begin: CancellationToken::new(),
            end: CancellationToken::new(),
        })
    }

    /// Returns how many deliveries and results have not come yet.
    fn missing(&self) -> u64 {
        let last = usize::try_from(self.last.load(Ordering::Relaxed)).unwrap_or(0);
        let written = self.counts.get(2..=last.max(1)).unwrap_or_default();
        let missing =
            |count: &AtomicU32| u64::from(self.others.saturating_sub(count.load(Ordering::Relaxed)));
        let sent = self.meter.sent.load(Ordering::Relaxed);
        let unanswered = sent.saturating_sub(self.answered.load(Ordering::Relaxed));
        written.iter().map(missing).sum::<u64>() + unanswered
    }

    /// Waits until no delivery and no result is missing.
    async fn everything_arrived(&self) {
        while self.missing() > 0 {
            sleep(LOOK).await;
        }
    }
}

/// Runs the load and returns its results. Fails if users cannot be created or a stream breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let people = make(&target.back_end, args.members as usize, args.devices as usize).await?;
    let group = Arc::new(Group::create(target, common, &args, &people).await?);
    let writers = args.writers.min(args.members);
    let mut lines = JoinSet::new();
    for (member, person) in (0..).zip(&people) {
        for (number, credentials) in (0..).zip(&person.devices) {
            let writes = member < writers && number == 0;
            let device = Device {
                line: Line::open(&target.gateways, lines.len(), credentials).await?,
                pace: writes.then(|| Pace::of(args.rate, writers)),
                group: group.clone(),
                sends: Sends::default(),
            };
            lines.spawn(device.run());
        }
    }
    let _all = group.here.acquire_many(args.members * args.devices).await?;
    group.begin.cancel();
    let spent = target.measure(common, &group.meter).await?;
    if timeout(LAST_WORDS, group.everything_arrived()).await.is_err() {
        group.meter.lost.fetch_add(group.missing(), Ordering::Relaxed);
    }
    group.end.cancel();
    join(lines).await?;
    report(target, &args, &group, &spent).await
}

async fn report(target: &Target, args: &Args, group: &Group, spent: &Spent) -> anyhow::Result<Report> {
    let pace = match args.rate {
        Some(rate) => format!("{rate} messages a second"),
        None => format!("{} in flight", args.window),
    };
    let load = format!(
        "group: {} members, devices of each: {}, writers: {}, {pace}, {}-byte bodies",
        args.members,
        args.devices,
        args.writers.min(args.members),
        group.body
    );
    let meter = &group.meter;
    let mut report = Report::on(target, load).await?;
    report.add_duration(spent);
    let deliveries = meter.deliveries.load(Ordering::Relaxed);
    report.a_second("deliveries a second", deliveries, spent);
    report.a_second("messages a second", meter.messages.load(Ordering::Relaxed), spent);
    report.latency("send to result", &meter.to_result);
    report.latency("send to delivered", &meter.to_delivered);
    report.latency("send to last member", &meter.to_last);
    report.spent(spent, deliveries);
    report.check(meter, target.sweep_found().await?);
    Ok(report)
}

/// The moments at which a device writes.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// The device writes as soon as the window has room.
    Window,
    /// The device writes one message in each period.
    Every(Duration),
}

impl Pace {
    fn of(rate: Option<f64>, writers: u32) -> Self {
        rate.map_or(Self::Window, |rate| {
            Self::Every(Duration::from_secs_f64(f64::from(writers) / rate.max(0.001)))
        })
    }
}

/// A device of the group. It writes only if it has a pace.
struct Device {
    line: Line,
    pace: Option<Pace>,
    group: Arc<Group>,
    /// The sends without a result, each with its time.
    sends: Sends<Instant>,
}

impl Device {
    async fn run(mut self) -> anyhow::Result<()> {
        let group = self.group.clone();
        let (mut heard, mut begun) = (Vec::new(), false);
        let period = match self.pace {
            Some(Pace::Every(period)) => period,
            Some(Pace::Window) | None => Duration::from_secs(1),
        };
        let mut timer = interval(period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pace = self.pace.filter(|_| begun && self.may_write());
            tokio::select! {
                came = self.line.hear(&mut heard) => came?,
                permit = group.room.acquire(), if matches!(pace, Some(Pace::Window)) => {
                    permit?.forget();
                    self.write();
                }
                _ = timer.tick(), if matches!(pace, Some(Pace::Every(_))) => self.write(),
                () = group.begin.cancelled(), if !begun => {
                    begun = true;
                    // Each writer begins at a random moment, so that they do not all write at the same moments.
                    timer.reset_after(period.mul_f64(rand::random()));
                }
                () = group.end.cancelled() => break,
            }
            for heard in heard.drain(..) {
                self.take(heard);
            }
            self.line.flush().await?;
        }
        group
            .meter
            .repeated
            .fetch_add(self.line.repeated, Ordering::Relaxed);
        Ok(())
    }

    fn may_write(&self) -> bool {
        let meter = &self.group.meter;
        !meter.is_stopped() && meter.sent.load(Ordering::Relaxed) < MOST_MESSAGES as u64 / 2
    }

    fn write(&mut self) {
        if !self.may_write() {
            return;
        }
        let meter = &self.group.meter;
        meter.sent.fetch_add(1, Ordering::Relaxed);
        let request = self.line.say(&self.group.to, self.group.body, &meter.clock);
        self.sends.sent(request, Instant::now());
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Entry { seq, content, .. } => self.has(seq, &content),
            Heard::Sent { request, seq } => {
                if let Some(began) = self.answered(&request) {
                    self.group
                        .meter
                        .time(&self.group.meter.to_result, began.elapsed());
                    self.group.last.fetch_max(seq, Ordering::Relaxed);
                }
            }
            Heard::Refused { request, why } => {
                if self.answered(&request).is_some() {
                    self.group.room.add_permits(1);
                }
                self.group.meter.refused(why);
            }
            Heard::Receipt { .. } | Heard::CaughtUp | Heard::Presence { .. } | Heard::Watched { .. } => {}
        }
    }

    /// Counts an entry that this device has received.
    fn has(&self, seq: u64, content: &Bytes) {
        let (group, meter) = (&*self.group, &self.group.meter);
        if seq == 1 {
            group.here.add_permits(1);
            return;
        }
        let Some(age) = meter.clock.age(content, group.body) else {
            return;
        };
        meter.count(&meter.deliveries);
        meter.time(&meter.to_delivered, age);
        let count = usize::try_from(seq).ok().and_then(|seq| group.counts.get(seq));
        if count.is_some_and(|count| count.fetch_add(1, Ordering::Relaxed) + 1 == group.others) {
            meter.time(&meter.to_last, age);
            meter.count(&meter.messages);
            group.room.add_permits(1);
        }
    }

    /// Notes that a send has a result, and returns the time of the send.
    fn answered(&mut self, request: &[u8]) -> Option<Instant> {
        let began = self.sends.answered(request)?;
        self.group.answered.fetch_add(1, Ordering::Relaxed);
        Some(began)
    }
}
