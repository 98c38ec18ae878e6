//! Tests of push notifications: devices without a stream are woken in time and never for nothing, and nobody on the way
//! can read what they are woken for.
//!
//! - [`alerts`]: what arrives at each provider, and that only the device can read it
//! - [`rules`]: what is announced to whom
//! - [`reading`]: what was acknowledged or read is not announced, or is withdrawn
//! - [`tokens`]: tokens end, and move from one device to another
//! - [`bounds`]: how many, and for how long
//! - [`providers`]: providers that are busy, away or slow
//! - [`workers`]: push nodes and stores that die
//! - [`relay`]: pushes by the relay of the company that publishes the app
//! - [`calls`]: the calls of apps and operators
//! - [`scene`], [`services`]: a platform with push services, and the devices of people who are away

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "all of this is test code: what is not there fails the test"
)]

mod alerts;
mod bounds;
mod calls;
mod providers;
mod reading;
mod relay;
mod rules;
mod scene;
mod services;
mod tokens;
mod workers;
