//! The rows of a chat in the store: what is left of messages, and how a test makes them old instead of waiting.

use std::time::Duration;

use sqlx::PgPool;
use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::ErrorReason;
use tern_tests::acts::{read, text};
use tern_tests::world::BOUND;
use tern_tests::{Api, World};
use tern_types::ChatId;

/// Returns how many of these entries still have a body, to how many media they refer, and how many reactions to them
/// there are.
pub async fn left(store: &PgPool, chat: ChatId, seqs: &[u64]) -> (i64, i64, i64) {
    let seqs: Vec<i64> = seqs.iter().map(|seq| seq.cast_signed()).collect();
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM messages m WHERE m.chat_id = $1 AND m.seq = ANY ($2) AND octet_length(m.body) > 0),
                (SELECT count(*) FROM media_refs m WHERE m.chat_id = $1 AND m.seq = ANY ($2)),
                (SELECT count(*) FROM reactions r WHERE r.chat_id = $1 AND r.target_seq = ANY ($2))",
    )
    .bind(chat.0)
    .bind(seqs)
    .fetch_one(store)
    .await
    .unwrap()
}

/// Makes the entries up to this one older, as if they had been sent earlier, with the times at which they disappear. They
/// keep their order.
pub async fn older(store: &PgPool, chat: ChatId, up_to: u64, by: Duration) {
    for set_back in [
        "UPDATE messages SET sent_at = sent_at - make_interval(secs => $3) WHERE chat_id = $1 AND seq <= $2",
        "UPDATE expiring SET expires_at = expires_at - make_interval(secs => $3) WHERE chat_id = $1 AND seq <= $2",
    ] {
        let query = sqlx::query(set_back).bind(chat.0).bind(up_to.cast_signed());
        query.bind(by.as_secs_f64()).execute(store).await.unwrap();
    }
}

/// Makes it time to look at what the chat has to keep.
pub async fn look_now(store: &PgPool, chat: ChatId) {
    sqlx::query("UPDATE chats SET trim_at = now() WHERE chat_id = $1")
        .bind(chat.0)
        .execute(store)
        .await
        .unwrap();
}

/// Waits until nothing of these entries is left but their places. It may be time to look from now on.
pub async fn nothing_left(store: &PgPool, chat: ChatId, seqs: &[u64]) {
    until::some("nothing left of the entries", BOUND, || async {
        let left = left(store, chat, seqs).await;
        if left != (0, 0, 0) {
            look_now(store, chat).await;
            anyhow::bail!("{left:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until a message has disappeared from the history.
pub async fn disappears(api: &Api, chat: ChatId, seq: u64) {
    until::some("a message that is gone", BOUND, || async {
        match read(api, chat, seq).await {
            Ok(message) => {
                anyhow::ensure!(text(&message).is_none(), "{message:?}");
            }
            Err(status) => {
                assert_eq!(
                    reason_of(&status),
                    Some(ErrorReason::MessageNotFound),
                    "{status:?}"
                );
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// Moves a chat to another node, which knows of it only what is in the store.
pub async fn moves(world: &World, chat: ChatId) {
    let owner = world.owner_of(chat).await;
    world.platform.drain(&owner).unwrap();
    world.platform.drained(&owner).await.unwrap();
}
