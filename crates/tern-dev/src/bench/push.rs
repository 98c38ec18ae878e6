//! Sends messages to people who are away, and measures when and at what cost the push services get the pushes.
//!
//! - [`chats`]: makes the chats before the load
//! - [`load`]: who writes to whom, and what has arrived

mod chats;
mod load;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::load::{Collected, Load, PUSHES_EACH, WRITERS};
use super::line::Line;
use super::meter::Latency;
use super::people::{Person, make};
use super::report::Report;
use super::target::{Spent, Target};
use super::{Common, join};

/// The time from a message to its settle, which finds out who is to get a push. The time of a push is counted from
/// there, so it contains the delay of a settle that is late.
const SETTLES_AFTER: Duration = Duration::from_millis(500);
/// The time limit for the pushes after the last message. Those that have not come by then count as lost.
const ARRIVE_WITHIN: Duration = Duration::from_secs(60);
/// The time for which pushes are watched after the last acknowledgement. A push that was put off for a device with a
/// live stream would come after 5 s.
const WATCHED_FOR: Duration = Duration::from_secs(8);
/// The time after an acknowledgement from which no push may come.
const ENDED_AFTER: Duration = Duration::from_secs(1);
/// The time limit for all pushes of a drain to be due.
const DUE_WITHIN: Duration = Duration::from_secs(120);
/// Counts the pushes that are due. All cells of the store are partitions of this table.
const DUE: &str = "SELECT count(*) FROM public.inbox WHERE push_at <= now()";
/// The name of the push node.
const NODE: &str = "push-0";

/// The push service of the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Apple's
    Apns,
    /// Google's
    Fcm,
    /// A browser vendor's: each push is encrypted
    WebPush,
}

/// People who are away: time and cost of their pushes
///
/// Each message is the only one of its chat, because a chat has at most one push a minute. The chats are made before. The
/// time to the push service is counted from the moment of the send, and again without the 500 ms after which the settle
/// says who gets a push.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Messages a second to people who are away
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// People besides them who are connected and acknowledge up to 2 s late
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=5_000))]
    late: u32,
    /// Pushes that are all due at once after that load; 0 leaves it out
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    drain: u32,
    /// Push service of the devices
    #[arg(long, value_enum, default_value_t = Service::Apns)]
    service: Service,
}

/// Runs the load and returns its results. Fails if the platform was not started here, if users cannot be created, or
/// if a stream breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    target.push()?;
    let title = format!(
        "push: {} messages a second to people who are away, {:?}, {}-byte bodies",
        args.rate, args.service, common.body
    );
    let mut report = Report::on(target, title).await?;
    let writers = make(&target.back_end, WRITERS, 1).await?;
    at_a_rate(target, common, &args, &writers, &mut report).await?;
    if args.drain > 0 {
        at_once(target, common, &args, &writers, &mut report).await?;
    }
    Ok(report)
}

/// Sends messages at the wanted rate, and reports times and cost.
async fn at_a_rate(
    target: &Target,
    common: &Common,
    args: &Args,
    writers: &[Person],
    report: &mut Report,
) -> anyhow::Result<()> {
    let total = f64::from(args.rate) * (common.warm_up + common.measure).as_secs_f64();
    let count = (total as usize).div_ceil(PUSHES_EACH);
    let away = people(target, common, args, writers, count).await?;
    let late = people(target, common, args, writers, args.late as usize).await?;
    let load = Arc::new(Load::new(common.body));
    let end = CancellationToken::new();
    let mut readers = JoinSet::new();
    for (number, person) in late.iter().enumerate() {
        let line = Line::open(&target.gateways, number, Person::device(person)?).await?;
        let device = Person::device(person)?.device;
        readers.spawn(load::acknowledge_late(line, device, load.clone(), end.clone()));
    }
    let everybody: Vec<Person> = away.iter().chain(&late).cloned().collect();
    let share = everybody.len() as f64 / away.len().max(1) as f64;
    let rate = f64::from(args.rate) * share / WRITERS as f64;
    let record = load::record(target.push()?.0, args.service);
    let mut collected = Collected::from_now(record);
    let writing = load::spawn_writers(target, writers, &everybody, Some(rate), &load).await?;
    sleep(common.warm_up).await;
    load.meter.begin();
    let (mark, before, since) = (target.mark().await?, record.taken(), std::time::Instant::now());
    join(writing).await?;
    let wanted = load::tags(writers, &away)?;
    // The pushes that are missing are counted as lost below.
    let _ = timeout(ARRIVE_WITHIN, collected.until_all(&wanted)).await;
    let spent = target.since(&mark).await?;
    let pushes = record.taken() - before;
    load.meter.end();
    if !late.is_empty() {
        sleep(WATCHED_FOR).await;
    }
    end.cancel();
    join(readers).await?;
    collected.take();
    let missing = wanted.iter().filter(|tag| collected.at(tag).is_none()).count();
    load.meter.lost.fetch_add(missing as u64, Ordering::Relaxed);
    report.a_second("pushes a second", pushes, &spent);
    times(report, &load, &collected, since);
    cost(report, &spent, pushes);
    report.spent(&spent, pushes);
    acknowledged(report, &load, &collected);
    report.check(&load.meter, target.sweep_found().await?);
    Ok(())
}

