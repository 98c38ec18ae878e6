//! Nodes that run, but are cut off from something: etcd, Postgres, or the other nodes. Other nodes that can do their
//! work take it over, and no node mistakes "I do not know" for "nobody is online".

use std::time::Duration;

use tern_local::{Builder, Role, until};
use tern_tests::conversation::Conversation;
use tern_tests::world::{BOUND, FAILOVER_GRACE};
use tern_tests::{Phone, World};

/// The time between two messages of a conversation.
const PACE: Duration = Duration::from_millis(50);
/// The length of a cut: several times that of a lease.
const CUT_FOR: Duration = Duration::from_secs(15);

fn patient(builder: Builder) -> Builder {
    builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)
}

async fn pairs(world: &World, count: usize) -> Vec<Conversation> {
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push(Conversation::begin_at_two_gateways(world).await);
    }
    pairs
}

async fn write_for(pairs: &mut [Conversation], time: Duration) {
    let end = tokio::time::Instant::now() + time;
    let mut pace = tokio::time::interval(PACE);
    while tokio::time::Instant::now() < end {
        pace.tick().await;
        for pair in &mut *pairs {
            pair.write_once().await;
        }
    }
}

async fn all_end(pairs: &[Conversation]) {
    for pair in pairs {
        pair.end().await;
    }
}

/// One node of each role is cut off from etcd and the others are not, so there are two sides with different maps, while
/// everybody is online. The test guards against a presence node that has lost its lease and answers "nobody is online".
/// If one did, the sweep would find about 50 rows in this test.
#[tokio::test]
async fn nobody_who_is_online_is_missed_when_one_node_of_each_role_is_cut_off_from_etcd() {
    let cut = ["chat-0", "gateway-0", "presence-0"];
    let world = World::with(|builder| patient(builder).presences(2).cuttable(cut)).await;
    let mut pairs = pairs(&world, 6).await;
    write_for(&mut pairs, Duration::from_secs(1)).await;
    for node in cut {
        world.platform.cables(node).unwrap().etcd.cut();
    }
    write_for(&mut pairs, CUT_FOR).await;
    // The nodes notice that they are cut off: the gateway takes no new devices, and the devices that it has miss
    // nothing.
    until::holds("gateway-0 is not ready", BOUND, || async {
        Ok(!world.platform.is_ready("gateway-0").await?)
    })
    .await
    .unwrap();
    all_end(&pairs).await;
    for node in cut {
        world.platform.cables(node).unwrap().etcd.mend();
    }
    for node in cut {
        world.platform.back(node).await.unwrap();
    }
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    until::holds("gateway-0 is ready again", BOUND, || async {
        world.platform.is_ready("gateway-0").await
    })
    .await
    .unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_chat_node_that_is_cut_off_from_postgres_gives_its_chats_up_and_takes_them_back() {
    let world = World::with(|builder| patient(builder).cuttable(["chat-0"])).await;
    let mut pairs = pairs(&world, 6).await;
    world.platform.cables("chat-0").unwrap().store.cut();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    world.platform.unwell("chat-0", true).await.unwrap();
    // The messages arrive while the cut lasts.
    all_end(&pairs).await;
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    world.platform.cables("chat-0").unwrap().store.mend();
    world.platform.unwell("chat-0", false).await.unwrap();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    world.end().await;
}

#[tokio::test]
async fn a_chat_node_that_no_gateway_reaches_gives_its_chats_up_and_takes_them_back() {
    let world = World::with(|builder| patient(builder).cuttable(["chat-0"])).await;
    let mut pairs = pairs(&world, 6).await;
    world.platform.cables("chat-0").unwrap().internal.cut();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    world.platform.unwell("chat-0", true).await.unwrap();
    all_end(&pairs).await;
    world.platform.cables("chat-0").unwrap().internal.mend();
    world.platform.unwell("chat-0", false).await.unwrap();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    world.end().await;
}

/// Chat nodes reach the presence node, but it hears of no session any more. The other presence node does.
#[tokio::test]
async fn a_presence_node_that_no_gateway_reaches_gives_its_people_up_and_takes_them_back() {
    let world = World::with(|builder| patient(builder).presences(2).proxied(Role::Presence)).await;
    let mut pairs = pairs(&world, 6).await;
    let proxy = world.platform.proxy("presence-0").unwrap();
    proxy.cut(|from| from.starts_with("gateway"));
    write_for(&mut pairs, Duration::from_secs(1)).await;
    world.platform.unwell("presence-0", true).await.unwrap();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    proxy.cut(|_| false);
    world.platform.unwell("presence-0", false).await.unwrap();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    world.end().await;
}

/// The other gateway reaches the chat nodes, so devices do better there.
#[tokio::test]
async fn a_gateway_that_reaches_no_chat_node_is_not_ready_and_sends_its_devices_to_one_that_does() {
    let chats = ["chat-0", "chat-1"];
    let world = World::with(|builder| patient(builder).proxied(Role::Chat)).await;
    let mut pairs = [
        Conversation::begin(&world).await,
        Conversation::begin(&world).await,
    ];
    let stays = Phone::new(&world, &world.device(&world.user("carol").await).await);
    stays.connect_at(0).await;
    let before = stays.state().drainings;
    for node in chats {
        let proxy = world.platform.proxy(node).unwrap();
        proxy.cut(|from| from == "gateway-0");
    }
    write_for(&mut pairs, Duration::from_secs(1)).await;
    stays
        .until("it is asked to go", |state| state.drainings > before)
        .await;
    let ready = world.platform.is_ready("gateway-0").await.unwrap();
    assert!(!ready, "new devices are kept away before");
    stays.connect_at(1).await;
    // Nobody tells these phones where to go.
    all_end(&pairs).await;
    for node in chats {
        world.platform.proxy(node).unwrap().cut(|_| false);
    }
    until::holds("gateway-0 is ready again", BOUND, || async {
        world.platform.is_ready("gateway-0").await
    })
    .await
    .unwrap();
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    world.end().await;
}

/// No other chat node could do better, so none gives up its slots. The gateways report that they are not ready.
#[tokio::test]
async fn when_no_gateway_reaches_any_chat_node_slots_stay_where_they_are_and_gateways_are_not_ready() {
    let nodes = ["chat-0", "chat-1"];
    let world = World::with(|builder| patient(builder).cuttable(nodes)).await;
    let mut pairs = pairs(&world, 2).await;
    for node in nodes {
        world.platform.cables(node).unwrap().internal.cut();
    }
    for gateway in ["gateway-0", "gateway-1"] {
        until::holds("it is not ready", BOUND, || async {
            Ok(!world.platform.is_ready(gateway).await?)
        })
        .await
        .unwrap();
    }
    for node in nodes {
        world.platform.cables(node).unwrap().internal.mend();
    }
    for gateway in ["gateway-0", "gateway-1"] {
        until::holds("it is ready", BOUND, || async {
            world.platform.is_ready(gateway).await
        })
        .await
        .unwrap();
    }
    write_for(&mut pairs, Duration::from_secs(1)).await;
    all_end(&pairs).await;
    // A link that is renewed after the cut makes a gateway unwell for a while.
    until::holds("no gateway is worse off than another", BOUND, || async {
        let unwell = world.platform.metric_of(Role::Gateway, "tern_node_unwell", &[]);
        Ok(unwell.await? == 0.0)
    })
    .await
    .unwrap();
    world.end().await;
}
