//! The commands of operators on a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Output;

use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tern_identity::principal::Scope;
use tern_identity::token::{Signer, Verifier};
use tern_local::Shared;
use tern_types::{Clock, DeviceId, UserId};
use tokio::process::Command;
use uuid::Uuid;

struct Operator {
    database: String,
    _shared: Shared,
}

impl Operator {
    async fn new() -> Self {
        let shared = Shared::get().await.unwrap();
        Self {
            database: shared.database().await.unwrap(),
            _shared: shared,
        }
    }

    async fn tern(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command
            .args(args)
            .env("TERN_DATABASE_URL", &self.database)
            .env("RUST_BACKTRACE", "0");
        command.output().await.unwrap()
    }

    /// Runs a command that succeeds. Returns its output.
    async fn prints(&self, args: &[&str]) -> String {
        let output = self.tern(args).await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that fails. Returns what it says on standard error.
    async fn refused(&self, args: &[&str]) -> String {
        let output = self.tern(args).await;
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn pool(&self) -> PgPool {
        PgPool::connect(&self.database).await.unwrap()
    }
}

#[tokio::test]
async fn migrating_again_or_at_once_changes_nothing() {
    let operator = Operator::new().await;
    let (one, other) = tokio::join!(operator.tern(&["migrate"]), operator.tern(&["migrate"]));
    assert!(
        one.status.success() && other.status.success(),
        "{one:?} {other:?}"
    );
    let pool = operator.pool().await;
    let epoch = || sqlx::query_scalar::<_, Uuid>("SELECT epoch FROM store").fetch_one(&pool);
    let before = epoch().await.unwrap();
    operator.prints(&["migrate"]).await;
    assert_eq!(epoch().await.unwrap(), before);
    assert!(tern_store::schema::require(&pool).await.is_ok());
}

#[tokio::test]
async fn a_number_of_cells_that_no_store_can_have_is_refused() {
    let operator = Operator::new().await;
    for cells in ["0", "3", "512", "many"] {
        let said = operator.refused(&["migrate", "--cells", cells]).await;
        assert!(said.contains("power of two"), "{cells}: {said}");
    }
    let pool = operator.pool().await;
    assert!(
        tern_store::schema::require(&pool).await.is_err(),
        "nothing was made"
    );
    operator.prints(&["migrate", "--cells", "2"]).await;
    assert_eq!(tern_store::schema::require(&pool).await.unwrap().count(), 2);
    let said = operator.refused(&["migrate", "--cells", "4"]).await;
    assert!(said.contains("has 2 cells"), "{said}");
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_refused() {
    let pool = Operator::new().await.pool().await;
    let refused = tern_store::schema::require(&pool).await.unwrap_err().to_string();
    assert!(refused.contains("tern migrate"), "{refused}");
}

#[tokio::test]
async fn a_key_is_printed_once_listed_and_revoked() {
    let operator = Operator::new().await;
    operator.prints(&["migrate"]).await;
    let create = [
        "admin",
        "keys",
        "create",
        "--name",
        "back end; drop table",
        "--scopes",
        "users:read,chats:write",
    ];
    let key = operator.prints(&create).await;
    let parts: Vec<_> = key.trim().split('_').collect();
    let [prefix, id, secret] = parts[..] else {
        panic!("{key}")
    };
    let id: Uuid = id.parse().unwrap();
    assert_eq!((prefix, secret.len()), ("tern", 64));

    let pool = operator.pool().await;
    let row: (Vec<u8>, Vec<String>) =
        sqlx::query_as("SELECT secret_hash, scopes FROM api_keys WHERE key_id = $1")
            .bind(id)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(row.0, Sha256::digest(hex::decode(secret).unwrap()).to_vec());
    assert_eq!(row.1, ["chats:write", "users:read"]);

    let listed = operator.prints(&["admin", "keys", "list"]).await;
    assert!(
        listed.contains(&id.to_string()) && listed.contains("active") && !listed.contains(secret),
        "{listed}"
    );
    operator
        .prints(&["admin", "keys", "revoke", &id.to_string()])
        .await;
    // Revoke it again, with the id written as in the key. The time of the first revocation stays.
    let first = operator.prints(&["admin", "keys", "list"]).await;
    operator
        .prints(&["admin", "keys", "revoke", &id.simple().to_string()])
        .await;
    assert_eq!(operator.prints(&["admin", "keys", "list"]).await, first);
    assert!(first.contains("revoked"), "{first}");
}

#[tokio::test]
async fn wrong_keys_are_refused_with_words() {
    let operator = Operator::new().await;
    operator.prints(&["migrate"]).await;
    let scopes = operator
        .refused(&["admin", "keys", "create", "--name", "a", "--scopes", "everything"])
        .await;
    assert!(scopes.contains("no such scope"), "{scopes}");
    let help = operator.prints(&["admin", "keys", "create", "--help"]).await;
    for scope in Scope::ALL.map(Scope::as_str) {
        assert!(help.contains(scope), "{scope} is not in {help}");
    }
    let name = operator
        .refused(&["admin", "keys", "create", "--name", "", "--scopes", "admin"])
        .await;
    assert!(name.contains("1 to 256 bytes"), "{name}");
    let unknown = operator
        .refused(&["admin", "keys", "revoke", &Uuid::nil().to_string()])
        .await;
    assert!(unknown.contains("there is no key"), "{unknown}");
}

#[tokio::test]
async fn a_token_key_signs_tokens_that_it_verifies() {
    let operator = Operator::new().await;
    let pem = operator.prints(&["admin", "token-key"]).await;
    let (user, device, now) = (UserId::random(), DeviceId::random(), Clock::wall());
    let token = Signer::from_pem(&pem)
        .unwrap()
        .sign(user, device, now, std::time::Duration::from_secs(60))
        .unwrap();
    assert_eq!(
        Verifier::from_pems([&pem])
            .unwrap()
            .verify(&token, now)
            .unwrap()
            .device,
        device
    );
    assert_ne!(operator.prints(&["admin", "token-key"]).await, pem);
}
