//! These tests hold that all nodes give the same map the same version, also if others write to the same etcd, and that
//! versions rise, also if etcd loses its data.

use etcd_client::{DeleteOptions, KvClient};
use tern_cluster::etcd::Cluster;
use tern_cluster::standing::Place;
use tern_cluster::{ClusterMap, Role};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Etcd, Proxy};
use crate::{has, lacks, place, register, until, wait_for};

/// Writes a key that is none of Tern's, again and again, until it is dropped.
async fn stranger(etcd: &Etcd) -> AbortOnDropHandle<()> {
    let mut kv: KvClient = etcd.client().await.kv_client();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            kv.put("/stranger", "writes", None).await.unwrap();
        }
    }))
}

/// A watch that begins while others write is one that catches up, so etcd puts several revisions into a response.
#[tokio::test]
async fn nodes_that_join_while_others_write_agree_on_the_version() {
    let etcd = Etcd::start().await;
    let first = etcd.cluster("/t").await;
    let _first = register(&first, "first", 1).await;
    let stranger = stranger(&etcd).await;
    // The nodes stay to the end. The record of one that goes would be deleted a lease later, and change the
    // map in the midst of a comparison.
    let mut stay = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let joins = etcd.cluster("/t").await;
        let registration = register(&joins, name, 1).await;
        let mut maps = [first.map(), joins.map()];
        let [one, other] = &mut maps;
        let shows = |map: &ClusterMap| map.node(Role::Chat, name).is_some();
        let seen = until(one, name, shows).await;
        let own = until(other, name, shows).await;
        assert_eq!(seen.version(), own.version(), "{name}");
        stay.push((joins, registration));
    }
    drop((stranger, stay));
}

/// A list shows that a key is gone, but not since when.
#[tokio::test]
async fn a_node_that_missed_a_deletion_agrees_with_the_others_soon() {
    let etcd = Etcd::start().await;
    let proxy = Proxy::start(&etcd.url).await;
    let mut args = etcd.args("/t");
    args.etcd_endpoints = vec![proxy.url.clone()];
    let behind = Cluster::connect(&args).await.unwrap();
    let ahead = etcd.cluster("/t").await;
    let (_behind, _) = register(&behind, "behind", 1).await;
    let (_ahead, _) = register(&ahead, "ahead", 1).await;
    let (leaves, _) = register(&ahead, "leaves", 1).await;
    until(&mut behind.map(), "leaves", has("leaves")).await;

    let stranger = stranger(&etcd).await;
    proxy.cut();
    leaves.drain().await;
    leaves.leave().await;
    let mut map = ahead.map();
    let before = until(&mut map, "a map without it", lacks("leaves")).await;
    proxy.mend();
    let mut late = behind.map();
    until(&mut late, "a map without it", lacks("leaves")).await;
    let later = |map: &ClusterMap| map.version() > before.version();
    let agreed = until(&mut map, "a later version", later).await.version();
    until(&mut late, "the same version", |map| map.version() == agreed).await;
    drop(stranger);
}

/// The number of writes by which an etcd is ahead of one that has just started. The nodes write less to an empty one.
const AHEAD: usize = 200;

/// An etcd that lost all its data counts its revisions from 1 again. The nodes write their records anew, and would be
/// uncertain of their places for as long as they live if versions fell.
#[tokio::test]
async fn nodes_fill_an_empty_etcd_and_hold_their_places_again() {
    let mut etcd = Etcd::start().await;
    let nodes = [etcd.cluster("/t").await, etcd.cluster("/t").await];
    let mut strange = etcd.client().await;
    for _ in 0..AHEAD {
        strange.put("/stranger", "writes", None).await.unwrap();
    }
    let (_a, a_drain) = register(&nodes[0], "a", 1).await;
    let (_b, b_drain) = register(&nodes[1], "b", 1).await;
    let both = |map: &ClusterMap| has("a")(map) && has("b")(map);
    let mut known = until(&mut nodes[0].map(), "both", both).await.version();
    assert!(known > AHEAD as i64);
    for _ in 0..2 {
        etcd.lose_all().await;
        for node in &nodes {
            let later = |map: &ClusterMap| map.version() > known && both(map);
            until(&mut node.map(), "a later version", later).await;
            wait_for(place(&node.standing(), Place::Held)).await;
        }
        // A node that starts now knows of no version before, and still has those of the others.
        let new = etcd.cluster("/t").await;
        let maps = [nodes[0].map(), nodes[1].map(), new.map()];
        wait_for(|| {
            let [one, other, new] = [0, 1, 2].map(|index| maps[index].current());
            one == other && one == new && one.version() > known && both(&one)
        })
        .await;
        known = maps[0].current().version();
    }
    // The versions also rise if somebody deletes all keys.
    let all = DeleteOptions::new().with_prefix();
    etcd.client().await.delete("/t", Some(all)).await.unwrap();
    for node in &nodes {
        let later = |map: &ClusterMap| map.version() > known && both(map);
        until(&mut node.map(), "a later version", later).await;
        wait_for(place(&node.standing(), Place::Held)).await;
    }
    assert!(!a_drain.started() && !b_drain.started());
}
