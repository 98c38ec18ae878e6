//! `tern migrate`.

use tern_node::postgres::{self, PostgresArgs};

/// Bring the database's schema up to date; safe while nodes of the version before run
#[derive(clap::Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub postgres: PostgresArgs,
}

/// Migrates.
pub async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let pool = postgres::pool(&args.postgres).await?;
    postgres::migrate(&pool).await
}
