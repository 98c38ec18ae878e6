//! Erases the contents of entries, and what the store has about them beside the log.
//!
//! A statement finds its rows by `LATERAL` probes of an index, one for each entry, and then takes them by their place
//! in the table (`ctid`). As a join the planner may read the whole table instead, if that was empty when it was last
//! analysed.

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tern_store::postgres;
use tern_types::{ChatId, Seq};
use uuid::Uuid;

use tern_chat_core::EntryKind;

/// The most entries about messages that one statement erases. Each may have a body on a page of its own.
const MOST_ACTS: i64 = 1_000;

/// The kinds of entries with a content that is erased. A deletion has none, and devices need it for as long as the row
/// is there.
const WITH_CONTENT: [EntryKind; 5] = [
    EntryKind::Message,
    EntryKind::Edit,
    EntryKind::Reaction,
    EntryKind::Pin,
    EntryKind::Own,
];

/// Is the condition that a row `r` of a table belongs to a row `g` of `$of`, by `$which`.
macro_rules! belongs {
    ($table:literal, $of:literal, $which:literal) => {
        concat!(
            " WHERE ctid = ANY(ARRAY(
        SELECT r.place FROM ",
            $of,
            " g CROSS JOIN LATERAL (SELECT r.ctid AS place FROM ",
            $table,
            " r WHERE ",
            $which,
            " OFFSET 0) r
    ))"
        )
    };
}
pub(super) use belongs;

/// Begins a statement about entries, each given by its chat ($1) and seq ($2).
macro_rules! entries {
    () => {
        "
WITH e AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int8[]) AS e(chat_id, seq)
)"
    };
}
pub(super) use entries;

/// Erases the body of each entry, which also ends what it refers to (`release_entry`), and the fingerprint, by which a
/// short text can be guessed. Kinds are as in
/// [`WITH_CONTENT`]. A body that another trimmer erases meanwhile is not erased again: the last condition looks at the
/// row as it is then.
macro_rules! blank {
    () => {
        concat!(
            "UPDATE messages SET body = '', fingerprint = ''",
            belongs!(
                "messages",
                "e",
                "r.chat_id = g.chat_id AND r.seq = g.seq AND r.kind IN (1, 2, 4, 5, 20) AND octet_length(r.body) > 0"
            ),
            " AND octet_length(body) > 0"
        )
    };
}

/// Builds the statement that erases entries with all that the store has about them, and counts the bodies. `acts` are
/// those that are about earlier messages. `$states` is what becomes of the state of the messages.
macro_rules! erase {
    ($($states:tt)*) => {
        concat!(
            entries!(),
            ", acts AS MATERIALIZED (
    SELECT e.chat_id, e.seq, t.target_seq FROM e CROSS JOIN LATERAL (
        SELECT t.target_seq FROM entry_targets t
        WHERE t.chat_id = e.chat_id AND t.seq = e.seq AND t.kind <> 1 LIMIT 1
    ) t
), blanked AS (
    ",
            blank!(),
            " RETURNING 1 AS one
), unmentioned AS (
    DELETE FROM mentions",
            belongs!("mentions", "e", "r.chat_id = g.chat_id AND r.seq = g.seq"),
            "
), unreacted AS (
    DELETE FROM reactions",
            belongs!(
                "reactions",
                "(SELECT chat_id, seq, NULL::int8 AS by_seq FROM e UNION ALL SELECT chat_id, target_seq, seq FROM acts)",
                "r.chat_id = g.chat_id AND r.target_seq = g.seq AND (g.by_seq IS NULL OR r.seq = g.by_seq)"
            ),
            "
)",
            $($states)*,
            "
SELECT count(*) FROM blanked"
        )
    };
}

/// Erases entries that were kept for long enough, or that all devices have. Nothing is left of the state of messages,
/// but that they were deleted or have disappeared. An entry that is about an earlier message also takes the state of
/// that one with it, which it may have made anew: its content is gone already.
pub const KEPT_ENOUGH: &str = erase!(
    ", states AS (
    DELETE FROM message_state",
    belongs!(
        "message_state",
        "(SELECT chat_id, seq FROM e UNION SELECT chat_id, target_seq FROM acts)",
        "r.chat_id = g.chat_id AND r.seq = g.seq AND r.deleted_seq = 0 AND NOT r.disappeared"
    ),
    "
)"
);

