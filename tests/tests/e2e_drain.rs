//! SIGTERM: a node hands over what it has and ends, and nobody loses anything by it.

use std::time::Duration;

use tern_local::Role;
use tern_proto::v1::CloseCode;
use tern_tests::phone::agree;
use tern_tests::{Phone, World};
use tern_types::ChatId;

#[tokio::test]
async fn a_draining_gateway_sends_its_devices_away_and_ends() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (
        Phone::new(&world, &world.device(&alice).await),
        world.phone(&bob).await,
    );
    hers.connect_at(0).await;
    let chat = ChatId::direct(alice.id, bob.id);
    his.say(alice.id, "before").await;
    world.platform.drain("gateway-0").unwrap();
    hers.until("the announcement", |state| state.drainings > 0).await;
    // The old stream serves until then.
    let during = his.say(chat, "during").await;
    hers.has(chat, during.seq).await;
    let state = hers
        .until("the end of the stream", |state| !state.closings.is_empty())
        .await;
    assert_eq!(state.closings[0].code(), CloseCode::Draining);
    assert!(state.closings[0].may_reconnect);
    world.platform.drained("gateway-0").await.unwrap();
    hers.disconnect().await;
    hers.connect_at(1).await;
    let after = his.say(chat, "after").await;
    hers.has(chat, after.seq).await;
    world.end().await;
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

/// As an upgrade does it: every node, one after the other, while a conversation goes on.
#[tokio::test]
async fn a_rolling_restart_of_every_node_loses_nothing() {
    let mut world = World::with(|builder| {
        builder
            .presences(2)
            .accounts(2)
            .drain_timeout(Duration::from_secs(3))
    })
    .await;
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
    for _ in 0..8 {
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
    assert!(moved > 0, "eight chats and none moved: once in 256 runs");
    world.end().await;
}
