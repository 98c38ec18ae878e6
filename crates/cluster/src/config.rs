//! The flags of a node. Every flag has an environment variable, such as `TERN_NODE_NAME` for `--node-name`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use tern_telemetry::TelemetryArgs;
use tern_transport::internal_tls::InternalTlsArgs;

use crate::etcd::EtcdArgs;

/// The longest node name in bytes, the same as for the name of a Kubernetes pod.
const MAX_NODE_NAME: usize = 253;

/// The strictness with which a node's settings are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Profile {
    /// Warns about settings that are unsafe in production
    #[default]
    Development,
    /// Refuses settings that are unsafe in production
    Production,
}

/// A flag that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[allow(missing_docs, reason = "--help would print the comments of the variants")]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// The flags that every role has in common. `tern serve` flattens them.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeArgs {
    /// Name of this node: unique in the cluster, the same after a restart (a StatefulSet's pod name)
    #[arg(long, env = "TERN_NODE_NAME", value_parser = node_name)]
    pub node_name: String,
    /// Address on which other nodes reach this one by gRPC
    #[arg(long, env = "TERN_INTERNAL_LISTEN", default_value = "127.0.0.1:0")]
    pub internal_listen: SocketAddr,
    /// host:port that other nodes are told; left out: the listening address
    #[arg(long, env = "TERN_INTERNAL_ADVERTISE")]
    pub internal_advertise: Option<String>,
    /// Serve other nodes in plain text on an address that is not loopback, under --profile production too: only on a
    /// network that encrypts and lets in nobody but nodes, since whoever reaches this listener is believed to be one
    #[arg(long, env = "TERN_INTERNAL_PLAINTEXT")]
    pub internal_plaintext: bool,
    /// Address on which /metrics, /healthz and /readyz are served by HTTP
    #[arg(long, env = "TERN_ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Seconds that a drain may take before the process ends all the same
    #[arg(long, env = "TERN_DRAIN_TIMEOUT", default_value = "25", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// How strictly unsafe settings are treated
    #[arg(long, env = "TERN_PROFILE", value_enum, default_value_t)]
    pub profile: Profile,
    /// Serve gRPC reflection on the internal listener
    #[arg(long, env = "TERN_REFLECTION")]
    pub reflection: bool,
    /// Give things up under load: typing first, then presence, delivered receipts, new streams; messages never
    #[arg(long, env = "TERN_SHEDDING", value_enum, default_value_t)]
    pub shedding: Switch,
    /// The certificates that nodes show each other.
    #[command(flatten)]
    pub internal_tls: InternalTlsArgs,
    /// The addresses of etcd, and the prefix of the keys there.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl NodeArgs {
    /// Checks that the internal listener is not open to everybody. A client that reaches the listener is believed
    /// whatever it says about a caller and the caller's scopes. So if the address is not loopback, either clients have
    /// to prove by certificates that they are nodes, or an operator has to state that only nodes can reach the listener
    /// (`--internal-plaintext`). In development an open listener is only logged.
    ///
    /// # Errors
    ///
    /// Fails under [`Profile::Production`] if the listener is open to everybody who reaches it.
    pub fn check_internal_listener(&self) -> anyhow::Result<()> {
        let reachable = !self.internal_listen.ip().to_canonical().is_loopback();
        let open = reachable && self.internal_tls.internal_tls_cert.is_none() && !self.internal_plaintext;
        anyhow::ensure!(
            !open || self.profile == Profile::Development,
            "refused under --profile production: --internal-listen {} is plain text beyond loopback, and whoever reaches it is \
             believed to be a node. Give --internal-tls-cert, --internal-tls-key and --internal-tls-ca, or --internal-plaintext \
             where the network encrypts and lets in nobody but nodes",
            self.internal_listen
        );
        if open {
            tracing::warn!(
                "nodes talk in plain text, to whoever reaches --internal-listen: --profile production refuses it"
            );
        }
        Ok(())
    }
}

/// Parses a number of seconds, with or without a fraction. Returns `Err` with what is wrong with the text.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Parses a node's name, which is part of keys in etcd and of metadata between nodes. It may have the characters that a
/// pod's name may have.
fn node_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if text.is_empty() || text.len() > MAX_NODE_NAME || !text.chars().all(fits) {
        return Err(format!("must have 1 to {MAX_NODE_NAME} of a-z, 0-9, - and ."));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        node: NodeArgs,
    }

    #[test]
    fn production_serves_nodes_in_plain_text_beyond_loopback_only_where_that_is_said() {
        let check = |flags: &str| {
            let flags = flags.split_whitespace();
            let args = ["node", "--node-name", "a"].into_iter().chain(flags);
            Flags::try_parse_from(args)
                .expect("flags")
                .node
                .check_internal_listener()
        };
        let tls = "--internal-tls-cert c --internal-tls-key k --internal-tls-ca a";
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let production = format!("--profile production --internal-listen {listen}");
            let error = check(&production).expect_err("refused").to_string();
            assert!(
                error.contains("--internal-plaintext") && error.contains(listen),
                "{error}"
            );
            assert!(check(&format!("{production} {tls}")).is_ok(), "{listen}");
            assert!(
                check(&format!("{production} --internal-plaintext")).is_ok(),
                "{listen}"
            );
            assert!(check(&format!("--internal-listen {listen}")).is_ok(), "{listen}");
        }
        for listen in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(
                check(&format!("--profile production --internal-listen {listen}")).is_ok(),
                "{listen}"
            );
        }
    }

    #[test]
    fn node_names_are_as_pods_are_called() {
        for good in ["chat-0", "tern-chat-12.tern", "a"] {
            assert_eq!(node_name(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "chat/0",
            "Chat",
            "châte",
            "a b",
            &"a".repeat(MAX_NODE_NAME + 1),
        ] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["", "x", "-1", "NaN", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
