//! These tests hold that nodes whose process is dead leave the map at once, and that others do not.

use std::time::Duration;

use tern_cluster::drain::DEFAULT_TIMEOUT;
use tern_cluster::etcd::{Cluster, Registration};
use tern_cluster::standing::Place;
use tern_cluster::{ClusterMap, Drain, Node, NodeContext, Role, links};
use tonic::Status;

use crate::support::{Etcd, PATIENCE};
use crate::{has, lacks, node, until, wait_for};

/// The machine of a dead process refuses connections, so nobody waits for its lease, even if so many processes are dead
/// that the map would otherwise hold them.
#[tokio::test]
async fn nodes_whose_process_is_dead_are_gone_at_once() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let mut map = there.map();
    let (a, _) = register_dead(&here, "a").await;
    let (b, _) = register_dead(&here, "b").await;
    let both = until(&mut map, "both", |map| has("a")(map) && has("b")(map)).await;
    // The leases of processes that die live on for a while, because nobody gives them back.
    drop((a, b));
    for name in ["a", "b"] {
        there
            .obituaries()
            .suspect(Role::Chat, both.node(Role::Chat, name).unwrap());
    }
    let mut client = etcd.client().await;
    for name in ["a", "b"] {
        until(&mut map, "no dead node", |map| {
            map.node(Role::Chat, name).is_none()
        })
        .await;
    }
    // The records are marked as gone, unless the machine was so slow that the leases ended first.
    for name in ["a", "b"] {
        let record = client.get(format!("/t/nodes/chat/{name}"), None).await.unwrap();
        for record in record.kvs() {
            assert!(
                record.value_str().unwrap().contains("\"gone\":true"),
                "{record:?}"
            );
            assert_ne!(record.lease(), 0, "it goes with its lease");
        }
    }
}

/// Registers a node at whose address nothing listens.
async fn register_dead(cluster: &Cluster, name: &str) -> (Registration, Drain) {
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let drain = Drain::new(DEFAULT_TIMEOUT);
    let node = Node {
        address: dead.to_string(),
        ..node(name, 1)
    };
    let registration = cluster.register(vec![(Role::Chat, node)], drain.clone()).await;
    (registration, drain)
}

/// Its registration is alive. So once the node was marked as gone, its record is written again, and insists.
#[tokio::test]
async fn a_node_to_which_a_link_breaks_is_looked_at() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let mut map = there.map();
    let (_registered, _drain) = register_dead(&here, "a").await;
    until(&mut map, "a", has("a")).await;
    let ctx = NodeContext {
        obituaries: there.obituaries(),
        ..NodeContext::alone("b", 1, there.map())
    };
    let linking = links::maintain(&ctx, Role::Chat, |_, _| async {
        Err(Status::unavailable("by the test"))
    });
    let insists = |map: &ClusterMap| map.node(Role::Chat, "a").is_some_and(|node| node.insists);
    until(&mut map, "a that insists", insists).await;
    linking.abort();
}

/// A node that was marked as gone by mistake, for example because of a firewall, writes its record again, and is not
/// marked a second time.
#[tokio::test]
async fn a_node_that_was_said_to_be_gone_and_lives_insists() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let mut map = there.map();
    let (_lives, drain) = register_dead(&here, "a").await;
    let seen = until(&mut map, "a", has("a")).await;
    there
        .obituaries()
        .suspect(Role::Chat, seen.node(Role::Chat, "a").unwrap());
    let insists = |map: &ClusterMap| map.node(Role::Chat, "a").is_some_and(|node| node.insists);
    let again = until(&mut map, "a that insists", insists).await;
    assert!(again.version() > seen.version() + 1, "it was gone in between");
    wait_for(|| here.standing().place() == Place::Held).await;
    let version = again.version();
    there
        .obituaries()
        .suspect(Role::Chat, again.node(Role::Chat, "a").unwrap());
    let gone_again = tokio::time::timeout(Duration::from_secs(2), until(&mut map, "no a", lacks("a"))).await;
    assert!(gone_again.is_err(), "after version {version}");
    assert!(!drain.started());
}

#[tokio::test]
async fn a_process_that_lives_is_not_said_to_be_gone() {
    let etcd = Etcd::start().await;
    let (here, there) = (etcd.cluster("/t").await, etcd.cluster("/t").await);
    let listens = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = Node {
        address: listens.local_addr().unwrap().to_string(),
        ..node("a", 1)
    };
    let _registration = here
        .register(vec![(Role::Chat, alive.clone())], Drain::new(DEFAULT_TIMEOUT))
        .await;
    let mut map = there.map();
    until(&mut map, "a", has("a")).await;
    there.obituaries().suspect(Role::Chat, &alive);
    tokio::time::timeout(PATIENCE, listens.accept())
        .await
        .expect("it is asked")
        .unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(2), until(&mut map, "no a", lacks("a"))).await;
    assert!(gone.is_err());
}
