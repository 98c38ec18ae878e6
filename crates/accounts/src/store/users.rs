//! Users.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_types::{MediaId, Timestamp, UserId};
use uuid::Uuid;

use super::{Result, Store, millis};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub external_id: String,
    pub display_name: String,
    pub created_at: Timestamp,
    pub picture: Option<MediaId>,
}

/// Set by media nodes.
macro_rules! picture {
    () => {
        ", (SELECT media_id FROM user_pictures p WHERE p.user_id = users.user_id)"
    };
}
pub(super) use picture;

/// Nothing comes back when the app's id is known already.
pub const INSERT: &str = concat!(
    "INSERT INTO users (user_id, external_id, display_name) VALUES ($1, $2, $3)
     ON CONFLICT (external_id) DO NOTHING
     RETURNING user_id, external_id, display_name, ",
    millis!("created_at"),
    picture!()
);

pub const UPDATE: &str = concat!(
    "UPDATE users SET display_name = $2 WHERE user_id = $1
     RETURNING user_id, external_id, display_name, ",
    millis!("created_at"),
    picture!()
);

pub const SELECT: &str = concat!(
    "SELECT user_id, external_id, display_name, ",
    millis!("created_at"),
    picture!(),
    " FROM users WHERE user_id = ANY($1) OR external_id = ANY($2)"
);

pub const EXISTS: &str = "SELECT EXISTS (SELECT FROM users WHERE user_id = $1)";

impl Store {
    /// `None`: there is a user of this external id.
    pub async fn insert_user(
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

    /// `None`: there is no such user.
    pub async fn update_user(&self, id: UserId, display_name: &str) -> Result<Option<User>> {
        let row = sqlx::query(UPDATE)
            .bind(id.0)
            .bind(display_name)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| user(&row)).transpose()
    }

    /// Those that exist, each once, in no order.
    pub async fn users(&self, ids: &[UserId], external_ids: &[String]) -> Result<Vec<User>> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query(SELECT)
            .bind(ids)
            .bind(external_ids)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(user).collect()
    }

    pub async fn user_exists(&self, id: UserId) -> Result<bool> {
        Ok(sqlx::query_scalar(EXISTS)
            .bind(id.0)
            .fetch_one(&self.pool)
            .await?)
    }
}

/// From a row that begins with its five columns.
pub(super) fn user(row: &PgRow) -> Result<User> {
    Ok(User {
        id: UserId(row.try_get(0)?),
        external_id: row.try_get(1)?,
        display_name: row.try_get(2)?,
        created_at: Timestamp(row.try_get(3)?),
        picture: row.try_get::<Option<Uuid>, _>(4)?.map(MediaId),
    })
}
