//! Stopping in order: a drain starts once, everybody finishes what they have, then the process ends. Who is not done
//! at the deadline is cut off.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Longer than the longest settle and the spread of reconnects; shorter than Kubernetes' 30 s of grace.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(25);

/// Tells everybody in a process that it is stopping.
#[derive(Debug, Clone)]
pub struct Drain {
    started: CancellationToken,
    ended: CancellationToken,
    deadline: Duration,
}

impl Drain {
    pub fn new(deadline: Duration) -> Self {
        Self {
            started: CancellationToken::new(),
            ended: CancellationToken::new(),
            deadline,
        }
    }

    /// Whether the drain has started.
    pub fn started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Until the drain starts.
    pub async fn wait(&self) {
        self.started.cancelled().await;
    }

    /// The whole time that a drain may take, counted from its start.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Starts the drain. Once is enough.
    pub fn start(&self) {
        crate::metrics::draining();
        self.started.cancel();
    }

    /// Everybody has drained, or the deadline is over: links are let go.
    pub fn end(&self) {
        self.start();
        self.ended.cancel();
    }

    /// Until the drain has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Starts the drain at the first SIGTERM or SIGINT; the second ends the process at once.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
            tracing::info!(
                deadline_s = drain.deadline.as_secs_f64(),
                "drain started by a signal"
            );
            drain.start();
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
            tracing::warn!("second signal: leaving at once");
            std::process::exit(130);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_learns_of_the_drain_and_later_of_its_end() {
        let drain = Drain::new(DEFAULT_TIMEOUT);
        let other = drain.clone();
        assert!(!other.started());
        drain.start();
        other.wait().await;
        assert!(other.started());
        assert!(futures::FutureExt::now_or_never(other.ended()).is_none());
        drain.end();
        other.ended().await;
    }
}
