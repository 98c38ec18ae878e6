//! Members edit, delete, react to and pin messages, and read history as it is now.
//!
//! - [`kinds`]: every kind arrives, whichever way it is sent, and only messages count as unread
//! - [`refusals`]: what a person may not do is refused alike on the stream and by a call
//! - [`deletions`]: nothing of a deleted message is left, and nobody misses its place
//! - [`races`]: nothing is done to a message after its deletion, however the two meet
//! - [`history`]: pages of messages, single messages and edits
//! - [`back_ends`]: which messages were sent in all chats of a user, and which were not received
//! - [`bounds`]: what one person may do to one message is bounded

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "all of this is test code: what is not there fails the test"
)]

mod back_ends;
mod bounds;
mod deletions;
mod history;
mod kinds;
mod races;
mod refusals;
