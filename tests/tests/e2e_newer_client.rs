//! An envelope's fields that this version does not know pass through it, from newer clients to newer clients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use bytes::Bytes;
use prost::Message as _;
use tern_local::until;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, send_message};
use tern_tests::socket::Socket;
use tern_tests::world::BOUND;
use tern_tests::{Api, World};
use tern_types::{ChatId, RequestId};

/// The text in a field of the envelope that only newer clients know.
const NEWS: &[u8] = b"what only newer clients understand";

/// Returns an envelope that has the field 1000 beside the trace context that this version reads.
fn envelope() -> Bytes {
    let known = v1::Envelope {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned(),
        ..Default::default()
    };
    let mut envelope = known.encode_to_vec();
    // Field 1000 of the envelope is a string.
    envelope.extend([0xc2, 0x3e, NEWS.len() as u8]);
    envelope.extend(NEWS);
    envelope.into()
}

/// Returns a frame with one message that has this envelope.
fn frame(to: send_message::To) -> Vec<u8> {
    let send = v1::SendMessage {
        request_id: RequestId::random().to_string(),
        to: Some(to),
        envelope: envelope(),
        body: "hello".into(),
    };
    let item = v1::ClientItem {
        item: Some(v1::client_item::Item::Send(send)),
    };
    let mut frame = v1::ClientFrame { items: vec![item] }.encode_to_vec();
    // Field 1001 of the frame is a number.
    frame.extend([0xc8, 0x3e, 1]);
    frame
}

/// Sends a message with this envelope by a unary call.
async fn by_call(api: &Api, chat: ChatId) {
    let send = v1::SendMessageRequest {
        request_id: RequestId::random().to_string(),
        chat_id: chat.to_string(),
        envelope: envelope(),
        body: "by a call".into(),
        ..Default::default()
    };
    api.chats().send_message(send).await.unwrap();
}

/// Returns every entry of the chat as often as there are unary calls that give it.
async fn read_by_calls(api: &Api, chat: ChatId) -> Vec<v1::Entry> {
    let chat_id = chat.to_string();
    let log = v1::ListEntriesRequest {
        chat_id: chat_id.clone(),
        from_seq: 1,
        ..Default::default()
    };
    let log = api.chats().list_entries(log).await.unwrap().into_inner().entries;
    let messages = v1::ListMessagesRequest {
        chat_id: chat_id.clone(),
        ..Default::default()
    };
    let messages = api.chats().list_messages(messages).await.unwrap();
    let messages = messages.into_inner().entries;
    let view = v1::GetChatRequest {
        chat_id,
        ..Default::default()
    };
    let view = api.chats().get_chat(view).await.unwrap().into_inner().chat;
    let last = view.unwrap().last_entry.unwrap();
    let chats = v1::ListChatsRequest::default();
    let chats = api.chats().list_chats(chats).await.unwrap().into_inner().chats;
    let listed = chats.into_iter().filter_map(|chat| chat.last_entry);
    // Nothing was acknowledged, so everything waits in the device's inbox, once it is settled.
    let fetched = until::some("both messages in the inbox", BOUND, || async {
        let of_chat = v1::FetchRequest {
            chat_id: chat.to_string(),
            ..Default::default()
        };
        let reply = api.inbox().fetch(of_chat).await?.into_inner();
        let entries = reply.events.into_iter().filter_map(|event| match event.event? {
            Event::Entry(entry) if entry.chat_id == chat.to_string() => Some(entry),
            _ => None,
        });
        let entries: Vec<v1::Entry> = entries.collect();
        anyhow::ensure!(entries.len() == 2, "{} entries", entries.len());
        Ok(entries)
    })
    .await
    .unwrap();
    assert_eq!((log.len(), messages.len()), (2, 2));
    [log, messages, vec![last], listed.collect(), fetched].concat()
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
    sender.send(frame(to)).await;
    receiver.frame_with(NEWS).await;

    // The device that was away gets the entry from the log.
    let (mut late, _) = Socket::open(&world, 0, &away).await;
    late.frame_with(NEWS).await;

    // So does whoever sends and reads by unary calls.
    let chat = ChatId::direct(alice.id, bob.id);
    let (hers, his) = [&hers, &his]
        .map(|device| Api::new(world.channel(0), &device.access_token))
        .into();
    by_call(&hers, chat).await;
    for entry in read_by_calls(&his, chat).await {
        assert!(
            entry.content.windows(NEWS.len()).any(|part| part == NEWS),
            "{entry:?}"
        );
    }
    for socket in [sender, receiver, late] {
        socket.close().await;
    }
    world.end().await;
}
