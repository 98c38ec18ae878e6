//! Tests that the store has no secret of a token or key, and that an API key works until it is revoked.

use sqlx::AssertSqlSafe;
use tern_accounts::keys;
use tern_identity::principal::Scope;
use tern_proto::v1::ErrorReason;

use crate::refresh_token;
use crate::world::World;

#[tokio::test]
async fn no_secret_is_stored() {
    let world = World::start().await;
    let token = refresh_token(&world.link(world.user("e-1").await).await);
    let key = keys::create(&world.pool, "back end", &[Scope::Admin])
        .await
        .unwrap()
        .reveal();
    for (secret, table) in [(token, "devices"), (key, "api_keys")] {
        // The text of a row shows bytes as hex digits, so the secret would be found.
        let secret = secret.rsplit('_').next().unwrap();
        let count = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || $1 || '%'");
        let rows = sqlx::query_scalar(AssertSqlSafe(count))
            .bind(secret)
            .fetch_one(&world.pool);
        let rows: i64 = rows.await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn an_api_key_is_known_until_it_is_revoked() {
    let world = World::start().await;
    let scopes = [Scope::UsersRead, Scope::MessagesSend, Scope::UsersRead];
    let made = keys::create(&world.pool, "back end", &scopes).await.unwrap();
    let holder = world.accounts.authenticate_key(&made.reveal()).await.unwrap();
    assert_eq!(holder.key_id, made.key_id.to_string());
    assert_eq!(holder.scopes, ["messages:send", "users:read"]);

    let other = keys::create(&world.pool, "other", &[Scope::Admin])
        .await
        .unwrap()
        .reveal();
    let crossed = other.replace(&other[..37], &made.reveal()[..37]);
    assert_eq!(crossed.len(), other.len());
    for bad in ["", "tern_", "Bearer x", &crossed, &made.reveal().to_uppercase()] {
        let refused = world.accounts.authenticate_key(bad).await.unwrap_err();
        assert_eq!(refused.reason, ErrorReason::ApiKeyInvalid, "{bad}");
    }

    keys::revoke(&world.pool, made.key_id).await.unwrap();
    let refused = world.accounts.authenticate_key(&made.reveal()).await.unwrap_err();
    assert_eq!(refused.reason, ErrorReason::ApiKeyInvalid);
    let listed = keys::list(&world.pool).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|key| (key.name.as_str(), key.revoked))
        .collect();
    assert_eq!(listed, [("back end", true), ("other", false)]);
    assert!(keys::revoke(&world.pool, uuid::Uuid::new_v4()).await.is_err());
    assert!(keys::create(&world.pool, "", &[Scope::Admin]).await.is_err());
    assert!(keys::create(&world.pool, "no scope", &[]).await.is_err());
}
