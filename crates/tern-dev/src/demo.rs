//! `tern-dev demo`: starts the whole platform, plays a conversation on it and checks each step. A line is printed only
//! after it has happened. A step that does not happen in time ends the demo with an error.
//!
//! - [`stage`]: starts and ends the platform, and creates the people with their devices
//! - [`phone`]: one device: a client and a record of its events with their times
//! - [`talk`]: sends a message and checks its arrivals and ticks
//! - [`scenes`]: the scenes, one file each
//! - [`report`]: prints the transcript and the table at the end

mod phone;
mod report;
mod scenes;
mod stage;
mod talk;

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use report::Report;
use stage::Stage;

use crate::programs::Programs;

/// Start the whole platform and play a conversation on it
///
/// Two gateways, two chat nodes, presence, accounts, media, push, Postgres and etcd run, one process each. Alice has two
/// devices, Bob and Carol have one. Ends with an error if an expected step did not happen.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Directory for all files, kept at the end [default: a new directory, kept only after a failure]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub programs: Programs,
}

/// Plays the demo to its end.
///
/// # Errors
///
/// Returns an error if the platform did not start, a step did not happen in time, or a signal ended the demo.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("tern-demo-").tempdir()?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => anyhow::bail!("no directory"),
    };
    let mut report = Report::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let played = tokio::select! {
        played = Box::pin(play(&args.programs, &dir, &mut report)) => played,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("told to end")),
    };
    match played {
        Ok(()) => {
            report.summary();
            Ok(())
        }
        Err(error) => {
            report.failed(&error);
            let kept = temporary.map_or(dir, tempfile::TempDir::keep);
            Err(error.context(format!(
                "the demo failed; the nodes' logs are in {}",
                kept.join("logs").display()
            )))
        }
    }
}

/// Starts the platform, plays all scenes on it, and ends it.
async fn play(programs: &Programs, dir: &std::path::Path, report: &mut Report) -> anyhow::Result<()> {
    let mut stage = Stage::start(programs, dir, report)
        .await
        .context("the platform did not start")?;
    let played = scenes::all(&mut stage, report).await;
    // Everything that was started is ended, whether the demo succeeded or failed.
    let ended = if played.is_ok() {
        stage.stop().await
    } else {
        stage.abort().await
    };
    played?;
    ended.context("the platform did not end in good order")
}
