//! Stores API keys.

use sqlx::Row;
use tern_store::millis;
use tern_types::Timestamp;
use uuid::Uuid;

use super::{Result, Store};

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The id, which is part of the key's text.
    pub key_id: Uuid,
    /// The name that the operator gave the key.
    pub name: String,
    /// The names of the key's scopes, such as `users:read`.
    pub scopes: Vec<String>,
    /// The time at which the key was made, by the database's clock.
    pub created_at: Timestamp,
    /// True if the key was revoked.
    pub revoked: bool,
}

const INSERT: &str = "INSERT INTO api_keys (key_id, name, secret_hash, scopes) VALUES ($1, $2, $3, $4)";

/// Reads the hash and the scopes of a key that is not revoked.
pub const LIVE: &str = "SELECT secret_hash, scopes FROM api_keys WHERE key_id = $1 AND revoked_at IS NULL";

const LIST: &str = concat!(
    "SELECT key_id, name, scopes, ",
    millis!("created_at"),
    ", revoked_at IS NOT NULL FROM api_keys ORDER BY created_at, key_id"
);

const REVOKE: &str = "UPDATE api_keys SET revoked_at = least(revoked_at, now()) WHERE key_id = $1";

impl Store {
    /// Stores a new key.
    pub(crate) async fn insert_key(
        &self,
        key_id: Uuid,
        name: &str,
        secret_hash: &[u8],
        scopes: &[String],
    ) -> Result<()> {
        sqlx::query(INSERT)
            .bind(key_id)
            .bind(name)
            .bind(secret_hash)
            .bind(scopes)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Returns the hash and the scopes of a key that is not revoked, or `None` if there is none.
    pub(crate) async fn live_key(&self, key_id: Uuid) -> Result<Option<(Vec<u8>, Vec<String>)>> {
        let row = sqlx::query(LIVE).bind(key_id).fetch_optional(&self.pool).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    /// Returns all keys, including revoked ones, the oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>> {
        let rows = sqlx::query(LIST).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                Ok(KeyInfo {
                    key_id: row.try_get(0)?,
                    name: row.try_get(1)?,
                    scopes: row.try_get(2)?,
                    created_at: Timestamp(row.try_get(3)?),
                    revoked: row.try_get(4)?,
                })
            })
            .collect()
    }

    /// Revokes a key. Returns `false` if there is no such key.
    pub(crate) async fn revoke_key(&self, key_id: Uuid) -> Result<bool> {
        let done = sqlx::query(REVOKE).bind(key_id).execute(&self.pool).await?;
        Ok(done.rows_affected() > 0)
    }
}
