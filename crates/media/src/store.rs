//! Keeps media and uploads in Postgres, and decides who may read what. Each statement has one function, except where
//! several statements have to run in one transaction.
//!
//! Times that are compared come from this node's clock, not the database's, because the rules that compare them are
//! given this node's time.
//!
//! - [`uploads`]: uploads, until they have become media or failed
//! - [`access`]: decides who may download and forward a media
//! - [`pictures`]: pictures of people
//! - [`collect`]: finds and deletes what nothing refers to any more

pub mod access;
pub mod collect;
pub mod pictures;
pub mod uploads;

use sqlx::PgPool;
use tern_store::{Gathered, Pools, StoreError};
use tern_types::MediaId;

type Result<T> = std::result::Result<T, StoreError>;

/// The media tables in Postgres. All functions return `Err` if a statement fails.
#[derive(Clone, Debug)]
pub struct Store {
    pools: Pools,
}

/// A media that the caller may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// The id of the media.
    pub id: MediaId,
    /// The length of the object in bytes.
    pub length: u64,
    /// The content type, such as `image/jpeg`.
    pub content_type: String,
    /// The key of the object in the bucket.
    pub object_key: String,
    /// The hash that names the content: see [`crate::domain::declared::Declared::content_id`].
    pub content_id: Vec<u8>,
}

impl Store {
    /// Makes a store that uses the connections of `pools`.
    pub fn new(pools: Pools) -> Self {
        Self { pools }
    }

    /// Returns whether one of the cells says yes. Fails if a cell does not answer and no other says yes.
    async fn any<F>(&self, ask: impl Fn(PgPool) -> F) -> Result<bool>
    where
        F: Future<Output = sqlx::Result<bool>>,
    {
        match self.pools.gather(ask).await? {
            Gathered { answers, .. } if answers.contains(&true) => Ok(true),
            Gathered { partial: true, .. } => Err(sqlx::Error::PoolTimedOut.into()),
            Gathered { partial: false, .. } => Ok(false),
        }
    }
}

/// The SQL that turns a parameter of milliseconds since the epoch into a timestamptz.
macro_rules! at {
    ($param:literal) => {
        concat!("to_timestamp(", $param, " / 1000.0)")
    };
}
pub(crate) use at;
