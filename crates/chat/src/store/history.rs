//! Reads messages as they are now: each with its last edit, its deletion, its reactions, and how many replies it has.
//! This file reads pages of one chat, [`places`] messages at known places in several chats.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, UserId};
use uuid::Uuid;

use tern_store::{Pools, millis};

use super::ReadError;
use super::entries::{budget, entry, erased, more, sealer};
use super::readable::{Parts, readable};
use super::seal::{MasterKey, Sealer, Turn};

pub mod places;
pub mod reactions;

/// The seqs through which one page looks for messages where no index leads to them. Chats may have long runs of entries
/// that are no messages, or messages of others.
const REACH: u64 = 4096;

/// Names the columns of a message as it is now, of the rows that [`message_joins`] joins.
macro_rules! message_columns {
    () => {
        concat!(
            "m.seq, m.ordinal, m.sender_user, m.sender_device, m.request_id, ",
            erased!("m"),
            ", ",
            millis!("m.sent_at"),
            " AS sent_at, s.deleted_seq, s.pinned_seq, s.replies,
            ed.seq AS edited_seq, ed.request_id AS edit_request,
            CASE WHEN s.deleted_seq > 0 THEN ''::bytea ELSE ed.body END AS edit_body, ",
            millis!("ed.sent_at"),
            " AS edited_at, d.sender_user AS deleted_by, ",
            millis!("d.sent_at"),
            " AS deleted_at"
        )
    };
}
pub(super) use message_columns;

/// Joins places `p` in the log of a chat with their messages, and with what was done to these as far as a user may read
/// it. The edit is the last one that the user may read (rule 7).
///
/// Each row is probed by `LATERAL … LIMIT`. As joins the planner would read a whole chat, or all that was ever done to
/// messages, for each message of the page.
macro_rules! message_joins {
    ($chat:literal, $user:literal) => {
        concat!(
            "
        CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.chat_id = ",
            $chat,
            " AND m.seq = p.seq LIMIT 1) m
        LEFT JOIN LATERAL (
            SELECT * FROM message_state s WHERE s.chat_id = ",
            $chat,
            " AND s.seq = m.seq LIMIT 1
        ) s ON true
        LEFT JOIN LATERAL (
            SELECT e.* FROM entry_targets t
            CROSS JOIN LATERAL (SELECT * FROM messages e WHERE e.chat_id = ",
            $chat,
            " AND e.seq = t.seq LIMIT 1) e
            WHERE s.edited_seq > 0 AND t.chat_id = ",
            $chat,
            " AND t.target_seq = m.seq AND t.kind = 2
                AND EXISTS (SELECT FROM members i WHERE i.chat_id = ",
            $chat,
            " AND i.user_id = ",
            $user,
            "
                                AND t.seq BETWEEN coalesce(i.history_seq, i.joined_seq) AND coalesce(i.left_seq, t.seq))
            ORDER BY t.seq DESC LIMIT 1
        ) ed ON true
        LEFT JOIN LATERAL (
            SELECT * FROM messages d WHERE d.chat_id = ",
            $chat,
            " AND d.seq = s.deleted_seq LIMIT 1
        ) d ON true"
        )
    };
}
pub(super) use message_joins;

/// Builds the statement of a page of messages of a chat ($1) that a user ($2) may read, with seqs from $3 to $4, at most
/// $5, in this order. `$source` is the table that has their seqs; `$only` are further conditions on its rows `x`, which
/// may use $7. The bodies are bounded by $6 bytes as in [`super::entries::UPWARDS`].
macro_rules! page {
    ($source:literal, $only:literal, $order:literal) => {
        concat!(
            "
SELECT * FROM (
    SELECT e.*, count(*) OVER () AS found,
           sum(octet_length(e.body) + coalesce(octet_length(e.edit_body), 0)) OVER (ORDER BY e.seq ",
            $order,
            ") - octet_length(e.body) - coalesce(octet_length(e.edit_body), 0) AS bytes_before
    FROM (
        SELECT ",
            message_columns!(),
            "
        FROM (
            SELECT p.seq FROM ",
            readable!("$1", "$2"),
            " i CROSS JOIN LATERAL (
                SELECT x.seq FROM ",
            $source,
            " x WHERE x.chat_id = $1
                    AND x.seq BETWEEN greatest($3, i.from_seq) AND least($4, i.to_seq)",
            $only,
            " ORDER BY x.seq ",
            $order,
            " LIMIT $5
            ) p ORDER BY p.seq ",
            $order,
            " LIMIT $5
        ) p",
            message_joins!("$1", "$2"),
            "
    ) e
) w WHERE w.bytes_before < $6 ORDER BY w.seq ",
            $order
        )
    };
}

/// Builds the statements of a page downwards and of a page upwards.
macro_rules! pages {
    ($source:literal, $only:literal) => {
        [page!($source, $only, "DESC"), page!($source, $only, "ASC")]
    };
}

/// Selects messages, also those whose content is gone because of the chat's retention. The other statements leave these
/// out: nothing is left to be shown of them, while of a deleted message it is shown who deleted it.
pub const EVERY: [&str; 2] = pages!("messages", " AND x.kind = 1");
/// Selects messages.
pub const ALL: [&str; 2] = pages!(
    "messages",
    " AND x.kind = 1 AND (octet_length(x.body) > 0
                        OR (SELECT g.deleted_seq FROM message_state g WHERE g.chat_id = $1 AND g.seq = x.seq) > 0)"
);
/// Selects the messages of a user ($7).
pub const OF_SENDER: [&str; 2] = pages!(
    "messages",
    " AND x.kind = 1 AND x.sender_user = $7 AND (octet_length(x.body) > 0
                        OR (SELECT g.deleted_seq FROM message_state g WHERE g.chat_id = $1 AND g.seq = x.seq) > 0)"
);
/// Selects the messages of the thread that begins with a message ($7).
pub const IN_THREAD: [&str; 2] = pages!(
    "entry_targets",
    " AND x.target_seq = $7 AND x.kind = 1
                    AND ((SELECT octet_length(m.body) FROM messages m WHERE m.chat_id = $1 AND m.seq = x.seq) > 0
                        OR (SELECT g.deleted_seq FROM message_state g WHERE g.chat_id = $1 AND g.seq = x.seq) > 0)"
);
/// Selects the messages with attachments.
pub const WITH_ATTACHMENTS: [&str; 2] = pages!(
    "media_refs",
    " AND (SELECT m.kind FROM messages m WHERE m.chat_id = $1 AND m.seq = x.seq) = 1 GROUP BY x.seq"
);
/// Selects the messages that are pinned.
pub const PINNED: [&str; 2] = pages!(
    "message_state",
    " AND x.pinned_seq > 0
                    AND (SELECT octet_length(m.body) FROM messages m WHERE m.chat_id = $1 AND m.seq = x.seq) > 0"
);
/// Selects the edits of a message ($7) that have a content still. Those of a deleted message have none, although some
/// may be still to be erased.
pub const EDITS: [&str; 2] = pages!(
    "entry_targets",
    " AND x.target_seq = $7 AND x.kind = 2
                    AND (SELECT s.deleted_seq > 0 FROM message_state s WHERE s.chat_id = $1 AND s.seq = $7) IS NOT TRUE
                    AND (SELECT octet_length(m.body) FROM messages m WHERE m.chat_id = $1 AND m.seq = x.seq) > 0"
);

