//! Measures decoding and encoding frames of one item and of many, which is what a gateway does most.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tern_counts::Operation;
use tern_gateway::codec::{Frame, read_frame};
use tern_proto::v1::{self, client_item::Item, send_message::To, server_event::Event};
use tern_types::{ChatId, RequestId};
use uuid::Uuid;

/// The length of a short message's sealed body in bytes.
const BODY: usize = 200;
/// The most events that a server frame has.
const MANY: u64 = 64;

fn main() {
    tern_counts::run(vec![
        reading("read_frame_of_1", 1),
        reading("read_frame_of_64", MANY),
        writing("write_frame_of_1", 1),
        writing("write_frame_of_64", MANY),
    ]);
}

fn reading(name: &'static str, items: u64) -> Operation {
    let frame = v1::ClientFrame {
        items: (0..items).map(send).collect(),
    };
    let frame = Bytes::from(frame.encode_to_vec());
    Operation::new(name, items, move || {
        black_box(read_frame(black_box(frame.clone())));
    })
}

fn writing(name: &'static str, items: u64) -> Operation {
    let frame = Frame {
        events: (0..items).map(|seq| entry(seq).encode_to_vec().into()).collect(),
    };
    let mut out = BytesMut::new();
    Operation::new(name, items, move || {
        out.clear();
        black_box(&frame).encode(&mut out);
        black_box(&out);
    })
}

fn send(number: u64) -> v1::ClientItem {
    let send = v1::SendMessage {
        request_id: RequestId(Uuid::from_u128(number.into())).to_string(),
        to: Some(To::ChatId(ChatId(Uuid::from_u128(1)).to_string())),
        envelope: v1::Envelope::default().encoded(),
        body: vec![7; BODY].into(),
    };
    v1::ClientItem {
        item: Some(Item::Send(send)),
    }
}

fn entry(seq: u64) -> v1::ServerEvent {
    let message = v1::Message {
        envelope: Some(v1::Envelope::default()),
        body: vec![7; BODY].into(),
    };
    let entry = v1::Entry {
        chat_id: ChatId(Uuid::from_u128(1)).to_string(),
        seq,
        content: v1::EntryContent {
            content: Some(v1::entry_content::Content::Message(message)),
            ..Default::default()
        }
        .encoded(),
        ..Default::default()
    };
    v1::ServerEvent {
        event: Some(Event::Entry(entry)),
    }
}
