//! The path of messages up and down: sends, results, live pushes, wakes, windows, inboxes.

use bytes::Bytes;
use prost::Message;
use tern_cluster::shedding::Level;
use tern_proto::internal::{
    AckWritten, OpenedStream, Result as SendOutcome, Wake, WindowReply, down_item, up_item,
};
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::{notice, v1};
use tern_types::{ChatId, DeviceId, Notice, UserId};

use crate::links::send;
use crate::support::items::{entry, newer_entry, people, send_to, sent};
use crate::support::raw::RawPhone;
use crate::support::{Phone, World, soon};

#[tokio::test]
async fn a_message_goes_up_its_result_and_live_pushes_come_down() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));

    let chat = ChatId::direct(user, UserId::random());
    send_and_be_answered(&mut world, &mut phone, user, device, chat).await;
    world.push(phone.session, chat, 2, entry(chat, 2)).await;
    let Event::Entry(pushed) = phone.event().await else {
        panic!("no entry")
    };
    assert_eq!(pushed.seq, 2);
    wake_and_acknowledge(&mut world, &phone, chat).await;

    drop(phone);
    assert!(world.announced().await.ended, "presence hears of the end");
}

/// The phone sends a message, and the chat node gives it the seq 1.
async fn send_and_be_answered(
    world: &mut World,
    phone: &mut Phone,
    user: UserId,
    device: DeviceId,
    chat: ChatId,
) {
    let (request_id, item) = send_to(chat);
    let up = send(world, phone, item).await;
    let Some(up_item::Op::Send(op)) = up.op else {
        panic!("{up:?}")
    };
    assert_eq!(
        (&op.chat_id[..], &op.body[..]),
        (&chat.as_bytes()[..], &b"hello"[..])
    );
    assert_eq!(
        (&up.user_id[..], &up.device_id[..], up.session),
        (&user.as_bytes()[..], &device.as_bytes()[..], phone.session)
    );
    let event = sent(&request_id, chat, 1);
    let result = SendOutcome {
        r#ref: up.r#ref,
        session: up.session,
        event,
        chat_id: chat.to_vec().into(),
        seq: 1,
    };
    world.down(down_item::Item::Result(result)).await;
    let Event::SendResult(result) = phone.event().await else {
        panic!("no result")
    };
    assert_eq!(result.request_id, request_id);
}

/// The chat node wakes the session for an entry that was pushed already: the gateway confirms the wake and
/// reads nothing. Then the phone acknowledges, and the node has written the acknowledgement.
async fn wake_and_acknowledge(world: &mut World, phone: &Phone, chat: ChatId) {
    let wake = Wake {
        wake: 77,
        chat_id: chat.to_vec().into(),
        from_seq: 1,
        to_seq: 2,
        sessions: vec![phone.session, 999],
    };
    world.down(down_item::Item::Wake(wake)).await;
    let done = world.item().await;
    assert!(matches!(done.op, Some(up_item::Op::WakeDone(done)) if done.wake == 77));
    phone
        .say(Item::Ack(v1::Ack {
            chat_id: chat.to_string(),
            seq: 2,
        }))
        .await;
    let up = world.item().await;
    let Some(up_item::Op::Ack(ack)) = &up.op else {
        panic!("{up:?}")
    };
    assert_eq!((ack.seq, ack.write), (2, true));
    let chat_id = chat.to_vec().into();
    let written = AckWritten {
        r#ref: up.r#ref,
        session: up.session,
        chat_id,
        seq: 2,
        row_from_seq: 0,
    };
    world.down(down_item::Item::AckWritten(written)).await;
}

#[tokio::test]
async fn what_waits_is_read_in_windows_before_caught_up() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let chat = ChatId::direct(user, UserId::random());
    world.inbox(chat, 5);
    let mut phone = world.open(user, device).await;
    let request = world.window().await;
    assert_eq!(
        (request.from_seq, &request.device_id[..]),
        (5, &device.as_bytes()[..])
    );
    let (events, seqs) = (vec![entry(chat, 5), entry(chat, 6)], vec![5, 6]);
    let reply = WindowReply {
        r#ref: request.r#ref,
        session: request.session,
        chat_id: request.chat_id,
        events,
        seqs,
        next_seq: 7,
        done: true,
        failed: false,
    };
    world.reply(reply).await;
    for seq in [5, 6] {
        assert!(matches!(phone.event().await, Event::Entry(entry) if entry.seq == seq));
    }
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
}

