//! The operators' tools: suspending users, and looking at chats, messages, sessions, nodes and queues.
//!
//! - [`messages`]: traces that say where a message is and which devices have it
//! - [`suspending`]: a user who is suspended and resumed
//! - [`overview`]: sessions, chats, nodes and queues, and `tern top`
//! - [`commands`]: runs `tern admin` and `tern top`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod commands;
mod messages;
mod overview;
mod suspending;
