//! This module has helpers for tests of the engine, here and in the SDK.

use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

use crate::engine::{Engine, Settings, Stored};
use crate::model::{Credentials, Entry};

/// The time at which tests begin.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Returns the user with this number. Number 1 is the device's own user.
pub fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(0xaaaa_0000 + number))
}

/// Returns the credentials of user 1 on a device, with an access token that expires an hour after [`NOW`].
pub fn credentials() -> Credentials {
    Credentials {
        user: user(1),
        device: DeviceId(Uuid::from_u128(0xdddd_0001)),
        access_token: "access-1".into(),
        access_expires_at: NOW + std::time::Duration::from_secs(3600),
        refresh_token: "refresh-1".into(),
    }
}

/// Returns settings with one send a chat at a time and an app that nobody looks at.
pub fn settings() -> Settings {
    Settings {
        client_version: "test/1".into(),
        active: false,
        sends_per_chat: 1,
        seed: 1,
    }
}

/// Makes an engine that continues with `stored`.
pub fn engine(stored: Stored) -> Engine {
    Engine::new(credentials(), stored, settings())
}

/// Makes a message of another person, user 2.
pub fn entry(chat: ChatId, seq: u64) -> Entry {
    Entry {
        chat,
        seq: Seq(seq),
        sent_at: NOW,
        sender: Some(user(2)),
        device: Some(DeviceId(Uuid::from_u128(0xdddd_0002))),
        request: Some(RequestId(Uuid::from_u128(u128::from(seq)))),
        ordinal: seq,
        content: message_content(&format!("message {seq}")),
        unknown: bytes::Bytes::new(),
    }
}

/// Makes the content of an entry that is a message with this body.
pub fn message_content(body: &str) -> v1::EntryContent {
    let message = v1::Message {
        envelope: Some(v1::Envelope::default()),
        body: body.as_bytes().to_vec().into(),
    };
    v1::EntryContent {
        content: Some(v1::entry_content::Content::Message(message)),
        ..Default::default()
    }
}

/// Converts the entry to the form in which it goes over the wire.
pub fn wire(entry: &Entry) -> v1::Entry {
    v1::Entry {
        chat_id: entry.chat.to_string(),
        seq: entry.seq.0,
        sent_at_ms: entry.sent_at.0,
        sender_user_id: entry.sender.map(|id| id.to_string()).unwrap_or_default(),
        sender_device_id: entry.device.map(|id| id.to_string()).unwrap_or_default(),
        request_id: entry.request.map(|id| id.to_string()).unwrap_or_default(),
        ordinal: entry.ordinal,
        content: entry.encoded_content(),
    }
}

/// Makes a frame with one event.
pub fn frame(event: v1::server_event::Event) -> v1::ServerFrame {
    v1::ServerFrame {
        events: vec![v1::ServerEvent { event: Some(event) }],
    }
}

/// Makes the Opened of a server whose store has this epoch.
pub fn opened(epoch: u128) -> v1::server_event::Event {
    v1::server_event::Event::Opened(v1::Opened {
        session_id: "session".into(),
        store_epoch: Uuid::from_u128(epoch).to_string(),
        heartbeat_interval_ms: 45_000,
        window: 256,
        ..Default::default()
    })
}
