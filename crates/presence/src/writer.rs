//! Writes last seen to the store: once a second, in statements for up to 1,024 people each.
//!
//! Times that could not be written wait, only the newest of each person, and are tried again.

use std::sync::Arc;
use std::time::Duration;

use tern_types::{Timestamp, UserId};
use tokio::time::{interval, sleep, timeout};
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
/// The pause before the last writes are tried again after one of them has failed.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Writes until `stop` is cancelled, then whatever is left, which is tried again for [`LAST_WORDS`]. What cannot be
/// written then is lost.
pub async fn run(hub: Arc<Hub>, store: LastSeen, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        write(&hub, &store).await;
    }
    hub.write_all();
    let last_writes = async {
        while !write(&hub, &store).await {
            sleep(TRY_AGAIN).await;
        }
    };
    if timeout(LAST_WORDS, last_writes).await.is_err() {
        tracing::warn!(people = hub.unwritten(), "last seen was not written in time");
    }
}

/// Writes everything that waits, or stops at the first failure. Returns whether everything was written.
async fn write(hub: &Hub, store: &LastSeen) -> bool {
    loop {
        let mut batch = Batch {
            hub,
            seen: hub.take_writes(BATCH),
        };
        if batch.seen.is_empty() {
            return true;
        }
        let (people, written) = (batch.seen.len(), store.write(&batch.seen).await);
        metrics::last_seen("write", written.is_ok(), people);
        match written {
            Ok(()) => batch.seen.clear(),
            Err(error) => {
                tracing::warn!(%error, people, "last seen was not written");
                return false;
            }
        }
    }
}

/// Times that are being written. Those that are still in it when it is dropped wait again, also if the statement was
/// cut off.
struct Batch<'a> {
    hub: &'a Hub,
    seen: Vec<(UserId, Timestamp)>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.hub.put_back(std::mem::take(&mut self.seen));
    }
}
