//! Stores contacts, the people in a user's address book.

use sqlx::Row;
use tern_types::UserId;

use super::{Result, Store, Tx};

/// Removes all contacts of a user.
pub const CLEAR: &str = "DELETE FROM contacts WHERE user_id = $1";

/// Adds contacts. Ids that belong to no user are left out. Rows are inserted in the order of their ids,
/// because the foreign key makes each insert lock the contact's row in `users`, and all calls should take
/// these locks in the same order.
pub const INSERT: &str = "
INSERT INTO contacts (user_id, contact_id)
SELECT $1, u.user_id FROM users u WHERE u.user_id = ANY($2) ORDER BY u.user_id
ON CONFLICT DO NOTHING";

/// Removes contacts.
pub const DELETE: &str = "DELETE FROM contacts WHERE user_id = $1 AND contact_id = ANY($2)";

/// Counts a user's contacts.
pub const COUNT: &str = "SELECT count(*) FROM contacts WHERE user_id = $1";

/// Reads a page of contacts in the order of their ids, beginning after $2.
pub const PAGE: &str = "
SELECT contact_id FROM contacts
WHERE user_id = $1 AND ($2::uuid IS NULL OR contact_id > $2) ORDER BY contact_id LIMIT $3";

impl Store {
    /// Removes all contacts of the user. Returns how many they were.
    pub(crate) async fn clear_contacts(&self, tx: &mut Tx, user: UserId) -> Result<u64> {
        let cleared = sqlx::query(CLEAR).bind(user.0).execute(&mut **tx).await?;
        Ok(cleared.rows_affected())
    }

    /// Adds those of `contacts` who exist. Returns how many are new.
    pub(crate) async fn insert_contacts(
        &self,
        tx: &mut Tx,
        user: UserId,
        contacts: &[UserId],
    ) -> Result<u64> {
        let insert = sqlx::query(INSERT).bind(user.0).bind(ids(contacts));
        Ok(insert.execute(&mut **tx).await?.rows_affected())
    }

    /// Removes contacts, if they are there. Returns how many were.
    pub(crate) async fn delete_contacts(
        &self,
        tx: &mut Tx,
        user: UserId,
        contacts: &[UserId],
    ) -> Result<u64> {
        let delete = sqlx::query(DELETE).bind(user.0).bind(ids(contacts));
        Ok(delete.execute(&mut **tx).await?.rows_affected())
    }

    /// Returns how many contacts the user has.
    pub(crate) async fn count_contacts(&self, tx: &mut Tx, user: UserId) -> Result<usize> {
        let count = sqlx::query_scalar(COUNT).bind(user.0);
        let count: i64 = count.fetch_one(&mut **tx).await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Returns at most `limit` contacts in the order of their ids, beginning after `after`.
    pub async fn contacts(&self, user: UserId, after: Option<UserId>, limit: u32) -> Result<Vec<UserId>> {
        let rows = sqlx::query(PAGE)
            .bind(user.0)
            .bind(after.map(|id| id.0))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(UserId(row.try_get(0)?))).collect()
    }
}

pub(super) fn ids(users: &[UserId]) -> Vec<uuid::Uuid> {
    users.iter().map(|user| user.0).collect()
}
