//! Tests of the workers and of their statements on a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod claiming;
mod looking;
mod noting;
mod plans;
mod tokens;
mod working;
mod world;
