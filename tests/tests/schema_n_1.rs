//! The previous version runs on the present schema, alone and beside this version. An upgrade goes through both:
//! first the migration, then node by node. `scripts/check-schema-n-1` builds that version and runs this test.

#![allow(clippy::expect_used, reason = "test code")]

use std::path::PathBuf;

use tern_local::Role;
use tern_tests::World;

/// Returns the program of the previous version, which the script has built.
fn before() -> PathBuf {
    let path = std::env::var_os("TERN_N_1").expect("TERN_N_1 names the program of the version before");
    PathBuf::from(path)
}

/// Sends and receives messages in a direct chat and in a group, also with a person who was away.
async fn carries_messages(world: World) {
    world.still_works().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = world.group(&[&alice, &bob]).await;
    let sent = hers.say(group, "to the group").await;
    his.has(group, sent.seq).await;
    his.disconnect().await;
    let sent = hers.say(group, "while you were out").await;
    world.settled().await;
    his.connect().await;
    his.has(group, sent.seq).await;
    hers.receipt(group, bob.id, sent.seq, 0).await;
    world.end().await;
}

#[tokio::test]
#[ignore = "scripts/check-schema-n-1 runs it"]
async fn the_version_before_works_on_the_schema_of_now() {
    let old = before();
    let world = World::with(|builder| {
        let roles = [Role::Gateway, Role::Chat, Role::Presence, Role::Accounts];
        roles
            .into_iter()
            .fold(builder, |builder, role| builder.program(role, &old))
    });
    Box::pin(carries_messages(world.await)).await;
}

#[tokio::test]
#[ignore = "scripts/check-schema-n-1 runs it"]
async fn nodes_of_both_versions_work_together() {
    let old = before();
    for role in [Role::Chat, Role::Gateway] {
        let world = World::with(|builder| builder.program(role, &old));
        Box::pin(carries_messages(world.await)).await;
    }
}
