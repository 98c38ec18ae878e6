//! These tests hold the protocol's rules one by one.

mod entries;
mod expiry;
mod group;
mod known;
mod listing;
mod mentions;
mod own_log;
mod presence;
mod reading;
mod sends;
mod stream;
mod tokens;
mod typing;
mod waking;

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, CloseCode, ErrorReason};
use tern_types::ChatId;
use uuid::Uuid;

use crate::engine::{Effects, Engine, Input, Stored, StreamOrder};
use crate::error::CallError;
use crate::model::Event;
use crate::testing::{NOW, engine, frame, opened};

fn chat(number: u128) -> ChatId {
    ChatId(Uuid::from_u128(number))
}

/// Makes an engine with an open stream, which has listed its chats and has none.
fn connected() -> Engine {
    let mut engine = engine(Stored {
        epoch: Some(Uuid::from_u128(1)),
        listed: true,
        ..Stored::default()
    });
    engine.apply([Input::Start, Input::Frame(frame(opened(1)))], NOW);
    engine
}

fn feed(engine: &mut Engine, event: Wire) -> Effects {
    engine.apply([Input::Frame(frame(event))], NOW)
}

/// Returns the acknowledgements that are sent: chat and seq.
fn acks(effects: &Effects) -> Vec<(String, u64)> {
    let ack = |item: &Item| {
        if let Item::Ack(ack) = item {
            Some((ack.chat_id.clone(), ack.seq))
        } else {
            None
        }
    };
    effects.items.iter().filter_map(ack).collect()
}

/// Returns the request_ids of the messages that are sent.
fn sends(effects: &Effects) -> Vec<String> {
    let send = |item: &Item| {
        if let Item::Send(send) = item {
            Some(send.request_id.clone())
        } else {
            None
        }
    };
    effects.items.iter().filter_map(send).collect()
}

/// Returns the seqs of the entries that the app is told.
fn told(effects: &Effects) -> Vec<u64> {
    let seq = |event: &Event| {
        if let Event::Entry(entry) = event {
            Some(entry.seq.0)
        } else {
            None
        }
    };
    effects.events.iter().filter_map(seq).collect()
}

fn closing(code: CloseCode, may_reconnect: bool) -> Wire {
    Wire::Closing(v1::Closing {
        code: code.into(),
        reason: "because".into(),
        retry_after_ms: 7000,
        may_reconnect,
    })
}

fn lost() -> Input {
    Input::StreamLost(CallError::unavailable("gone"))
}

fn refused(code: tern_proto::Code, reason: ErrorReason) -> CallError {
    CallError {
        code,
        reason,
        message: "refused".into(),
        retry_after: None,
    }
}

fn tokens(number: u32) -> v1::TokenPair {
    v1::TokenPair {
        access_token: format!("access-{number}"),
        access_expires_at_ms: (NOW + Duration::from_secs(7200)).0,
        refresh_token: format!("refresh-{number}"),
    }
}

/// Returns the access token with which a stream is opened, if one is.
fn opens(effects: &Effects) -> Option<&str> {
    match &effects.stream {
        Some(StreamOrder::Open(open)) => Some(&open.access_token),
        _ => None,
    }
}