/// Erases messages that disappear, and notes that they have: nothing is done to them any more.
pub const DISAPPEARED: &str = erase!(
    ", states AS (
    INSERT INTO message_state (chat_id, seq, disappeared) SELECT chat_id, seq, true FROM e ORDER BY chat_id, seq
    ON CONFLICT (chat_id, seq) DO UPDATE SET disappeared = true, edited_seq = 0, pinned_seq = 0
), uncounted AS (
    DELETE FROM act_counts",
    belongs!("act_counts", "e", "r.chat_id = g.chat_id AND r.target_seq = g.seq"),
    "
)"
);

/// Selects what was done to messages ($1, $2): their edits, the reactions to them, and their pins, in the order of the
/// messages, and after the one with the message's place in the list ($3), this kind ($4) and seq ($5), at most $6.
pub const ACTS: &str = "
SELECT e.place, a.kind, a.seq FROM unnest($1::uuid[], $2::int8[]) WITH ORDINALITY AS e(chat_id, seq, place)
CROSS JOIN LATERAL (
    SELECT t.kind, t.seq FROM entry_targets t
    WHERE t.chat_id = e.chat_id AND t.target_seq = e.seq AND t.kind IN (2, 4, 5)
        AND (e.place > $3 OR (t.kind, t.seq) > ($4, $5))
    ORDER BY t.kind, t.seq LIMIT $6
) a
WHERE e.place >= $3 ORDER BY e.place, a.kind, a.seq LIMIT $6";

/// Erases the bodies of entries, and leaves what the store has about them.
pub const BLANK: &str = concat!(entries!(), " ", blank!());

/// A place in a log.
pub(super) type Place = (ChatId, Seq);

/// Returns whether an entry of the kind with this number has a content that is erased.
pub(super) fn has_content(kind: i16) -> bool {
    WITH_CONTENT.iter().any(|with| with.number() == kind)
}

/// Returns the columns of these places.
pub(super) fn columns<'a>(places: impl IntoIterator<Item = &'a Place>) -> (Vec<Uuid>, Vec<i64>) {
    places
        .into_iter()
        .map(|(chat, seq)| (chat.0, seq.to_i64()))
        .unzip()
}

/// Erases entries by [`KEPT_ENOUGH`] or [`DISAPPEARED`]. Returns the number of bodies.
pub(super) async fn erase(db: &mut PgConnection, sql: &'static str, places: &[Place]) -> sqlx::Result<u64> {
    if places.is_empty() {
        return Ok(0);
    }
    let (chats, seqs) = columns(places);
    let erased: i64 = sqlx::query_scalar(sql)
        .bind(chats)
        .bind(seqs)
        .fetch_one(db)
        .await?;
    Ok(u64::try_from(erased).unwrap_or(0))
}

/// Erases what was done to messages, in the transaction that erased these and, if it is much, in further ones. Returns
/// the last transaction, which is still open, and the number of bodies. Whoever marks the messages as erased does it in
/// that transaction: if this is interrupted before, all of it is done again.
pub(super) async fn erase_acts(
    pool: &PgPool,
    mut tx: Transaction<'static, Postgres>,
    messages: &[Place],
) -> sqlx::Result<(Transaction<'static, Postgres>, u64)> {
    if messages.is_empty() {
        return Ok((tx, 0));
    }
    let (chats, seqs) = columns(messages);
    let (mut after, mut erased): ((i64, i16, i64), u64) = ((0, 0, 0), 0);
    loop {
        let acts: Vec<(i64, i16, i64)> = sqlx::query_as(ACTS)
            .bind(&chats)
            .bind(&seqs)
            .bind(after.0)
            .bind(after.1)
            .bind(after.2)
            .bind(MOST_ACTS)
            .fetch_all(&mut *tx)
            .await?;
        let Some(last) = acts.last().copied() else {
            return Ok((tx, erased));
        };
        let chat = |place: i64| usize::try_from(place - 1).ok().and_then(|place| chats.get(place));
        let places = acts
            .iter()
            .filter_map(|(place, _, seq)| Some((*chat(*place)?, *seq)));
        let (of_chats, at): (Vec<Uuid>, Vec<i64>) = places.unzip();
        let blanked = sqlx::query(BLANK)
            .bind(of_chats)
            .bind(at)
            .execute(&mut *tx)
            .await?;
        erased += blanked.rows_affected();
        if (acts.len() as i64) < MOST_ACTS {
            return Ok((tx, erased));
        }
        after = last;
        tx.commit().await?;
        tx = postgres::begin(pool).await?;
    }
}
