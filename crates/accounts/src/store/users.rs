//! Stores users.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_store::millis;
use tern_types::{MediaId, Timestamp, UserId};
use uuid::Uuid;

use super::{Result, Store};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id that Tern gave the user.
    pub id: UserId,
    /// The app's own id of the user.
    pub external_id: String,
    /// The name that people see.
    pub display_name: String,
    /// The time at which the user was made, by the database's clock.
    pub created_at: Timestamp,
    /// The user's picture, if there is one.
    pub picture: Option<MediaId>,
}

/// The column with the user's picture, which media nodes set.
macro_rules! picture {
    () => {
        ", (SELECT media_id FROM user_pictures p WHERE p.user_id = users.user_id)"
    };
}
pub(super) use picture;

/// Inserts a user, who has no picture yet. Returns no row if the external id is known already.
pub const INSERT: &str = concat!(
    "INSERT INTO users (user_id, external_id, display_name) VALUES ($1, $2, $3)
     ON CONFLICT (external_id) DO NOTHING
     RETURNING user_id, external_id, display_name, ",
    millis!("created_at"),
    ", NULL::uuid"
);

/// Changes a user's display name.
pub const UPDATE: &str = concat!(
    "UPDATE users SET display_name = $2 WHERE user_id = $1
     RETURNING user_id, external_id, display_name, ",
    millis!("created_at"),
    picture!()
);

/// Reads the users with the ids $1 or the external ids $2.
pub const SELECT: &str = concat!(
    "SELECT user_id, external_id, display_name, ",
    millis!("created_at"),
    picture!(),
    " FROM users WHERE user_id = ANY($1) OR external_id = ANY($2)"
);

/// Returns whether a user exists.
pub const EXISTS: &str = "SELECT EXISTS (SELECT FROM users WHERE user_id = $1)";

impl Store {
    /// Inserts a user. Returns `None` if there is a user with this external id already.
    pub(crate) async fn insert_user(
        &self,
        id: UserId,
        external_id: &str,
        display_name: &str,
    ) -> Result<Option<User>> {
        let row = sqlx::query(INSERT)
            .bind(id.0)
            .bind(external_id)
            .bind(display_name);
        row.fetch_optional(&self.pool)
            .await?
            .map(|row| user(&row))
            .transpose()
    }

    /// Changes the user's display name. Returns `None` if there is no such user.
    pub async fn update_user(&self, id: UserId, display_name: &str) -> Result<Option<User>> {
        let row = sqlx::query(UPDATE)
            .bind(id.0)
            .bind(display_name)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| user(&row)).transpose()
    }

    /// Returns the users with these ids or external ids who exist, each once, in no order.
    pub async fn users(&self, ids: &[UserId], external_ids: &[String]) -> Result<Vec<User>> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query(SELECT)
            .bind(ids)
            .bind(external_ids)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(user).collect()
    }

    /// Returns whether the user exists.
    pub(crate) async fn user_exists(&self, id: UserId) -> Result<bool> {
        Ok(sqlx::query_scalar(EXISTS)
            .bind(id.0)
            .fetch_one(&self.pool)
            .await?)
    }
}

/// Reads a user from the first five columns of a row.
pub(super) fn user(row: &PgRow) -> Result<User> {
    Ok(User {
        id: UserId(row.try_get(0)?),
        external_id: row.try_get(1)?,
        display_name: row.try_get(2)?,
        created_at: Timestamp(row.try_get(3)?),
        picture: row.try_get::<Option<Uuid>, _>(4)?.map(MediaId),
    })
}
