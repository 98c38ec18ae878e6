//! Writes what became of claimed pushes.

use sqlx::PgPool;
use tern_cluster::links::RetryWaits;
use tern_types::{ChatId, DeviceId, Seq, Timestamp};
use uuid::Uuid;

use super::StoreClock;
use super::claim::Claimed;

/// The number of tries to write about a row that another transaction has locked. After that its claim is left to run
/// out. An acknowledgement locks a row for a few milliseconds.
const TRIES: usize = 5;
/// The largest number of tries that is stored.
const MAX_TRIES: i16 = 1_000;

/// Notes what became of claimed pushes, each given by its chat ($1), device ($2) and claim ($3, in milliseconds). A row
/// that has ended or changed since it was claimed is left alone. Times are in milliseconds, and $10 is the present one.
///
/// The push is due again at $4 (NULL: never), after $5 failed tries. $6 is the time at which it was sent, or was found
/// to have nobody to go to (NULL: as it was). $7 is 1 if a notification is shown now, 2 if none is shown any more, and
/// otherwise 0.
///
/// Something may have come into the chat between the look and this: a settle does nothing for a row that is claimed. If
/// the head is not at $8 any more, or the read mark has come to $9, the push becomes due once more (NULL: this does not
/// matter). That is a second later: in a busy chat something has always come, and a worker would do nothing else.
///
/// The statement waits for no lock. It selects the places of the rows that another transaction has locked.
pub const NOTE: &str = "
WITH w AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[], $5::int2[], $6::int8[], $7::int2[], $8::int8[],
                         $9::int8[])
        WITH ORDINALITY AS w(chat_id, device_id, claim, next, tries, pushed, shown, head, seq, place)
), there AS MATERIALIZED (
    SELECT w.place FROM w CROSS JOIN LATERAL (
        SELECT FROM inbox i
        WHERE i.chat_id = w.chat_id AND i.device_id = w.device_id AND i.push_at = to_timestamp(w.claim / 1000.0) LIMIT 1
    ) i
), free AS MATERIALIZED (
    SELECT w.chat_id, w.device_id, w.next, w.tries, w.pushed, w.shown, w.place, coalesce(
               (SELECT h.head_seq FROM chat_heads h WHERE h.chat_id = w.chat_id LIMIT 1) > w.head, false
           ) OR coalesce(
               (SELECT m.read_seq FROM members m WHERE m.chat_id = w.chat_id AND m.user_id = i.user_id
                ORDER BY m.joined_seq DESC LIMIT 1) >= w.seq, false
           ) AS again
    FROM w CROSS JOIN LATERAL (
        SELECT i.user_id FROM inbox i
        WHERE i.chat_id = w.chat_id AND i.device_id = w.device_id AND i.push_at = to_timestamp(w.claim / 1000.0)
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) i
), noted AS (
    UPDATE inbox i SET
        push_at = CASE WHEN f.again THEN to_timestamp($10::int8 / 1000.0) + interval '1 second'
                       ELSE to_timestamp(f.next / 1000.0) END,
        push_since = CASE WHEN f.again THEN to_timestamp($10::int8 / 1000.0) ELSE i.push_since END,
        push_tries = CASE WHEN f.again THEN 0 ELSE f.tries END,
        pushed_at = coalesce(to_timestamp(f.pushed / 1000.0), i.pushed_at),
        notified_at = CASE f.shown WHEN 1 THEN to_timestamp(f.pushed / 1000.0) WHEN 2 THEN NULL ELSE i.notified_at END
    FROM free f WHERE i.chat_id = f.chat_id AND i.device_id = f.device_id
)
SELECT t.place FROM there t WHERE (t.place IN (SELECT f.place FROM free f)) IS NOT TRUE";

/// The change that a push made to what the device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The device shows the same as before.
    Same,
    /// A notification is shown now.
    Now,
    /// The notification that was shown is withdrawn.
    Withdrawn,
}

impl Shown {
    fn number(self) -> i16 {
        match self {
            Self::Same => 0,
            Self::Now => 1,
            Self::Withdrawn => 2,
        }
    }
}

