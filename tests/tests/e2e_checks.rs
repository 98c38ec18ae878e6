//! The checks that run after each test do find the defects that they look for.

use tern_tests::World;
use tern_types::ChatId;

#[tokio::test]
async fn a_gap_in_a_log_is_found() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    for text in ["one", "two", "three"] {
        hers.say(bob.id, text).await;
    }
    world.store_and_logs().await.unwrap();
    let store = world.store().await;
    sqlx::query("DELETE FROM messages WHERE seq = 2")
        .execute(&store)
        .await
        .unwrap();
    let error = world.store_and_logs().await.unwrap_err();
    assert!(error.to_string().contains("gaps"), "{error}");
    world.platform.abort().await.unwrap();
}

/// The message comes from a platform that does not know the device's session. So no wake tells the session of the inbox
/// row. The sweep finds the row, and the check reports that.
#[tokio::test]
async fn a_row_that_nobody_told_of_is_swept_and_fails_the_test() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let his = world.phone(&bob).await;
    world.nothing_swept().await.unwrap();

    let other = world.beside().await;
    let hers = other.phone(&alice).await;
    let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    his.has(chat, 1).await;
    let error = world.nothing_swept().await.unwrap_err();
    assert!(error.to_string().contains("sweep found 1"), "{error}");
    drop(hers);
    other.end_swept().await;
    world.end_swept().await;
}
