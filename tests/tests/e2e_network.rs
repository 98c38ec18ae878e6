//! The network between some nodes is cut without notice. Messages still go on at once.

use std::time::Duration;

use tern_local::Role;
use tern_tests::{Phone, World};
use tern_types::ChatId;
use tokio::time::Instant;

const NODES: [&str; 2] = ["presence-0", "presence-1"];
/// The interval of the sweep in seconds. It is longer than the test, so it is not the sweep that delivers.
const SWEEP: (&str, &str) = ("TERN_GATEWAY_SWEEP_INTERVAL", "3600");

/// Presence nodes keep their leases, but chat nodes cannot reach them. The chat nodes learn from the gateways who is
/// online.
#[tokio::test]
async fn messages_go_on_where_presence_is_out_of_the_chat_nodes_reach() {
    let world =
        World::with(|builder| builder.presences(2).proxied(Role::Presence).env(SWEEP.0, SWEEP.1)).await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    hers.say(bob.id, "before").await;
    his.has_text(chat, "before").await;

    for node in NODES {
        world
            .platform
            .proxy(node)
            .unwrap()
            .cut(|from| from.starts_with("chat"));
    }
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        for (from, to) in [(&hers, &his), (&his, &hers)] {
            let text = format!("round {round} of {}", from.user());
            let began = Instant::now();
            let sent = from.say(chat, text.as_bytes()).await;
            to.has_text(chat, &text).await;
            slowest = slowest.max(began.elapsed());
            from.receipt(chat, to.user(), sent.seq, 0).await;
        }
    }
    println!("slowest of ten: {slowest:?}");
    // Messages for an offline device are settled too, and it gets them when it connects. A device that connects
    // meanwhile is found.
    let device = world.device(&carol).await;
    let waits = ChatId::direct(alice.id, carol.id);
    hers.say(carol.id, "while away").await;
    world.settled().await;
    let theirs = world.phone_of(&device).await;
    theirs.has_text(waits, "while away").await;
    hers.say(carol.id, "while here").await;
    theirs.has_text(waits, "while here").await;
    world.settled().await;

    for node in NODES {
        world.platform.proxy(node).unwrap().cut(|_| false);
    }
    hers.say(bob.id, "after").await;
    his.has_text(chat, "after").await;
    world.still_works().await;
    world.end().await;
}

/// A gateway keeps its lease and its links to the chat nodes, but does not reach the presence nodes. They know nothing of
/// the devices that connect to it. The chat nodes learn of these devices from the gateway itself.
#[tokio::test]
async fn messages_go_on_where_presence_is_out_of_a_gateways_reach() {
    let world =
        World::with(|builder| builder.presences(2).proxied(Role::Presence).env(SWEEP.0, SWEEP.1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let [hers, his] =
        [world.device(&alice).await, world.device(&bob).await].map(|device| Phone::new(&world, &device));
    let chat = ChatId::direct(alice.id, bob.id);
    hers.connect_at(1).await;
    for node in NODES {
        world
            .platform
            .proxy(node)
            .unwrap()
            .cut(|from| from == "gateway-0");
    }
    // The first message may find a presence node that has not noticed the cut yet.
    his.connect_at(0).await;
    for round in 0..5 {
        let text = format!("round {round}");
        hers.say(bob.id, text.as_bytes()).await;
        his.has_text(chat, &text).await;
    }
    for node in NODES {
        world.platform.proxy(node).unwrap().cut(|_| false);
    }
    hers.say(bob.id, "after").await;
    his.has_text(chat, "after").await;
    world.still_works().await;
    world.end().await;
}