/// Selects the seq of the entry that a request ($3) of a user ($2) became in a chat ($1).
pub const SEQ_OF_REQUEST: &str =
    "SELECT seq FROM messages WHERE chat_id = $1 AND sender_user = $2 AND request_id = $3";

/// The messages that a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// All messages.
    All,
    /// All messages, also those whose content is gone because of the chat's retention.
    Every,
    /// The messages of this user.
    OfSender(UserId),
    /// The replies in the thread that begins with this message.
    InThread(Seq),
    /// The messages with attachments.
    WithAttachments,
    /// The messages that are pinned.
    Pinned,
    /// The edits of this message, each as an entry.
    EditsOf(Seq),
}

impl Only {
    fn statements(self) -> [&'static str; 2] {
        match self {
            Self::All => ALL,
            Self::Every => EVERY,
            Self::OfSender(_) => OF_SENDER,
            Self::InThread(_) => IN_THREAD,
            Self::WithAttachments => WITH_ATTACHMENTS,
            Self::Pinned => PINNED,
            Self::EditsOf(_) => EDITS,
        }
    }

    /// Returns whether a page looks at all entries of a range, because no index leads to the messages.
    fn is_searched(self) -> bool {
        matches!(self, Self::All | Self::Every | Self::OfSender(_))
    }
}

/// The place in the log at which a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Downwards from below this seq.
    Below(Seq),
    /// Upwards from above this seq.
    Above(Seq),
}

/// The bounds of a page.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most messages.
    pub limit: u32,
    /// About the most bytes of contents; the first message always fits.
    pub bytes: usize,
}

