//! The store that this node's memory belongs to.
//!
//! After a restore, or a failover that lost commits, an operator changes the store's epoch. What a node remembers of
//! chats then speaks of entries that are gone: for example, it would answer a repeated request with a seq that the
//! entry no longer has. So a node that sees another epoch forgets all its chats, before it does anything for a caller
//! that knows the new epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::PgPool;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::shard_loop::Shards;
use crate::store::listing;

/// Follows the store's epoch. It is cheap to clone.
#[derive(Clone)]
pub struct StoreEpoch {
    pool: PgPool,
    shards: Shards,
    /// The mark of the epoch that is known, as on the links; 0: none is known yet.
    current: Arc<AtomicU64>,
    /// Only one look runs at a time, so that a late answer never brings an older epoch back.
    look: Arc<Mutex<()>>,
}

impl StoreEpoch {
    /// Knows no epoch yet.
    pub fn new(pool: PgPool, shards: Shards) -> Self {
        Self {
            pool,
            shards,
            current: Arc::default(),
            look: Arc::default(),
        }
    }

    /// Whether this node's memory belongs to the store with this mark.
    pub fn is(&self, mark: u64) -> bool {
        self.current.load(Ordering::Acquire) == mark
    }

    /// Reads the epoch. If it is another one than before, the shards forget their chats before this returns.
    pub async fn look(&self) -> sqlx::Result<Uuid> {
        let _one = self.look.lock().await;
        let epoch = listing::epoch(&self.pool).await?;
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

    /// Reads the epoch; this node follows it when this returns. With `opens` it also draws a number for the streams
    /// that are being opened.
    pub async fn read(&self, opens: bool) -> sqlx::Result<(Uuid, Option<u64>)> {
        let (epoch, number) = if opens {
            let (epoch, number) = listing::opening(&self.pool).await?;
            (epoch, Some(number))
        } else {
            (listing::epoch(&self.pool).await?, None)
        };
        if self.is(mark(epoch)) {
            Ok((epoch, number))
        } else {
            Ok((self.look().await?, number))
        }
    }
}

/// The mark of an epoch: its first 8 bytes, and never 0.
fn mark(epoch: Uuid) -> u64 {
    epoch.as_u64_pair().0.max(1)
}
