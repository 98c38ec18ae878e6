//! The bounds of pushes, in number and in age, and how long a token lasts that nobody names.

use std::collections::HashSet;

use tern_local::until;
use tern_tests::world::BOUND;
use tern_types::ChatId;

use crate::scene::{CLAIM_S, PUSH, Scene};
use crate::services::Service;

#[tokio::test]
async fn a_push_that_has_been_due_for_more_than_a_day_is_pointless() {
    let mut scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    // There is no push node for a day.
    scene.world.platform.kill(PUSH).await.unwrap();
    let chat: ChatId = hers.say(bob.id, "yesterday").await.chat_id.parse().unwrap();
    scene.world.settled().await;
    let yesterday = "UPDATE inbox SET push_since = push_since - interval '25 hours' \
         WHERE device_id = $1 AND chat_id = $2 AND push_at IS NOT NULL";
    let made = sqlx::query(yesterday)
        .bind(his.device.id.0)
        .bind(chat.0)
        .execute(&scene.store)
        .await
        .unwrap();
    assert_eq!(made.rows_affected(), 1, "a push is due");
    // The message that the push announces is made as old as the push.
    sqlx::query("UPDATE messages SET sent_at = sent_at - interval '25 hours' WHERE chat_id = $1")
        .bind(chat.0)
        .execute(&scene.store)
        .await
        .unwrap();
    scene.world.platform.restart(PUSH).await.unwrap();
    scene.decided(&his, chat).await;
    assert_eq!(scene.taken(&his).len(), 0);
    let counted = [("why", "pointless")];
    let counted = scene
        .world
        .platform
        .metric(PUSH, "tern_push_ended_total", &counted)
        .await;
    assert!(counted.unwrap() >= 1.0);
    // A message of today is announced.
    let today = hers.say(chat, "today").await;
    let (_, says) = scene.alert(&his, 1).await;
    assert_eq!(says.seq, today.seq);
    scene.end().await;
}

/// The store has one cell, because workers of several cells that send at the same moment do not know of each other's
/// pushes yet.
#[tokio::test]
async fn a_device_gets_twenty_pushes_a_minute_and_the_others_after_it() {
    const CHATS: usize = 25;
    const A_MINUTE: usize = 20;
    let mut scene = Scene::with(|builder| builder.cells(1)).await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    scene.world.platform.kill(PUSH).await.unwrap();
    for _ in 0..CHATS {
        hers.create_group(&[&bob]).await;
    }
    scene.world.settled().await;
    scene.world.platform.restart(PUSH).await.unwrap();
    let counts = "SELECT count(*) FILTER (WHERE notified_at IS NOT NULL), \
         count(*) FILTER (WHERE push_at > now() + make_interval(secs => $2)) FROM inbox WHERE device_id = $1";
    until::holds("twenty are shown and the others wait", BOUND, || async {
        let counts: (i64, i64) = sqlx::query_as(counts)
            .bind(his.device.id.0)
            .bind(CLAIM_S)
            .fetch_one(&scene.store)
            .await?;
        Ok(counts == (A_MINUTE as i64, (CHATS - A_MINUTE) as i64))
    })
    .await
    .unwrap();
    scene.pushes(&his, A_MINUTE).await;
    let a_minute_later = "UPDATE inbox SET pushed_at = pushed_at - interval '1 minute', \
         push_at = CASE WHEN push_at IS NOT NULL THEN now() END WHERE device_id = $1";
    sqlx::query(a_minute_later)
        .bind(his.device.id.0)
        .execute(&scene.store)
        .await
        .unwrap();
    let pushes = scene.pushes(&his, CHATS).await;
    let chats: HashSet<&str> = pushes.iter().map(|push| &*push.tag).collect();
    assert_eq!(chats.len(), CHATS, "one for each chat");
    scene.end().await;
}

/// Push nodes look for such tokens when they start, and then once an hour.
#[tokio::test]
async fn a_token_that_no_device_has_named_for_270_days_ends() {
    let mut scene = Scene::start().await;
    let [bob, carol] = scene.world.users(["bob", "carol"]).await;
    let his = scene.away(&bob, Service::Fcm).await;
    let hers = scene.away(&carol, Service::WebPush).await;
    let ago = "UPDATE push_tokens SET named_at = now() - $2 * interval '1 day' WHERE device_id = $1";
    for (away, days) in [(&his, 271), (&hers, 269)] {
        sqlx::query(ago)
            .bind(away.device.id.0)
            .bind(days)
            .execute(&scene.store)
            .await
            .unwrap();
    }
    scene.world.platform.kill(PUSH).await.unwrap();
    scene.world.platform.restart(PUSH).await.unwrap();
    scene.token_ends(&his, "nobody has named it").await;
    assert_eq!(scene.tokens(&hers).await.unwrap(), 1);
    // An app that starts names its token, which then lasts as long again.
    scene.register(&hers).await.unwrap();
    let named = "SELECT named_at > now() - interval '1 day' FROM push_tokens WHERE device_id = $1";
    let named: bool = sqlx::query_scalar(named)
        .bind(hers.device.id.0)
        .fetch_one(&scene.store)
        .await
        .unwrap();
    assert!(named);
    scene.end().await;
}
