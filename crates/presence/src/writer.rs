//! Takes what is to be written of last seen to the store: everything that came up within a second in one statement.
//!
//! What cannot be written waits, the newest of each person only, and is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::last_seen::LastSeen;
use crate::metrics;

/// A crash loses five minutes at most; a second more or less is nothing.
const EVERY: Duration = Duration::from_secs(1);
/// People of one statement.
const BATCH: usize = 1024;
/// For the last ones, while the node stops.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Writes until `stop`, and then once more, everything.
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
