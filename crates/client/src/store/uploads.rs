//! Stores the plans of uploads that have not ended.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params};
use tern_types::{RequestId, Timestamp};

use super::{Store, rows};
use crate::error::ClientError;
use crate::upload_plan::{FileId, Hash, Key, Plan};

/// The statement that makes the table of uploads. It is apart from the schema because it was added later.
pub(super) const TABLE: &str = include_str!("uploads.sql");

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Store {
    /// Returns the plan of this file's upload, or `None` if there is none or the file has changed since.
    pub fn upload_plan(&self, file: &FileId) -> Result<Option<Plan>> {
        let find = "SELECT request, key, parts, created_at FROM uploads \
             WHERE path = ?1 AND length = ?2 AND modified = ?3";
        let mut statement = self.connection.prepare_cached(find)?;
        let of = params![path(file), length(file), file.modified];
        let found = statement.query_row(of, |row| {
            let (key, parts): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
            Ok((RequestId(rows::id(row, 0)?), key, parts, Timestamp(row.get(3)?)))
        });
        let Some((request, key, parts, created_at)) = found.optional()? else {
            return Ok(None);
        };
        let damaged = |_| ClientError::Corrupt("an upload is damaged");
        let parts = parts
            .chunks(32)
            .map(Hash::try_from)
            .collect::<Result<Vec<_>, _>>();
        Ok(Some(Plan {
            request,
            key: Key::try_from(key.as_slice()).map_err(damaged)?,
            parts: parts.map_err(damaged)?,
            created_at,
        }))
    }

    /// Stores a plan, which replaces any other plan for the same path.
    pub fn put_upload_plan(&mut self, file: &FileId, plan: &Plan) -> Result<()> {
        let put = "INSERT OR REPLACE INTO uploads (path, length, modified, request, key, parts, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.connection.prepare_cached(put)?.execute(params![
            path(file),
            length(file),
            file.modified,
            plan.request.as_bytes(),
            plan.key,
            plan.parts.concat(),
            plan.created_at.0,
        ])?;
        Ok(())
    }

    /// Deletes the plan for the file's path.
    pub fn forget_upload_plan(&mut self, file: &FileId) -> Result<()> {
        let forget = "DELETE FROM uploads WHERE path = ?1";
        self.connection.prepare_cached(forget)?.execute([path(file)])?;
        Ok(())
    }
}

/// Returns the path as the store has it: a text, or bytes if it is none.
fn path(file: &FileId) -> Value {
    match file.path.to_str() {
        Some(text) => Value::Text(text.to_owned()),
        None => Value::Blob(file.path.as_os_str().as_encoded_bytes().to_vec()),
    }
}

fn length(file: &FileId) -> i64 {
    i64::try_from(file.length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreLocation;

    fn file(length: u64, modified: i64) -> FileId {
        FileId {
            path: "/home/alice/film.mp4".into(),
            length,
            modified,
        }
    }

    #[test]
    fn an_upload_is_remembered_for_this_state_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let location = StoreLocation::File(dir.path().join("device.sqlite"));
        let plan = Plan {
            request: RequestId::random(),
            key: [7; 32],
            parts: vec![[1; 32], [2; 32]],
            created_at: Timestamp(5),
        };
        {
            let mut store = Store::open(&location, true).unwrap();
            store.put_upload_plan(&file(10, 1), &plan).unwrap();
        }
        // The app was killed.
        let mut store = Store::open(&location, true).unwrap();
        assert_eq!(store.upload_plan(&file(10, 1)).unwrap(), Some(plan.clone()));
        for other in [file(11, 1), file(10, 2)] {
            assert_eq!(store.upload_plan(&other).unwrap(), None, "it was changed");
        }
        let newer = Plan {
            request: RequestId::random(),
            ..plan
        };
        store.put_upload_plan(&file(11, 2), &newer).unwrap();
        assert_eq!(store.upload_plan(&file(10, 1)).unwrap(), None, "one a path");
        store.forget_upload_plan(&file(11, 2)).unwrap();
        assert_eq!(store.upload_plan(&file(11, 2)).unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_text_is_a_path_of_its_own() {
        use std::os::unix::ffi::OsStrExt as _;
        let named = |name: &[u8]| FileId {
            path: std::ffi::OsStr::from_bytes(name).into(),
            ..file(1, 1)
        };
        let mut store = Store::open(&StoreLocation::Memory, true).unwrap();
        let plan = |key| Plan {
            request: RequestId::random(),
            key,
            parts: vec![[1; 32]],
            created_at: Timestamp(5),
        };
        let plans = [plan([1; 32]), plan([2; 32])];
        let files = [named(b"/a/\xfe"), named(b"/a/\xff")];
        for (file, plan) in files.iter().zip(&plans) {
            store.put_upload_plan(file, plan).unwrap();
        }
        for (file, plan) in files.iter().zip(plans) {
            assert_eq!(store.upload_plan(file).unwrap(), Some(plan));
        }
    }

    /// An older version of the program made stores without this table.
    #[test]
    fn an_older_store_gets_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let location = StoreLocation::File(dir.path().join("device.sqlite"));
        {
            let store = Store::open(&location, true).unwrap();
            store.connection.execute_batch("DROP TABLE uploads").unwrap();
        }
        let store = Store::open(&location, true).unwrap();
        assert_eq!(store.upload_plan(&file(1, 1)).unwrap(), None);
    }
}
