//! Users, and what they and the nodes send.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tern_proto::raw;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, send_message, send_result};
use tern_types::{ChatId, DeviceId, RequestId, UserId};

/// Makes the ids of a new user and device.
pub fn people() -> (UserId, DeviceId) {
    (UserId::random(), DeviceId::random())
}

/// Makes the first item of a stream.
pub fn open(access_token: String) -> Item {
    Item::Open(v1::Open {
        access_token,
        ..Default::default()
    })
}

/// Makes a message to the chat, and returns its request id with it.
pub fn send_to(chat: ChatId) -> (String, Item) {
    let request_id = RequestId::random().to_string();
    let to = Some(send_message::To::ChatId(chat.to_string()));
    let body = Bytes::from_static(b"hello");
    (
        request_id.clone(),
        Item::Send(v1::SendMessage {
            request_id,
            to,
            body,
            envelope: Bytes::new(),
        }),
    )
}

/// Encodes an entry of the chat.
pub fn entry(chat: ChatId, seq: u64) -> Bytes {
    raw::event(Event::Entry(v1::Entry {
        chat_id: chat.to_string(),
        seq,
        ..Default::default()
    }))
}

/// Encodes an entry of the chat as a newer version may do it: the entry and the event have one more field, whose number
/// this version does not know.
pub fn newer_entry(chat: ChatId, seq: u64) -> Bytes {
    let entry = v1::Entry {
        chat_id: chat.to_string(),
        seq,
        ..Default::default()
    };
    let mut encoded = entry.encode_to_vec();
    put_field(1000, b"of the entry", &mut encoded);
    let mut event = Vec::new();
    put_field(EVENT_ENTRY, &encoded, &mut event);
    put_field(1000, b"of the event", &mut event);
    event.into()
}

/// The field number of `ServerEvent.entry`.
const EVENT_ENTRY: u32 = 2;

fn put_field(number: u32, bytes: &[u8], message: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(bytes.len() as u64, message);
    message.extend_from_slice(bytes);
}

/// Encodes the result of a message that was placed at `seq`.
pub fn sent(request_id: &str, chat: ChatId, seq: u64) -> Bytes {
    let sent = v1::Sent {
        chat_id: chat.to_string(),
        seq,
        sent_at_ms: 1,
    };
    let outcome = Some(send_result::Outcome::Sent(sent));
    raw::event(Event::SendResult(v1::SendResult {
        request_id: request_id.to_owned(),
        outcome,
    }))
}
