//! Stores messages for people who are away, and measures their delivery when all of these people come back at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tern_proto::v1::send_message::To;
use tern_types::UserId;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::line::{Heard, Line};
use super::meter::Meter;
use super::people::{Person, make};
use super::report::Report;
use super::target::Target;
use super::{Common, join};

/// The number of people that one writer writes to.
const READERS_OF_A_WRITER: usize = 10;
/// The largest number of messages of one writer in flight.
const WINDOW: usize = 16;
/// The time limit for a device to get its stored messages. Missing messages count as lost.
const DRAINS_WITHIN: Duration = Duration::from_secs(120);

/// People who were away: messages stored, then drained
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// People who are away
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    users: u32,
    /// Messages that wait for each of them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// Chats in which they wait, each with another person
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    chats: u32,
}

/// Runs the load and returns its results. Fails if users cannot be created or a stream breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let away = make(&target.back_end, args.users as usize, 1).await?;
    let writers = away.len().div_ceil(READERS_OF_A_WRITER).max(args.chats as usize);
    let writers = make(&target.back_end, writers, 1).await?;
    let meter = Arc::new(Meter::new());
    meter.begin();
    let mark = target.mark().await?;
    let mut storing = JoinSet::new();
    for (number, (writer, messages)) in writers
        .iter()
        .zip(of_writers(&away, writers.len(), &args))
        .enumerate()
    {
        let line = Line::open(&target.gateways, number, Person::device(writer)?).await?;
        storing.spawn(write(line, messages, common.body, meter.clone()));
    }
    join(storing).await?;
    let stored = target.since(&mark).await?;

    let mark = target.mark().await?;
    let total = u64::from(args.users) * u64::from(args.messages);
    let arrived = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut draining = JoinSet::new();
    for (number, person) in away.iter().enumerate() {
        let (gateways, device) = (target.gateways.clone(), Person::device(person)?.clone());
        let (meter, arrived) = (meter.clone(), arrived.clone());
        draining.spawn(async move {
            let line = Line::open(&gateways, number, &device).await?;
            let drained = timeout(DRAINS_WITHIN, drain(line, args.messages, began, &meter, &arrived));
            drained.await.unwrap_or(Ok(()))
        });
    }
    join(draining).await?;
    let drained = target.since(&mark).await?;
    let missing = total - arrived.load(Ordering::Relaxed).min(total);
    meter.lost.fetch_add(missing, Ordering::Relaxed);

    let load = format!(
        "offline: {} people with {} messages each in {} chats, {}-byte bodies",
        args.users, args.messages, args.chats, common.body
    );
    let mut report = Report::on(target, load).await?;
    report.a_second("stored a second", total, &stored);
    report.latency("send to result", &meter.to_result);
    report.spent(&stored, total);
    report.noted(
        "drained a second",
        total as f64 / drained.seconds,
        "",
        format!(
            "all connect at once; {:.2} s from the first to the last message",
            drained.seconds
        ),
    );
    report.latency("connect to caught up", &meter.to_last);
    report.spent(&drained, total);
    report.check(&meter, target.sweep_found().await?);
    Ok(report)
}

/// Returns for each writer to whom it writes, once for each message. Each person's messages come from as many writers
/// as the person has chats, in turns.
fn of_writers(away: &[Person], writers: usize, args: &Args) -> Vec<Vec<UserId>> {
    let mut of_writers = vec![Vec::new(); writers];
    for message in 0..args.messages as usize {
        for (number, person) in away.iter().enumerate() {
            let chats = args.chats as usize;
            of_writers[(number * chats + message % chats) % writers].push(person.user);
        }
    }
    of_writers
}

/// Writes a message to each of these people, one after the other.
async fn write(mut line: Line, to: Vec<UserId>, body: u32, meter: Arc<Meter>) -> anyhow::Result<()> {
    let mut left = to.into_iter().map(|user| To::PeerUserId(user.to_string()));
    let (mut waiting, mut heard) = (std::collections::HashMap::new(), Vec::new());
    loop {
        while waiting.len() < WINDOW
            && let Some(to) = left.next()
        {
            let request = line.say(&to, body, &meter.clock);
            meter.sent.fetch_add(1, Ordering::Relaxed);
            waiting.insert(request.to_string(), Instant::now());
        }
        if waiting.is_empty() {
            return Ok(());
        }
        line.flush().await?;
        line.hear(&mut heard).await?;
        for heard in heard.drain(..) {
            let (request, refused) = match heard {
                Heard::Sent { request, .. } => (request, None),
                Heard::Refused { request, why } => (request, Some(why)),
                _ => continue,
            };
            let began = std::str::from_utf8(&request)
                .ok()
                .and_then(|request| waiting.remove(request));
            match (began, refused) {
                (_, Some(why)) => meter.refused(why),
                (Some(began), None) => meter.time(&meter.to_result, began.elapsed()),
                (None, None) => {}
            }
        }
    }
}

/// Receives and acknowledges the stored messages, until all have come and the stream has caught up.
async fn drain(
    mut line: Line,
    messages: u32,
    began: Instant,
    meter: &Meter,
    arrived: &AtomicU64,
) -> anyhow::Result<()> {
    let (mut heard, mut entries) = (Vec::new(), 0);
    let mut caught_up = false;
    while entries < messages || !caught_up {
        line.hear(&mut heard).await?;
        for heard in heard.drain(..) {
            match heard {
                Heard::Entry { .. } => {
                    entries += 1;
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
                Heard::CaughtUp => {
                    caught_up = true;
                    meter.time(&meter.to_last, began.elapsed());
                }
                _ => {}
            }
        }
        line.flush().await?;
    }
    meter.repeated.fetch_add(line.repeated, Ordering::Relaxed);
    Ok(())
}