/// The outcome of a claimed push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It was sent.
    Sent {
        /// The time at which the provider took it.
        at: Timestamp,
        /// The change on the device.
        shown: Shown,
        /// The head that was looked at, if a later entry makes the push due again.
        head: Option<Seq>,
        /// The entry that was announced, if a read mark that has come to it makes the push due again.
        seq: Option<Seq>,
    },
    /// It is due again later.
    Waits {
        /// The time until which it waits.
        until: Timestamp,
        /// The number of tries that have failed.
        tries: u32,
    },
    /// It has ended.
    Ended {
        /// The time at which it counts as pushed, if it does: the next push is due a minute after that at the earliest.
        pushed_at: Option<Timestamp>,
        /// The head that was looked at, if a later entry makes the push due again.
        head: Option<Seq>,
    },
}

/// A claimed push, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// The chat.
    pub chat: ChatId,
    /// The device.
    pub device: DeviceId,
    /// The name of the claim.
    pub claim: Timestamp,
    /// Its outcome.
    pub became: Became,
}

impl Note {
    /// Makes the note of what became of a push.
    pub fn of(row: &Claimed, became: Became) -> Self {
        Self {
            chat: row.chat,
            device: row.device,
            claim: row.claim,
            became,
        }
    }
}

/// A note's values, as they are bound.
struct Values {
    next: Option<i64>,
    tries: i16,
    pushed: Option<i64>,
    shown: i16,
    head: Option<i64>,
    seq: Option<i64>,
}

impl Values {
    fn of(became: &Became) -> Self {
        let nothing = Self {
            next: None,
            tries: 0,
            pushed: None,
            shown: Shown::Same.number(),
            head: None,
            seq: None,
        };
        match *became {
            Became::Sent { at, shown, head, seq } => Self {
                pushed: Some(at.0),
                shown: shown.number(),
                head: head.map(Seq::to_i64),
                seq: seq.map(Seq::to_i64),
                ..nothing
            },
            Became::Waits { until, tries } => Self {
                next: Some(until.0),
                tries: i16::try_from(tries).unwrap_or(MAX_TRIES).min(MAX_TRIES),
                ..nothing
            },
            Became::Ended { pushed_at, head } => Self {
                pushed: pushed_at.map(|at| at.0),
                head: head.map(Seq::to_i64),
                ..nothing
            },
        }
    }
}

/// Writes the notes about rows of the cell with this pool. A row that another transaction has locked is tried again a
/// few times. What is not written then is claimed again when its claim has run out.
pub async fn note(pool: &PgPool, mut notes: Vec<Note>, clock: StoreClock) -> sqlx::Result<()> {
    let mut waits = RetryWaits::default();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(waits.next(std::time::Duration::ZERO)).await;
        }
        if notes.is_empty() {
            return Ok(());
        }
        let locked = write(pool, &notes, clock.now()).await?;
        notes = locked
            .into_iter()
            .filter_map(|place| notes.get(place).copied())
            .collect();
    }
    if !notes.is_empty() {
        tracing::warn!(
            rows = notes.len(),
            "what became of pushes is not noted: their rows stay locked"
        );
    }
    Ok(())
}

/// Writes the notes, and returns the places of those whose rows another transaction has locked.
pub async fn write(pool: &PgPool, notes: &[Note], now: Timestamp) -> sqlx::Result<Vec<usize>> {
    let values: Vec<Values> = notes.iter().map(|note| Values::of(&note.became)).collect();
    let locked: Vec<i64> = sqlx::query_scalar(NOTE)
        .bind(notes.iter().map(|note| note.chat.0).collect::<Vec<Uuid>>())
        .bind(notes.iter().map(|note| note.device.0).collect::<Vec<Uuid>>())
        .bind(notes.iter().map(|note| note.claim.0).collect::<Vec<i64>>())
        .bind(
            values
                .iter()
                .map(|value| value.next)
                .collect::<Vec<Option<i64>>>(),
        )
        .bind(values.iter().map(|value| value.tries).collect::<Vec<i16>>())
        .bind(
            values
                .iter()
                .map(|value| value.pushed)
                .collect::<Vec<Option<i64>>>(),
        )
        .bind(values.iter().map(|value| value.shown).collect::<Vec<i16>>())
        .bind(
            values
                .iter()
                .map(|value| value.head)
                .collect::<Vec<Option<i64>>>(),
        )
        .bind(values.iter().map(|value| value.seq).collect::<Vec<Option<i64>>>())
        .bind(now.0)
        .fetch_all(pool)
        .await?;
    let places = locked
        .into_iter()
        .filter_map(|place| usize::try_from(place - 1).ok());
    Ok(places.collect())
}
