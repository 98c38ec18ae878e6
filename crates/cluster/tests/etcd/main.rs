//! Tests of the cluster map on a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod obituaries;
mod support;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::CompactionOptions;
use futures::FutureExt;
use support::{Etcd, PATIENCE};
use tern_cluster::drain::DEFAULT_TIMEOUT;
use tern_cluster::etcd::{Cluster, Peers, Registration};
use tern_cluster::info::Info;
use tern_cluster::membership::LEASE;
use tern_cluster::standing::{Place, Standing};
use tern_cluster::{ClusterMap, Drain, MapHandle, Node, NodeContext, Role};
use tern_transport::channels::Channels;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

fn node(name: &str, incarnation: u64) -> Node {
    Node {
        name: name.to_owned(),
        address: "127.0.0.1:7000".to_owned(),
        admin: String::new(),
        incarnation,
        ..Node::default()
    }
}

async fn register(cluster: &Cluster, name: &str, incarnation: u64) -> (Registration, Drain) {
    let drain = Drain::new(DEFAULT_TIMEOUT);
    let nodes = vec![(Role::Chat, node(name, incarnation))];
    let registration = tokio::time::timeout(PATIENCE, cluster.register(nodes, drain.clone()))
        .await
        .unwrap();
    (registration, drain)
}

/// Waits until the map is `right`, and returns it. It panics with `what` if that takes too long.
async fn until(map: &mut MapHandle, what: &str, right: impl Fn(&ClusterMap) -> bool) -> Arc<ClusterMap> {
    let wait = async {
        let mut now = map.current();
        while !right(&now) {
            now = map.changed().await;
        }
        now
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(map) => map,
        Err(_) => panic!("the map never had {what}: {:?}", map.current().nodes(Role::Chat)),
    }
}

fn has(name: &'static str) -> impl Fn(&ClusterMap) -> bool {
    move |map| map.node(Role::Chat, name).is_some()
}

fn lacks(name: &'static str) -> impl Fn(&ClusterMap) -> bool {
    move |map| map.node(Role::Chat, name).is_none()
}

#[tokio::test]
async fn who_registers_is_seen_drains_and_leaves() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let elsewhere = etcd.cluster("/other").await;
    let mut map = there.map();
    assert_eq!(map.current().nodes(Role::Chat), []);

    let drain = Drain::new(DEFAULT_TIMEOUT);
    let both = vec![(Role::Chat, node("a", 1)), (Role::Presence, node("a", 1))];
    let registration = here.register(both, drain.clone()).await;
    let seen = until(&mut map, "a", |map| {
        has("a")(map) && map.node(Role::Presence, "a").is_some()
    })
    .await;
    assert_eq!(seen.nodes(Role::Chat), [node("a", 1)]);
    assert!(seen.version() > 0);
    // A node that starts later finds the registration in its first list.
    assert_eq!(
        etcd.cluster("/t").await.map().current().nodes(Role::Chat),
        [node("a", 1)]
    );

    registration.drain().await;
    let draining = until(&mut map, "a draining", |map| map.any(Role::Chat).is_none()).await;
    assert!(draining.version() > seen.version());
    assert!(draining.node(Role::Chat, "a").is_some_and(|node| node.draining));

    registration.leave().await;
    until(&mut map, "no a", |map| {
        lacks("a")(map) && map.nodes(Role::Presence).is_empty()
    })
    .await;
    assert!(!drain.started());
    assert_eq!(elsewhere.map().current().nodes(Role::Chat), []);
}

#[tokio::test]
async fn a_node_that_crashes_is_gone_after_its_lease() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let mut map = there.map();
    let (registration, _) = register(&here, "a", 1).await;
    until(&mut map, "a", has("a")).await;
    let mut client = etcd.client().await;
    let lease = client.leases().await.unwrap().leases()[0].id();
    // On a busy machine the last renewal may be long ago, so etcd is asked how much is left of the lease.
    let asked = tokio::time::Instant::now();
    let left = client.lease_time_to_live(lease, None).await.unwrap().ttl();
    drop(registration);
    until(&mut map, "no a", lacks("a")).await;
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    assert!(asked.elapsed() >= left, "{:?} of {left:?}", asked.elapsed());
}

#[tokio::test]
async fn a_lost_lease_is_granted_again() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let mut map = there.map();
    let (_registration, drain) = register(&here, "a", 1).await;
    until(&mut map, "a", has("a")).await;

    let mut client = etcd.client().await;
    let lost = client.leases().await.unwrap().leases()[0].id();
    client.lease_revoke(lost).await.unwrap();
    until(&mut map, "no a", lacks("a")).await;
    until(&mut map, "a again", has("a")).await;
    let key = client.get("/t/nodes/chat/a", None).await.unwrap();
    assert_ne!(key.kvs()[0].lease(), 0);
    assert_ne!(key.kvs()[0].lease(), lost);
    assert!(!drain.started());
}

