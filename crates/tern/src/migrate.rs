//! `tern migrate`: brings the database's schema up to date.

use tern_store::postgres::{self, PostgresArgs};

/// Bring the database's schema up to date; safe while nodes of the previous version run
#[derive(clap::Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

/// Applies the migrations that the database does not have yet.
pub async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let pool = postgres::pool(&args.postgres).await?;
    postgres::migrate(&pool).await
}
