//! A node that gets SIGTERM hands over its work and ends, and nobody loses anything.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use tern_local::Role;
use tern_proto::v1::CloseCode;
use tern_tests::phone::{State, agree};
use tern_tests::{Phone, World};
use tern_types::ChatId;

/// How often the test tries. A gateway cuts streams off 5 s after the announcement. A busy machine may sometimes take
/// longer for a message, but not each time.
const DRAINS: usize = 5;

#[tokio::test]
async fn a_draining_gateway_sends_its_devices_away_and_ends() {
    let mut world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (
        Phone::new(&world, &world.device(&alice).await),
        world.phone(&bob).await,
    );
    hers.connect_at(0).await;
    his.say(alice.id, "before").await;
    let mut served = serves_until_the_end(&world, &hers, &his).await;
    for _ in 1..DRAINS {
        if served {
            break;
        }
        world.platform.restart("gateway-0").await.unwrap();
        hers.connect_at(0).await;
        served = serves_until_the_end(&world, &hers, &his).await;
    }
    assert!(
        served,
        "each of {DRAINS} streams ended before it brought a message"
    );
    world.end().await;
}

/// Drains the first gateway, which sends her away, and checks that she loses nothing. Returns whether her stream
/// there still brought a message that was sent after the announcement.
async fn serves_until_the_end(world: &World, hers: &Phone, his: &Phone) -> bool {
    let before = hers.state();
    world.platform.drain("gateway-0").unwrap();
    hers.until("the announcement", |state| state.drainings > before.drainings)
        .await;
    let chat = ChatId::direct(hers.user(), his.user());
    let during = his.say(chat, "during").await;
    let closed = |state: &State| state.closings.len() > before.closings.len();
    let came = |state: &State| state.cursor(chat) >= during.seq;
    let state = hers
        .until("a message, or the end of the stream", |state| {
            came(state) || closed(state)
        })
        .await;
    let served = came(&state);
    let state = hers.until("the end of the stream", closed).await;
    let closing = &state.closings[before.closings.len()];
    assert_eq!(closing.code(), CloseCode::Draining);
    assert!(closing.may_reconnect);
    world.platform.drained("gateway-0").await.unwrap();
    hers.disconnect().await;
    hers.connect_at(1).await;
    hers.has(chat, during.seq).await;
    let after = his.say(chat, "after").await;
    hers.has(chat, after.seq).await;
    served
}

#[tokio::test]
async fn a_draining_chat_node_hands_its_chats_over() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    hers.say(bob.id, "first").await;
    let owner = world.owner_of(chat).await;
    let mut texts = vec!["first".to_owned()];
    let mut requests = Vec::new();
    for number in 0..200 {
        if number == 50 {
            world.platform.drain(&owner).unwrap();
        }
        let text = format!("message {number}");
        let sender = [&hers, &his][number % 2];
        requests.push((sender, sender.send(chat, text.as_bytes()).await));
        texts.push(text);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut head = 0;
    for (sender, request) in requests {
        head = head.max(sender.sent(request).await.seq);
    }
    agree(&[&hers, &his], chat, head, &texts).await;
    world.platform.drained(&owner).await.unwrap();
    assert_ne!(world.owner_of(chat).await, owner);
    world.end().await;
}

/// Every node restarts as in an upgrade, one after the other, while a conversation goes on.
#[tokio::test]
async fn a_rolling_restart_of_every_node_loses_nothing() {
    let mut world = World::with(|builder| builder.presences(2).accounts(2)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    let mut texts = vec!["first".to_owned()];
    let mut head = hers.say(bob.id, "first").await.seq;
    let names: Vec<String> = world.platform.nodes().map(|node| node.name.clone()).collect();
    for name in names {
        world.platform.drain(&name).unwrap();
        for number in 0..20 {
            let text = format!("{number} while {name} drains");
            head = head.max([&hers, &his][number % 2].say(chat, text.as_bytes()).await.seq);
            texts.push(text);
        }
        world.platform.drained(&name).await.unwrap();
        world.platform.restart(&name).await.unwrap();
    }
    agree(&[&hers, &his], chat, head, &texts).await;
    world.still_works().await;
    world.end().await;
}

#[tokio::test]
async fn a_chat_node_that_joins_takes_its_share_and_nothing_is_lost() {
    let mut world = World::with(|builder| builder.chats(1)).await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    let mut others = Vec::new();
    for _ in 0..16 {
        let user = world.user("friend").await;
        others.push((ChatId::direct(alice.id, user.id), world.phone(&user).await));
    }
    for (_, phone) in &others {
        phone.say(alice.id, "before").await;
    }
    let added = world.platform.add(Role::Chat).await.unwrap();
    let mut moved = 0;
    for (chat, phone) in &others {
        moved += usize::from(world.owner_of(*chat).await == added);
        let mut head = 0;
        for number in 0..5 {
            head = phone.say(*chat, format!("after {number}")).await.seq;
        }
        hers.has(*chat, head).await;
    }
    assert!(moved > 0, "sixteen chats and none moved: once in 65,536 runs");
    world.end().await;
}
