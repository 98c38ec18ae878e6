//! `tern push`: what belongs to push notifications and is no node of a platform.

use clap::Subcommand;
use tern_push::relay::{self, RelayArgs};
use tokio::signal::unix::{SignalKind, signal};

/// Push notifications: the relay of the company that publishes an app
#[derive(Subcommand, Clone, Debug)]
pub enum PushCommand {
    /// Forward the pushes of other companies' platforms to Apple and Google, with the keys of this company's app
    Relay(Box<RelayArgs>),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// Returns an error if a flag or a file is wrong, or if the port is taken.
pub async fn run(command: PushCommand) -> anyhow::Result<()> {
    let PushCommand::Relay(args) = command;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Box::pin(relay::run(*args, shutdown)).await
}