#[tokio::test]
async fn a_newer_incarnation_takes_the_name_over_and_the_older_drains() {
    let etcd = Etcd::start().await;
    let (older, newer) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let mut map = newer.map();
    let (old, old_drain) = register(&older, "a", 5).await;
    until(&mut map, "a", has("a")).await;
    assert!(newer.incarnation("a") > 5);

    let (_new, new_drain) = register(&newer, "a", 6).await;
    until(&mut map, "a newer a", |map| {
        map.node(Role::Chat, "a")
            .is_some_and(|node| node.incarnation == 6)
    })
    .await;
    tokio::time::timeout(PATIENCE, old_drain.wait())
        .await
        .expect("the older one drains");
    assert!(!new_drain.started());

    // Whatever the older process still does has no effect on the newer one.
    old.drain().await;
    old.leave().await;
    let now = etcd.cluster("/t").await.map().current();
    assert_eq!(now.nodes(Role::Chat), [node("a", 6)]);
}

#[tokio::test]
async fn an_older_incarnation_never_writes_over_a_newer_one() {
    let etcd = Etcd::start().await;
    let (older, newer) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let (_new, _) = register(&newer, "a", 6).await;
    let (_old, old_drain) = register(&older, "a", 5).await;
    assert!(old_drain.started());
    assert_eq!(
        etcd.cluster("/t").await.map().current().nodes(Role::Chat),
        [node("a", 6)]
    );
}

/// The clock was set back, and then the node's process was found dead and started again.
#[tokio::test]
async fn the_incarnation_of_a_process_is_above_that_of_one_that_was_found_dead() {
    let etcd = Etcd::start().await;
    let dead = Node {
        gone: true,
        ..node("a", u64::MAX / 2)
    };
    let record = serde_json::to_vec(&dead).unwrap();
    let mut client = etcd.client().await;
    client.put("/t/nodes/chat/a", record, None).await.unwrap();
    let cluster = etcd.cluster("/t").await;
    assert_eq!(cluster.map().current().nodes(Role::Chat), []);
    let incarnation = cluster.incarnation("a");
    assert_eq!(incarnation, u64::MAX / 2 + 1);
    let (_registration, drain) = register(&cluster, "a", incarnation).await;
    until(&mut cluster.map(), "a", has("a")).await;
    assert!(!drain.started(), "it does not give way to the dead one");
}

#[tokio::test]
async fn the_map_is_frozen_while_etcd_is_away_and_catches_up_afterwards() {
    let etcd = Etcd::start().await;
    let cluster = etcd.cluster("/t").await;
    let mut map = cluster.map();
    let (_a, _) = register(&cluster, "a", 1).await;
    let (_b, _) = register(&cluster, "b", 1).await;
    until(&mut map, "a and b", |map| has("a")(map) && has("b")(map)).await;

    etcd.stop();
    // Map changes from before etcd was stopped are passed over.
    let _ = map.changed().now_or_never();
    // The time is longer than the lease and the longest silence of a watch. Nothing may change in it.
    let frozen = tokio::time::timeout(LEASE + Duration::from_secs(3), map.changed()).await;
    assert!(frozen.is_err(), "{frozen:?}");
    etcd.go_on();
    let went_on = tokio::time::Instant::now();

    // etcd ends the leases of both when it is back. They register again, and no map ever lacks them.
    let (_c, _) = register(&cluster, "c", 1).await;
    loop {
        let now = tokio::time::timeout(PATIENCE, map.changed())
            .await
            .expect("c comes");
        // A node that takes longer than a lease to register again leaves the map.
        let late = went_on.elapsed() > LEASE;
        assert!(
            late || has("a")(&now) && has("b")(&now),
            "{:?}",
            now.nodes(Role::Chat)
        );
        if has("c")(&now) {
            break;
        }
    }
    until(&mut etcd.cluster("/t").await.map(), "all three", |map| {
        map.nodes(Role::Chat).len() == 3
    })
    .await;
    let caught_up = tokio::time::timeout(LEASE, map.changed()).await;
    assert!(caught_up.is_err() || caught_up.is_ok_and(|now| now.nodes(Role::Chat).len() == 3));
}

#[tokio::test]
async fn what_is_not_understood_is_left_alone() {
    let etcd = Etcd::start().await;
    let cluster = etcd.cluster("/t").await;
    let mut client = etcd.client().await;
    for key in [
        "/t/nodes/chat/garbage",
        "/t/nodes/router/x",
        "/t/nodes/x",
        "/t/nodes/",
    ] {
        client.put(key, "{", None).await.unwrap();
    }
    let later = r#"{"address":"h:1","incarnation":3,"zone":"eu"}"#;
    client.put("/t/nodes/chat/later", later, None).await.unwrap();
    let seen = until(&mut cluster.map(), "later", has("later")).await;
    assert_eq!(
        seen.nodes(Role::Chat),
        [Node {
            address: "h:1".to_owned(),
            ..node("later", 3)
        }]
    );
    assert_eq!(
        etcd.cluster("/t").await.map().current().nodes(Role::Chat),
        seen.nodes(Role::Chat)
    );
}

