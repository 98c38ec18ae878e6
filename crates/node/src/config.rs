//! The flags of a node. Every flag has an environment variable of the same name.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::etcd::EtcdArgs;
use crate::telemetry::TelemetryArgs;

/// What a node is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Profile {
    /// Warns about what would be unsafe in production.
    #[default]
    Development,
    /// Refuses it.
    Production,
}

/// Flags that every role has in common, flattened into `tern serve`.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeArgs {
    /// Name of this node: unique in the cluster, the same after a restart (a StatefulSet's pod name)
    #[arg(long, env = "TERN_NODE_NAME")]
    pub node_name: String,
    /// Where other nodes reach this one by gRPC
    #[arg(long, env = "TERN_INTERNAL_LISTEN", default_value = "127.0.0.1:0")]
    pub internal_listen: SocketAddr,
    /// host:port that other nodes are told; left out: the listening address
    #[arg(long, env = "TERN_INTERNAL_ADVERTISE")]
    pub internal_advertise: Option<String>,
    /// Where /metrics, /healthz and /readyz are served by HTTP
    #[arg(long, env = "TERN_ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Seconds that a drain may take before the process ends all the same
    #[arg(long, env = "TERN_DRAIN_TIMEOUT", default_value = "25", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// What the node is held to
    #[arg(long, env = "TERN_PROFILE", value_enum, default_value_t)]
    pub profile: Profile,
    /// Serve gRPC reflection on the internal listener
    #[arg(long, env = "TERN_REFLECTION")]
    pub reflection: bool,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// A number of seconds, with a fraction or without.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
