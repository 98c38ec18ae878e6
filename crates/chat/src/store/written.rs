//! Finds out who has written to whom.

use std::collections::HashSet;

use futures::future::try_join_all;
use tern_store::Pools;
use tern_types::{ChatId, UserId};
use uuid::Uuid;

use tern_chat_core::EntryKind;

/// Selects the chats among $1 whose log has a message of the person in the same place of $2, with that person. The index
/// of requests finds what that person sent. $3 is the kind of messages, so reactions do not count.
pub const HAVE_WRITTEN: &str = "
SELECT asked.chat_id, asked.user_id FROM unnest($1::uuid[], $2::uuid[]) AS asked(chat_id, user_id)
WHERE EXISTS (SELECT FROM messages m
              WHERE m.chat_id = asked.chat_id AND m.sender_user = asked.user_id AND m.kind = $3)";

/// Returns the users among `from` who have written to `to` in their direct chat.
pub async fn have_written(pools: &Pools, to: UserId, from: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    let pairs = from.iter().map(|from| (*from, to)).collect();
    let written = written(pools, pairs).await?;
    Ok(written.into_iter().map(|(from, _)| from).collect())
}

/// Returns the users among `to` to whom `from` has written in their direct chat.
pub async fn has_written_to(pools: &Pools, from: UserId, to: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    let pairs = to.iter().map(|to| (from, *to)).collect();
    let written = written(pools, pairs).await?;
    Ok(written.into_iter().map(|(_, to)| to).collect())
}

/// Returns the pairs in which the first person has written to the second in their direct chat.
pub(crate) async fn written(
    pools: &Pools,
    pairs: Vec<(UserId, UserId)>,
) -> sqlx::Result<Vec<(UserId, UserId)>> {
    let chat = |(from, to): &(UserId, UserId)| ChatId::direct(*from, *to);
    let asked = pools.by_cell(pairs, chat).map(|(pool, mut pairs)| async move {
        let (chats, senders): (Vec<Uuid>, Vec<Uuid>) =
            pairs.iter().map(|pair| (chat(pair).0, pair.0.0)).unzip();
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(HAVE_WRITTEN)
            .bind(chats)
            .bind(senders)
            .bind(EntryKind::Message.number())
            .fetch_all(pool)
            .await?;
        let found: HashSet<(Uuid, Uuid)> = rows.into_iter().collect();
        pairs.retain(|pair| found.contains(&(chat(pair).0, pair.0.0)));
        Ok::<_, sqlx::Error>(pairs)
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}
