//! Opens streams that do nothing, and measures how fast they are opened, how much memory they take, and how busy the
//! servers are meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tern_types::limits::MAX_DEVICES;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Common;
use super::line::Line;
use super::people::make;
use super::report::Report;
use super::target::Target;

/// The number of handshakes at a time. More of them would only wait for each other.
const AT_ONCE: usize = 64;
/// The pause before memory is measured, so that freed memory has gone back to the system.
const SETTLES: Duration = Duration::from_secs(10);
/// The time limit for opening a stream. A slower one counts as failed.
const OPENS_WITHIN: Duration = Duration::from_secs(30);

/// Streams that do nothing: memory each, connects a second
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Streams, each on a connection of its own
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streams: u32,
}

/// Runs the load and returns its results. Streams that cannot be opened are a fault in the report. Fails if users
/// cannot be created.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let streams = args.streams as usize;
    let people = make(&target.back_end, streams.div_ceil(MAX_DEVICES), MAX_DEVICES).await?;
    // The calls that created the users use memory too; wait until it is freed.
    sleep(SETTLES).await;
    let before = target.gateway_kib();
    let mark = target.mark().await?;
    let devices = people.into_iter().flat_map(|person| person.devices).take(streams);
    let (gate, began) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now());
    let mut opening = JoinSet::new();
    for (number, device) in devices.enumerate() {
        let (gateways, gate) = (target.gateways.clone(), gate.clone());
        opening.spawn(async move {
            let _turn = gate.acquire().await?;
            timeout(OPENS_WITHIN, Line::open(&gateways, number, &device)).await?
        });
    }
    let (mut lines, mut failed, mut why) = (Vec::with_capacity(streams), 0, None);
    while let Some(line) = opening.join_next().await {
        match line? {
            Ok(line) => lines.push(line),
            Err(error) => {
                failed += 1;
                why.get_or_insert(format!("{error:#}"));
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    let opened = target.since(&mark).await?;
    sleep(SETTLES).await;
    let mark = target.mark().await?;
    let held = target.gateway_kib();
    sleep(common.measure).await;
    let idle = target.since(&mark).await?;

    let mut report = Report::on(target, format!("idle: {streams} streams")).await?;
    report.row("streams held", lines.len() as f64, "");
    report.row("connects a second", lines.len() as f64 / took, "");
    report.noted(
        "gateway memory each",
        held.saturating_sub(before) as f64 / lines.len().max(1) as f64,
        "KiB",
        format!(
            "resident: {} MiB before, {} MiB with them",
            before / 1024,
            held / 1024
        ),
    );
    report.spent(&opened, lines.len() as u64);
    let shares: Vec<String> = idle
        .cpu
        .iter()
        .map(|(name, seconds)| format!("{name} {:.2}", 100.0 * seconds / idle.seconds))
        .collect();
    let busy = 100.0 * idle.cpu.values().sum::<f64>() / idle.seconds;
    report.noted("servers while idle, of one core", busy, "%", shares.join(" + "));
    if let Some(why) = why {
        report.fault(format!("{failed} streams were not opened, the first one: {why}"));
    }
    Ok(report)
}
