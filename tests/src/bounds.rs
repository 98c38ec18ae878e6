//! How long and how often a test waits.

use std::time::Duration;

/// The time that a test waits for anything. What it waits for usually comes within milliseconds, after a failover
/// within a lease, and on a busy machine much later.
pub const BOUND: Duration = Duration::from_secs(60);
/// The pause between two attempts of a call.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
