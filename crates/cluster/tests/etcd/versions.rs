//! These tests hold that all nodes give the same map the same version, also if others write to the same etcd.

use etcd_client::KvClient;
use tern_cluster::etcd::Cluster;
use tern_cluster::{ClusterMap, Role};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Etcd, Proxy};
use crate::{has, lacks, register, until};

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
