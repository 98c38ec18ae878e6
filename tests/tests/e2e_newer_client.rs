//! An envelope's fields that this version does not know pass through it, from newer clients to newer clients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use prost::Message as _;
use tern_proto::raw;
use tern_proto::v1::{self, send_message};
use tern_tests::World;
use tern_tests::socket::Socket;
use tern_types::RequestId;
use tokio_tungstenite::tungstenite::Message;

/// The text in a field of the envelope that only newer clients know.
const NEWS: &[u8] = b"what only newer clients understand";

/// Returns a frame with one message, whose envelope has the field 1000 beside the trace context that this version
/// reads.
fn frame(to: send_message::To) -> Vec<u8> {
    let known = v1::Envelope {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned(),
        ..Default::default()
    };
    let mut envelope = known.encode_to_vec();
    // Field 1000 of the envelope is a string.
    envelope.extend([0xc2, 0x3e, NEWS.len() as u8]);
    envelope.extend(NEWS);
    let send = raw::SendMessage {
        request_id: RequestId::random().to_string(),
        to: Some(to),
        envelope: envelope.into(),
        body: "hello".into(),
    };
    let item = raw::ClientItem {
        item: Some(raw::client_item::Item::Send(send)),
    };
    let mut frame = raw::ClientFrame { items: vec![item] }.encode_to_vec();
    // Field 1001 of the frame is a number.
    frame.extend([0xc8, 0x3e, 1]);
    frame
}

#[tokio::test]
async fn an_envelopes_unknown_fields_arrive_live_and_from_the_log() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.device(&alice).await;
    let (his, away) = (world.device(&bob).await, world.device(&bob).await);
    // The two are on different gateways.
    let (mut sender, _) = Socket::open(&world, 0, &hers).await;
    let (mut receiver, _) = Socket::open(&world, 1, &his).await;
    let to = send_message::To::PeerUserId(bob.id.to_string());
    sender.message(Message::binary(frame(to))).await;
    receiver.frame_with(NEWS).await;

    // The device that was away gets the entry from the log.
    let (mut late, _) = Socket::open(&world, 0, &away).await;
    late.frame_with(NEWS).await;
    for socket in [sender, receiver, late] {
        socket.close().await;
    }
    world.end().await;
}
