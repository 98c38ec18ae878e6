//! `tern-dev bench`: loads a platform with clients over real streams, and reports its throughput, latencies and cost.
//!
//! - [`direct`], [`group`], [`offline`], [`idle`], [`mixed`], [`presence`], [`overload`], [`media`], [`history`],
//!   [`push`]: the kinds of load
//! - [`target`]: the platform, started for the bench or running already
//! - [`people`]: creates users and devices
//! - [`line`]: one device's stream
//! - [`slim`]: the part of the wire format that a load needs
//! - [`meter`]: counters and latencies
//! - [`cost`]: processor time and memory
//! - [`processors`]: gives platform and load generator processors of their own
//! - [`report`]: prints the results as a table or JSON
//! - [`prefill`]: fills the store until it is larger than its memory; [`page_cache`]: empties the cache of its files
//! - [`trims`]: old messages that are trimmed beside the load

mod cost;
mod direct;
mod group;
mod history;
mod idle;
mod line;
mod media;
mod meter;
mod mixed;
mod offline;
mod overload;
mod page_cache;
mod people;
mod prefill;
mod presence;
mod processors;
mod push;
pub(crate) mod report;
mod slim;
mod target;
mod trims;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use tern_cluster::config::seconds;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use report::Report;
use target::Parts;

use crate::programs::Programs;

/// Measure a platform: messages a second, latencies, processor time and memory
///
/// Without --gateway it starts a platform (one node of each role unless told otherwise) with a Postgres and an etcd
/// of its own, and ends it. The load generator runs in this process on the same machine; its processor time is shown
/// apart.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    load: Load,
    #[command(flatten)]
    common: Common,
}

/// Arguments of every kind of load.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Platform and measuring")]
pub struct Common {
    /// URL of a gateway of a running platform; if given several times, devices are spread over them
    #[arg(long = "gateway", global = true, requires = "api_key_file")]
    gateways: Vec<String>,
    /// File with an API key of the running platform, with all scopes
    #[arg(long, global = true)]
    api_key_file: Option<PathBuf>,
    /// File with the authority that signed the gateways' certificate, in PEM [default: the system's roots]
    #[arg(long, global = true)]
    ca_file: Option<PathBuf>,
    /// Database of the running platform, to count WAL and show its settings
    #[arg(long, global = true)]
    database_url: Option<String>,
    #[command(flatten)]
    programs: Programs,
    /// Gateways to start
    #[arg(long = "start-gateways", global = true, default_value_t = 1)]
    start_gateways: usize,
    /// Chat nodes to start
    #[arg(long = "start-chats", global = true, default_value_t = 1)]
    start_chats: usize,
    /// Cells of the store that is made: a power of two from 1 to 256
    #[arg(long, global = true, default_value_t = 4)]
    cells: u16,
    /// Connect to the started gateways in plain text instead of TLS
    #[arg(long, global = true)]
    plain: bool,
    /// Directory of a started platform, kept at the end [default: a new directory, removed at the end]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Bytes of a message's body, at least 16
    #[arg(long, global = true, default_value_t = 200, value_parser = clap::value_parser!(u32).range(16..=262_144))]
    body: u32,
    /// Seconds that are measured
    #[arg(long, global = true, default_value = "10", value_parser = seconds)]
    measure: Duration,
    /// Seconds of load before the measurement
    #[arg(long, global = true, default_value = "3", value_parser = seconds)]
    warm_up: Duration,
    /// Messages to put into the store before the load, in chats of their own, so that the store outgrows its memory.
    /// A platform that was started for this is measured twice: cold, with nothing of the store in memory, and warm
    #[arg(long, global = true, default_value_t = 0)]
    prefill: u64,
    /// Old messages to put into the store before the load, in chats of their own that keep messages for a day. They are
    /// trimmed while the load runs
    #[arg(long, global = true, default_value_t = 0)]
    trims: u64,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum Load {
    Direct(direct::Args),
    Group(group::Args),
    Offline(offline::Args),
    Idle(idle::Args),
    Mixed(mixed::Args),
    Overload(overload::Args),
    Presence(presence::Args),
    Media(media::Args),
    History(history::Args),
    Push(push::Args),
}

/// Runs one load and prints its report.
///
/// # Errors
///
/// Returns an error if the platform cannot be reached or started, if a signal interrupts the load, or if the report
/// contains faults, such as lost messages.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = Box::pin(measured(args)) => done,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("told to end"),
    }
}

/// Reaches or starts the platform, runs the load, and ends the platform if it was started.
async fn measured(args: BenchArgs) -> anyhow::Result<()> {
    let common = args.common;
    let parts = Parts {
        media: matches!(args.load, Load::Media(_)),
        push: matches!(args.load, Load::Push(_)),
    };
    let mut target = target::Target::reach(&common, parts).await?;
    // The future is large and awaited once, so it is boxed.
    let outcome = Box::pin(runs(&mut target, &common, args.load)).await;
    target.leave().await?;
    outcome
}

/// Runs the load and prints its report. With --prefill on a platform of its own the load runs twice: cold first, with
/// nothing of the store in memory, then warm.
async fn runs(target: &mut target::Target, common: &Common, load: Load) -> anyhow::Result<()> {
    let mut state = None;
    if common.prefill > 0 {
        let kept = prefill::Kind {
            age_s: 0.0,
            keep_s: 0,
        };
        prefill::fill(target, common.prefill, common.body, kept).await?;
        if target.chill().await? {
            let cold = Common {
                warm_up: Duration::ZERO,
                ..common.clone()
            };
            finish(run_once(target, &cold, load.clone()).await?, Some("cold"), common)?;
            state = Some("warm");
        }
    }
    if common.trims == 0 {
        return finish(run_once(target, common, load).await?, state, common);
    }
    let trims = trims::Trims::begin(target, common).await?;
    let mut report = run_once(target, common, load).await?;
    trims.end(&mut report).await?;
    finish(report, state, common)
}

async fn run_once(target: &target::Target, common: &Common, load: Load) -> anyhow::Result<Report> {
    match load {
        Load::Direct(args) => direct::run(target, common, args).await,
        Load::Group(args) => group::run(target, common, args).await,
        Load::Offline(args) => offline::run(target, common, args).await,
        Load::Idle(args) => idle::run(target, common, args).await,
        Load::Mixed(args) => mixed::run(target, common, args).await,
        // It starts platforms of its own: the future is large and awaited once, so it is boxed.
        Load::Overload(args) => Box::pin(overload::run(target, common, args)).await,
        Load::Presence(args) => presence::run(target, common, args).await,
        Load::Media(args) => media::run(target, common, args).await,
        Load::History(args) => history::run(target, common, args).await,
        Load::Push(args) => push::run(target, common, args).await,
    }
}

/// Prints a report, with the state of the store ("cold" or "warm") in its title. Fails if the report has faults.
fn finish(mut report: Report, state: Option<&str>, common: &Common) -> anyhow::Result<()> {
    if let Some(state) = state {
        report.qualify(state);
    }
    report.print(common.json)?;
    report.verdict()
}

/// Waits until the tasks of a load have ended. Returns the first error of one; then the others are aborted.
async fn join(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Raises the limit of open files, because each stream is a socket. If that fails, streams fail, and the report says
/// so.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
