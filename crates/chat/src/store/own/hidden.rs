//! Reads which messages a user has hidden from themselves.

use std::collections::HashSet;

use tern_store::Pools;
use tern_types::{ChatId, Seq, UserId};
use uuid::Uuid;

/// Selects those of the entries, each given by its chat ($2) and seq ($3), that the user of the own log ($1) has hidden.
pub const AMONG: &str = "
SELECT h.of_chat, h.seq FROM unnest($2::uuid[], $3::int8[]) AS p(of_chat, seq)
CROSS JOIN LATERAL (
    SELECT h.of_chat, h.seq FROM hidden_messages h
    WHERE h.chat_id = $1 AND h.of_chat = p.of_chat AND h.seq = p.seq LIMIT 1
) h";

/// Returns those of these entries of the chat that the user has hidden. It asks the cell of the user's own log only.
pub async fn among(
    pools: &Pools,
    user: UserId,
    chat: ChatId,
    seqs: impl IntoIterator<Item = Seq>,
) -> sqlx::Result<HashSet<Seq>> {
    let places: Vec<(ChatId, Seq)> = seqs.into_iter().map(|seq| (chat, seq)).collect();
    let hidden = among_places(pools, user, places).await?;
    Ok(hidden.into_iter().map(|(_, seq)| seq).collect())
}

/// Returns those of these entries, each given by its chat and seq, that the user has hidden, as [`among`] does.
pub async fn among_places(
    pools: &Pools,
    user: UserId,
    places: Vec<(ChatId, Seq)>,
) -> sqlx::Result<HashSet<(ChatId, Seq)>> {
    let columns = places.into_iter().map(|(chat, seq)| (chat.0, seq.to_i64()));
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) = columns.unzip();
    if seqs.is_empty() {
        return Ok(HashSet::new());
    }
    let own = ChatId::own(user);
    let question = |pool| async move {
        let hidden = sqlx::query_as(AMONG).bind(own.0).bind(chats).bind(seqs);
        let hidden: Vec<(Uuid, i64)> = hidden.fetch_all(&pool).await?;
        Ok(hidden)
    };
    let hidden = pools.ask(own, question).await?.into_iter();
    Ok(hidden
        .map(|(chat, seq)| (ChatId(chat), Seq::from_i64(seq)))
        .collect())
}
