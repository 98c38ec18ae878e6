//! Flags of the role.

use std::time::Duration;

use tern_node::config::seconds;

/// Settings of a presence node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Seconds that a call from a node with a newer map waits for that map before it is refused
    #[arg(long, env = "TERN_PRESENCE_MAP_WAIT", default_value = "1", value_parser = seconds)]
    pub presence_map_wait: Duration,
}
