//! The store is on a Citus cluster of a coordinator and two workers. Servers of the cluster die, and cells move, while
//! people write. `scripts/check-citus` runs these tests where the Postgres of this machine offers the extension.

#![allow(clippy::unwrap_used, reason = "tests")]

use tern_local::Postgres;
use tern_tests::World;
use tern_tests::conversation::Conversation;
use tern_tests::world::FAILOVER_GRACE;
use tern_types::{Cells, ChatId};

async fn world() -> World {
    World::with_own_servers(|builder| builder.citus().env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await
}

/// Returns the port of the node of the cluster that has the chat's cell.
async fn port_of(world: &World, chat: ChatId) -> u16 {
    let store = world.store().await;
    let table = format!("{}.messages", Cells::DEFAULT.of_chat(chat).schema());
    let port: i32 = sqlx::query_scalar("SELECT nodeport FROM citus_shards WHERE table_name = $1::regclass")
        .bind(table)
        .fetch_one(&store)
        .await
        .unwrap();
    store.close().await;
    port.try_into().unwrap()
}

fn worker(world: &mut World, port: u16) -> &mut Postgres {
    let workers = world.platform.citus_workers();
    workers.iter_mut().find(|worker| worker.port() == port).unwrap()
}

#[tokio::test]
#[ignore = "needs Citus: scripts/check-citus runs it"]
async fn a_conversation_goes_on_when_the_worker_with_its_cell_is_killed() {
    let mut world = world().await;
    let mut conversation = Conversation::begin(&world).await;
    let port = port_of(&world, conversation.chat).await;
    for _ in 0..2 {
        conversation.write(20).await;
        worker(&mut world, port).crash().await.unwrap();
        conversation.write(20).await;
        worker(&mut world, port).restart().await.unwrap();
        conversation.end().await;
    }
    world.end().await;
}

/// Nodes know the addresses of all servers.
#[tokio::test]
#[ignore = "needs Citus: scripts/check-citus runs it"]
async fn a_conversation_goes_on_when_the_coordinator_is_killed() {
    let mut world = world().await;
    let mut conversation = Conversation::begin(&world).await;
    for _ in 0..2 {
        conversation.write(20).await;
        world.platform.private_servers().unwrap().0.crash().await.unwrap();
        conversation.write(20).await;
        let (coordinator, _) = world.platform.private_servers().unwrap();
        coordinator.restart().await.unwrap();
        conversation.end().await;
        let carol = world.phone(&world.user("carol").await).await;
        carol.say(conversation.phones[0].user(), "hello").await;
    }
    world.end().await;
}

#[tokio::test]
#[ignore = "needs Citus: scripts/check-citus runs it"]
async fn a_cell_is_moved_while_messages_flow() {
    let mut world = world().await;
    let mut conversation = Conversation::begin(&world).await;
    let store = world.store().await;
    let cell = Cells::DEFAULT.of_chat(conversation.chat).schema();
    for _ in 0..2 {
        let from = port_of(&world, conversation.chat).await;
        let workers = world.platform.citus_workers();
        let to = workers
            .iter()
            .map(|worker| worker.port())
            .find(|port| *port != from);
        let to = to.unwrap();
        let moves = sqlx::query("SELECT citus_schema_move($1::text::regnamespace, '127.0.0.1', $2)")
            .bind(&cell)
            .bind(i32::from(to));
        let (moved, ()) = tokio::join!(moves.execute(&store), conversation.write(200));
        moved.unwrap();
        conversation.end().await;
        assert_eq!(port_of(&world, conversation.chat).await, to);
    }
    store.close().await;
    world.end().await;
}