/// Reports how long the pushes took whose messages were sent from the moment `since` on.
fn times(report: &mut Report, load: &Load, collected: &Collected<'_>, since: std::time::Instant) {
    let (from_send, from_settle) = (Latency::new(), Latency::new());
    for (tag, at) in load.sent_after(since) {
        if let Some(came) = collected.at(&tag) {
            let took = came.saturating_duration_since(at);
            from_send.record(took);
            from_settle.record(took.saturating_sub(SETTLES_AFTER));
        }
    }
    report.latency("send to result", &load.meter.to_result);
    report.latency("send to push service", &from_send);
    report.latency("settle to push service", &from_settle);
    if collected.repeated > 0 {
        report.fault(format!("{} pushes came twice", collected.repeated));
    }
}

/// Reports the pushes of messages that were acknowledged. One that came later than a second after that is a fault.
fn acknowledged(report: &mut Report, load: &Load, collected: &Collected<'_>) {
    let acknowledged = load.acknowledged();
    let came: Vec<bool> = acknowledged
        .iter()
        .filter_map(|(tag, at)| Some(collected.at(tag)? > *at + ENDED_AFTER))
        .collect();
    let wrong = came.iter().filter(|wrong| **wrong).count();
    let note = format!(
        "of {} messages acknowledged up to 2 s late; {} pushes came sooner",
        acknowledged.len(),
        came.len() - wrong
    );
    report.noted("pushes 1 s after the ack", wrong as f64, "", note);
    if wrong > 0 {
        report.fault(format!("{wrong} pushes came a second after the acknowledgement"));
    }
}

/// Lets pushes become due while the push node stands still, then lets it go on, and reports how fast it is.
async fn at_once(
    target: &Target,
    common: &Common,
    args: &Args,
    writers: &[Person],
    report: &mut Report,
) -> anyhow::Result<()> {
    let count = (args.drain as usize).div_ceil(PUSHES_EACH);
    let away = people(target, common, args, writers, count).await?;
    let load = Arc::new(Load::new(common.body));
    let (servers, platform) = target.push()?;
    let record = load::record(servers, args.service);
    let mut collected = Collected::from_now(record);
    platform.freeze(NODE)?;
    join(load::spawn_writers(target, writers, &away, None, &load).await?).await?;
    let wanted = load::tags(writers, &away)?;
    all_due(target, wanted.len()).await?;
    let mark = target.mark().await?;
    platform.thaw(NODE)?;
    let arrived = timeout(ARRIVE_WITHIN, collected.until_all(&wanted)).await;
    let spent = target.since(&mark).await?;
    if arrived.is_err() {
        let missing = wanted.iter().filter(|tag| collected.at(tag).is_none()).count();
        report.fault(format!(
            "{missing} pushes of the drain did not come within {ARRIVE_WITHIN:?}"
        ));
    }
    let count = wanted.len() as u64;
    report.a_second("drained a second", count, &spent);
    cost(report, &spent, count);
    Ok(())
}

/// Waits until at least so many pushes are due.
async fn all_due(target: &Target, wanted: usize) -> anyhow::Result<()> {
    let url = target
        .database_url
        .as_ref()
        .context("the database is not known")?;
    let mut db = PgConnection::connect(url).await?;
    let end = tokio::time::Instant::now() + DUE_WITHIN;
    loop {
        let due: i64 = sqlx::query_scalar(DUE).fetch_one(&mut db).await?;
        if usize::try_from(due)? >= wanted {
            return Ok(db.close().await?);
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < end,
            "{due} of {wanted} pushes are due after {DUE_WITHIN:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Reports the processor time of the push nodes.
fn cost(report: &mut Report, spent: &Spent, pushes: u64) {
    let seconds = spent.cpu.get("push").copied().unwrap_or_default();
    let each = seconds / pushes.max(1) as f64;
    report.row("CPU of push nodes a 1,000", each * 1000.0, "s");
    report.row("pushes a second and core", 1.0 / each.max(1e-9), "");
}

/// Creates people with one device each, which has a token of the push service, and their chats with the writers.
async fn people(
    target: &Target,
    common: &Common,
    args: &Args,
    writers: &[Person],
    count: usize,
) -> anyhow::Result<Vec<Person>> {
    let people = make(&target.back_end, count, 1).await?;
    chats::make(target, common, writers, &people).await?;
    load::set_tokens(target, &people, args.service).await?;
    Ok(people)
}
