//! The Rust SDK: a complete client of the protocol in `proto/tern/v1/messaging.proto`.
//!
//! ```text
//!  app ── Client ──commands──▶ driver ──Input──▶ engine (pure)
//!   ▲                            │ ◀──Effects───┘
//!   │                            ├─ 1. changes ─▶ store (SQLite)      durable first,
//!   └──── EventStream ◀──────────┼─ 2. events                         then told to the app,
//!                                └─ 3. items  ──▶ connection (tonic)  acknowledged and sent
//! ```
//!
//! - [`client`]: the handle that an app holds; start here: [`Client::start`], send, read history, mark as read
//! - [`privacy`]: blocks, contacts, and the audience of the person's presence
//! - [`model`]: the types that the app sees: entries, chats, events
//! - [`engine`]: the protocol as a pure function `apply(inputs, now) -> effects`
//! - [`store`]: SQLite, one file per device
//! - [`driver`]: the one task that owns engine, store and stream
//! - [`connection`]: TLS, and the list of gateways; [`backoff`]: the delays between attempts
//! - [`api`]: the unary calls of a device or a back end; [`backend`]: shortcuts for back ends
//! - [`media`]: files: encrypted, uploaded, downloaded
//! - [`config`], [`error`]

pub mod api;
pub mod backend;
pub mod backoff;
pub mod client;
pub mod config;
pub mod connection;
pub(crate) mod driver;
pub mod engine;
pub mod error;
pub mod media;
pub mod model;
pub mod privacy;
pub mod store;

pub use api::Api;
pub use backend::BackEnd;
pub use client::{Client, EventStream};
pub use config::{ClientConfig, StoreLocation, Tls};
pub use error::{CallError, ClientError};
pub use media::{Attachment, MediaError, PictureOf, Progress};
pub use model::{
    Chat, Credentials, Entry, Event, FailureCode, Mark, MessageReceipts, Outgoing, Presence, QueuedMessage,
    SendState, StopReason, To,
};
pub use privacy::{Audience, Privacy};
