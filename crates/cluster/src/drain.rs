//! Stops a process in order. A drain starts once, all parts finish the work that they have, and then the process ends.
//! Work that is not done at the deadline is cut off.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The time that a drain may take. It is longer than the longest settle and the time over which reconnects
/// are spread, and shorter than the 30 s that Kubernetes grants by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(25);

/// The signal that tells all parts of a process that it is stopping. All clones share one state.
#[derive(Debug, Clone)]
pub struct Drain {
    started: CancellationToken,
    ended: CancellationToken,
    deadline: Duration,
}

impl Drain {
    /// Makes a drain that has not started, and that may take as long as `deadline` once it has.
    pub fn new(deadline: Duration) -> Self {
        Self {
            started: CancellationToken::new(),
            ended: CancellationToken::new(),
            deadline,
        }
    }

    /// Returns whether the drain has started.
    pub fn started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Waits until the drain starts.
    pub async fn wait(&self) {
        self.started.cancelled().await;
    }

    /// Returns the whole time that the drain may take, counted from its start.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Starts the drain. Further calls do nothing.
    pub fn start(&self) {
        crate::metrics::draining();
        self.started.cancel();
    }

    /// Ends the drain, because all work is done or the deadline is over. The links to other nodes close now.
    pub fn end(&self) {
        self.start();
        self.ended.cancel();
    }

    /// Waits until the drain has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Starts the drain at the first SIGTERM or SIGINT. The second one ends the process at once. Returns `Err` if the
    /// signal handlers cannot be installed.
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
