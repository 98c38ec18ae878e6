//! A cell of the store is away. The chats of the other cells go on, and what is in it comes when it is back.

#![allow(clippy::unwrap_used, reason = "tests")]

use sqlx::AssertSqlSafe;
use tern_local::until;
use tern_proto::v1::{self, SendErrorCode, send_result, server_event::Event};
use tern_tests::api::Api;
use tern_tests::wire::{ack, message};
use tern_tests::world::BOUND;
use tern_tests::{Device, User, Wire, World};
use tern_types::{Cell, Cells, ChatId, RequestId};

/// Makes a user whose direct chat with `other` is in this cell.
async fn peer_in(world: &World, cell: Cell, other: &User) -> User {
    loop {
        let user = world.user("peer").await;
        if Cells::DEFAULT.of_chat(ChatId::direct(user.id, other.id)) == cell {
            return user;
        }
    }
}

/// Lists the chats of the device's user. Also returns whether the answer says that chats are missing, and whether a
/// caller that does not accept a partial answer is told to ask later.
async fn listed(world: &World, device: &Device) -> (Vec<String>, bool, bool) {
    let api = Api::new(world.channel(1), &device.access_token);
    let accepts = v1::ListChatsRequest {
        accept_partial: true,
        ..Default::default()
    };
    let list = api.chats().list_chats(accepts).await.unwrap().into_inner();
    let whole = v1::ListChatsRequest::default();
    let whole = api.once().chats().list_chats(whole).await;
    let mut chats: Vec<String> = list.chats.into_iter().map(|chat| chat.chat_id).collect();
    chats.sort_unstable();
    (chats, list.partial, whole.is_err())
}

/// Waits until the chats of the device's user are listed like this. On a busy machine a healthy cell may be left out
/// too, and two calls may find different nodes.
async fn is_listed(world: &World, device: &Device, wanted: (Vec<String>, bool, bool)) {
    until::some("the list that is wanted", BOUND, || async {
        let list = listed(world, device).await;
        anyhow::ensure!(list == wanted, "{list:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Acknowledges the entries that come, up to entry `seq` of the chat. Fails if CaughtUp comes before it.
async fn has_before_caught_up(wire: &mut Wire, chat: ChatId, seq: u64) {
    loop {
        match wire.next().await.unwrap() {
            Some(Event::Entry(entry)) => {
                wire.say(ack(entry.chat_id.parse().unwrap(), entry.seq)).await;
                if entry.chat_id == chat.to_string() && entry.seq == seq {
                    return;
                }
            }
            Some(Event::CaughtUp(_)) => panic!("caught up before entry {seq} of {chat}"),
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    }
}

#[tokio::test]
async fn while_a_cell_is_away_the_others_serve_and_what_is_in_it_comes_when_it_is_back() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let [stays, leaves] = [Cells::DEFAULT.all().next(), Cells::DEFAULT.all().nth(1)].map(Option::unwrap);
    let (carol, bob) = (
        peer_in(&world, stays, &alice).await,
        peer_in(&world, leaves, &alice).await,
    );
    let (hers, his) = (
        ChatId::direct(alice.id, carol.id),
        ChatId::direct(alice.id, bob.id),
    );
    let device = world.device(&alice).await;
    let (carols, bobs) = (world.phone(&carol).await, world.phone(&bob).await);
    carols.say(alice.id, "from the cell that stays").await;
    bobs.say(alice.id, "from the cell that leaves").await;
    world.settled().await;

    let store = world.store().await;
    let rename = async |from: &str, to: &str| {
        let rename = AssertSqlSafe(format!("ALTER SCHEMA {from} RENAME TO {to}"));
        sqlx::query(rename).execute(&store).await.unwrap();
    };
    let (schema, gone) = (leaves.schema(), format!("{}_is_gone", leaves.schema()));
    rename(&schema, &gone).await;
    let (mut wire, _) = Wire::open(world.channel(0), &device).await.unwrap();
    has_before_caught_up(&mut wire, hers, 1).await;
    is_listed(&world, &device, (vec![hers.to_string()], true, true)).await;
    carols.say(alice.id, "while the other one is away").await;
    has_before_caught_up(&mut wire, hers, 2).await;
    let request = RequestId::random();
    wire.say(message(request, his, "to the cell that is away")).await;
    let refused = wire.until(|event| outcome(event, request)).await;
    let send_result::Outcome::Error(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused.code(), SendErrorCode::Unavailable, "{refused:?}");

    rename(&gone, &schema).await;
    has_before_caught_up(&mut wire, his, 1).await;
    wire.until(|event| matches!(event, Event::CaughtUp(_)).then_some(()))
        .await;
    let mut both = vec![hers.to_string(), his.to_string()];
    both.sort_unstable();
    is_listed(&world, &device, (both, false, false)).await;
    let sent = wire
        .outcome(message(request, his, "to the cell that is away"))
        .await;
    assert!(
        matches!(&sent, send_result::Outcome::Sent(sent) if sent.seq == 2),
        "{sent:?}"
    );
    bobs.has_text(his, "to the cell that is away").await;
    store.close().await;
    world.end().await;
}

/// Returns the outcome of the send if the event tells it.
fn outcome(event: Event, request: RequestId) -> Option<send_result::Outcome> {
    match event {
        Event::SendResult(result) if result.request_id == request.to_string() => result.outcome,
        _ => None,
    }
}
