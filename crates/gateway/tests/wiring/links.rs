//! Links to chat nodes that break, and items that are another node's.

use tern_proto::internal::{NotOwner, UpItem, down_item, up_item};
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{SendErrorCode, send_result};
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

/// Says the same again until the chat node has it, as clients do: the link may not be up yet.
pub async fn send(world: &mut World, phone: &mut Phone, item: Item) -> UpItem {
    loop {
        phone.say(item.clone()).await;
        tokio::select! {
            up = world.item() => return up,
            event = phone.event() => assert!(matches!(event, Event::SendResult(_)), "{event:?}"),
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
