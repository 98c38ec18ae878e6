//! Reads users' settings of chats, which are in the cells of their own logs.

use std::collections::HashMap;

use futures::future::join_all;
use sqlx::PgPool;
use tern_push_core::facts::Settings;
use tern_store::Pools;
use tern_types::{ChatId, Timestamp, UserId};
use uuid::Uuid;

/// Selects the settings of chats ($2), each in the own log ($1) of a user. Those that have no row have the defaults.
pub const SETTINGS: &str = "
SELECT w.own, w.of_chat, s.muted_until, s.mentions_only
FROM unnest($1::uuid[], $2::uuid[]) AS w(own, of_chat)
CROSS JOIN LATERAL (
    SELECT s.muted_until, s.mentions_only FROM chat_settings s
    WHERE s.chat_id = w.own AND s.of_chat = w.of_chat LIMIT 1
) s";

/// Reads how these users keep these chats. What is in a cell that does not answer is left out. A cell that seems to be
/// away is not waited for each time, because the pushes of all other cells would wait with it.
pub async fn settings(pools: &Pools, of: &[(UserId, ChatId)]) -> HashMap<(UserId, ChatId), Settings> {
    let by_cell = pools.by_cell(of.iter().copied(), |(user, _)| ChatId::own(*user));
    let asked = by_cell.map(|(_, of)| async move {
        let Some(&(user, _)) = of.first() else {
            return HashMap::new();
        };
        let question = |pool: PgPool| async move { in_cell(&pool, &of).await };
        let read = pools.ask(ChatId::own(user), question).await;
        if let Err(error) = &read {
            tracing::debug!(%error, "cannot read how users keep chats");
        }
        read.unwrap_or_default()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Reads the settings of users whose own logs are in the cell with this pool.
async fn in_cell(
    pool: &PgPool,
    of: &[(UserId, ChatId)],
) -> sqlx::Result<HashMap<(UserId, ChatId), Settings>> {
    let (owns, chats): (Vec<Uuid>, Vec<Uuid>) = of
        .iter()
        .map(|(user, chat)| (ChatId::own(*user).0, chat.0))
        .unzip();
    let rows: Vec<(Uuid, Uuid, i64, bool)> = sqlx::query_as(SETTINGS)
        .bind(owns)
        .bind(chats)
        .fetch_all(pool)
        .await?;
    let set: HashMap<(Uuid, Uuid), Settings> = rows
        .into_iter()
        .map(|(own, chat, muted_until, mentions_only)| {
            let settings = Settings {
                muted_until: Timestamp(muted_until),
                mentions_only,
            };
            ((own, chat), settings)
        })
        .collect();
    let found = of.iter().map(|(user, chat)| {
        let set = set.get(&(ChatId::own(*user).0, chat.0)).copied();
        ((*user, *chat), set.unwrap_or_default())
    });
    Ok(found.collect())
}
