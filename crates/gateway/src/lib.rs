//! The gateway: the edge of the platform. It holds the devices' streams, authenticates and limits clients, and passes
//! on what they send. It never parses a message's body and keeps nothing that must last.
//!
//! ```text
//!   device ── stream ── session (core) ──┬── chat_links ────── chat nodes: sends, acks, live, windows
//!                │                       ├── presence_links ── presence nodes: who is online here
//!             registry                   └── inbox_reader ──── any chat node: inboxes
//!   app, back end ── proxy (auth, peek) ──── accounts nodes, chat nodes
//! ```
//!
//! - [`config`], [`server`], [`metrics`]: flags, start and drain, metrics
//! - [`tern_gateway_core`]: what is decided, as pure functions: one stream, who watches whom, who may see that somebody
//!   writes
//! - [`stream`], [`item`], [`mailbox`], [`hints`], [`clock`]: the adapter of a stream to the clients and to the other
//!   tasks
//! - [`codec`], [`websocket`]: the two transports of a stream, gRPC and WebSocket
//! - [`registry`], [`gateway`]: the sessions of this gateway, and what they share
//! - [`traces`]: decides which messages are traced, and holds their spans here
//! - [`chat_links`], [`presence_links`]: the links to the other nodes; [`inbox_reader`], [`redrain`], [`sweep`]:
//!   reading inboxes
//! - [`door`]: decides whether new streams are taken; [`reconnect`]: sends devices to other gateways
//! - [`watches`]: the users whose presence sessions watch; [`audience`]: the members who are told that somebody writes
//! - [`public`], [`tls`]: the listener for clients
//! - [`deadline`]: the time that a call may take
//! - [`origins`], [`cors`]: the web sites whose pages are served too
//! - [`watchdog`]: the end of streams whose clients take nothing
//! - [`barred`]: users and devices whose access tokens do not count
//! - [`proxy`], [`methods`], [`auth`], [`call_limits`], [`peek`], [`presence_query`], [`nodes`], [`refused`]: unary
//!   calls of clients; [`node_service`]: those of other nodes

#![warn(missing_docs)]

mod audience;
mod auth;
mod barred;
mod call_limits;
mod chat_links;
mod clock;
pub mod codec;
mod config;
mod cors;
mod deadline;
mod door;
mod gateway;
mod hints;
mod inbox_reader;
mod item;
mod mailbox;
mod methods;
mod metrics;
mod node_service;
mod nodes;
mod origins;
mod peek;
mod presence_links;
mod presence_query;
pub mod proxy;
mod public;
mod reconnect;
mod redrain;
mod refused;
mod registry;
pub mod server;
mod stream;
mod sweep;
mod tls;
mod traces;
mod watchdog;
mod watches;
mod websocket;

pub use config::Config;
