//! A gateway against fake nodes: what a client sends reaches the right node, and what nodes send reaches the right
//! client.

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
