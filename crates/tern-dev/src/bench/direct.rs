//! Loads pairs of people who are online. In each pair one person writes and the other receives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tern_proto::v1::send_message::To;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::line::{Heard, Line, Sends};
use super::meter::Meter;
use super::people::{Person, make};
use super::report::Report;
use super::target::{Spent, Target};
use super::{Common, join};

/// The time after the load for messages on their way to arrive. Messages that have not arrived by then count as lost.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Pairs online: messages a second, latencies, cost
///
/// A message counts as complete when the recipient has it, and the sender has its result and the delivered receipt.
/// The first message of each pair creates the chat. All of them are sent at once before the load, and are counted
/// apart.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Pairs of people
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=9000))]
    pairs: u32,
    /// Messages of a pair in flight; each complete one makes room for the next
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    window: u32,
    /// Messages a second in all, at random moments, instead of a window
    #[arg(long)]
    rate: Option<f64>,
    /// Recipients mark every message as read
    #[arg(long)]
    reads: bool,
}

/// The interval at which the places of refused messages in the window are filled again, as a client does that is told
/// to come back later.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The moments at which a sender sends.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// The sender keeps this number of messages in flight.
    Window(u32),
    /// The sender sends this number of messages a second, at random moments.
    Rate(f64),
}

/// Runs the load and returns its results. Fails if users cannot be created or a stream breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let people = make(&target.back_end, args.pairs as usize * 2, 1).await?;
    let meter = Arc::new(Meter::new());
    let pace = match args.rate {
        Some(rate) => Pace::Rate(rate / f64::from(args.pairs)),
        None => Pace::Window(args.window),
    };
    let (mut waiting, mut senders, mut receivers) = (Vec::new(), JoinSet::new(), JoinSet::new());
    let end = CancellationToken::new();
    for (number, pair) in people.chunks_exact(2).enumerate() {
        let (from, to) = (&pair[0], &pair[1]);
        let line = open(target, number, to).await?.reading(args.reads);
        receivers.spawn(receive(line, meter.clone(), common.body, end.clone()));
        let line = open(target, number, from).await?;
        waiting.push(Sender::new(line, to, common.body, meter.clone()));
    }
    // The senders begin only now, because all streams have to be open first.
    let mark = target.mark().await?;
    let ready = create_chats(waiting).await?;
    let made = target.since(&mark).await?;
    for sender in ready {
        senders.spawn(sender.run(pace));
    }
    let spent = target.measure(common, &meter).await?;
    join(senders).await?;
    end.cancel();
    join(receivers).await?;
    report(target, common, &args, &meter, &made, &spent).await
}

async fn open(target: &Target, number: usize, person: &Person) -> anyhow::Result<Line> {
    Line::open(&target.gateways, number, Person::device(person)?).await
}

/// Lets every sender send its first message at once. Returns when all chats are created.
async fn create_chats(senders: Vec<Sender>) -> anyhow::Result<Vec<Sender>> {
    let mut creating: JoinSet<_> = senders.into_iter().map(Sender::first).collect();
    let mut ready = Vec::new();
    while let Some(sender) = creating.join_next().await {
        ready.push(sender??);
    }
    Ok(ready)
}

/// Makes the report from the cost of the first messages, `made`, and that of the measured time, `spent`.
async fn report(
    target: &Target,
    common: &Common,
    args: &Args,
    meter: &Meter,
    made: &Spent,
    spent: &Spent,
) -> anyhow::Result<Report> {
    let pace = match args.rate {
        Some(rate) => format!("{rate} messages a second"),
        None => format!("{} in flight each", args.window),
    };
    let load = format!(
        "direct: {} pairs, {pace}, {}-byte bodies",
        args.pairs, common.body
    );
    let mut report = Report::on(target, load).await?;
    if args.reads {
        report.add_to_title("read marks");
    }
    report.add_duration(spent);
    let messages = meter.messages.load(Ordering::Relaxed);
    report.a_second("messages a second", messages, spent);
    report.latency("send to result", &meter.to_result);
    report.latency("send to delivered", &meter.to_delivered);
    report.latency("send to receipt", &meter.to_receipt);
    report.spent(spent, messages);
    let pairs = f64::from(args.pairs);
    report.noted(
        "new chats a second, at once",
        pairs / made.seconds,
        "",
        format!("{:.3} CPU s of servers a 1,000", made.servers() * 1000.0 / pairs),
    );
    report.check(meter, target.sweep_found().await?);
    Ok(report)
}

/// Receives and acknowledges entries until `end`, and measures their age.
pub async fn receive(
    mut line: Line,
    meter: Arc<Meter>,
    body: u32,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            came = line.hear(&mut heard) => came?,
            () = end.cancelled() => break,
        }
        for heard in heard.drain(..) {
            if let Heard::Entry { content, .. } = heard {
                meter.count(&meter.deliveries);
                if let Some(age) = meter.clock.age(&content, body) {
                    meter.time(&meter.to_delivered, age);
                }
            }
        }
        line.flush().await?;
    }
    meter.repeated.fetch_add(line.repeated, Ordering::Relaxed);
    Ok(())
}

