//! The flags of the push role.

use std::path::PathBuf;

use tern_store::postgres::PostgresArgs;

/// The most pushes that may be claimed at once. One look at so many takes well below a second.
const MAX_BATCH: i64 = 1024;
/// The most batches that may be looked at at a time. More than there are connections would only wait.
const MAX_BATCHES: i64 = 64;

/// The settings of a push node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the store is, and how it is used.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// JSON file with the apps and keys by which this node calls push services; left out: nothing is sent
    #[arg(long, env = "TERN_PUSH_APPS")]
    pub push_apps: Option<PathBuf>,
    /// Pushes that a worker claims at once, 1 to 1024
    #[arg(
        long,
        env = "TERN_PUSH_BATCH",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=MAX_BATCH)
    )]
    pub push_batch: u32,
    /// Batches of pushes that are looked at at the same time, 1 to 64
    #[arg(
        long,
        env = "TERN_PUSH_BATCHES",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=MAX_BATCHES)
    )]
    pub push_batches: u32,
}
