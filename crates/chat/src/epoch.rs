//! Keeps this node's memory in step with the store's epoch.
//!
//! After a restore, or a failover that lost commits, an operator changes the store's epoch. What a node remembers of
//! chats then speaks of entries that are gone: for example, it would answer a repeated request with a seq that the
//! entry no longer has. So a node that sees another epoch forgets all its chats, before it does anything for a caller
//! that knows the new epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tern_store::Pools;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::shard_loop::Shards;
use crate::store::listing;

/// The follower of the store's epoch. It is cheap to clone.
#[derive(Clone)]
pub struct StoreEpoch {
    pools: Pools,
    shards: Shards,
    /// The mark of the epoch that this node knows, as the links carry it; 0: it knows none yet.
    current: Arc<AtomicU64>,
    /// The lock that lets only one look run at a time, so that a late answer never brings an older epoch back.
    look: Arc<Mutex<()>>,
}

impl StoreEpoch {
    /// Creates a follower that knows no epoch yet.
    pub fn new(pools: Pools, shards: Shards) -> Self {
        Self {
            pools,
            shards,
            current: Arc::default(),
            look: Arc::default(),
        }
    }

    /// Returns whether this node's memory belongs to the store whose epoch has this mark.
    pub fn is(&self, mark: u64) -> bool {
        self.current.load(Ordering::Acquire) == mark
    }

    /// Reads the epoch. If it differs from the epoch known before, the shards are told to forget their chats
    /// before this returns. An event that is sent to a shard afterwards therefore finds its chat as the store
    /// has it.
    pub async fn look(&self) -> sqlx::Result<Uuid> {
        let _one = self.look.lock().await;
        let epoch = listing::epoch(&self.pools).await?;
        let (mark, before) = (mark(epoch), self.current.load(Ordering::Acquire));
        if mark != before {
            if before != 0 {
                tracing::warn!(%epoch, "another store: every chat is forgotten");
                self.shards.restored().await;
            }
            self.current.store(mark, Ordering::Release);
        }
        Ok(epoch)
    }

    /// Reads the epoch, and makes this node follow it before this returns. If `opens` is true, it also draws a number
    /// for the streams that are being opened; otherwise the number is `None`.
    pub async fn read(&self, opens: bool) -> sqlx::Result<(Uuid, Option<u64>)> {
        let (epoch, number) = if opens {
            let (epoch, number) = listing::opening(&self.pools).await?;
            (epoch, Some(number))
        } else {
            (listing::epoch(&self.pools).await?, None)
        };
        if self.is(mark(epoch)) {
            Ok((epoch, number))
        } else {
            Ok((self.look().await?, number))
        }
    }
}

/// Returns the mark of an epoch: its first 8 bytes as a number, or 1 if they are all 0.
fn mark(epoch: Uuid) -> u64 {
    epoch.as_u64_pair().0.max(1)
}
