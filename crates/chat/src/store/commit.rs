//! Commits entries. One statement commits the entries of many chats, all or nothing for each chat.

use sqlx::{Connection, PgConnection};
use tern_types::{ChatId, IdSet, Slot};
use uuid::Uuid;

use tern_chat_core::chat::Batch;
use tern_chat_core::content::stored_fingerprint;

use super::erasing::{blank, first_acts, forget};
use super::heads::{Heads, lock_free_to_commit};
use super::seal::{Sealer, Turn};
use super::targets::TargetRows;

pub use super::targets::ERASED_IN_COMMIT;

/// The part of a commit's WITH list that writes the media to which the entries refer.
macro_rules! refs {
    () => {
        ", refs AS (
    INSERT INTO media_refs (chat_id, media_id, seq)
    SELECT chat_id, media_id, seq FROM unnest($16::uuid[], $17::uuid[], $18::int8[]) AS r(chat_id, media_id, seq)
    WHERE (r.chat_id IN (SELECT chat_id FROM stored)) IS TRUE
)"
    };
}

/// Builds the statement of a commit. `$before` are parts of its WITH list before the heads move, `$unless` further
/// conditions on the chats `c` whose heads move, and `$more` parts of the WITH list after that.
macro_rules! commit {
    ([$($before:tt)*] [$($unless:tt)*] $($more:tt)*) => {
        concat!(
            "
WITH c AS (
    SELECT * FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int2[])
        AS c(chat_id, expected, head, ordinal, slot)
), e AS (
    SELECT * FROM unnest($6::uuid[], $7::int8[], $8::int8[], $9::int2[], $10::uuid[], $11::uuid[], $12::uuid[],
                         $13::bytea[], $14::bytea[], $15::int8[])
        AS e(chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
), repeated AS (
    SELECT e.chat_id FROM e CROSS JOIN LATERAL (
        SELECT FROM messages m
        WHERE m.chat_id = e.chat_id AND m.sender_user = e.sender_user AND m.request_id = e.request_id LIMIT 1
    ) AS m
)",
            $($before)*,
            ", stored AS (
    UPDATE chat_heads h SET head_seq = c.head, head_ordinal = c.ordinal FROM c
    WHERE h.chat_id = c.chat_id AND h.head_seq = c.expected
        AND (c.chat_id IN (SELECT chat_id FROM repeated)) IS NOT TRUE",
            $($unless)*,
            "
    RETURNING h.chat_id, c.expected, c.slot
), entries AS (
    INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
    SELECT chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body,
           to_timestamp(sent_at / 1000.0)
    FROM e WHERE (e.chat_id IN (SELECT chat_id FROM stored)) IS TRUE
), open AS (
    INSERT INTO unsettled (chat_id, from_seq, slot) SELECT chat_id, expected + 1, slot FROM stored
)",
            $($more)*,
            "
SELECT chat_id FROM stored"
        )
    };
}

/// Commits batches (rules 1, 2 and 5, fine print 3 and 10): a compare-and-set of each chat's head, the insert of its
/// entries and of its unsettled row. A chat whose head had moved, or one of whose requests is in the log already, is
/// left out.
///
/// `IN (…) IS TRUE` makes the planner use hashed subplans, where a join would be a nested loop over both lists.
/// `LATERAL … LIMIT` makes it probe the index for each entry. The planner may turn a join round, and the join then
/// reads the whole log if the table was empty when it was last analysed.
pub const COMMIT: &str = commit!([""] [""] "");

/// Commits batches as [`COMMIT`] does, with the media that their entries refer to. Batches without media use
/// [`COMMIT`], and pay nothing for this.
pub const COMMIT_WITH_MEDIA: &str = commit!([""] [""] refs!());

