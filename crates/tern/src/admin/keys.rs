//! `tern admin keys`: creates, lists and revokes the API keys that the accounts nodes check.

use clap::{Args, Subcommand};
use sqlx::PgPool;
use tern_accounts::keys;
use tern_identity::principal::Scope;
use tern_store::postgres::{self, PostgresArgs};
use tern_types::limits::MAX_NAME_BYTES;
use uuid::Uuid;

use super::{print, remark};

/// The statement that lists all keys. Times come as text, because they are only printed.
const LIST: &str = "
    SELECT key_id, name, scopes,
           to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
           to_char(revoked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
      FROM api_keys
     ORDER BY created_at";

/// The statement that revokes a key. A key that is revoked already keeps the time of its first revocation.
const REVOKE: &str = "UPDATE api_keys SET revoked_at = least(revoked_at, now()) WHERE key_id = $1";

/// API keys of back ends
#[derive(Subcommand, Clone, Debug)]
pub enum KeysCommand {
    /// Create a key and print it; it is not shown again
    Create(CreateArgs),
    /// Print all keys, without their secrets
    List(ListArgs),
    /// Revoke a key; gateways may let it pass for 10 s more
    Revoke(RevokeArgs),
}

#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// Name that says what or whom the key is for
    #[arg(long, value_parser = name)]
    pub name: String,
    #[arg(long, required = true, value_delimiter = ',', help = scopes_help())]
    pub scopes: Vec<Scope>,
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

#[derive(Args, Clone, Debug)]
pub struct RevokeArgs {
    /// Id of the key: the part between its two underscores, as `list` prints it
    pub key_id: Uuid,
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

/// Runs the command to its end.
pub async fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create(args) => {
            let key = keys::create(&postgres::pool(&args.postgres).await?, &args.name, &args.scopes).await?;
            remark("keep this key: it is not shown again")?;
            print(&key.reveal())
        }
        KeysCommand::List(args) => {
            for line in list(&postgres::pool(&args.postgres).await?).await? {
                print(&line)?;
            }
            Ok(())
        }
        KeysCommand::Revoke(args) => revoke(&postgres::pool(&args.postgres).await?, args.key_id).await,
    }
}

/// Returns a line for each key, with its id, name, scopes, creation and state, separated by tabs.
async fn list(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    type Row = (Uuid, String, Vec<String>, String, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(LIST).fetch_all(pool).await?;
    let line = |(id, name, scopes, created, revoked): Row| {
        let state = revoked.map_or_else(|| "active".to_owned(), |at| format!("revoked {at}"));
        format!("{id}\t{name}\t{}\tcreated {created}\t{state}", scopes.join(","))
    };
    Ok(rows.into_iter().map(line).collect())
}

/// Revokes a key. Fails if there is no such key.
async fn revoke(pool: &PgPool, id: Uuid) -> anyhow::Result<()> {
    let revoked = sqlx::query(REVOKE).bind(id).execute(pool).await?.rows_affected();
    anyhow::ensure!(revoked == 1, "there is no key {id}");
    remark("revoked; gateways may let it pass for 10 s more")
}

fn scopes_help() -> String {
    format!(
        "What it may do, comma separated; admin is everything: {}",
        Scope::list()
    )
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control) {
        return Err(format!(
            "must have 1 to {MAX_NAME_BYTES} bytes and no control characters"
        ));
    }
    Ok(text.to_owned())
}
