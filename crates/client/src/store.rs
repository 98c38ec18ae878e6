//! The local state of a device in SQLite: one file per device, or memory.
//!
//! A commit is one transaction and is on the disk when it returns (WAL, synchronous = FULL). The driver acknowledges
//! to the server only what was committed, and reports a send as taken only then. Calls block; the driver runs those
//! on a file on a blocking thread.
//!
//! - `read`, `write`: what the engine and the app need, and the engine's changes; `rows`: the columns of both
//! - `entries`: the entries of all logs; `contents`: their contents; `messages`: messages as they are now
//! - `erase`: what has to leave no trace, `gone`: why, and `expire`: when; `anew`, `outbox`: traces of former rows
//! - `search`: the index of texts; `lost`: what an earlier version did not keep
//! - `uploads`: the uploads that have not ended; `notification`: the key to which notifications are sealed
//! - `migrate`: the stores of earlier versions; `private`: files that are their owner's alone

mod anew;
mod contents;
mod entries;
mod erase;
mod expire;
mod gone;
mod lost;
mod messages;
mod migrate;
mod notification;
mod outbox;
mod private;
mod read;
mod rows;
mod search;
#[cfg(test)]
mod tests;
mod uploads;
mod write;

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use tern_client_core::engine::Change;

use crate::config::StoreLocation;
use crate::error::ClientError;
use crate::search_text::SearchText;

pub use expire::Expired;
pub use search::Hit;

/// The statements that make the tables of a new store.
const SCHEMA: &str = include_str!("store/schema.sql");
/// The statements that make the tables of entries.
const ENTRIES: &str = include_str!("store/entries.sql");
/// The `PRAGMA user_version` of this schema.
const VERSION: i64 = 4;
/// The time that a new owner of the file waits for the former one to end. The file has one owner at a time.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of prepared statements that are kept, which is enough for all of them.
const STATEMENTS: usize = 64;
/// The size of SQLite's page cache for a store in memory, in KiB. It is small because a load generator has thousands of
/// stores.
const MEMORY_CACHE_KIB: i64 = 64;

/// The local state of one device.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    in_memory: bool,
    keep_history: bool,
    /// The texts by which messages are found.
    search: SearchText,
    /// True if former rows of the outbox may have left traces that could not be removed yet.
    outbox_unclean: bool,
}

impl Store {
    /// Opens the store, and makes it if there is none. `keep_history` says whether entries are stored.
    ///
    /// # Errors
    ///
    /// [`ClientError::InUse`] if another client has the file open, [`ClientError::Corrupt`] if a newer version of the
    /// program made it, [`ClientError::Config`] if the file cannot be made, [`ClientError::Store`] if SQLite fails.
    pub fn open(location: &StoreLocation, keep_history: bool) -> Result<Self, ClientError> {
        match location {
            StoreLocation::Memory => Self::in_memory(keep_history),
            StoreLocation::File(path) => Self::file(path, keep_history),
        }
    }

    fn in_memory(keep_history: bool) -> Result<Self, ClientError> {
        let connection = Connection::open_in_memory()?;
        connection.pragma_update(None, "cache_size", -MEMORY_CACHE_KIB)?;
        Self::prepare(connection, true, keep_history)
    }

    fn file(path: &Path, keep_history: bool) -> Result<Self, ClientError> {
        if let Some(directory) = path.parent() {
            private::make_directory(directory)
                .map_err(|error| ClientError::Config(format!("{}: {error}", directory.display())))?;
        }
        private::make_file(path)
            .map_err(|error| ClientError::Config(format!("{}: {error}", path.display())))?;
        let connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // SQLite overwrites rows that are deleted, so that a message that was deleted for everyone leaves this disk too.
        connection.pragma_update(None, "secure_delete", true)?;
        let mut store = Self::prepare(connection, false, keep_history)?;
        migrate::clean(&store.connection)?;
        // The program may have been killed before it could do this after a deletion.
        store.rewrite_outbox()?;
        store.empty_journal();
        Ok(store)
    }

    fn prepare(mut connection: Connection, in_memory: bool, keep_history: bool) -> Result<Self, ClientError> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => connection.execute_batch(&format!(
                "BEGIN; {SCHEMA} {ENTRIES} PRAGMA user_version = {VERSION}; COMMIT;"
            ))?,
            1..VERSION => migrate::from(version, &mut connection)?,
            VERSION => {}
            _ => return Err(ClientError::Corrupt("made by a newer version of this program")),
        }
        connection.execute_batch(uploads::TABLE)?;
        Ok(Self {
            connection,
            in_memory,
            keep_history,
            search: SearchText::Off,
            outbox_unclean: false,
        })
    }

    /// Returns whether the store is in memory, so that no call waits for a disk.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Commits all changes, or none of them if it returns an error.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), ClientError> {
        if changes.is_empty() {
            return Ok(());
        }
        let manner = write::Manner {
            keep_history: self.keep_history,
            search: &self.search,
            me: self.me()?,
        };
        let transaction = self.connection.transaction()?;
        for change in changes {
            write::change(&transaction, change, &manner)?;
        }
        let messages = changes.iter().any(erase::erases_messages);
        let erases = messages || changes.iter().any(erase::erases_sends);
        if !self.in_memory && (erases || self.outbox_unclean) {
            self.outbox_unclean = !outbox::rewrite(&transaction)?;
        }
        if messages {
            search::note_traces(&transaction, &self.search)?;
        }
        transaction.commit()?;
        if messages {
            self.remove_traces(search::SMALL);
        }
        if erases {
            self.empty_journal();
        }
        Ok(())
    }

    /// Removes the traces of erased texts from the index of the search, if it has at most so many bytes. If that fails,
    /// the next start does it.
    fn remove_traces(&mut self, at_most: i64) {
        if self.in_memory {
            return;
        }
        if let Err(error) = search::remove_traces(&mut self.connection, at_most) {
            tracing::warn!(%error, "traces in the index of the search not removed");
        }
    }

    fn rewrite_outbox(&mut self) -> Result<(), ClientError> {
        let transaction = self.connection.transaction()?;
        self.outbox_unclean = !outbox::rewrite(&transaction)?;
        Ok(transaction.commit()?)
    }

    /// Moves everything from SQLite's journal (the WAL) to its place in the file, and empties the journal, because it
    /// has former contents of the file's pages. If that fails, a later call does it: everything is committed all the
    /// same.
    fn empty_journal(&self) {
        if self.in_memory {
            return;
        }
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(error) = self.connection.query_row(checkpoint, [], |_| Ok(())) {
            tracing::warn!(%error, "journal of the store not emptied");
        }
    }
}
