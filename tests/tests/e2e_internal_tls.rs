//! A platform whose nodes talk to each other by mutual TLS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use tern_local::authority::Authority;
use tern_local::push::PushServers;
use tern_local::{secrets, until};
use tern_tests::{Phone, World};
use tern_types::ChatId;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The time within which all nodes use a changed file. They look at the files every 5 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until each node has taken over changed certificate files `count` times.
async fn taken(world: &World, count: f64) {
    for node in world.platform.nodes() {
        until::holds("the renewed certificate is in use", PATIENCE, || async {
            let labels = [("of", "internal"), ("outcome", "taken")];
            let metric = "tern_node_certificate_reads_total";
            let seen = world.platform.metric(&node.name, metric, &labels).await?;
            anyhow::ensure!(seen >= count, "{}: {seen}", node.name);
            Ok(true)
        })
        .await
        .unwrap();
    }
}

async fn both_write(chat: ChatId, hers: &Phone, his: &Phone) {
    let hello = hers.say(chat, "hello").await;
    his.has(chat, hello.seq).await;
    let answer = his.say(chat, "hello yourself").await;
    hers.has(chat, answer.seq).await;
}

/// Restarts a node, so that connections to it and from it are made anew.
async fn restart(world: &mut World, node: &str) {
    world.platform.drain(node).unwrap();
    world.platform.drained(node).await.unwrap();
    world.platform.restart(node).await.unwrap();
    world.platform.linked().await.unwrap();
}

#[tokio::test]
async fn an_authority_is_replaced_under_a_conversation_that_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let servers = PushServers::start(dir.path()).await.unwrap();
    let mut world = World::with(|builder| builder.internal_tls().media(1).push(&servers)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    hers.say(bob.id, "first").await;
    both_write(chat, &hers, &his).await;

    let files = world.platform.secrets().clone();
    let old = std::fs::read_to_string(&files.internal_ca).unwrap();
    let authority = Authority::new("The next authority").unwrap();
    let both = format!("{old}{}", authority.pem());
    secrets::write(&files.internal_ca, &both).unwrap();
    taken(&world, 1.0).await;
    both_write(chat, &hers, &his).await;

    files.certify_nodes(&authority, &both).unwrap();
    taken(&world, 2.0).await;
    // The restarted node shows the new certificate to nodes whose connections were made with the old one.
    restart(&mut world, "chat-0").await;
    both_write(chat, &hers, &his).await;

    secrets::write(&files.internal_ca, authority.pem()).unwrap();
    until::holds("chat-1 trusts the next authority only", PATIENCE, || async {
        let labels = [("of", "internal"), ("outcome", "taken")];
        let seen = world
            .platform
            .metric("chat-1", "tern_node_certificate_reads_total", &labels)
            .await?;
        Ok(seen >= 3.0)
    })
    .await
    .unwrap();
    restart(&mut world, "chat-1").await;
    restart(&mut world, "accounts-0").await;
    both_write(chat, &hers, &his).await;
    world.end().await;
}

#[tokio::test]
async fn who_is_no_node_is_turned_away_and_counted() {
    let world = World::with(tern_local::Builder::internal_tls).await;
    let node = world.platform.node("chat-0").unwrap();
    let channel = Endpoint::from_shared(format!("http://{}", node.internal))
        .unwrap()
        .connect_lazy();
    let call = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await;
    call.expect_err("plain text");
    until::holds("it is counted", PATIENCE, || async {
        let labels = [("direction", "in")];
        let metric = "tern_node_internal_handshakes_failed_total";
        Ok(world.platform.metric("chat-0", metric, &labels).await? >= 1.0)
    })
    .await
    .unwrap();
    world.end().await;
}
