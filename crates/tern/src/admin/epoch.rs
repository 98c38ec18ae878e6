//! `tern admin epoch`: shows or changes the store's epoch.
//!
//! The epoch is changed after a restore, or after a failover that lost commits. Clients that see a new epoch read
//! everything anew.

use clap::{Args, Subcommand};
use tern_store::postgres::{self, PostgresArgs};
use uuid::Uuid;

use super::{print, remark};

/// The statement that reads the epoch.
const SHOW: &str = "SELECT epoch FROM store WHERE single";
/// The statement that moves the sequence of stream numbers ahead by 2^40, so that new streams have higher
/// numbers than any that was drawn after the backup was made. It reads `store`, because Citus then carries it
/// out on the coordinator, whose sequence is the one that counts. It is run before [`CHANGE`]: in the other
/// order, a failure between the two would leave a new epoch with low numbers, and a device's new stream would
/// count as older than one that was opened before the restore.
const SKIP_NUMBERS: &str = "
SELECT setval('stream_numbers', nextval('stream_numbers') + 1099511627776) FROM store WHERE single";
/// The statement that changes the epoch. The new epoch is a parameter, because Citus allows no function in it
/// that makes a random value.
const CHANGE: &str = "UPDATE store SET epoch = $1 WHERE single RETURNING epoch";

/// The store's epoch: clients' cursors are valid only within one epoch
#[derive(Subcommand, Clone, Debug)]
pub enum EpochCommand {
    /// Print the epoch
    Show(EpochArgs),
    /// Change the epoch, after a restore or a failover that lost commits: every client reads its chats anew and sends
    /// its recent messages again
    Bump(EpochArgs),
}

#[derive(Args, Clone, Debug)]
pub struct EpochArgs {
    #[command(flatten)]
    postgres: PostgresArgs,
}

/// Runs the command to its end.
pub async fn run(command: EpochCommand) -> anyhow::Result<()> {
    let (EpochCommand::Show(args) | EpochCommand::Bump(args)) = &command;
    let pool = postgres::pool(&args.postgres).await?;
    if let EpochCommand::Show(_) = command {
        let epoch: Uuid = sqlx::query_scalar(SHOW).fetch_one(&pool).await?;
        return print(&epoch.to_string());
    }
    sqlx::query(SKIP_NUMBERS).execute(&pool).await?;
    let epoch: Uuid = sqlx::query_scalar(CHANGE)
        .bind(Uuid::new_v4())
        .fetch_one(&pool)
        .await?;
    print(&epoch.to_string())?;
    remark("chat nodes notice within 10 s, gateways then end all streams; clients come back by themselves")
}
