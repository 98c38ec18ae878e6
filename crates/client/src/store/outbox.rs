//! Leaves no trace of former rows of the outbox, since a message that is erased may have been one of them.

use rusqlite::Connection;

use super::anew;
use super::rows::OUTBOX_COLUMNS;
use crate::error::ClientError;

/// The largest outbox that is written anew, in bytes of its messages. A larger one has to become shorter before.
const MAX_BYTES: i64 = 1024 * 1024;

/// Writes the outbox anew. Returns false if it is too large for that now.
pub(super) fn rewrite(db: &Connection) -> Result<bool, ClientError> {
    let size = "SELECT coalesce(sum(length(body) + length(envelope)), 0) FROM outbox";
    let size: i64 = db.prepare_cached(size)?.query_row([], |row| row.get(0))?;
    if size > MAX_BYTES {
        return Ok(false);
    }
    anew::write(db, "outbox", &format!("position, {OUTBOX_COLUMNS}"))?;
    Ok(true)
}
