//! Reads which messages a user has hidden from themselves.

use std::collections::HashSet;

use tern_store::Pools;
use tern_types::{ChatId, Seq, UserId};

/// Selects those of the entries ($3) of a chat ($2) that the user of the own log ($1) has hidden.
pub const AMONG: &str = "
SELECT h.seq FROM unnest($3::int8[]) AS p(seq)
CROSS JOIN LATERAL (
    SELECT h.seq FROM hidden_messages h WHERE h.chat_id = $1 AND h.of_chat = $2 AND h.seq = p.seq LIMIT 1
) h";

/// Returns those of these entries of the chat that the user has hidden. It asks the cell of the user's own log only.
pub async fn among(
    pools: &Pools,
    user: UserId,
    chat: ChatId,
    seqs: impl IntoIterator<Item = Seq>,
) -> sqlx::Result<HashSet<Seq>> {
    let seqs: Vec<i64> = seqs.into_iter().map(Seq::to_i64).collect();
    if seqs.is_empty() {
        return Ok(HashSet::new());
    }
    let own = ChatId::own(user);
    let question = |pool| async move {
        let hidden = sqlx::query_scalar(AMONG).bind(own.0).bind(chat.0).bind(seqs);
        let hidden: Vec<i64> = hidden.fetch_all(&pool).await?;
        Ok(hidden)
    };
    let hidden = pools.ask(own, question).await?;
    Ok(hidden.into_iter().map(Seq::from_i64).collect())
}
