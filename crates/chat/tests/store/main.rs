//! The store's statements on a real Postgres: what DESIGN's rules and fine print say of them, forced.

mod commit;
mod devices;
mod entries;
mod harness;
mod inbox;
mod plans;
