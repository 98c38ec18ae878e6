//! Counts the reactions to messages.

use std::collections::HashMap;

use futures::future::try_join_all;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_proto::v1;
use tern_store::Pools;
use tern_types::{ChatId, RequestId, Seq, UserId};
use uuid::Uuid;

use crate::store::ReadError;
use crate::store::seal::{Sealer, Turn};

/// Counts the reactions to messages, each given by its chat ($1) and seq ($2), by their kind, and selects an entry of
/// each kind. Those that a user ($3) shares and those of others only are at most 32 each, the most frequent first.
/// Reactions that the user may not read are left out (rule 7).
pub const REACTIONS: &str = "
SELECT t.chat_id, t.seq AS target_seq, r.people, r.own, m.sender_user, m.request_id, m.body
FROM unnest($1::uuid[], $2::int8[]) AS t(chat_id, seq)
CROSS JOIN LATERAL (
    SELECT count(*) AS people, bool_or(r.user_id = $3) AS own, min(r.seq) AS seq,
           row_number() OVER (PARTITION BY bool_or(r.user_id = $3) ORDER BY count(*) DESC, min(r.seq)) AS place
    FROM reactions r
    WHERE r.chat_id = t.chat_id AND r.target_seq = t.seq
        AND EXISTS (SELECT FROM members i WHERE i.chat_id = t.chat_id AND i.user_id = $3
                        AND r.seq BETWEEN coalesce(i.history_seq, i.joined_seq) AND coalesce(i.left_seq, r.seq))
    GROUP BY r.key
) AS r
CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = t.chat_id AND m.seq = r.seq LIMIT 1) AS m
WHERE r.place <= 32 ORDER BY t.chat_id, t.seq, r.people DESC, r.seq";

/// Adds the reactions that `user` may see to the messages at these places, which are in the same order. `sealers` has
/// the cipher of each chat.
pub(super) async fn add(
    pools: &Pools,
    user: UserId,
    sealers: &HashMap<ChatId, Sealer>,
    places: &[(ChatId, Seq)],
    messages: &mut [v1::HistoryMessage],
) -> Result<(), ReadError> {
    let numbered = places.iter().zip(0..).map(|(place, number)| (*place, number));
    let numbers: HashMap<(ChatId, Seq), usize> = numbered.collect();
    // The store may still have reactions to a message that was deleted.
    let there = places.iter().zip(&*messages);
    let there = there.filter(|(_, message)| message.deleted_seq == 0);
    let there: Vec<(ChatId, Seq)> = there.map(|(place, _)| *place).collect();
    let parts = pools.by_cell(there, |(chat, _)| *chat);
    let read = parts.map(|(pool, places)| rows(pool, places, user));
    let mut turn = Turn::default();
    for row in try_join_all(read).await?.into_iter().flatten() {
        let chat = ChatId(row.try_get("chat_id")?);
        let target = (chat, Seq::from_i64(row.try_get("target_seq")?));
        let Some(number) = numbers.get(&target) else {
            continue;
        };
        let (Some(message), Some(sealer)) = (messages.get_mut(*number), sealers.get(&chat)) else {
            continue;
        };
        let body: Vec<u8> = row.try_get("body")?;
        if body.is_empty() {
            // The message was deleted after the page was read.
            continue;
        }
        let (sender, request) = (
            UserId(row.try_get("sender_user")?),
            RequestId(row.try_get("request_id")?),
        );
        let content = sealer.open(&body, chat, sender, request);
        let content = content.map_err(|_| ReadError::Key(chat))?;
        turn.worked(content.len()).await;
        message.reactions.push(v1::ReactionCount {
            reaction: tern_proto::raw::message_body(&content),
            count: u32::try_from(row.try_get::<i64, _>("people")?).unwrap_or(u32::MAX),
            own: row.try_get("own")?,
        });
    }
    Ok(())
}

async fn rows(pool: &PgPool, places: Vec<(ChatId, Seq)>, user: UserId) -> sqlx::Result<Vec<PgRow>> {
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
        places.iter().map(|(chat, seq)| (chat.0, seq.to_i64())).unzip();
    let rows = sqlx::query(REACTIONS).bind(chats).bind(seqs).bind(user.0);
    rows.fetch_all(pool).await
}
