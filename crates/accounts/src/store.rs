//! Users, devices and keys in Postgres. One function a statement; what belongs together runs in one [`Tx`].
//!
//! Times are this node's, not the database's: the rules that compare them are given the same clock.
//!
//! - [`users`], [`devices`], [`tokens`], [`keys`], [`blocks`], [`contacts`], [`privacy`], [`admin`]: the statements
//! - [`error`]: what a failed statement means for the caller

pub mod admin;
pub mod blocks;
pub mod contacts;
pub mod devices;
pub mod error;
pub mod keys;
pub mod privacy;
pub mod tokens;
pub mod users;

use sqlx::{PgPool, PgTransaction};
use tern_node::postgres;

pub use error::StoreError;

/// A transaction. Dropped before [`Store::commit`], it changes nothing.
pub type Tx = PgTransaction<'static>;

type Result<T> = std::result::Result<T, StoreError>;

#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub async fn begin(&self) -> Result<Tx> {
        Ok(postgres::begin(&self.pool).await?)
    }

    pub async fn commit(&self, tx: Tx) -> Result<()> {
        Ok(tx.commit().await?)
    }
}

/// Milliseconds since the epoch from a timestamptz, in SQL.
macro_rules! millis {
    ($column:literal) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000)::int8")
    };
}
pub(crate) use millis;
