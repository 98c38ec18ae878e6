//! Writes last seen to the store: once a second, in statements for up to 1,024 people each.
//!
//! Times that could not be written wait, only the newest of each person, and are tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::last_seen::LastSeen;
use crate::metrics;

/// The interval at which last seen is written. A crash loses up to five minutes of it anyway, so a second more or less
/// does not matter.
const EVERY: Duration = Duration::from_secs(1);
/// The most people in one statement.
const BATCH: usize = 1024;
/// The longest time that the last writes may take while the node stops.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Writes until `stop` is cancelled, then once more whatever is left. What cannot be written then is lost.
pub async fn run(hub: Arc<Hub>, store: LastSeen, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        write(&hub, &store).await;
    }
    hub.write_all();
    if tokio::time::timeout(LAST_WORDS, write(&hub, &store))
        .await
        .is_err()
    {
        tracing::warn!(people = hub.unwritten(), "last seen was not written in time");
    }
}

/// Writes everything that waits, or stops at the first failure.
async fn write(hub: &Hub, store: &LastSeen) {
    loop {
        let batch = hub.take_writes(BATCH);
        if batch.is_empty() {
            return;
        }
        let written = store.write(&batch).await;
        metrics::last_seen("write", written.is_ok(), batch.len());
        if let Err(error) = written {
            tracing::warn!(%error, people = batch.len(), "last seen was not written");
            hub.put_back(batch);
            return;
        }
    }
}
