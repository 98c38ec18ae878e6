//! The local state of a device in SQLite: one file per device, or memory.
//!
//! A commit is one transaction and is on the disk when it returns (WAL, synchronous = FULL). The driver acknowledges
//! to the server only what was committed, and reports a send as taken only then. Calls block; the driver runs those
//! on a file on a blocking thread.
//!
//! - `read`, `write`: what the engine and the app need, and the engine's changes; `rows`: the columns of both
//! - `messages`: messages as they are now; `erase`: the contents of deleted messages; `search`: the index of texts
//! - `uploads`: the uploads that have not ended
//! - `migrate`: the stores of earlier versions; `private`: files that are their owner's alone

mod erase;
mod messages;
mod migrate;
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

pub use search::Hit;

/// The statements that make the tables of a new store.
const SCHEMA: &str = include_str!("store/schema.sql");
/// The `PRAGMA user_version` of this schema.
const VERSION: i64 = 3;
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
        let store = Self::prepare(connection, false, keep_history)?;
        migrate::clean(&store.connection)?;
        // The program may have been killed before it could empty the journal after a deletion.
        store.empty_journal();
        Ok(store)
    }

    fn prepare(mut connection: Connection, in_memory: bool, keep_history: bool) -> Result<Self, ClientError> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => connection.execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            ))?,
            1 => migrate::from_1(&mut connection)?,
            2 => migrate::from_2(&mut connection)?,
            VERSION => {}
            _ => return Err(ClientError::Corrupt("made by a newer version of this program")),
        }
        connection.execute_batch(uploads::TABLE)?;
        Ok(Self {
            connection,
            in_memory,
            keep_history,
            search: SearchText::Off,
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
        let transaction = self.connection.transaction()?;
        for change in changes {
            write::change(&transaction, change, self.keep_history, &self.search)?;
        }
        transaction.commit()?;
        if changes.iter().any(erase::erases) {
            self.empty_journal();
        }
        Ok(())
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