/// Commits batches as [`COMMIT_WITH_MEDIA`] does, with what their entries do to earlier messages, and whom they
/// mention. Of a message that disappears it notes when, and of an entry with a push hint of its own the hint. Batches
/// without such entries use the other statements. A chat is also left out if one of the entries is an edit or a reaction of somebody who has done that to the message $29 times:
/// `crowded`.
///
/// A deletion takes the bodies of the message, and of the first $30 of its edits and then of the reactions to it, out
/// of the log, which also ends what they refer to (`release_entry`), and ends that the message is pinned. If there are
/// more, it leaves an erasure (`erasing.rs`).
///
/// An edit, a reaction or a pin may have been decided before its message disappeared, and come to the store after that.
/// `late` has the message erased once more, with what came late: the state of a message that has disappeared has no edit
/// and no pin otherwise.
///
/// `gone` names these bodies first, message by message. Rows to be deleted or changed are named by their `ctid`, as
/// `erasing.rs` says.
pub const COMMIT_WITH_TARGETS: &str = commit!(
    [", crowded AS (
    SELECT a.chat_id
    FROM unnest($19::uuid[], $21::int8[], $22::int2[], $24::uuid[]) AS a(chat_id, target_seq, kind, user_id)
    CROSS JOIN LATERAL (
        SELECT FROM act_counts n
        WHERE n.chat_id = a.chat_id AND n.target_seq = a.target_seq AND n.user_id = a.user_id AND n.kind = a.kind
            AND n.acts >= $29::int8 LIMIT 1
    ) AS n WHERE a.kind IN (2, 4)
)"]
    ["
        AND (c.chat_id IN (SELECT chat_id FROM crowded)) IS NOT TRUE"]
    refs!(),
    ", t AS (
    SELECT t.* FROM unnest($19::uuid[], $20::int8[], $21::int8[], $22::int2[], $23::bool[], $24::uuid[], $25::bytea[])
        AS t(chat_id, seq, target_seq, kind, take_back, user_id, key)
    WHERE (t.chat_id IN (SELECT chat_id FROM stored)) IS TRUE
), targets AS (
    INSERT INTO entry_targets (chat_id, seq, target_seq, kind) SELECT chat_id, seq, target_seq, kind FROM t
), counted AS (
    INSERT INTO act_counts AS n (chat_id, target_seq, user_id, kind, acts)
    SELECT chat_id, target_seq, user_id, kind, count(*) FROM t WHERE kind IN (2, 4)
    GROUP BY chat_id, target_seq, user_id, kind ORDER BY chat_id, target_seq, user_id, kind
    ON CONFLICT (chat_id, target_seq, user_id, kind) DO UPDATE SET acts = n.acts + excluded.acts
), states AS (
    INSERT INTO message_state AS s (chat_id, seq, edited_seq, deleted_seq, pinned_seq, replies)
    SELECT chat_id, target_seq, coalesce(max(seq) FILTER (WHERE kind = 2), 0), coalesce(max(seq) FILTER (WHERE kind = 3), 0),
           coalesce(max(CASE WHEN take_back THEN -seq ELSE seq END) FILTER (WHERE kind = 5), 0),
           count(*) FILTER (WHERE kind = 1)
    FROM t WHERE kind <> 4 GROUP BY chat_id, target_seq ORDER BY chat_id, target_seq
    ON CONFLICT (chat_id, seq) DO UPDATE SET
        edited_seq = greatest(s.edited_seq, excluded.edited_seq), deleted_seq = greatest(s.deleted_seq, excluded.deleted_seq),
        pinned_seq = CASE WHEN excluded.deleted_seq > 0 AND s.pinned_seq > 0 THEN -excluded.deleted_seq
                          WHEN excluded.pinned_seq = 0 THEN s.pinned_seq ELSE excluded.pinned_seq END,
        replies = s.replies + excluded.replies
    RETURNING s.chat_id, s.seq, s.disappeared AND (s.edited_seq > 0 OR s.pinned_seq <> 0) AS late
), late AS (
    INSERT INTO expiring (chat_id, seq, expires_at)
    SELECT chat_id, seq, now() FROM states WHERE late
    UNION ALL
    SELECT t.chat_id, t.target_seq, now() FROM t CROSS JOIN LATERAL (
        SELECT FROM message_state s WHERE s.chat_id = t.chat_id AND s.seq = t.target_seq AND s.disappeared LIMIT 1
    ) s WHERE t.kind = 4
    ON CONFLICT DO NOTHING
), reacted AS (
    INSERT INTO reactions (chat_id, target_seq, user_id, key, seq)
    SELECT chat_id, target_seq, user_id, key, seq FROM t WHERE kind = 4 AND NOT take_back
    ON CONFLICT DO NOTHING
), taken_back AS (
    DELETE FROM reactions f WHERE f.ctid = ANY (ARRAY(
        SELECT x.ctid FROM t CROSS JOIN LATERAL (
            SELECT x.ctid FROM reactions x
            WHERE x.chat_id = t.chat_id AND x.target_seq = t.target_seq AND x.user_id = t.user_id AND x.key = t.key
            LIMIT 1
        ) x WHERE t.kind = 4 AND t.take_back
    ))
), mentioned AS (
    INSERT INTO mentions (chat_id, user_id, seq)
    SELECT n.chat_id, n.user_id, n.seq FROM unnest($26::uuid[], $27::uuid[], $28::int8[]) AS n(chat_id, user_id, seq)
    WHERE (n.chat_id IN (SELECT chat_id FROM stored)) IS TRUE
        AND EXISTS (SELECT FROM members m WHERE m.chat_id = n.chat_id AND m.user_id = n.user_id AND m.left_seq IS NULL)
), unmentioned AS (
    DELETE FROM mentions f WHERE f.ctid = ANY (ARRAY(
        SELECT x.ctid FROM t CROSS JOIN LATERAL (
            SELECT x.ctid FROM mentions x WHERE x.chat_id = t.chat_id AND x.seq = t.target_seq OFFSET 0
        ) x WHERE t.kind = 3
    ))
), forgotten AS (",
    forget!("reactions", "t", "t.kind = 3", "$30::int8"),
    "
), uncounted AS (",
    forget!("act_counts", "t", "t.kind = 3", "$30::int8"),
    "
), acts AS MATERIALIZED (
    SELECT t.chat_id, t.target_seq, a.seq,
           row_number() OVER (PARTITION BY t.chat_id, t.target_seq ORDER BY a.kind, a.seq) AS place
    FROM t",
    first_acts!("t", "", "a.kind, a.seq", "$30::int8 + 1"),
    " WHERE t.kind = 3
), gone AS MATERIALIZED (
    SELECT t.chat_id, t.target_seq AS seq FROM t WHERE t.kind = 3
    UNION ALL
    SELECT a.chat_id, a.seq FROM acts a WHERE a.place <= $30::int8
), postponed AS (
    INSERT INTO erasures (chat_id, target_seq, after_seq)
    SELECT chat_id, target_seq, 0 FROM acts WHERE place > $30::int8
    ON CONFLICT DO NOTHING
), blanked AS (",
    blank!("gone"),
    "
), expires AS (
    INSERT INTO expiring (chat_id, seq, expires_at)
    SELECT x.chat_id, x.seq, to_timestamp(x.expires_ms / 1000.0)
    FROM unnest($31::uuid[], $32::int8[], $33::int8[]) AS x(chat_id, seq, expires_ms)
    WHERE (x.chat_id IN (SELECT chat_id FROM stored)) IS TRUE
), hinted AS (
    INSERT INTO push_hints (chat_id, seq, hint)
    SELECT x.chat_id, x.seq, x.hint FROM unnest($34::uuid[], $35::int8[], $36::int2[]) AS x(chat_id, seq, hint)
    WHERE (x.chat_id IN (SELECT chat_id FROM stored)) IS TRUE
)"
);

