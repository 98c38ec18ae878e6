//! Makes, lists and revokes API keys for the operator's tool `tern admin keys`.

use anyhow::Context;
use sqlx::PgPool;
use tern_identity::principal::Scope;
use tern_types::limits::MAX_NAME_BYTES;
use uuid::Uuid;

use crate::secrets::ApiKey;
use crate::store::Store;
pub use crate::store::keys::KeyInfo;

/// Makes and stores a new key. [`ApiKey::reveal`] of the returned value is the only chance to show it. Returns `Err` if
/// the name does not have 1 to 256 bytes, there is no scope, or the store is away.
pub async fn create(pool: &PgPool, name: &str, scopes: &[Scope]) -> anyhow::Result<ApiKey> {
    let named = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('\0');
    anyhow::ensure!(named, "a key's name has 1 to {MAX_NAME_BYTES} bytes");
    anyhow::ensure!(!scopes.is_empty(), "a key has at least one scope");
    let key = ApiKey::generate();
    let mut scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let store = Store::new(pool.clone());
    store
        .insert_key(key.key_id, name, &key.hash(), &scopes)
        .await
        .context("cannot store the key")?;
    Ok(key)
}

/// Returns all keys, including revoked ones, the oldest first, or `Err` if the store is away.
pub async fn list(pool: &PgPool) -> anyhow::Result<Vec<KeyInfo>> {
    Store::new(pool.clone())
        .keys()
        .await
        .context("cannot read the keys")
}

/// Revokes a key. Gateways remember what they know of a key for 10 s, so it may be accepted for that long. Returns
/// `Err` if there is no such key, or the store is away.
pub async fn revoke(pool: &PgPool, key_id: Uuid) -> anyhow::Result<()> {
    let known = Store::new(pool.clone())
        .revoke_key(key_id)
        .await
        .context("cannot revoke the key")?;
    anyhow::ensure!(known, "there is no key {key_id}");
    Ok(())
}
