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

/// The messages come from a platform that does not know the device's session. So no wake tells the session of its inbox
/// rows. The sweep finds one, and the check reports that. On a busy machine the session may read its inbox before the
/// sweep does, because its gateway has announced it anew; then the next message is another try.
#[tokio::test]
async fn a_row_that_nobody_told_of_is_swept_and_fails_the_test() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let his = world.phone(&bob).await;
    world.nothing_swept().await.unwrap();

    let other = world.beside().await;
    let hers = other.phone(&alice).await;
    let error = loop {
        let sent = hers.say(bob.id, "hello").await;
        let chat: ChatId = sent.chat_id.parse().unwrap();
        his.has(chat, sent.seq).await;
        if let Err(error) = world.nothing_swept().await {
            break error;
        }
    };
    assert!(error.to_string().contains("sweep found 1"), "{error}");
    drop(hers);
    other.end_swept().await;
    world.end_swept().await;
}
