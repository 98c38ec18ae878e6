//! Ends tokens that no device has named for 270 days. Any number of nodes may do so.

use std::time::Duration;

use tern_store::Pools;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics;
use crate::store::tokens;

/// The time between two rounds.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The most statements of a round, each of which ends a thousand tokens. The rest waits for the next round.
const ROUNDS: usize = 100;

/// Ends tokens once an hour. It runs until it is dropped.
pub(super) async fn run(pools: &Pools) {
    let mut rounds = interval(INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Err(error) = round(pools).await {
            metrics::store_failed("token");
            tracing::warn!(%error, "cannot end tokens that no device names");
        }
    }
}

async fn round(pools: &Pools) -> sqlx::Result<()> {
    for _ in 0..ROUNDS {
        let (ended, more) = tokens::end_unnamed(pools.people()).await?;
        for provider in ended {
            metrics::token_ended(provider);
        }
        if !more {
            break;
        }
    }
    Ok(())
}
