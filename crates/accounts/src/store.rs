//! Users, devices and keys in Postgres. Each statement has one function; statements that belong together run in one
//! [`Tx`].
//!
//! Times come from this node's clock, not the database's, because the rules that compare them are given this node's
//! time.
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
use tern_store::postgres;

pub use error::StoreError;

/// A transaction. If it is dropped before [`Store::commit`], it changes nothing.
pub type Tx = PgTransaction<'static>;

type Result<T> = std::result::Result<T, StoreError>;

/// The accounts tables in Postgres. All functions return `Err` if a statement fails.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Uses the connections of `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(postgres::begin(&self.pool).await?)
    }

    /// Commits a transaction.
    pub async fn commit(&self, tx: Tx) -> Result<()> {
        Ok(tx.commit().await?)
    }
}

/// The SQL that turns a timestamptz column into milliseconds since the epoch.
macro_rules! millis {
    ($column:literal) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000)::int8")
    };
}
pub(crate) use millis;
