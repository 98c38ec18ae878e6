//! Gives every role its access to Postgres. The statements of a role are in the role's own `store`.
//!
//! - [`postgres`]: flags, pools, the options of hot connections, and whether Postgres is durable
//! - [`pools`]: the pools of a node that reads chats, one for each cell
//! - [`schema`]: makes the schemas of the store, and brings them up to date
//! - [`error`]: decides what a failed statement means for the caller
//! - [`metrics`]: the metrics of the store

#![warn(missing_docs)]

mod address;
pub mod error;
pub mod metrics;
pub mod pools;
pub mod postgres;
pub mod schema;

pub use error::StoreError;
pub use pools::{Gathered, Pools};

/// The SQL that turns a timestamptz column into milliseconds since the Unix epoch. Without the time zone the value would
/// depend on the session in the eyes of Postgres, and Citus allows no such function in RETURNING.
#[macro_export]
macro_rules! millis {
    ($column:literal) => {
        concat!(
            "(extract(epoch FROM ",
            $column,
            " AT TIME ZONE 'UTC') * 1000)::int8"
        )
    };
}
