//! The path of one message: from a phone through gateway, chat node and Postgres to the other person's phone. Also
//! what lies beside that path: offline devices, repeated requests, history, polling, back ends.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::{Duration, Instant};

use tern_local::{Role, until};
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, SendErrorCode, client_item::Item, server_event::Event};
use tern_tests::phone::{agree, text};
use tern_tests::wire::{self, Wire};
use tern_tests::world::BOUND;
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId};
use tonic::Code;

#[tokio::test]
async fn a_message_reaches_the_other_and_its_ticks_come_back() {
    // With this setting, nothing is sent again because an acknowledgement takes its time on a busy machine.
    let world = World::with(|builder| builder.env("TERN_GATEWAY_ACK_TIMEOUT", "600")).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (
        Phone::new(&world, &world.device(&alice).await),
        Phone::new(&world, &world.device(&bob).await),
    );
    hers.connect_at(0).await;
    his.connect_at(1).await;
    let breaks = async || {
        let (of, labels) = (Role::Gateway, [("role", "chat")]);
        let breaks = world
            .platform
            .metric_of(of, "tern_node_link_breaks_total", &labels);
        breaks.await.unwrap()
    };
    let before = breaks().await;

    // The first message to a person needs no existing chat.
    let sent = hers.say(bob.id, "hello").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    assert_eq!(chat, ChatId::direct(alice.id, bob.id));

    let log = his.has_text(chat, "hello").await;
    let entry = &log.entries[&sent.seq];
    assert_eq!(entry.sender_user_id, alice.id.to_string());
    assert_eq!(entry.sender_device_id, hers.device().id.to_string());
    assert_eq!(entry.sent_at_ms, sent.sent_at_ms);

    hers.receipt(chat, bob.id, sent.seq, 0).await;
    his.read(chat, sent.seq).await;
    hers.receipt(chat, bob.id, sent.seq, sent.seq).await;

    let answer = his.say(chat, "hello yourself").await;
    assert_eq!(answer.seq, sent.seq + 1);
    agree(
        &[&hers, &his],
        chat,
        answer.seq,
        &["hello".to_owned(), "hello yourself".to_owned()],
    )
    .await;

    // When everybody has everything, the store holds no duty to deliver.
    let store = world.store().await;
    until::holds("no duty is left", BOUND, || async {
        let rows: i64 =
            sqlx::query_scalar("SELECT (SELECT count(*) FROM unsettled) + (SELECT count(*) FROM inbox)")
                .fetch_one(&store)
                .await?;
        Ok(rows == 0)
    })
    .await
    .unwrap();
    // If a link to a chat node broke, as on a machine that stands still for seconds, the result of a send may be lost,
    // and its entry comes from the log as well.
    if breaks().await == before {
        assert_eq!(
            (hers.state().repeated, his.state().repeated),
            (0, 0),
            "each entry came once"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn who_was_offline_is_caught_up_in_order() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let his = Phone::new(&world, &world.device(&bob).await);

    // This is more than two windows of 256 entries.
    let texts: Vec<String> = (0..600).map(|number| format!("message {number}")).collect();
    let mut requests = Vec::new();
    for text in &texts {
        requests.push(hers.send(bob.id, text.as_bytes()).await);
    }
    // A message that a node could not take is sent again, and may then come after later ones.
    let mut head = 0;
    for request in requests {
        head = head.max(hers.sent(request).await.seq);
    }
    let chat = ChatId::direct(alice.id, bob.id);
    let store = world.store().await;
    until::holds("his inbox row", BOUND, || async {
        let row: Option<i64> =
            sqlx::query_scalar("SELECT from_seq FROM inbox WHERE device_id = $1 AND chat_id = $2")
                .bind(his.device().id.0)
                .bind(chat.0)
                .fetch_optional(&store)
                .await?;
        Ok(row == Some(1))
    })
    .await
    .unwrap();

    let whole = v1::FetchRequest {
        chat_id: chat.to_string(),
        page_size: u32::MAX,
    };
    let page = his.api().inbox().fetch(whole).await.unwrap().into_inner();
    assert_eq!((page.events.len(), page.more), (256, true), "the largest page");
    his.connect().await;
    agree(&[&hers, &his], chat, head, &texts).await;
    hers.receipt(chat, bob.id, head, 0).await;
    world.end().await;
}

#[tokio::test]
async fn caught_up_comes_after_what_was_settled_and_what_is_younger_comes_by_itself() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, device) = (world.phone(&alice).await, world.device(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    let entry = |event| match event {
        Event::Entry(entry) if entry.chat_id == chat.to_string() => Some(entry.seq),
        _ => None,
    };

    for text in ["one", "two", "three"] {
        hers.say(bob.id, text).await;
    }
    world.settled().await;
    let (mut his, _) = Wire::open(world.new_channel(1), &device).await.unwrap();
    let mut before = Vec::new();
    his.until(|event| match event {
        Event::CaughtUp(_) => Some(()),
        other => {
            before.extend(entry(other));
            None
        }
    })
    .await;
    assert_eq!(before, [1, 2, 3]);
    his.say(wire::ack(chat, 3)).await;

    // These are sent while the device is offline, and not settled when its stream opens. CaughtUp may come before or
    // after them.
    for gateway in [0, 1, 0, 1] {
        drop(his);
        let sent = hers.say(bob.id, "young").await;
        (his, _) = Wire::open(world.new_channel(gateway), &device).await.unwrap();
        his.until(|event| entry(event).filter(|seq| *seq == sent.seq))
            .await;
        his.say(wire::ack(chat, sent.seq)).await;
    }
    hers.receipt(chat, bob.id, 7, 0).await;
    world.end().await;
}

/// This is rule 5.
#[tokio::test]
async fn the_same_request_id_gives_the_same_result() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&alice).await;
    let his = world.phone(&bob).await;
    let request = RequestId::random();

    let mut seqs = Vec::new();
    for gateway in [0, 0, 1] {
        let (mut wire, _) = Wire::open(world.new_channel(gateway), &device).await.unwrap();
        for _ in 0..2 {
            let message = wire::message_to(request, bob.id, "once");
            seqs.push(wire.send(message).await.seq);
        }
    }
    let unary = v1::SendMessageRequest {
        peer_user_id: bob.id.to_string(),
        request_id: request.to_string(),
        envelope: wire::plain().encoded(),
        body: "once".into(),
        ..Default::default()
    };
    let api = tern_tests::Api::new(world.channel(1), &device.access_token);
    let reply = api
        .chats()
        .send_message(unary.clone())
        .await
        .unwrap()
        .into_inner();
    seqs.push(reply.sent.unwrap().seq);
    assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");

    // The same request_id with other content is a mistake of the client.
    let other = v1::SendMessageRequest {
        body: "twice".into(),
        ..unary
    };
    let refused = api.chats().send_message(other).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason_of(&refused)),
        (Code::AlreadyExists, Some(ErrorReason::RequestIdReused))
    );

    let chat = ChatId::direct(alice.id, bob.id);
    his.has(chat, seqs[0]).await;
    assert_eq!(his.texts(chat), ["once"]);
    world.end().await;
}