#[tokio::test]
async fn a_watch_that_was_compacted_away_starts_from_a_new_list() {
    let etcd = Etcd::start().await;
    let proxy = support::Proxy::start(&etcd.url).await;
    let mut args = etcd.args("/t");
    args.etcd_endpoints = vec![proxy.url.clone()];
    let behind = Cluster::connect(&args).await.unwrap();
    let ahead = etcd.cluster("/t").await;
    let mut map = behind.map();
    let (a, _) = register(&ahead, "a", 1).await;
    until(&mut map, "a", has("a")).await;

    // While one watcher is cut off, changes happen and their history is compacted away.
    proxy.cut();
    a.drain().await;
    a.leave().await;
    let (_b, _) = register(&ahead, "b", 1).await;
    let mut client = etcd.client().await;
    let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
    client
        .compact(revision, Some(CompactionOptions::new().with_physical()))
        .await
        .unwrap();
    proxy.mend();

    until(&mut map, "b but no a", |map| has("b")(map) && lacks("a")(map)).await;
    // The watch works again.
    let (_c, _) = register(&ahead, "c", 1).await;
    until(&mut map, "c", has("c")).await;
}

/// Serves the records that `cluster` knows, as every node does, and returns the address.
async fn serve(cluster: &Cluster, name: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let info = Info::service(
        NodeContext::alone(name, 1, cluster.map()),
        cluster.records(),
        "test",
    );
    let serving = Server::builder()
        .add_service(info)
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(serving);
    address
}

async fn wait_for(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}

fn place(standing: &Standing, place: Place) -> impl Fn() -> bool {
    let standing = standing.clone();
    move || standing.place() == place
}

/// If it did not ask others, there would be two maps: a node that alone is cut off from etcd would use its old map for
/// as long as that lasts.
#[tokio::test]
async fn a_node_that_does_not_see_etcd_hears_from_others_that_it_has_lost_its_place() {
    let etcd = Etcd::start().await;
    let proxy = support::Proxy::start(&etcd.url).await;
    let mut args = etcd.args("/t");
    args.etcd_endpoints = vec![proxy.url.clone()];
    let sees = etcd.cluster("/t").await;
    let address = serve(&sees, "b").await;
    let other = Node {
        address,
        ..node("b", 1)
    };
    let _b = sees
        .register(vec![(Role::Chat, other)], Drain::new(DEFAULT_TIMEOUT))
        .await;

    let peers = Peers::new(Channels::default(), "127.0.0.1:7000");
    let cut = Cluster::connect_among(&args, Some(peers)).await.unwrap();
    let (_a, drain) = register(&cut, "a", 1).await;
    let (standing, mut map) = (cut.standing(), cut.map());
    wait_for(place(&standing, Place::Held)).await;

    proxy.cut();
    until(&mut map, "b alone", |map| lacks("a")(map) && has("b")(map)).await;
    assert_eq!(standing.place(), Place::Lost);
    assert!(!drain.started());
    proxy.mend();
    until(&mut map, "both", |map| has("a")(map) && has("b")(map)).await;
    wait_for(place(&standing, Place::Held)).await;
}

/// The map stands still while etcd is away (rule 9). A node that asks the others learns that it stands still for all
/// of them.
#[tokio::test]
async fn while_etcd_is_away_for_all_nobody_has_lost_its_place() {
    let etcd = Etcd::start().await;
    let one = etcd.cluster("/t").await;
    let address = serve(&one, "b").await;
    let other = Node {
        address,
        ..node("b", 1)
    };
    let _b = one
        .register(vec![(Role::Chat, other)], Drain::new(DEFAULT_TIMEOUT))
        .await;
    let peers = Peers::new(Channels::default(), "127.0.0.1:7000");
    let asks = Cluster::connect_among(&etcd.args("/t"), Some(peers))
        .await
        .unwrap();
    let alone = etcd.cluster("/t").await;
    let (_a, _) = register(&asks, "a", 1).await;
    let (_c, _) = register(&alone, "c", 1).await;
    let (asks, alone) = (asks.standing(), alone.standing());
    wait_for(place(&asks, Place::Held)).await;
    wait_for(place(&alone, Place::Held)).await;
    etcd.stop();
    wait_for(place(&asks, Place::Frozen)).await;
    wait_for(place(&alone, Place::CutOff)).await;
    assert!(!asks.is_held());
    etcd.go_on();
    wait_for(place(&asks, Place::Held)).await;
    wait_for(place(&alone, Place::Held)).await;
}
