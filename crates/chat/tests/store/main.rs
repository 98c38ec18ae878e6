//! Tests the store's statements on a real Postgres. The tests force the cases that the rules and the fine print of
//! docs/delivery.md speak of.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod acts;
mod blocks;
mod cells;
mod commit;
mod devices;
mod direct;
mod entries;
mod erasing;
mod groups;
mod harness;
mod history;
mod inbox;
mod invites;
mod join_requests;
mod listing;
mod locks;
mod own;
mod owner;
mod pages;
mod plans;
mod push;
mod receipts;
mod requests;
mod retention;
mod slow;
mod strangers;
mod targets;
mod timeline;
