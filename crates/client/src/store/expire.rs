//! Erases the messages that disappear, when their time has come. The time is that of the server's clock, and the device
//! takes its own clock for it.

use rusqlite::params;
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, Seq, Timestamp};

use super::gone::Gone;
use super::{Store, erase, outbox, rows, search};
use crate::error::ClientError;

/// The number of entries that one call of [`Store::expire`] erases: some milliseconds of work, for which the rest of the
/// client waits.
const BATCH: i64 = 200;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// The messages that one call of [`Store::expire`] has erased.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// The messages. Edits and reactions are not among them.
    pub gone: Vec<(ChatId, Seq)>,
    /// The time at which the next entry is due. It may have come already. `None`: no entry disappears.
    pub next: Option<Timestamp>,
}

impl Store {
    /// Erases some entries that are due at this time.
    pub fn expire(&mut self, now: Timestamp) -> Result<Expired> {
        let transaction = self.connection.transaction()?;
        let due = due(&transaction, now)?;
        let mut gone = Vec::new();
        for (chat, seq, kind, target) in &due {
            if *kind == i32::from(MessageKind::Message) {
                erase::erase(&transaction, *chat, *seq, Gone::Vanished)?;
                search::index(&transaction, &self.search, *chat, *seq)?;
                gone.push((*chat, *seq));
            } else {
                erase::one(&transaction, *chat, *seq, Gone::Vanished)?;
                if let Some(target) = target {
                    search::index(&transaction, &self.search, *chat, *target)?;
                }
            }
        }
        if !due.is_empty() {
            self.outbox_unclean |= !outbox::rewrite(&transaction)?;
            search::note_traces(&transaction, &self.search)?;
        }
        transaction.commit()?;
        if !due.is_empty() {
            self.remove_traces(search::SMALL);
            self.empty_journal();
        }
        let next = self.next_expiry()?;
        Ok(Expired { gone, next })
    }

    /// Returns the time at which the next entry is due, or `None` if no entry disappears.
    pub fn next_expiry(&self) -> Result<Option<Timestamp>> {
        let next = "SELECT min(expires_at) FROM entries WHERE expires_at NOT NULL";
        let mut statement = self.connection.prepare_cached(next)?;
        let next: Option<i64> = statement.query_row([], |row| row.get(0))?;
        Ok(next.map(Timestamp))
    }
}

type Due = (ChatId, Seq, i32, Option<Seq>);

/// Returns some entries that are due, each with its kind and its target.
fn due(db: &rusqlite::Connection, now: Timestamp) -> Result<Vec<Due>> {
    let due = "SELECT chat, seq, kind, target FROM entries WHERE expires_at NOT NULL AND expires_at <= ?1 \
         ORDER BY expires_at LIMIT ?2";
    let mut statement = db.prepare_cached(due)?;
    let rows = statement.query_map(params![now.0, BATCH], |row| {
        let target = row.get::<_, Option<i64>>(3)?.map(Seq::from_i64);
        let (chat, kind) = (ChatId(rows::id(row, 0)?), row.get::<_, i32>(2)?);
        Ok((chat, rows::seq(row, 1)?, kind, target))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
