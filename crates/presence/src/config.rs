//! The flags of the presence role.

use std::time::Duration;

use tern_cluster::config::seconds;
use tern_store::postgres::PostgresArgs;

/// The settings of a presence node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the store is, and how it is used.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Seconds that a call from a node with a newer map waits for that map before it is refused
    #[arg(long, env = "TERN_PRESENCE_MAP_WAIT", default_value = "1", value_parser = seconds)]
    pub presence_map_wait: Duration,
    /// Seconds that a person counts as online after each sign of activity; the same on gateways and presence nodes
    #[arg(long, env = "TERN_ONLINE_THRESHOLD", default_value = "30", value_parser = seconds)]
    pub online_threshold: Duration,
    /// Seconds after a slot has come to this node in which nobody of the slot is reported as offline: as long as
    /// gateways may need to announce their sessions
    #[arg(long, env = "TERN_PRESENCE_HOLD_OFFLINE", default_value = "2", value_parser = seconds, hide = true)]
    pub presence_hold_offline: Duration,
}
