//! Links to chat nodes that break, and items that a chat node refuses because another one owns the chat.

use tern_proto::internal::{LiveDown, NotOwner, UpItem, down_item, up_item};
use tern_proto::raw;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{Receipt, SendErrorCode, UserTyping, send_result};
use tern_types::{ChatId, UserId};

use crate::support::items::{people, send_to};
use crate::support::{Phone, World};

#[tokio::test]
async fn a_send_whose_link_breaks_is_answered_unavailable_and_the_next_one_goes_through() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let chat = ChatId::direct(user, UserId::random());
    let (request_id, item) = send_to(chat);
    send(&mut world, &mut phone, item.clone()).await;
    world.break_link();
    let Event::SendResult(result) = phone.event().await else {
        panic!("no result")
    };
    assert_eq!(result.request_id, request_id);
    assert!(
        matches!(result.outcome, Some(send_result::Outcome::Error(error)) if error.code() == SendErrorCode::Unavailable)
    );
    let up = send(&mut world, &mut phone, item).await;
    assert!(matches!(up.op, Some(up_item::Op::Send(_))));
}

/// Sends the item until the chat node has it, as clients do: the link may not be up yet.
pub async fn send(world: &mut World, phone: &mut Phone, item: Item) -> UpItem {
    loop {
        phone.say(item.clone()).await;
        tokio::select! {
            up = world.item() => return up,
            event = phone.event() => {
                assert!(matches!(event, Event::SendResult(_) | Event::CaughtUp(_)), "{event:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_item_that_a_node_does_not_own_waits_for_the_map_and_goes_to_the_owner() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let (_, item) = send_to(ChatId::direct(user, UserId::random()));
    let first = send(&mut world, &mut phone, item).await;
    let not_owner = NotOwner {
        r#ref: first.r#ref,
        session: first.session,
        map_version: 2,
    };
    world.down(down_item::Item::NotOwner(not_owner)).await;
    world.owner("chat-1", 2, true);
    let second = world.item().await;
    assert_eq!((second.r#ref, second.op), (first.r#ref, first.op));
}

/// Encodes a receipt of another member of the chat.
fn receipt(chat: ChatId, of: UserId, delivered_seq: u64) -> bytes::Bytes {
    raw::event(Event::Receipt(Receipt {
        chat_id: chat.to_string(),
        user_id: of.to_string(),
        delivered_seq,
        read_seq: 0,
    }))
}

/// Receipts that were on the link are lost with it, and nobody sends them again.
#[tokio::test]
async fn when_a_link_was_lost_and_is_there_again_devices_are_told_to_ask_for_receipts() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let chat = ChatId::direct(user, UserId::random());
    let (_, item) = send_to(chat);
    send(&mut world, &mut phone, item).await;
    world.break_link();
    assert!(matches!(phone.event().await, Event::SendResult(_)));
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
}

#[tokio::test]
async fn whom_a_chat_node_could_not_push_a_receipt_is_told_to_ask() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let missed = LiveDown {
        missed_sessions: vec![phone.session],
        ..LiveDown::default()
    };
    world.chat.live.say(missed).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
}

#[tokio::test]
async fn typing_reaches_only_who_may_see_the_writer() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    let (seen, hidden) = (UserId::random(), UserId::random());
    *world.chat.visible.lock().unwrap() = vec![seen];
    let chat = ChatId::direct(user, hidden);
    let typing = |of: UserId| {
        raw::event(Event::UserTyping(UserTyping {
            chat_id: chat.to_string(),
            user_id: of.to_string(),
            stopped: false,
            expires_in_ms: 6000,
        }))
    };
    for writer in [hidden, hidden, seen] {
        world.push(phone.session, chat, 0, typing(writer)).await;
    }
    let Event::UserTyping(came) = phone.event().await else {
        panic!("no typing")
    };
    assert_eq!(came.user_id, seen.to_string());
    // If it is known who may see, typing is told at once, before a receipt that comes after it.
    for event in [typing(hidden), typing(seen), receipt(chat, hidden, 1)] {
        world.push(phone.session, chat, 0, event).await;
    }
    assert!(matches!(phone.event().await, Event::UserTyping(came) if came.user_id == seen.to_string()));
    assert!(matches!(phone.event().await, Event::Receipt(_)));
}
