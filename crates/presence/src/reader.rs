//! Reads last seen from the store: of people when they are watched, and again after the store was away.
//!
//! However long the store is away, one task asks again, only about people who are still watched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tern_types::{Timestamp, UserId};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::last_seen::LastSeen;
use crate::metrics;

/// The most users in one query of the store.
pub const MAX_READ: usize = 1024;
/// The pause before a store that was away is asked again. Nobody waits for the answer.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Asks the store again and again about the people about whom it was asked in vain. Runs until `stop` is cancelled.
pub async fn run(hub: Arc<Hub>, store: LastSeen, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(READ_AGAIN) => {}
            () = stop.cancelled() => return,
        }
        read_again(&hub, &store).await;
    }
}

/// Reads last seen of everybody about whom the store was asked in vain, or stops at the first failure.
async fn read_again(hub: &Hub, store: &LastSeen) {
    loop {
        let users = hub.to_read_again(MAX_READ);
        if users.is_empty() {
            return;
        }
        let Some(found) = read(store, &users).await else {
            return;
        };
        hub.stored(&users, &found);
    }
}

/// Reads last seen of these users for the hub. While the store is away, they count as never seen unless they are
/// online, and the store is asked again later.
pub async fn read_for(hub: Arc<Hub>, store: LastSeen, users: Vec<UserId>) {
    match read(&store, &users).await {
        Some(found) => hub.stored(&users, &found),
        None => hub.store_was_away(&users),
    }
}

/// Reads last seen of these users. `None` if the store is away.
pub async fn read(store: &LastSeen, users: &[UserId]) -> Option<HashMap<UserId, Timestamp>> {
    let read = store.read(users).await;
    metrics::last_seen("read", read.is_ok(), users.len());
    let warn = |error: &sqlx::Error| tracing::warn!(%error, people = users.len(), "last seen was not read");
    read.inspect_err(warn).ok()
}
