//! Tests that look devices up and wake them, against presence nodes and gateways that fail. Fine print 5: a
//! failed look-up does not mean "offline", and a wake that is not confirmed is not delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod gateways;
mod harness;
mod nodes;
mod pushes;
mod waking;
