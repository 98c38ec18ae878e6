//! Tests of looking devices up and waking them, against presence nodes and gateways that fail. Fine print 5: a failed
//! look-up is not "offline", an unconfirmed push is not delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod gateways;
mod harness;
mod nodes;
mod pushes;
mod waking;