/// The messages come from a back end, and count as unread by default, also without an envelope.
#[tokio::test]
async fn each_message_raises_the_badge_unless_it_says_otherwise() {
    const MESSAGES: u64 = 120;
    let world = World::start().await;
    let [shop, bob] = world.users(["shop", "bob"]).await;
    let his = world.phone(&bob).await;
    let mut chats = world.back_end().await.chats();
    let mut send = async |envelope: Option<v1::Envelope>| {
        let request = v1::SendMessageRequest {
            peer_user_id: bob.id.to_string(),
            request_id: RequestId::random().to_string(),
            envelope: envelope.unwrap_or_default().encoded(),
            body: "your parcel has moved".into(),
            acting_user_id: shop.id.to_string(),
            ..Default::default()
        };
        let reply = chats.send_message(request).await.unwrap().into_inner();
        reply.sent.unwrap().seq
    };
    for number in 0..MESSAGES {
        send((number % 2 == 0).then(v1::Envelope::default)).await;
    }
    let beside = v1::Envelope {
        uncounted: true,
        ..Default::default()
    };
    send(Some(beside)).await;
    let reaction = v1::Envelope {
        kind: v1::MessageKind::Reaction.into(),
        target_seq: 1,
        ..Default::default()
    };
    let head = send(Some(reaction)).await;

    let badge = async || {
        let request = v1::GetChatRequest {
            chat_id: ChatId::direct(shop.id, bob.id).to_string(),
            ..Default::default()
        };
        let reply = his.api().chats().get_chat(request).await.unwrap().into_inner();
        reply.chat.unwrap().unread_count
    };
    assert_eq!(badge().await, MESSAGES);
    let chat = ChatId::direct(shop.id, bob.id);
    let log = his.has(chat, head).await;
    assert_eq!(log.entries[&MESSAGES].ordinal, MESSAGES);
    assert_eq!(log.entries[&head].ordinal, MESSAGES, "nothing after it counts");
    world.end().await;
}