/// The writing person of a pair.
struct Sender {
    line: Line,
    to: To,
    body: u32,
    meter: Arc<Meter>,
    /// The sends without a result, each with its time.
    sends: Sends<Instant>,
    /// The times of sends without a receipt, by seq.
    receipts: BTreeMap<u64, Instant>,
    /// The recipient's delivered watermark.
    delivered: u64,
    /// The number of refused messages whose places in the window have not been filled again yet.
    held_back: u32,
}

impl Sender {
    fn new(line: Line, to: &Person, body: u32, meter: Arc<Meter>) -> Self {
        Self {
            line,
            to: To::PeerUserId(to.user.to_string()),
            body,
            meter,
            sends: Sends::default(),
            receipts: BTreeMap::new(),
            delivered: 0,
            held_back: 0,
        }
    }

    /// Sends the message that creates the chat, and waits until it is complete.
    async fn first(mut self) -> anyhow::Result<Self> {
        let mut heard = Vec::new();
        let mut again = interval(REFUSED_PAUSE);
        self.send();
        loop {
            self.line.flush().await?;
            tokio::select! {
                came = self.line.hear(&mut heard) => came?,
                _ = again.tick() => (0..std::mem::take(&mut self.held_back)).for_each(|_| self.send()),
            }
            if self.take(&mut heard) > 0 {
                return Ok(self);
            }
        }
    }

    /// Sends messages until the load ends, and waits until they are complete.
    async fn run(mut self, pace: Pace) -> anyhow::Result<()> {
        let mut heard = Vec::new();
        let mut next = Instant::now();
        let mut again = interval(REFUSED_PAUSE);
        if let Pace::Window(window) = pace {
            (0..window).for_each(|_| self.send());
        }
        while !self.meter.is_stopped() {
            self.line.flush().await?;
            let came = tokio::select! {
                came = self.line.hear(&mut heard) => { came?; true }
                () = sleep_until(next), if matches!(pace, Pace::Rate(_)) => false,
                _ = again.tick(), if matches!(pace, Pace::Window(_)) => false,
            };
            if came {
                let complete = self.take(&mut heard);
                if matches!(pace, Pace::Window(_)) {
                    (0..complete).for_each(|_| self.send());
                }
            } else if let Pace::Rate(rate) = pace {
                self.send();
                // In a Poisson process the times between events are exponentially distributed.
                let wait = -(1.0 - rand::random::<f64>()).ln() / rate;
                next += Duration::from_secs_f64(wait.min(60.0));
            } else {
                (0..std::mem::take(&mut self.held_back)).for_each(|_| self.send());
            }
        }
        self.finish(&mut heard).await
    }

    fn send(&mut self) {
        let request = self.line.say(&self.to, self.body, &self.meter.clock);
        self.meter.sent.fetch_add(1, Ordering::Relaxed);
        self.sends.sent(request, Instant::now());
    }

    /// Applies the events, and returns how many messages have become complete.
    fn take(&mut self, heard: &mut Vec<Heard>) -> usize {
        let mut complete = 0;
        for heard in heard.drain(..) {
            match heard {
                Heard::Sent { request, seq } => {
                    if let Some(began) = self.sends.answered(&request) {
                        self.meter.time(&self.meter.to_result, began.elapsed());
                        self.receipts.insert(seq, began);
                    }
                }
                Heard::Refused { request, why } => {
                    self.sends.answered(&request);
                    self.meter.refused(why);
                    self.held_back += 1;
                }
                Heard::Receipt { delivered, .. } => self.delivered = self.delivered.max(delivered),
                Heard::Entry { .. } | Heard::CaughtUp | Heard::Presence { .. } | Heard::Watched { .. } => {}
            }
        }
        while let Some(first) = self
            .receipts
            .first_entry()
            .filter(|first| *first.key() <= self.delivered)
        {
            let began = first.remove();
            self.meter.time(&self.meter.to_receipt, began.elapsed());
            self.meter.count(&self.meter.messages);
            complete += 1;
        }
        complete
    }

    /// Waits at most [`LAST_WORDS`] until the messages in flight are complete. The rest counts as lost.
    async fn finish(mut self, heard: &mut Vec<Heard>) -> anyhow::Result<()> {
        let rest = async {
            while self.sends.unanswered() > 0 || !self.receipts.is_empty() {
                self.line.flush().await?;
                self.line.hear(heard).await?;
                self.take(heard);
            }
            self.line.flush().await
        };
        if let Ok(ended) = timeout(LAST_WORDS, rest).await {
            ended?;
        }
        let lost = self.sends.unanswered() + self.receipts.len();
        self.meter.lost.fetch_add(lost as u64, Ordering::Relaxed);
        Ok(())
    }
}