/// A page of messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The messages in the order of the page.
    pub messages: Vec<v1::HistoryMessage>,
    /// The seq below or above which the next page begins; `None` if there are no more messages in this direction.
    pub next: Option<Seq>,
    /// The parts of the log that the reader may not read, as far as the page passes them: between its messages, and
    /// between it and its neighbours. They are ascending. The next page begins beyond them.
    pub gaps: Vec<v1::Gap>,
}

/// The reader of a chat's history.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The connections to the store.
    pub pools: &'a Pools,
    /// The key that unwraps the chat's data key.
    pub master: &'a MasterKey,
    /// The chat.
    pub chat: ChatId,
    /// The user who reads, and gets only what they may have.
    pub user: UserId,
}

impl Reader<'_> {
    /// Reads a page.
    pub async fn page(self, only: Only, from: Begin, bounds: Bounds) -> Result<Page, ReadError> {
        let Some(parts) = Parts::read(self.pools.of(self.chat), self.chat, self.user).await? else {
            return Ok(Page::default());
        };
        let (first, last) = (parts.first, parts.last);
        let (low, high) = range(only, from, (first, last));
        if low > high {
            return Ok(Page::default());
        }
        let rows = self.rows(only, from, (low, high), bounds).await?;
        let reached = match rows.last() {
            Some(row) if more(&rows, bounds.limit)? => Some(Seq::from_i64(row.try_get("seq")?)),
            _ => None,
        };
        let next = match (reached, from) {
            (Some(reached), _) => Some(reached),
            (None, Begin::Below(_)) => (low > first).then_some(low),
            (None, Begin::Above(_)) => (high < last).then_some(high),
        };
        let next = next.map(|next| beyond(&parts, from, next));
        let gaps = match from {
            Begin::Below(_) => parts.gaps_among(next.unwrap_or(first), high),
            Begin::Above(_) => parts.gaps_among(low, next.unwrap_or(last)),
        };
        Ok(Page {
            messages: self.messages(&rows).await?,
            next,
            gaps,
        })
    }

    /// Reads one message; `None` if there is none at `seq` that the reader may have. A message whose content is gone
    /// because of the chat's retention is read too: its sender may have lost the result of the send.
    pub async fn message(self, seq: Seq) -> Result<Option<v1::HistoryMessage>, ReadError> {
        let bounds = Bounds { limit: 1, bytes: 1 };
        let rows = self
            .rows(Only::Every, Begin::Below(seq.next()), (seq, seq), bounds)
            .await?;
        Ok(self.messages(&rows).await?.pop())
    }

    /// Returns the seq of the entry that a request of the reader became; `None` if it became none.
    pub async fn seq_of(self, request: RequestId) -> sqlx::Result<Option<Seq>> {
        let seq: Option<i64> = sqlx::query_scalar(SEQ_OF_REQUEST)
            .bind(self.chat.0)
            .bind(self.user.0)
            .bind(request.0)
            .fetch_optional(self.pools.of(self.chat))
            .await?;
        Ok(seq.map(Seq::from_i64))
    }

    async fn rows(
        self,
        only: Only,
        from: Begin,
        (low, high): (Seq, Seq),
        bounds: Bounds,
    ) -> sqlx::Result<Vec<PgRow>> {
        let [down, up] = only.statements();
        let query = sqlx::query(if matches!(from, Begin::Below(_)) { down } else { up })
            .bind(self.chat.0)
            .bind(self.user.0)
            .bind(low.to_i64())
            .bind(high.to_i64())
            .bind(i64::from(bounds.limit))
            .bind(budget(bounds.bytes));
        let query = match only {
            Only::OfSender(sender) => query.bind(sender.0),
            Only::InThread(seq) | Only::EditsOf(seq) => query.bind(seq.to_i64()),
            Only::All | Only::Every | Only::WithAttachments | Only::Pinned => query,
        };
        query.fetch_all(self.pools.of(self.chat)).await
    }

    /// Opens the messages of rows of a page, and counts the reactions to them.
    async fn messages(self, rows: &[PgRow]) -> Result<Vec<v1::HistoryMessage>, ReadError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let sealer = sealer(self.pools, self.master, self.chat).await?;
        let (mut messages, mut turn) = (Vec::with_capacity(rows.len()), Turn::default());
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let message = message(row, self.chat, &sealer)?;
            turn.worked(message.entry.as_ref().map_or(0, |entry| entry.content.len()))
                .await;
            messages.push(message);
            places.push((self.chat, Seq::from_i64(row.try_get("seq")?)));
        }
        let sealers = HashMap::from([(self.chat, sealer)]);
        reactions::add(self.pools, self.user, &sealers, &places, &mut messages).await?;
        Ok(messages)
    }
}

