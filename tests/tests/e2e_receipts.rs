//! Receipts are gathered in groups, are never lost, and can be kept private.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, ErrorReason};
use tern_tests::wire::{self, Wire};
use tern_tests::world::{BOUND, FAILOVER_GRACE};
use tern_tests::{Api, Phone, User, World};
use tern_types::{ChatId, RequestId, UserId};
use tokio::time::timeout;
use tonic::Code;

/// Asks for a person's receipt, as the SDK does after CaughtUp.
async fn asked(phone: &Phone, chat: ChatId, of: UserId) -> anyhow::Result<(u64, u64)> {
    let request = v1::GetReceiptsRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let receipts = phone.api().chats().get_receipts(request).await?.into_inner();
    let found = receipts
        .receipts
        .into_iter()
        .find(|receipt| receipt.user_id == of.to_string());
    Ok(found.map_or((0, 0), |receipt| (receipt.delivered_seq, receipt.read_seq)))
}

async fn reached(
    phone: &Phone,
    chat: ChatId,
    seq: u64,
    page_size: u32,
    page_token: &str,
) -> Result<v1::GetMessageReceiptsResponse, tonic::Status> {
    let request = v1::GetMessageReceiptsRequest {
        chat_id: chat.to_string(),
        seq,
        page_size,
        page_token: page_token.to_owned(),
        acting_user_id: String::new(),
    };
    let reply = phone.api().chats().get_message_receipts(request).await?;
    Ok(reply.into_inner())
}

#[tokio::test]
async fn in_a_group_of_100_a_sender_is_told_of_each_member_four_times_a_second_at_most() {
    const MESSAGES: usize = 20;
    let world = World::start().await;
    let people: Vec<User> = futures::future::join_all((0..100).map(|_| world.user("member"))).await;
    let group = world.group(&people.iter().collect::<Vec<_>>()).await;
    let phones = futures::future::join_all(people.iter().map(|person| world.phone(person))).await;
    let (hers, others) = phones.split_first().unwrap();
    let began = Instant::now();
    let mut last = 0;
    for number in 0..MESSAGES {
        last = hers.say(group, format!("{number}")).await.seq;
    }
    for other in others {
        hers.receipt(group, other.user(), last, 0).await;
    }
    let spans = began.elapsed().as_millis() / 250 + 2;
    for (_, came) in hers.state().receipts_came {
        assert!(u128::from(came) <= spans, "{came} of one member in {spans} spans");
    }
    world.end().await;
}

#[tokio::test]
async fn what_its_owner_had_gathered_is_there_after_a_failover() {
    let mut world = World::with(|builder| builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let [hers, his, carols] = [
        world.phone(&alice).await,
        world.phone(&bob).await,
        world.phone(&carol).await,
    ];
    let group = hers.create_group(&[&bob, &carol]).await;
    let sent = hers.say(group, "who has this?").await;
    for phone in [&his, &carols] {
        phone.has(group, sent.seq).await;
    }
    his.read(group, sent.seq).await;
    let owner = world.owner_of(group).await;
    world.platform.kill(&owner).await.unwrap();
    until::holds("the receipts", BOUND, || async {
        let (of_bob, of_carol) = (
            asked(&hers, group, bob.id).await?,
            asked(&hers, group, carol.id).await?,
        );
        let all = of_bob == (sent.seq, sent.seq) && of_carol.0 >= sent.seq;
        anyhow::ensure!(all, "bob {of_bob:?}, carol {of_carol:?}");
        Ok(true)
    })
    .await
    .unwrap();
    world.platform.restart(&owner).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn who_read_one_message_is_told_to_its_sender() {
    let world = World::start().await;
    let [alice, bob, carol, dan] = world.users(["alice", "bob", "carol", "dan"]).await;
    let [hers, his] = [world.phone(&alice).await, world.phone(&bob).await];
    let group = hers.create_group(&[&bob, &carol]).await;
    let sent = hers.say(group, "who has this?").await;
    let addition = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![dan.id.to_string()],
        ..Default::default()
    };
    hers.api().chats().add_members(addition).await.unwrap();
    his.has(group, sent.seq).await;
    his.read(group, sent.seq).await;
    hers.receipt(group, bob.id, sent.seq, sent.seq).await;

    let first = reached(&hers, group, sent.seq, 1, "").await.unwrap();
    assert_eq!(
        (first.member_count, first.delivered_count, first.read_count),
        (2, 1, 1),
        "dan came later: {first:?}"
    );
    let second = reached(&hers, group, sent.seq, 1, &first.next_page_token)
        .await
        .unwrap();
    let members: Vec<_> = [first, second]
        .into_iter()
        .flat_map(|page| page.members)
        .map(|member| (member.user_id, member.delivered, member.read))
        .collect();
    assert_eq!(
        members,
        [
            (bob.id.to_string(), true, true),
            (carol.id.to_string(), false, false)
        ]
    );

    let cases = [
        (&his, sent.seq, Code::PermissionDenied, ErrorReason::NotTheSender),
        (&hers, 1, Code::NotFound, ErrorReason::MessageNotFound),
        (&hers, 99, Code::NotFound, ErrorReason::MessageNotFound),
    ];
    for (phone, seq, code, reason) in cases {
        let status = reached(phone, group, seq, 0, "").await.unwrap_err();
        assert_eq!(
            (status.code(), reason_of(&status)),
            (code, Some(reason)),
            "{status:?}"
        );
    }
    let stranger = world.phone(&world.user("stranger").await).await;
    let status = reached(&stranger, group, sent.seq, 0, "").await.unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::ChatNotFound));
    let as_bob = v1::GetMessageReceiptsRequest {
        chat_id: group.to_string(),
        seq: sent.seq,
        acting_user_id: bob.id.to_string(),
        ..Default::default()
    };
    let back_end = world.back_end().await;
    let reply = back_end.chats().get_message_receipts(as_bob).await.unwrap();
    assert_eq!(
        reply.into_inner().read_count,
        1,
        "a back end sees it in anybody's eyes"
    );
    world.end().await;
}

