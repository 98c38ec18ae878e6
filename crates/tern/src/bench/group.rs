//! One group whose members are all online; some of them write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tern_proto::v1::send_message::To;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Common;
use super::line::{Heard, Line};
use super::meter::Meter;
use super::people::{Person, make};
use super::report::Report;
use super::target::Target;

/// For what is under way to arrive.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// Messages of one run: each has a counter of its deliveries.
const MOST_MESSAGES: usize = 1 << 20;

/// One group with everybody online: deliveries a second, the last member's latency, cost
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Members of the group
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1024))]
    members: u32,
    /// Devices of each member
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    devices: u32,
    /// Messages under way in all: one that reached everybody makes room for the next
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=128))]
    window: u32,
    /// Messages a second, in place of the window
    #[arg(long)]
    rate: Option<f64>,
}

/// How many devices have each entry.
struct Arrivals {
    counts: Vec<AtomicU32>,
    /// All but the writer's.
    others: u32,
    /// A permit for each message that may be under way.
    room: Semaphore,
    /// A permit for each device that has the group's first entry, which says that it was made. Writing begins when all
    /// have it: what comes before the first is sent again after it.
    here: Semaphore,
}

pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let people = make(&target.back_end, args.members as usize, args.devices as usize).await?;
    let owner = &people[0];
    let others: Vec<_> = people[1..].iter().map(|person| person.user).collect();
    let chat = target.back_end.create_group(owner.user, "Bench", &others).await?;
    let meter = Arc::new(Meter::new());
    let arrivals = Arc::new(Arrivals {
        counts: (0..MOST_MESSAGES).map(|_| AtomicU32::new(0)).collect(),
        others: args.members * args.devices - 1,
        room: Semaphore::new(args.window as usize),
        here: Semaphore::new(0),
    });
    let end = CancellationToken::new();
    let mut members = JoinSet::new();
    let devices = people.iter().flat_map(|person| &person.devices);
    for (number, device) in devices.enumerate().skip(1) {
        let line = Line::open(&target.gateways, number, device).await?;
        members.spawn(member(
            line,
            meter.clone(),
            arrivals.clone(),
            common.body,
            end.clone(),
        ));
    }
    let line = Line::open(&target.gateways, 0, Person::device(owner)?).await?;
    let to = To::ChatId(chat.to_string());
    let writer = tokio::spawn(write(
        line,
        to,
        args.rate,
        common.body,
        meter.clone(),
        arrivals.clone(),
    ));
    let spent = target.measure(common, &meter).await?;
    writer.await??;
    end.cancel();
    while let Some(member) = members.join_next().await {
        member??;
    }

    let load = match args.rate {
        Some(rate) => format!("{rate} messages a second"),
        None => format!("{} in flight", args.window),
    };
    let title = format!(
        "group: {} members, devices of each: {}, {load}, {}-byte bodies, {}, {:.0} s",
        args.members,
        args.devices,
        common.body,
        target.transport(),
        spent.seconds
    );
    let mut report = Report::new(title, target.settings().await?);
    let deliveries = meter.deliveries.load(Ordering::Relaxed);
    let messages = meter.messages.load(Ordering::Relaxed);
    report.row("deliveries a second", deliveries as f64 / spent.seconds, "");
    report.row("messages a second", messages as f64 / spent.seconds, "");
    report.latency(["send to result p50", "send to result p99"], &meter.to_result);
    report.latency(
        ["send to delivered p50", "send to delivered p99"],
        &meter.to_delivered,
    );
    report.latency(
        ["send to last member p50", "send to last member p99"],
        &meter.to_last,
    );
    report.spent(&spent, deliveries);
    report.check(&meter, target.sweep_found().await?);
    Ok(report)
}