/// Commits the batches. Returns the chats whose batch is committed. In the other chats the head had moved, a request
/// was in the log already, or somebody had done enough to a message. The heads are locked in ascending order of
/// chat_id.
pub async fn commit(
    db: &mut PgConnection,
    batches: impl IntoIterator<Item = &Batch>,
) -> sqlx::Result<IdSet<ChatId>> {
    let mut batches: Vec<&Batch> = batches.into_iter().collect();
    batches.sort_unstable_by_key(|batch| batch.chat);
    let count = batches.iter().map(|batch| batch.entries.len()).sum();
    let mut rows = EntryRows::with_capacity(count);
    let mut turn = Turn::default();
    for batch in &batches {
        rows.push(batch, &mut turn).await;
    }
    let chats: Vec<Uuid> = batches.iter().map(|batch| batch.chat.0).collect();
    let expected: Vec<i64> = batches.iter().map(|batch| batch.expected.to_i64()).collect();
    let heads: Vec<i64> = batches.iter().map(|batch| batch.head().to_i64()).collect();
    let ordinals: Vec<i64> = batches
        .iter()
        .map(|batch| batch.entries.last().map_or(batch.ordinal, |entry| entry.ordinal) as i64)
        .collect();
    let slots: Vec<i16> = batches
        .iter()
        .map(|batch| Slot::of_chat(batch.chat).number() as i16)
        .collect();
    let (refs, targets) = (rows.refs, rows.targets);
    let (has_refs, has_targets) = (!refs.chat.is_empty(), !targets.is_empty());
    let sql = match (has_refs, has_targets) {
        (_, true) => COMMIT_WITH_TARGETS,
        (true, false) => COMMIT_WITH_MEDIA,
        (false, false) => COMMIT,
    };
    let mut query = sqlx::query_scalar(sql)
        .bind(chats)
        .bind(expected)
        .bind(heads)
        .bind(ordinals)
        .bind(slots)
        .bind(rows.chat)
        .bind(rows.seq)
        .bind(rows.ordinal)
        .bind(rows.kind)
        .bind(rows.sender)
        .bind(rows.device)
        .bind(rows.request)
        .bind(rows.fingerprint)
        .bind(rows.body)
        .bind(rows.sent_at);
    if has_refs || has_targets {
        query = query.bind(refs.chat).bind(refs.media).bind(refs.seq);
    }
    if has_targets {
        query = targets.bind(query);
    }
    let stored: Vec<Uuid> = query.fetch_all(db).await?;
    Ok(stored.into_iter().map(ChatId).collect())
}