async fn turn_off(world: &World, user: &User, off: bool) {
    let privacy = v1::PrivacySettings {
        read_receipts_off: off,
        ..Default::default()
    };
    let request = v1::SetPrivacyRequest {
        user_id: user.id.to_string(),
        privacy: Some(privacy),
    };
    until::holds("a setting", BOUND, || async {
        let mut users = world.back_end().await.users();
        users.set_privacy(request.clone()).await?;
        Ok(true)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_turned_read_receipts_off_is_not_said_to_have_read_until_the_next_mark_after_turning_them_on() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let chat = ChatId::direct(alice.id, bob.id);
    turn_off(&world, &bob, true).await;
    let [his, tablet] = [world.phone(&bob).await, world.phone(&bob).await];
    let sent = hers.say(bob.id, "read this").await;
    his.has(chat, sent.seq).await;
    his.read(chat, sent.seq).await;
    tablet.receipt(chat, bob.id, 0, sent.seq).await;
    hers.receipt(chat, bob.id, sent.seq, 0).await;
    // Neither his answer nor a mark by a call tells her that he has read.
    let answer = his.say(chat, "an answer").await;
    hers.has(chat, answer.seq).await;
    let second = hers.say(bob.id, "and this").await;
    his.has(chat, second.seq).await;
    let mark = v1::MarkChatReadRequest {
        chat_id: chat.to_string(),
        seq: second.seq,
        ..Default::default()
    };
    his.api().chats().mark_chat_read(mark).await.unwrap();
    tablet.receipt(chat, bob.id, 0, second.seq).await;
    hers.receipt(chat, bob.id, second.seq, 0).await;
    let third = hers.say(bob.id, "a mark").await;
    hers.receipt(chat, bob.id, third.seq, 0).await;
    assert_eq!(hers.state().receipts[&(chat, bob.id)].1, 0);
    assert_eq!(asked(&hers, chat, bob.id).await.unwrap().1, 0);
    assert_eq!(asked(&his, chat, bob.id).await.unwrap().1, second.seq, "his own");
    let message = reached(&hers, chat, sent.seq, 0, "").await.unwrap();
    assert_eq!((message.delivered_count, message.read_count), (1, 0));

    // His open streams learn of the setting too.
    turn_off(&world, &bob, false).await;
    assert_eq!(
        asked(&hers, chat, bob.id).await.unwrap().1,
        0,
        "not before the next mark"
    );
    // A gateway that did not answer in time was not told of the setting. A mark counts with the setting that held
    // when it was made.
    until::holds("a mark that she is told of", BOUND, || async {
        turn_off(&world, &bob, false).await;
        his.read(chat, third.seq).await;
        let told = hers.receipt(chat, bob.id, third.seq, third.seq);
        Ok(timeout(Duration::from_secs(2), told).await.is_ok())
    })
    .await
    .unwrap();
    let message = reached(&hers, chat, sent.seq, 0, "").await.unwrap();
    assert_eq!(message.read_count, 1);
    world.end().await;
}

/// Returns how far the caller has read the chat, and how many messages are unread.
async fn unread(api: &Api, chat: ChatId, acting: Option<UserId>) -> anyhow::Result<(u64, u64)> {
    let request = v1::GetChatRequest {
        chat_id: chat.to_string(),
        acting_user_id: acting.map(|user| user.to_string()).unwrap_or_default(),
    };
    let chat = api
        .chats()
        .get_chat(request)
        .await?
        .into_inner()
        .chat
        .unwrap_or_default();
    Ok((chat.read_seq, chat.unread_count))
}

/// Waits until the chat shows these values. That takes up to a second, since read marks are written within a second.
async fn until_unread(api: &Api, chat: ChatId, acting: Option<UserId>, expected: (u64, u64)) {
    until::holds("read and unread", BOUND, || async {
        let found = unread(api, chat, acting).await?;
        anyhow::ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(true)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_waits_stays_unread_when_the_app_sends_its_outbox_first_or_a_back_end_answers() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let device = world.device(&bob).await;
    let chat = ChatId::direct(alice.id, bob.id);
    for number in 1..=10 {
        hers.say(bob.id, format!("{number}")).await;
    }
    let request = RequestId::random();
    let automatic = v1::SendMessageRequest {
        request_id: request.to_string(),
        acting_user_id: bob.id.to_string(),
        peer_user_id: alice.id.to_string(),
        body: b"I am away".to_vec().into(),
        ..Default::default()
    };
    let back_end = world.back_end().await;
    back_end.chats().send_message(automatic).await.unwrap();
    until_unread(back_end, chat, Some(bob.id), (0, 10)).await;

    let (mut wire, _) = Wire::open(world.channel(0), &device).await.unwrap();
    let request = RequestId::random();
    wire.send(wire::message_to(request, alice.id, "from the outbox"))
        .await;
    until_unread(back_end, chat, Some(bob.id), (0, 10)).await;

    // A message of a device marks as read what the device had acknowledged by then, and a receipt tells the device.
    wire.say(wire::ack(chat, 7)).await;
    wire.say(wire::message(RequestId::random(), chat, "to the seventh"))
        .await;
    let own = wire.until(|event| match event {
        Event::Receipt(receipt) if receipt.user_id == bob.id.to_string() => Some(receipt.read_seq),
        _ => None,
    });
    assert_eq!(own.await, 7);
    until_unread(back_end, chat, Some(bob.id), (7, 3)).await;
    hers.receipt(chat, bob.id, 7, 7).await;
    wire.say(wire::ack(chat, 13)).await;
    wire.say(wire::message(RequestId::random(), chat, "to the last"))
        .await;
    until_unread(back_end, chat, Some(bob.id), (14, 0)).await;
    drop(wire);
    world.revoke(&device).await;
    world.end().await;
}

/// Receipts that a lost node had not sent yet are not sent again. Devices are told to ask for them.
#[tokio::test]
async fn when_a_chat_node_is_lost_for_good_devices_are_told_caught_up_again() {
    let mut world = World::with(|builder| builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let [hers, his] = [world.phone(&alice).await, world.phone(&bob).await];
    let chat = ChatId::direct(alice.id, bob.id);
    let sent = hers.say(bob.id, "who has this?").await;
    his.has(chat, sent.seq).await;
    let owner = world.owner_of(chat).await;
    // A link that was renewed on a busy machine has the same effect, so each is told once or more before.
    let before = [&hers, &his].map(|phone| (phone, phone.state()));
    world.platform.kill(&owner).await.unwrap();
    for (phone, before) in before {
        phone
            .until("caught up again", |state| {
                state.caught_ups > before.caught_ups && state.sessions == before.sessions
            })
            .await;
    }
    // The next owner answers the calls.
    assert!(asked(&hers, chat, bob.id).await.is_ok());
    world.platform.restart(&owner).await.unwrap();
    world.end().await;
}

/// Returns how far the chat is read and how many messages are unread, and checks that the call for one chat and the
/// list agree.
async fn shown(phone: &Phone, chat: ChatId) -> (u64, u64) {
    let get = v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let one = phone.api().chats().get_chat(get).await.unwrap().into_inner();
    // The node that lists chats waits 1 s for the marks of their owners, and shows the store's if none come. An answer
    // that took as long says nothing.
    let all = loop {
        let (asked, all) = (Instant::now(), v1::ListChatsRequest::default());
        let all = phone.api().chats().list_chats(all).await.unwrap().into_inner();
        if asked.elapsed() < Duration::from_secs(1) {
            break all;
        }
    };
    let listed = all
        .chats
        .into_iter()
        .find(|view| view.chat_id == chat.to_string());
    let [one, listed] = [one.chat, listed].map(|view| view.map(|view| (view.read_seq, view.unread_count)));
    assert_eq!(one, listed, "one and the list");
    one.unwrap()
}

/// A mark is written up to a second later. Until then, a call for the chat is answered by the node that knows it.
#[tokio::test]
async fn callers_read_their_own_marks_and_sends_at_once() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    // Some of the chats have owners other than the node that lists the chats.
    for _ in 0..6 {
        let bob = world.user("bob").await;
        let his = world.phone(&bob).await;
        let chat = ChatId::direct(alice.id, bob.id);
        for text in ["one", "two", "three"] {
            his.say(alice.id, text).await;
        }
        hers.has(chat, 3).await;
        assert_eq!(shown(&hers, chat).await, (0, 3));

        let mark = v1::MarkChatReadRequest {
            chat_id: chat.to_string(),
            seq: 1,
            ..Default::default()
        };
        hers.api().chats().mark_chat_read(mark).await.unwrap();
        assert_eq!(shown(&hers, chat).await, (1, 2), "after MarkChatRead");

        hers.read(chat, 2).await;
        hers.receipt(chat, alice.id, 2, 2).await;
        assert_eq!(shown(&hers, chat).await, (2, 1), "after the own receipt");

        // Everything was acknowledged when his receipt came.
        his.receipt(chat, alice.id, 3, 2).await;
        hers.say(chat, "four").await;
        assert_eq!(shown(&hers, chat).await.1, 0, "after an own send");
        assert_eq!(shown(&his, chat).await.1, 1, "and his own before");
    }
    world.end().await;
}
