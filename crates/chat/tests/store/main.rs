//! The store's statements on a real Postgres: what DESIGN's rules and fine print say of them, forced.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod blocks;
mod commit;
mod devices;
mod direct;
mod entries;
mod harness;
mod inbox;
mod listing;
mod locks;
mod owner;
mod plans;
mod receipts;
mod requests;
mod strangers;