#[tokio::test]
async fn history_and_chats_are_read_page_by_page() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    for number in 0..25 {
        hers.say(bob.id, format!("message {number}")).await;
    }
    let chat = ChatId::direct(alice.id, bob.id);
    let other: ChatId = hers.say(carol.id, "hello").await.chat_id.parse().unwrap();

    let expected: Vec<String> = (0..25).rev().map(|number| format!("message {number}")).collect();
    assert_eq!(all_messages(&his, chat).await, expected);
    let seqs = all_entries(&his, chat).await;
    assert_eq!(seqs, (seqs[0]..seqs[0] + 25).collect::<Vec<_>>());
    // The most recently active chat comes first. Bob has read nothing yet.
    assert_eq!(all_chats(&hers).await, [other, chat]);

    // The node that lists chats waits 1 s for the marks of their owners, and shows the store's if none come. An answer
    // that took as long says nothing.
    let unread = async || loop {
        let (asked, all) = (Instant::now(), v1::ListChatsRequest::default());
        let reply = his.api().chats().list_chats(all).await.unwrap().into_inner();
        if asked.elapsed() < Duration::from_secs(1) {
            return reply.chats[0].unread_count;
        }
    };
    assert_eq!(unread().await, 25);
    his.read(chat, seqs[19]).await;
    hers.receipt(chat, bob.id, 0, seqs[19]).await;
    // She has got the receipt, so the owner knows the mark, and his list of chats shows it at once.
    assert_eq!(unread().await, 5);

    // Somebody who is no member sees no chat.
    let hidden = v1::ListMessagesRequest {
        chat_id: other.to_string(),
        ..Default::default()
    };
    let status = his.api().chats().list_messages(hidden).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::NotFound, Some(ErrorReason::ChatNotFound))
    );
    world.end().await;
}

/// Reads all messages of the chat in pages of 10, the newest first.
async fn all_messages(phone: &Phone, chat: ChatId) -> Vec<String> {
    let mut page = v1::ListMessagesRequest {
        chat_id: chat.to_string(),
        page_size: 10,
        ..Default::default()
    };
    let mut texts = Vec::new();
    loop {
        let reply = phone.api().chats().list_messages(page.clone()).await;
        let reply = reply.unwrap().into_inner();
        texts.extend(reply.entries.iter().filter_map(text));
        if reply.next_before_seq == 0 {
            return texts;
        }
        page.before_seq = reply.next_before_seq;
    }
}

/// Reads all entries of the chat in pages of 7, and returns their seqs.
async fn all_entries(phone: &Phone, chat: ChatId) -> Vec<u64> {
    let mut page = v1::ListEntriesRequest {
        chat_id: chat.to_string(),
        page_size: 7,
        ..Default::default()
    };
    let mut seqs = Vec::new();
    loop {
        let reply = phone.api().chats().list_entries(page.clone()).await;
        let reply = reply.unwrap().into_inner();
        seqs.extend(reply.entries.iter().map(|entry| entry.seq));
        if reply.next_from_seq == 0 {
            return seqs;
        }
        page.from_seq = reply.next_from_seq;
    }
}

/// Reads all chats of the person, one chat per page.
async fn all_chats(phone: &Phone) -> Vec<ChatId> {
    let mut page = v1::ListChatsRequest {
        page_size: 1,
        ..Default::default()
    };
    let mut chats = Vec::new();
    loop {
        let reply = phone.api().chats().list_chats(page.clone()).await;
        let reply = reply.unwrap().into_inner();
        chats.extend(
            reply
                .chats
                .iter()
                .filter_map(|chat| chat.chat_id.parse::<ChatId>().ok()),
        );
        if reply.next_page_token.is_empty() {
            return chats;
        }
        page.page_token = reply.next_page_token;
    }
}

