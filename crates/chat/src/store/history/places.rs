//! Reads messages at known places in several chats.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures::future::try_join_all;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_proto::v1;
use tern_store::{Pools, millis};
use tern_types::{ChatId, Seq, UserId};
use uuid::Uuid;

use super::{message, message_columns, message_joins, reactions};
use crate::store::ReadError;
use crate::store::entries::{budget, erased};
use crate::store::seal::{MasterKey, Sealer, Turn};

/// Selects the messages at places, each given by its chat ($1) and seq ($2), as a user ($3) may read them, in this order
/// and with their chats' wrapped keys. The bodies are bounded by $4 bytes as in [`crate::store::entries::UPWARDS`].
pub const AT: &str = concat!(
    "
SELECT * FROM (
    SELECT e.*, sum(octet_length(e.body) + coalesce(octet_length(e.edit_body), 0)) OVER (ORDER BY e.place)
               - octet_length(e.body) - coalesce(octet_length(e.edit_body), 0) AS bytes_before
    FROM (
        SELECT p.place, m.chat_id, c.wrapped_key, ",
    message_columns!(),
    "
        FROM unnest($1::uuid[], $2::int8[]) WITH ORDINALITY AS p(chat_id, seq, place)
        CROSS JOIN LATERAL (SELECT c.wrapped_key FROM chats c WHERE c.chat_id = p.chat_id LIMIT 1) c",
    message_joins!("p.chat_id", "$3"),
    "
    ) e
) w WHERE w.bytes_before < $4 ORDER BY w.place"
);

/// Reads the messages at these places as they are now, of about `max_bytes` bytes; the first one always fits. The places
/// must be such that `user` may have the messages. Also returns how many of the places the messages cover. It is at
/// least one, if there are any, so that the next page begins later. A message that is no longer there is left out, also
/// if only its content is gone because of the chat's retention.
pub async fn at(
    pools: &Pools,
    master: &MasterKey,
    user: UserId,
    places: &[(ChatId, Seq)],
    max_bytes: usize,
) -> Result<(Vec<v1::HistoryMessage>, usize), ReadError> {
    let parts: Vec<_> = pools.by_cell(places.iter().copied(), |(chat, _)| *chat).collect();
    let bytes_a_cell = (max_bytes / parts.len().max(1) * 2).min(max_bytes);
    let read = parts
        .into_iter()
        .map(|(pool, places)| rows(pool, places, user, bytes_a_cell));
    let mut found = HashMap::new();
    for row in try_join_all(read).await?.into_iter().flatten() {
        let place = (
            ChatId(row.try_get("chat_id")?),
            Seq::from_i64(row.try_get("seq")?),
        );
        found.insert(place, row);
    }
    let (mut messages, mut shown, mut sealers) = (Vec::new(), Vec::new(), HashMap::new());
    let (mut covered, mut bytes, mut turn) = (0, 0, Turn::default());
    for place in places {
        let row = found.remove(place);
        // A cell leaves messages out when its part of the bytes is used up. The next page begins with the first of them.
        if covered > 0 && (row.is_none() || bytes >= max_bytes) {
            break;
        }
        covered += 1;
        let Some(row) = row else { continue };
        if row.try_get("expired")? {
            continue;
        }
        let message = message(&row, place.0, sealer(&mut sealers, &row, master, place.0)?)?;
        let length = message.entry.as_ref().map_or(0, |entry| entry.content.len());
        bytes += length;
        turn.worked(length).await;
        messages.push(message);
        shown.push(*place);
    }
    reactions::add(pools, user, &sealers, &shown, &mut messages).await?;
    Ok((messages, covered))
}

async fn rows(
    pool: &PgPool,
    places: Vec<(ChatId, Seq)>,
    user: UserId,
    max_bytes: usize,
) -> sqlx::Result<Vec<PgRow>> {
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
        places.iter().map(|(chat, seq)| (chat.0, seq.to_i64())).unzip();
    let rows = sqlx::query(AT)
        .bind(chats)
        .bind(seqs)
        .bind(user.0)
        .bind(budget(max_bytes));
    rows.fetch_all(pool).await
}

/// Returns the cipher of the chat, which is prepared from the row's key if the chat is new.
fn sealer<'a>(
    sealers: &'a mut HashMap<ChatId, Sealer>,
    row: &PgRow,
    master: &MasterKey,
    chat: ChatId,
) -> Result<&'a Sealer, ReadError> {
    Ok(match sealers.entry(chat) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            let wrapped: Vec<u8> = row.try_get("wrapped_key")?;
            let key = master.unwrap(chat, &wrapped).map_err(|_| ReadError::Key(chat))?;
            unknown.insert(Sealer::new(&key))
        }
    })
}
