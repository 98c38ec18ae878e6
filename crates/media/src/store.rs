//! Media, uploads and who may read what, in Postgres. One function a statement, but for what must be decided at once.
//!
//! Times are this node's, not the database's: the rules that compare them are given the same clock.
//!
//! - [`uploads`]: uploads from their beginning to what they became
//! - [`access`]: who may download and forward
//! - [`collect`]: what nothing refers to any more
//! - [`error`]: what a failed statement means for the caller

pub mod access;
pub mod collect;
pub mod error;
pub mod uploads;

use sqlx::PgPool;
use tern_types::MediaId;

pub use error::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

/// A media that may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub id: MediaId,
    pub length: u64,
    pub content_type: String,
    pub object_key: String,
}

impl Store {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// A timestamptz from the milliseconds in a parameter, in SQL.
macro_rules! at {
    ($param:literal) => {
        concat!("to_timestamp(", $param, " / 1000.0)")
    };
}
pub(crate) use at;

/// Milliseconds since the epoch from a timestamptz, in SQL.
macro_rules! millis {
    ($column:literal) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000)::int8")
    };
}
pub(crate) use millis;
