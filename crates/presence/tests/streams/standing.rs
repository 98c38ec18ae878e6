//! Tests a node that has lost its place in the map, or leaves it.

use tern_cluster::standing::Standing;
use tern_cluster::{ClusterMap, Node, Role};
use tern_types::{DeviceId, UserId};
use tokio::time::timeout;

use super::{MAP_WAIT, PATIENCE, Presence, announcement, map, node, taken, user_where};

/// Other nodes may own its slots by now, and gateways may have announced sessions to those.
#[tokio::test]
async fn a_node_that_has_lost_its_place_says_who_is_online_and_never_that_nobody_is() {
    let first = map(1, &["p1"], &["g1"]);
    // A node that is not registered has no place.
    let presence = Presence::placed(first, MAP_WAIT, Standing::new).await;
    let (mut g1, mut chat) = (presence.gateway("g1").await, presence.chat("c1").await);
    let [user, offline] = [(); 2].map(|()| UserId::random());
    g1.has_said_all(1).await;
    // The reply comes after all sessions were said.
    g1.say(1, vec![announcement(1, user, DeviceId::random(), 10, 1)])
        .await;
    assert_eq!(g1.next_item().await.1, taken(1));
    for (user, sessions) in [(user, 1), (offline, 0)] {
        let reply = chat.look_up(1, &[user]).await;
        assert_eq!((reply.sessions.len(), reply.unsure), (sessions, true));
        assert!(presence.lists_incomplete(user).await);
    }
    chat.ask(1, vec![user.to_vec().into()], true).await;
    assert!(!chat.next().await.replies[0].followed);
}

#[tokio::test]
async fn a_draining_node_answers_until_its_slots_are_gone_and_then_ends_its_streams() {
    let presence = Presence::start(map(3, &["p1", "p2"], &["g1"])).await;
    let mine = user_where(&map(3, &["p1", "p2"], &["g1"]), true);
    let mut gateway = presence.gateway("g1").await;
    let mut chat = presence.chat("c1").await;
    presence.ctx.drain.start();
    gateway
        .say(3, vec![announcement(1, mine, DeviceId::random(), 10, 0)])
        .await;
    assert_eq!(gateway.next_item().await, (3, taken(1)));
    assert_eq!(chat.sessions(3, mine).await, [("g1".into(), 10)]);

    let leaving = Node {
        draining: true,
        ..node("p1")
    };
    let nodes = [
        (Role::Presence, leaving),
        (Role::Presence, node("p2")),
        (Role::Gateway, node("g1")),
    ];
    presence.follow(ClusterMap::new(4, nodes));
    let last = gateway.next().await.unwrap();
    assert_eq!(
        last.map_version, 4,
        "the hand-over is confirmed before the stream ends"
    );
    assert_eq!(gateway.next().await, None);
    timeout(PATIENCE, presence.done).await.unwrap().unwrap();
}
