//! Tests of which nodes are told of a block, of contacts and of settings.

use std::sync::Arc;
use std::time::Duration;

use tern_accounts::peers::Peers;
use tern_cluster::{ClusterMap, MapHandle, NodeContext, Role};
use tern_local::until;
use tern_proto::internal::chat_node_server::ChatNodeServer;
use tern_proto::v1::{self, Audience, ErrorReason};
use tern_types::{ChatId, UserId};
use tonic::service::Routes;

use crate::chat::Chat;
use crate::world::{World, admin, node, serve};

#[tokio::test]
async fn a_change_is_told_to_every_gateway_that_can_be_reached() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (her, him) = (alice.to_string(), bob.to_string());
    world.block(&admin(), &her, &him).await.unwrap();
    assert_eq!(world.gateways.take_privacy(), [(alice, false); 2]);
    let settings = v1::PrivacySettings {
        presence_audience: Audience::Nobody.into(),
        read_receipts_off: true,
    };
    world.set_privacy(&admin(), &her, Some(settings)).await.unwrap();
    assert_eq!(world.gateways.take_privacy(), [(alice, true); 2]);
    world.set_contacts(alice, &[bob], &[], false).await.unwrap();
    assert_eq!(
        world.gateways.take_privacy(),
        [(alice, true); 2],
        "with the settings as they are"
    );
}

#[tokio::test]
async fn the_chats_owner_is_told_of_a_block_when_the_store_has_it() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (her, him) = (alice.to_string(), bob.to_string());
    let chat = ChatId::direct(alice, bob);
    world.block(&admin(), &her, &him).await.unwrap();
    assert_eq!(world.chat.blocks(), [(chat, 1)]);
    world.chat.fail(2);
    world.block(&admin(), &her, &him).await.unwrap();
    assert_eq!(
        world.chat.blocks(),
        [(chat, 1); 2],
        "tried again, and told again what is so already"
    );

    world.chat.fail(usize::MAX);
    let refused = world.block(&admin(), &him, &her).await.unwrap_err();
    assert_eq!(refused, ErrorReason::Unavailable);
    world.chat.fail(0);
    world.block(&admin(), &him, &her).await.unwrap();
    assert_eq!(
        world.chat.blocks().last(),
        Some(&(chat, 2)),
        "the same call does it all"
    );
}

/// Two chat nodes, of which the map names the first as the owner until the test changes it.
struct Nodes {
    world: World,
    chats: [Chat; 2],
    maps: [Arc<ClusterMap>; 2],
}

impl Nodes {
    async fn new() -> Self {
        let world = World::start().await;
        let chats = [Chat::new(&world.pool), Chat::new(&world.pool)];
        let mut maps = Vec::new();
        for (version, chat) in (1..).zip(&chats) {
            let address = serve(Routes::new(ChatNodeServer::new(chat.clone()))).await;
            let owner = node(&format!("c{version}"), &address);
            maps.push(Arc::new(ClusterMap::new(version, [(Role::Chat, owner)])));
        }
        let maps = maps.try_into().unwrap();
        Self { world, chats, maps }
    }

    async fn told(&self, chat: usize) {
        until::holds("the node is told", Duration::from_secs(60), || async {
            Ok(!self.chats[chat].blocks().is_empty())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_node_that_is_not_the_owner_names_the_map_that_is_waited_for() {
    let nodes = Nodes::new().await;
    let (sender, map) = MapHandle::channel((*nodes.maps[0]).clone());
    let peers = Peers::new(NodeContext::alone("a1", 1, map));
    let (one, other) = (UserId::random(), UserId::random());
    nodes.chats[0].owns_nothing_by(2);
    let moves = async {
        nodes.told(0).await;
        sender.send_replace(nodes.maps[1].clone());
    };
    let (changed, ()) = tokio::join!(peers.blocks_changed(one, other), moves);
    changed.unwrap();
    assert_eq!(nodes.chats[1].blocks(), [(ChatId::direct(other, one), 0)]);
    drop(nodes.world);
}

/// The new owner may have loaded the chat, by a newer map than this node's, before the block was stored.
#[tokio::test]
async fn who_owns_the_chat_a_moment_later_is_told_too() {
    let nodes = Nodes::new().await;
    let (sender, map) = MapHandle::channel((*nodes.maps[0]).clone());
    let peers = Peers::new(NodeContext::alone("a1", 1, map));
    let (one, other) = (UserId::random(), UserId::random());
    peers.blocks_changed(one, other).await.unwrap();
    assert_eq!(
        (nodes.chats[0].blocks().len(), nodes.chats[1].blocks().len()),
        (1, 0)
    );
    sender.send_replace(nodes.maps[1].clone());
    nodes.told(1).await;
    assert_eq!(nodes.chats[0].blocks().len(), 1);
}