async fn member(
    mut line: Line,
    meter: Arc<Meter>,
    arrivals: Arc<Arrivals>,
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
            let Heard::Entry { seq, content, .. } = heard else {
                continue;
            };
            if seq == 1 {
                arrivals.here.add_permits(1);
            }
            let Some(age) = meter.clock.age(&content, body).filter(|_| seq > 1) else {
                continue;
            };
            meter.count(&meter.deliveries);
            meter.time(&meter.to_delivered, age);
            let count = usize::try_from(seq).ok().and_then(|seq| arrivals.counts.get(seq));
            if count.is_some_and(|count| count.fetch_add(1, Ordering::Relaxed) + 1 == arrivals.others) {
                meter.time(&meter.to_last, age);
                meter.count(&meter.messages);
                arrivals.room.add_permits(1);
            }
        }
        line.flush().await?;
    }
    meter.repeated.fetch_add(line.repeated, Ordering::Relaxed);
    Ok(())
}

async fn write(
    mut line: Line,
    to: To,
    rate: Option<f64>,
    body: u32,
    meter: Arc<Meter>,
    arrivals: Arc<Arrivals>,
) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    let mut began = std::collections::HashMap::new();
    let (mut sent, mut last) = (0_usize, 0_u64);
    everybody_here(&mut line, &arrivals).await?;
    let mut timer = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.unwrap_or(1.0).max(0.001)));
    while !meter.is_stopped() && sent < MOST_MESSAGES / 2 {
        let may_send = tokio::select! {
            permit = arrivals.room.acquire(), if rate.is_none() => { permit?.forget(); true }
            _ = timer.tick(), if rate.is_some() => true,
            came = line.hear(&mut heard) => { came?; false }
            () = sleep(Duration::from_millis(200)) => false,
        };
        if may_send {
            let request = line.say(&to, body, &meter.clock);
            began.insert(request.to_string(), tokio::time::Instant::now());
            meter.sent.fetch_add(1, Ordering::Relaxed);
            sent += 1;
        }
        take(&mut heard, &mut began, &mut last, &meter);
        line.flush().await?;
    }
    let rest = async {
        while !began.is_empty() {
            line.hear(&mut heard).await?;
            take(&mut heard, &mut began, &mut last, &meter);
            line.flush().await?;
        }
        // Everybody has the last entry, and so, in order, all before it.
        let there = || {
            let counts = &arrivals.counts[2..=usize::try_from(last).unwrap_or(0).max(2)];
            counts
                .iter()
                .all(|count| count.load(Ordering::Relaxed) >= arrivals.others)
        };
        while sent > 0 && !there() {
            tokio::select! {
                came = line.hear(&mut heard) => came?,
                () = sleep(Duration::from_millis(50)) => {}
            }
            heard.clear();
            line.flush().await?;
        }
        anyhow::Ok(())
    };
    match timeout(LAST_WORDS, rest).await {
        Ok(ended) => ended?,
        Err(_) => {
            let counts = &arrivals.counts[2..=usize::try_from(last).unwrap_or(0).max(2)];
            let missing =
                |count: &AtomicU32| u64::from(arrivals.others.saturating_sub(count.load(Ordering::Relaxed)));
            let lost: u64 = counts.iter().map(missing).sum();
            meter.lost.fetch_add(lost + began.len() as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn everybody_here(line: &mut Line, arrivals: &Arrivals) -> anyhow::Result<()> {
    let (mut heard, mut here) = (Vec::new(), false);
    while !here {
        line.hear(&mut heard).await?;
        here = heard.drain(..).any(|heard| matches!(heard, Heard::Entry { .. }));
        line.flush().await?;
    }
    let _all = arrivals.here.acquire_many(arrivals.others).await?;
    Ok(())
}

fn take(
    heard: &mut Vec<Heard>,
    began: &mut std::collections::HashMap<String, tokio::time::Instant>,
    last: &mut u64,
    meter: &Meter,
) {
    for heard in heard.drain(..) {
        match heard {
            Heard::Sent { request, seq } => {
                if let Some(began) = std::str::from_utf8(&request)
                    .ok()
                    .and_then(|request| began.remove(request))
                {
                    meter.time(&meter.to_result, began.elapsed());
                    *last = (*last).max(seq);
                }
            }
            Heard::Refused { request, why } => {
                if let Ok(request) = std::str::from_utf8(&request) {
                    began.remove(request);
                }
                meter.refused(why);
            }
            Heard::Entry { .. }
            | Heard::Receipt { .. }
            | Heard::CaughtUp
            | Heard::Presence { .. }
            | Heard::Watched { .. } => {}
        }
    }
}
