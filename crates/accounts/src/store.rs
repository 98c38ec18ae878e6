//! Keeps users, devices and API keys in Postgres. Each statement has one function; statements that belong together run
//! in one [`Tx`].
//!
//! The times that the statements store come from this node's clock, not the database's, because the rules that compare
//! them are given this node's time. (The creation of users and all times of API keys have the database's clock; no rule
//! compares them.)
//!
//! - [`users`], [`devices`], [`tokens`], [`keys`], [`blocks`], [`contacts`], [`privacy`], [`notifications`],
//!   [`push_tokens`], [`own_log`], [`admin`]: the statements

pub mod admin;
pub mod blocks;
pub mod contacts;
pub mod devices;
pub mod keys;
pub mod notifications;
pub mod own_log;
pub mod privacy;
pub mod push_tokens;
pub mod tokens;
pub mod users;

use sqlx::{PgPool, PgTransaction};
use tern_store::{StoreError, postgres};

/// A transaction. If it is dropped before [`Store::commit`], it changes nothing.
pub type Tx = PgTransaction<'static>;

type Result<T> = std::result::Result<T, StoreError>;

/// The accounts tables in Postgres. All functions return `Err` if a statement fails.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Makes a store that uses the connections of `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Begins a transaction. Until it ends, the caller may call only those functions of the store that take the [`Tx`].
    /// The others wait for another connection of the pool, and if as many calls as the pool has connections did so
    /// inside transactions, none of them would get one.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(postgres::begin(&self.pool).await?)
    }

    /// Commits a transaction.
    pub async fn commit(&self, tx: Tx) -> Result<()> {
        Ok(tx.commit().await?)
    }
}