/// Returns the device's next entry as it came.
async fn next_entry(phone: &mut RawPhone) -> Bytes {
    loop {
        let event = phone.event().await;
        let decoded = v1::ServerEvent::decode(event.clone()).unwrap();
        if matches!(decoded.event, Some(Event::Entry(_))) {
            return event;
        }
    }
}

#[tokio::test]
async fn fields_that_the_gateway_does_not_know_reach_the_device_live_and_in_windows() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let chat = ChatId::direct(user, UserId::random());
    world.inbox(chat, 5);
    let mut phone = RawPhone::open(world.channel().await, world.token(user, device)).await;
    let session = world.announced().await.session;
    let request = world.window().await;
    let stored = newer_entry(chat, 5);
    let reply = WindowReply {
        r#ref: request.r#ref,
        session: request.session,
        chat_id: request.chat_id,
        events: vec![stored.clone()],
        seqs: vec![5],
        next_seq: 6,
        done: true,
        failed: false,
    };
    world.reply(reply).await;
    assert_eq!(next_entry(&mut phone).await, stored);
    let live = newer_entry(chat, 6);
    world.push(session, chat, 6, live.clone()).await;
    assert_eq!(next_entry(&mut phone).await, live);
}

#[tokio::test]
async fn fine_print_9_inboxes_are_read_again_when_presence_moves_and_once_more_when_the_old_node_knows() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    // No wake came for this row, because the chat node asked the wrong presence node.
    let chats = [1, 2].map(|_| ChatId::direct(user, UserId::random()));
    world.inbox(chats[0], 7);
    world.presence(2, &[("presence-0", true), ("presence-1", false)]);
    let announced = world.announced().await;
    assert_eq!((announced.session, announced.ended), (phone.session, false));
    assert_eq!(
        announced.stream_number, 1,
        "the new node learns which stream is the newest"
    );
    let window = world.window().await;
    assert_eq!(
        (window.from_seq, &window.chat_id[..]),
        (7, &chats[0].as_bytes()[..])
    );
    world.inbox(chats[1], 8);
    world.presence_follows(0, 2).await;
    let window = world.window().await;
    assert_eq!(
        (window.from_seq, &window.chat_id[..]),
        (8, &chats[1].as_bytes()[..])
    );
}

#[tokio::test]
async fn typing_goes_up_without_an_answer_and_not_at_all_under_load() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let typing = |chat: ChatId| {
        let chat_id = chat.to_string();
        Item::Typing(v1::Typing {
            chat_id,
            stopped: false,
        })
    };
    let chat = ChatId::direct(user, UserId::random());
    // The link is up after this.
    send(&mut world, &mut phone, send_to(chat).1).await;
    phone.say(typing(chat)).await;
    let up = world.item().await;
    let Some(up_item::Op::Notice(op)) = up.op else {
        panic!("{up:?}")
    };
    let event = notice::event(chat, user, &Notice::Typing { stopped: false });
    assert_eq!((&op.chat_id[..], op.event), (&chat.as_bytes()[..], event));

    let mut level = world.ctx.shedding.follow();
    world.shed(Level::Typing.to_wire()).await;
    soon(level.wait_for(|level| *level == Level::Typing))
        .await
        .unwrap();
    phone.say(typing(ChatId::direct(user, UserId::random()))).await;
    phone.say(send_to(chat).1).await;
    let up = world.item().await;
    assert!(matches!(up.op, Some(up_item::Op::Send(_))), "{up:?}");
}

/// The stream of a device with the highest number, over all gateways, is its newest.
#[tokio::test]
async fn a_stream_draws_its_number_from_the_store_and_says_it_once_it_is_open() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut opened = world.chat.opened.subscribe();
    let mut phones = Vec::new();
    for number in 1..=2 {
        phones.push(world.open(user, device).await);
        let said = opened.wait_for(|opened| opened.len() == number);
        let said = soon(said).await.unwrap().last().cloned().unwrap();
        let expected = OpenedStream {
            session: phones[number - 1].session,
            user_id: user.to_vec().into(),
            stream_number: number as u64,
        };
        assert_eq!(said, expected);
        if number == 1 {
            continue;
        }
        let ended = world.announced().await;
        assert_eq!((ended.session, ended.ended), (phones[0].session, true));
    }
}
