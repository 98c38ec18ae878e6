//! Defines the part of the server's frames that a load generator needs, for cheap decoding: ids stay bytes, and
//! contents are not decoded.

use bytes::Bytes;
use tern_proto::v1;

/// The counterpart of [`v1::ServerFrame`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerFrame {
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<ServerEvent>,
}

/// The counterpart of [`v1::ServerEvent`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerEvent {
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5, 6, 10, 11, 20, 21")]
    pub event: Option<Event>,
}

/// The fields of [`v1::server_event::Event`] that are needed.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    #[prost(message, tag = "1")]
    Opened(v1::Opened),
    #[prost(message, tag = "2")]
    Entry(Entry),
    #[prost(message, tag = "3")]
    SendResult(SendResult),
    #[prost(message, tag = "4")]
    Receipt(Receipt),
    #[prost(message, tag = "5")]
    Skipped(Skipped),
    #[prost(message, tag = "6")]
    CaughtUp(v1::CaughtUp),
    #[prost(message, tag = "10")]
    Draining(v1::Draining),
    #[prost(message, tag = "11")]
    Closing(v1::Closing),
    #[prost(message, tag = "20")]
    Presence(Presence),
    #[prost(message, tag = "21")]
    WatchResult(v1::WatchResult),
}

/// The fields of [`v1::Entry`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// The chat's id as text.
    #[prost(bytes = "bytes", tag = "1")]
    pub chat_id: Bytes,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// An encoded [`v1::EntryContent`]. If it is a message, the message's body is at its end.
    #[prost(bytes = "bytes", tag = "8")]
    pub content: Bytes,
}

/// The fields of [`v1::EntryContent`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Content {
    #[prost(message, tag = "1")]
    pub message: Option<ContentMessage>,
    #[prost(message, tag = "8")]
    pub erased: Option<v1::Erased>,
}

/// The counterpart of [`v1::Message`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContentMessage {
    #[prost(message, tag = "1")]
    pub envelope: Option<Envelope>,
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
}

/// The fields of [`v1::Envelope`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// The value of a [`v1::MessageKind`].
    #[prost(enumeration = "v1::MessageKind", tag = "1")]
    pub kind: i32,
}

/// The fields of [`v1::SendResult`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SendResult {
    /// The request_id of the send, as text.
    #[prost(bytes = "bytes", tag = "1")]
    pub request_id: Bytes,
    /// The message's place, if the server accepted it.
    #[prost(message, tag = "2")]
    pub sent: Option<Sent>,
    /// The reason, if the server refused the message.
    #[prost(message, tag = "3")]
    pub error: Option<v1::SendError>,
}

/// The fields of [`v1::Sent`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sent {
    /// The chat's id as text.
    #[prost(bytes = "bytes", tag = "1")]
    pub chat_id: Bytes,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
}

/// The fields of [`v1::Receipt`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receipt {
    /// The seq up to which the person has received the chat.
    #[prost(uint64, tag = "3")]
    pub delivered_seq: u64,
}

/// The fields of [`v1::Skipped`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Skipped {
    /// The chat's id as text.
    #[prost(bytes = "bytes", tag = "1")]
    pub chat_id: Bytes,
    /// The seq up to which entries are not for this device.
    #[prost(uint64, tag = "2")]
    pub to_seq: u64,
}

/// The fields of [`v1::Presence`] that are needed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Presence {
    /// The user's id as text.
    #[prost(bytes = "bytes", tag = "1")]
    pub user_id: Bytes,
    /// The value of a [`v1::PresenceState`].
    #[prost(enumeration = "v1::PresenceState", tag = "2")]
    pub state: i32,
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tern_proto::v1::{send_result, server_event};

    use super::*;

    #[test]
    fn a_frame_reads_as_the_public_one() {
        let entry = v1::Entry {
            chat_id: "c".into(),
            seq: 7,
            content: v1::EntryContent {
                content: Some(v1::entry_content::Content::Message(v1::Message {
                    envelope: None,
                    body: Bytes::from_static(b"the body"),
                })),
                ..Default::default()
            }
            .encoded(),
            ..Default::default()
        };
        let sent = v1::Sent {
            chat_id: "c".into(),
            seq: 8,
            sent_at_ms: 1,
        };
        let result = v1::SendResult {
            request_id: "r".into(),
            outcome: Some(send_result::Outcome::Sent(sent)),
        };
        let events = [
            server_event::Event::Entry(entry),
            server_event::Event::SendResult(result),
        ];
        let events = events
            .map(|event| v1::ServerEvent { event: Some(event) })
            .to_vec();
        let frame = v1::ServerFrame { events }.encode_to_vec();
        let read = ServerFrame::decode(Bytes::from(frame)).unwrap();
        let [Some(Event::Entry(entry)), Some(Event::SendResult(result))] =
            [&read.events[0].event, &read.events[1].event]
        else {
            panic!("{read:?}")
        };
        assert!(entry.seq == 7 && entry.content.ends_with(b"the body"));
        assert_eq!(result.sent.as_ref().map(|sent| sent.seq), Some(8));
    }
}
