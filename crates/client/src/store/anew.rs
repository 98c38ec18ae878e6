//! Writes tables anew, so that they have no traces of former rows. SQLite overwrites a row that it deletes, but it also
//! moves rows, and does not overwrite what is left of them in their former places. A table of which all rows are deleted
//! at once has its pages overwritten as a whole.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::error::ClientError;

/// Deletes all rows of a table and adds them again, in the order of the first of these columns. All of them are in memory
/// meanwhile.
pub(super) fn write(db: &Connection, table: &str, columns: &str) -> Result<(), ClientError> {
    let mut all = db.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1"))?;
    let count = all.column_count();
    let rows = all.query_map([], |row| {
        let values = (0..count).map(|column| row.get::<_, Value>(column));
        values.collect::<rusqlite::Result<Vec<Value>>>()
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    db.execute(&format!("DELETE FROM {table}"), [])?;
    let places: Vec<String> = (1..=count).map(|place| format!("?{place}")).collect();
    let places = places.join(", ");
    let mut put = db.prepare(&format!("INSERT INTO {table} ({columns}) VALUES ({places})"))?;
    for row in rows {
        put.execute(params_from_iter(row))?;
    }
    Ok(())
}