/// Commits the batches as [`commit`] does. With [`Heads::LeaveOut`] it waits for no lock on a head. Returns the chats
/// whose batch is committed, and the chats that were left out because another transaction has locked their heads.
pub(crate) async fn commit_parts(
    db: &mut PgConnection,
    batches: &[&Batch],
    heads: Heads,
) -> sqlx::Result<(IdSet<ChatId>, IdSet<ChatId>)> {
    if heads == Heads::Wait {
        let stored = commit(db, batches.iter().copied()).await?;
        return Ok((stored, IdSet::default()));
    }
    let mut tx = db.begin().await?;
    let locked = lock_free_to_commit(&mut tx, batches.iter().map(|batch| batch.chat)).await?;
    let free = batches
        .iter()
        .copied()
        .filter(|batch| !locked.contains(&batch.chat));
    let stored = commit(&mut tx, free).await?;
    tx.commit().await?;
    Ok((stored, locked))
}

/// The columns of the entries of one commit.
struct EntryRows {
    chat: Vec<Uuid>,
    seq: Vec<i64>,
    ordinal: Vec<i64>,
    kind: Vec<i16>,
    sender: Vec<Uuid>,
    device: Vec<Uuid>,
    request: Vec<Uuid>,
    fingerprint: Vec<Vec<u8>>,
    body: Vec<Vec<u8>>,
    sent_at: Vec<i64>,
    refs: RefRows,
    targets: TargetRows,
}

/// The columns of the media that the entries refer to. Most commits have none.
#[derive(Default)]
struct RefRows {
    chat: Vec<Uuid>,
    media: Vec<Uuid>,
    seq: Vec<i64>,
}

impl EntryRows {
    fn with_capacity(n: usize) -> Self {
        Self {
            chat: Vec::with_capacity(n),
            seq: Vec::with_capacity(n),
            ordinal: Vec::with_capacity(n),
            kind: Vec::with_capacity(n),
            sender: Vec::with_capacity(n),
            device: Vec::with_capacity(n),
            request: Vec::with_capacity(n),
            fingerprint: Vec::with_capacity(n),
            body: Vec::with_capacity(n),
            sent_at: Vec::with_capacity(n),
            refs: RefRows::default(),
            targets: TargetRows::default(),
        }
    }

    /// Adds the entries of a batch, sealed. It yields to other tasks between large ones.
    async fn push(&mut self, batch: &Batch, turn: &mut Turn) {
        let sealer = Sealer::new(&batch.key);
        for entry in &batch.entries {
            let new = &entry.new;
            self.chat.push(entry.chat.0);
            self.seq.push(entry.seq.to_i64());
            self.ordinal.push(entry.ordinal as i64);
            self.kind.push(new.kind.number());
            self.sender.push(new.sender.0);
            self.device.push(new.device.0);
            self.request.push(new.request.0);
            let fingerprint = stored_fingerprint(new, &batch.key.0);
            self.fingerprint.push(fingerprint.to_vec());
            self.body
                .push(sealer.seal(&new.content, entry.chat, new.sender, new.request));
            self.sent_at.push(entry.sent_at.0);
            turn.worked(new.content.len()).await;
            for media in &new.media {
                self.refs.chat.push(entry.chat.0);
                self.refs.media.push(media.media.0);
                self.refs.seq.push(entry.seq.to_i64());
            }
            self.targets.push(entry, &batch.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use tern_chat_core::chat::ChatKey;
    use tern_chat_core::{Entry, NewEntry};
    use tern_types::{DeviceId, RequestId, Seq, Timestamp, UserId};

    use super::*;

    fn large(chat: ChatId, seq: Seq) -> Entry {
        let (sender, device) = (UserId::random(), DeviceId::random());
        let content = Bytes::from(vec![0; 100 << 10]);
        let new = NewEntry::message(sender, device, RequestId::random(), [0; 16], content);
        Entry {
            chat,
            seq,
            ordinal: seq.0,
            sent_at: Timestamp::default(),
            new: Arc::new(new),
        }
    }

    /// Other tasks must go on, because the task that renews the node's lease is one of them.
    #[tokio::test]
    async fn other_tasks_have_their_turn_while_large_bodies_are_sealed() {
        const LARGE: u64 = 8;
        let chat = ChatId::own(UserId::random());
        let batch = Batch {
            chat,
            key: ChatKey(Arc::new([0; 32])),
            expected: Seq::ZERO,
            ordinal: 0,
            entries: (1..=LARGE).map(|seq| large(chat, Seq(seq))).collect(),
            change: None,
        };
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        tokio::task::yield_now().await;
        let before = turns.load(Ordering::Relaxed);
        let mut rows = EntryRows::with_capacity(batch.entries.len());
        rows.push(&batch, &mut Turn::default()).await;
        assert_eq!(rows.body.len(), batch.entries.len());
        let had = turns.load(Ordering::Relaxed) - before;
        assert!(had >= batch.entries.len() - 1, "only {had}");
        other.abort();
    }
}
