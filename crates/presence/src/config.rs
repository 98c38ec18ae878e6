//! Flags of the role.

use std::time::Duration;

/// Settings of a presence node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// How long a call from a node with a newer map waits for that map before it is refused, in milliseconds.
    #[arg(long, env = "TERN_PRESENCE_MAP_WAIT_MS", default_value_t = 1000)]
    pub presence_map_wait_ms: u64,
}

impl Config {
    /// See `presence_map_wait_ms`.
    pub fn map_wait(&self) -> Duration {
        Duration::from_millis(self.presence_map_wait_ms)
    }
}
