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

use tern_store::{Pools, StoreError};
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
}

/// The SQL that turns a parameter of milliseconds since the epoch into a timestamptz.
macro_rules! at {
    ($param:literal) => {
        concat!("to_timestamp(", $param, " / 1000.0)")
    };
}
pub(crate) use at;
