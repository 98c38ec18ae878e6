//! The gateway's wiring, against fake nodes: what a client says arrives where it belongs, and the other way round.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod barred;
mod calls;
mod delivery;
mod grpc_web;
mod limits;
mod links;
mod listener;
mod shedding;
mod streams;
mod support;
mod watching;
mod websocket;