#[tokio::test]
async fn a_device_without_a_stream_fetches_and_acknowledges() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let device = world.device(&bob).await;
    let chat = ChatId::direct(alice.id, bob.id);
    for number in 0..3 {
        hers.say(bob.id, format!("message {number}")).await;
    }
    let api = tern_tests::Api::new(world.channel(0), &device.access_token);
    let of_chat = v1::FetchRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let fetched = until::some("three entries", BOUND, || async {
        let reply = api.inbox().fetch(of_chat.clone()).await?.into_inner();
        anyhow::ensure!(reply.events.len() == 3, "{} events", reply.events.len());
        Ok(reply)
    })
    .await
    .unwrap();
    assert!(!fetched.more);
    let head = fetched
        .events
        .iter()
        .filter_map(|event| match event.event.as_ref()? {
            Event::Entry(entry) => Some(entry.seq),
            _ => None,
        })
        .max()
        .unwrap();
    api.inbox()
        .ack(v1::AckRequest {
            chat_id: chat.to_string(),
            seq: head,
        })
        .await
        .unwrap();
    let reply = api.inbox().fetch(of_chat).await.unwrap().into_inner();
    assert!(
        reply.events.is_empty(),
        "acknowledged is done: {:?}",
        reply.events
    );
    hers.receipt(chat, bob.id, head, 0).await;
    world.end().await;
}

#[tokio::test]
async fn content_of_256_kib_passes_and_one_byte_more_does_not() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let largest = vec![b'x'; 256 * 1024];
    let sent = hers.say(bob.id, largest.clone()).await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    let log = his.has(chat, sent.seq).await;
    assert_eq!(text(&log.entries[&sent.seq]).unwrap().len(), largest.len());

    let request = hers.send(bob.id, vec![b'x'; 256 * 1024 + 1]).await;
    assert_eq!(hers.refused(request).await.code(), SendErrorCode::TooLarge);
    // The stream goes on.
    hers.say(chat, "still here").await;
    his.has_text(chat, "still here").await;
    world.end().await;
}

#[tokio::test]
async fn a_slow_reader_loses_no_message_and_slows_nobody() {
    // A busy machine may take long to write it all. The settings keep the gateway from ending his stream because he
    // reads and says nothing.
    let world = World::with(|builder| {
        builder
            .env("TERN_GATEWAY_STALLED_AFTER", "600")
            .env("TERN_GATEWAY_HEARTBEAT_ACTIVE", "600")
    })
    .await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let group = world.group(&[&alice, &bob, &carol]).await;
    let (hers, carols) = (world.phone(&alice).await, world.phone(&carol).await);
    let device = world.device(&bob).await;
    let (mut slow, _) = Wire::open(world.new_channel(1), &device).await.unwrap();

    // 200 messages of 64 KiB are more than every buffer on the way to a client that does not read.
    let mut requests = Vec::new();
    for number in 0..200_u32 {
        let mut body = vec![b'x'; 64 * 1024];
        body.extend_from_slice(&number.to_be_bytes());
        requests.push(hers.send(group, body).await);
        if number % 20 == 19 {
            hers.sent(requests[requests.len() - 1]).await;
        }
    }
    let last = hers.sent(requests[requests.len() - 1]).await;
    carols.has(group, last.seq).await;

    // Now he reads. Everything comes, and is in order when it is sorted as rule 4 says.
    let mut log = std::collections::BTreeSet::new();
    let mut cursor = 0;
    while cursor < last.seq {
        match slow.next().await.unwrap() {
            Some(Event::Entry(entry)) => {
                log.insert(entry.seq);
                while log.contains(&(cursor + 1)) {
                    cursor += 1;
                }
                slow.say(wire::ack(group, cursor)).await;
            }
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    }
    slow.say(Item::Heartbeat(v1::Heartbeat { token: 7 })).await;
    slow.until(|event| matches!(event, Event::HeartbeatAck(ack) if ack.token == 7).then_some(()))
        .await;
    world.end().await;
}