/// Returns the lowest and the highest seq that a page looks at, of those from `first` to `last`. The lowest is above the
/// highest if there is nothing to look at.
fn range(only: Only, from: Begin, (first, last): (Seq, Seq)) -> (Seq, Seq) {
    let further = if only.is_searched() { REACH - 1 } else { u64::MAX };
    match from {
        Begin::Below(seq) => {
            let high = seq.previous().min(last);
            (Seq(high.0.saturating_sub(further)).max(first), high)
        }
        Begin::Above(seq) => {
            let low = seq.next().max(first);
            (low, Seq(low.0.saturating_add(further)).min(last))
        }
    }
}

/// Returns where the page after `next` begins, if it would otherwise begin in a gap: beyond it, so that no page ends
/// within a gap.
fn beyond(parts: &Parts, from: Begin, next: Seq) -> Seq {
    match from {
        Begin::Below(_) => parts.gap_at(next.previous()).map_or(next, |(first, _)| first),
        Begin::Above(_) => parts.gap_at(next.next()).map_or(next, |(_, last)| last),
    }
}

/// Opens the message of a row of a page, without its reactions.
fn message(row: &PgRow, chat: ChatId, sealer: &Sealer) -> Result<v1::HistoryMessage, ReadError> {
    let mut message = v1::HistoryMessage {
        entry: Some(entry(row, chat, sealer)?),
        ..v1::HistoryMessage::default()
    };
    let seq = |column| row.try_get::<Option<i64>, _>(column).map(|seq| seq.unwrap_or(0));
    message.edited_seq = seq("edited_seq")?.unsigned_abs();
    message.deleted_seq = seq("deleted_seq")?.unsigned_abs();
    message.pinned_seq = u64::try_from(seq("pinned_seq")?).unwrap_or(0);
    message.reply_count = row
        .try_get::<Option<i32>, _>("replies")?
        .and_then(|replies| u32::try_from(replies).ok())
        .unwrap_or(0);
    message.edited_at_ms = seq("edited_at")?;
    message.deleted_at_ms = seq("deleted_at")?;
    let deleted_by = row.try_get::<Option<Uuid>, _>("deleted_by")?.map(UserId);
    if let Some(user) = deleted_by.filter(|user| *user != UserId::SYSTEM) {
        message.deleted_by_user_id = user.to_string();
    }
    let edit: Option<Vec<u8>> = row.try_get("edit_body")?;
    if let (Some(body), Some(entry)) = (edit.filter(|body| !body.is_empty()), &mut message.entry) {
        // Only the message's sender can have edited it.
        let sender = UserId(row.try_get("sender_user")?);
        let content = sealer.open(&body, chat, sender, RequestId(row.try_get("edit_request")?));
        entry.content = content.map_err(|_| ReadError::Key(chat))?;
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_looks_through_so_many_seqs_and_only_those_that_are_there() {
        let newest = Begin::Below(Seq(i64::MAX as u64));
        let all = |from| range(Only::All, from, (Seq(20), Seq(10_000)));
        assert_eq!(all(newest), (Seq(5_905), Seq(10_000)), "not above the head");
        assert_eq!(all(Begin::Below(Seq(5_905))), (Seq(1_809), Seq(5_904)));
        assert_eq!(all(Begin::Below(Seq(100))), (Seq(20), Seq(99)));
        assert_eq!(all(Begin::Above(Seq(100))), (Seq(101), Seq(4_196)));
        assert_eq!(
            all(Begin::Above(Seq(0))),
            (Seq(20), Seq(4_115)),
            "not before the reader joined"
        );
        let pinned = |from| range(Only::Pinned, from, (Seq(20), Seq(10_000)));
        assert_eq!(pinned(newest), (Seq(20), Seq(10_000)));
        assert_eq!(pinned(Begin::Above(Seq(0))), (Seq(20), Seq(10_000)));
        let beyond = [
            Begin::Below(Seq(20)),
            Begin::Below(Seq(1)),
            Begin::Above(Seq(10_000)),
            Begin::Above(Seq(u64::MAX)),
        ];
        for from in beyond {
            let (low, high) = all(from);
            assert!(low > high, "{from:?}: {low} to {high}");
        }
    }
}
