//! The Rust SDK: a complete client of the protocol in `proto/tern/v1/messaging.proto`.
//!
//! ```text
//!  app ── Client ──commands──▶ driver ──Input──▶ engine (core)
//!   ▲                            │ ◀──Effects───┘
//!   │                            ├─ 1. changes ─▶ store (SQLite)      durable first,
//!   └──── EventStream ◀──────────┼─ 2. events                         then told to the app,
//!                                └─ 3. items  ──▶ connection (tonic)  acknowledged and sent
//! ```
//!
//! - [`client`]: the handle that an app holds; start here: [`Client::start`], send, mark as read
//! - [`chats`]: what an app shows: chats, histories, receipts, names
//! - [`messages`]: edits, deletions, reactions, pins, and messages as they are after that; [`search`]: finds messages
//! - [`settings`]: how the person keeps each chat; [`groups`]: description, policy, retention, invite links
//! - [`privacy`]: blocks, contacts, and the audience of the person's presence
//! - [`notifications`]: push notifications, and the key to which they are sealed
//! - [`tern_client_core`]: what is decided, as pure functions: the protocol, the types that the app sees, the delays
//!   between attempts
//! - [`store`]: SQLite, one file per device; [`reread`]: what an earlier version of it has lost
//! - [`driver`]: the one task that owns engine, store and stream
//! - [`connection`]: TLS, and the list of gateways
//! - [`api`]: the unary calls of a device or a back end; [`backend`]: shortcuts for back ends
//! - [`media`]: files: encrypted, uploaded, downloaded; [`http`]: the requests to the object store
//! - [`access_token`], [`events`], [`notification_key`], [`search_text`], [`upload_plan`]: what two of these have in
//!   common, so that none needs the other
//! - [`config`], [`error`]

#![warn(missing_docs)]

mod access_token;
pub mod api;
pub mod backend;
mod chats;
pub mod client;
mod config;
pub mod connection;
pub(crate) mod driver;
mod error;
mod events;
mod groups;
mod http;
pub mod media;
mod messages;
mod notification_key;
mod notifications;
mod privacy;
mod reread;
mod search;
mod search_text;
mod settings;
#[cfg(test)]
mod simulation;
mod store;
mod upload_plan;

pub use api::Api;
pub use backend::BackEnd;
pub use client::Client;
pub use config::{ClientConfig, StoreLocation, Tls};
pub use error::{CallError, ClientError};
pub use events::EventStream;
pub use groups::{Invite, InviteOptions, InvitePreview, JoinRequest, Joined};
pub use media::{Attachment, MediaError, PictureOf, Progress};
pub use notification_key::{NotificationKey, OpenError};
pub use notifications::PushProvider;
pub use privacy::{Audience, Privacy};
pub use search_text::{SearchText, TextOf};
pub use settings::ChatSettingsChange;
pub use store::Hit;
pub use tern_client_core::model::{
    Act, Chat, ChatSettings, Credentials, Deletion, Entry, Event, FailureCode, GroupPolicy, Mark, Message,
    MessageReceipts, Messages, Only, Outgoing, Presence, QueuedMessage, Reaction, Retention, SendState,
    StopReason, To,
};
