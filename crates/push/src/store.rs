//! The statements of push nodes. Each names the tables of one cell, or those of people.
//!
//! Push nodes write of `inbox` only the columns of the push, and lock no chat's head. A statement that locks several
//! rows of `inbox` leaves out those that another transaction has locked, and waits for none: an acknowledgement locks
//! several too, and two that wait for each other would be a deadlock.
//!
//! - [`claim`]: takes pushes that are due, so that no other worker does
//! - [`aged`]: finds chats in which nothing was said lately
//! - [`look`]: looks at what waits in the chats, and at the badges of devices
//! - [`settings`]: reads how users keep chats
//! - [`people`]: reads devices, their tokens and their users, blocks, and names
//! - [`note`]: writes what became of pushes
//! - [`tokens`]: ends tokens

pub mod aged;
pub mod claim;
pub mod look;
pub mod note;
pub mod people;
pub mod settings;
pub mod tokens;

use tern_store::Pools;
use tern_types::{Clock, Timestamp};

/// The store of a push node. All functions return `Err` if a statement fails.
#[derive(Clone, Debug)]
pub struct Store {
    pools: Pools,
}

impl Store {
    /// Makes a store that uses the connections of `pools`.
    pub fn new(pools: Pools) -> Self {
        Self { pools }
    }

    /// Returns the connections.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }
}

/// The clock of a cell's server, as far as it is known here. All times of the inbox are by that clock.
#[derive(Debug, Clone, Copy)]
pub struct StoreClock {
    at: Timestamp,
    /// The time of this process's monotonic clock at which the server's was `at`.
    read: Timestamp,
}

impl StoreClock {
    /// Makes a clock that shows `at` now.
    pub fn showing(at: Timestamp) -> Self {
        Self {
            at,
            read: Clock::monotonic(),
        }
    }

    /// Returns the time.
    pub fn now(self) -> Timestamp {
        self.at + self.elapsed()
    }

    /// Returns the time that has passed since the clock was read.
    pub fn elapsed(self) -> std::time::Duration {
        Clock::monotonic().since(self.read)
    }
}
