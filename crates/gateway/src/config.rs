//! The flags of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tern_cluster::config::seconds;
use tern_transport::connections::Bounds;
use tern_transport::descriptors;

use tern_gateway_core::session::Settings;

use crate::call_limits::{Rate, Rates};
use crate::origins::Origins;

/// Settings of a gateway.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Address where clients connect, by gRPC, gRPC-Web and WebSocket
    #[arg(long, env = "TERN_GATEWAY_LISTEN", default_value = "127.0.0.1:7443")]
    pub gateway_listen: SocketAddr,
    /// File with the certificate chain that clients are shown, in PEM. Without it the listener is plain text
    #[arg(long, env = "TERN_GATEWAY_TLS_CERT", requires = "gateway_tls_key")]
    pub gateway_tls_cert: Option<PathBuf>,
    /// File with the certificate's private key, in PEM
    #[arg(long, env = "TERN_GATEWAY_TLS_KEY", requires = "gateway_tls_cert")]
    pub gateway_tls_key: Option<PathBuf>,
    /// Serve plain text on an address that is not loopback. Only behind a proxy or load balancer that ends TLS
    #[arg(long, env = "TERN_GATEWAY_PLAINTEXT")]
    pub gateway_plaintext: bool,
    /// Origins of the web sites whose pages may use this gateway from a browser, by gRPC-Web and WebSocket, such as
    /// https://app.example.com, comma separated, or * for all. Clients that are no browsers need none
    #[arg(long, env = "TERN_GATEWAY_ALLOWED_ORIGINS", default_value = "")]
    pub gateway_allowed_origins: Origins,
    /// Files with the Ed25519 keys that access tokens are verified with, in PEM, private or public, comma separated
    #[arg(long, env = "TERN_TOKEN_VERIFY_FILES", value_delimiter = ',', required = true)]
    pub token_verify_files: Vec<PathBuf>,
    /// Serve gRPC reflection to clients
    #[arg(long, env = "TERN_GATEWAY_REFLECTION")]
    pub gateway_reflection: bool,
    /// Streams that this gateway holds at most. Clients of further streams are told to come back later
    #[arg(long, env = "TERN_GATEWAY_MAX_SESSIONS", default_value_t = 100_000)]
    pub gateway_max_sessions: usize,
    /// Connections that this gateway holds at most. 0: as many as its file descriptors allow. Beyond that another one
    /// is ended for each new one, those without credentials and idle ones first, but never one with an authenticated
    /// stream
    #[arg(long, env = "TERN_GATEWAY_MAX_CONNECTIONS", default_value_t = 0)]
    pub gateway_max_connections: usize,
    /// Connections without credentials that one address may have at once. Its oldest one is ended for each further
    /// one. 0: no limit, for gateways behind a load balancer that ends connections, where all clients have its
    /// address
    #[arg(long, env = "TERN_GATEWAY_MAX_STRANGERS_PER_ADDRESS", default_value_t = 0)]
    pub gateway_max_strangers_per_address: usize,
    /// Seconds from when a connection is accepted to its first request, and from each request to the next while none
    /// has had credentials
    #[arg(long, env = "TERN_GATEWAY_FIRST_REQUEST_WITHIN", default_value = "30", value_parser = bound)]
    pub gateway_first_request_within: Duration,
    /// Seconds that a connection whose calls had good credentials may be idle, without a call or a stream
    #[arg(long, env = "TERN_GATEWAY_IDLE_AFTER", default_value = "600", value_parser = bound)]
    pub gateway_idle_after: Duration,
    /// Seconds within which a client has to take the answer to a unary call, counted from the call. Ten times as many
    /// where other calls or streams share the connection
    #[arg(long, env = "TERN_GATEWAY_ANSWER_TAKEN_WITHIN", default_value = "300", value_parser = bound)]
    pub gateway_answer_taken_within: Duration,
    /// Seconds after which a stream whose client takes nothing is cut off with its connection. Ten times as many
    /// where other streams share the connection
    #[arg(long, env = "TERN_GATEWAY_STALLED_AFTER", default_value = "60", value_parser = bound)]
    pub gateway_stalled_after: Duration,
    /// Seconds between the heartbeats of a device in the background
    #[arg(long, env = "TERN_GATEWAY_HEARTBEAT_BACKGROUND", default_value = "180", value_parser = bound)]
    pub gateway_heartbeat_background: Duration,
    /// Seconds between the heartbeats of a device in active use
    #[arg(long, env = "TERN_GATEWAY_HEARTBEAT_ACTIVE", default_value = "45", value_parser = bound)]
    pub gateway_heartbeat_active: Duration,
    /// Seconds that a user counts as online after each sign of activity. The same on gateways and presence nodes
    #[arg(long, env = "TERN_ONLINE_THRESHOLD", default_value = "30", value_parser = bound)]
    pub online_threshold: Duration,
    /// Seconds before its access token expires at which a stream is warned
    #[arg(long, env = "TERN_GATEWAY_TOKEN_WARNING", default_value = "300", value_parser = seconds)]
    pub gateway_token_warning: Duration,
    /// Messages that a device may send a second, over a longer time
    #[arg(long, env = "TERN_GATEWAY_SENDS_PER_SECOND", default_value_t = 20)]
    pub gateway_sends_per_second: u32,
    /// Messages that a device may send at once
    #[arg(long, env = "TERN_GATEWAY_SEND_BURST", default_value_t = 200)]
    pub gateway_send_burst: u32,
    /// Unary calls that a device may make a second, over a longer time. SendMessage has the limits of messages
    /// besides
    #[arg(long, env = "TERN_GATEWAY_CALLS_PER_SECOND", default_value_t = 50)]
    pub gateway_calls_per_second: u32,
    /// Unary calls that a device may make at once. A newly installed client asks for each of its chats
    #[arg(long, env = "TERN_GATEWAY_CALL_BURST", default_value_t = 1000)]
    pub gateway_call_burst: u32,
    /// Unary calls that a back end's API key may make a second on this gateway
    #[arg(long, env = "TERN_GATEWAY_KEY_CALLS_PER_SECOND", default_value_t = 5000)]
    pub gateway_key_calls_per_second: u32,
    /// Calls of Auth, which carry no credentials, that one address may make a second, over a longer time. 0: no
    /// limit, for gateways behind a load balancer that ends connections, where all clients have its address
    #[arg(long, env = "TERN_GATEWAY_AUTH_CALLS_PER_SECOND", default_value_t = 20)]
    pub gateway_auth_calls_per_second: u32,
    /// Calls of Auth that one address may make at once. Many phones share an address behind a carrier's or an
    /// office's NAT
    #[arg(long, env = "TERN_GATEWAY_AUTH_CALL_BURST", default_value_t = 500)]
    pub gateway_auth_call_burst: u32,
    /// Seconds after which entries are sent again that a device has not acknowledged
    #[arg(long, env = "TERN_GATEWAY_ACK_TIMEOUT", default_value = "5", value_parser = bound)]
    pub gateway_ack_timeout: Duration,
    /// Seconds between sweeps, which read the inboxes of all devices in case live delivery has missed something
    #[arg(long, env = "TERN_GATEWAY_SWEEP_INTERVAL", default_value = "60", value_parser = bound)]
    pub gateway_sweep_interval: Duration,
    /// Age in seconds from which on an inbox row that only a sweep finds is reported as a defect
    #[arg(long, env = "TERN_GATEWAY_SWEEP_GRACE", default_value = "10", value_parser = seconds)]
    pub gateway_sweep_grace: Duration,
    /// Seconds over which at most the reading of inboxes is spread after the cluster has changed
    #[arg(long, env = "TERN_GATEWAY_DRAIN_SPREAD", default_value = "10", value_parser = seconds)]
    pub gateway_drain_spread: Duration,
}

/// The shortest time after which something is ended, asked for or done again. A shorter one would end connections that
/// were just made, and at 0 a loop would go round without a pause.
const SHORTEST_BOUND: Duration = Duration::from_millis(100);

/// Parses a number of seconds after which something is ended, asked for or done again. `Err` if the text is no number,
/// or the time is below [`SHORTEST_BOUND`].
fn bound(text: &str) -> Result<Duration, String> {
    let bound = seconds(text)?;
    if bound < SHORTEST_BOUND {
        let shortest = SHORTEST_BOUND.as_secs_f32();
        return Err(format!("must be {shortest} seconds or more"));
    }
    Ok(bound)
}

impl Config {
    /// Returns the bounds of clients' connections, which are never more than the file descriptors allow.
    pub fn bounds(&self) -> Bounds {
        let room = descriptors::shares().clients;
        let wanted = match self.gateway_max_connections {
            0 => room,
            wanted => wanted,
        };
        if room < wanted.max(self.gateway_max_sessions) {
            tracing::info!(
                room,
                "the limit of file descriptors leaves room for fewer connections than \
                 --gateway-max-connections and --gateway-max-sessions say"
            );
        }
        Bounds {
            connections: wanted.min(room),
            strangers_of_address: Some(self.gateway_max_strangers_per_address).filter(|most| *most > 0),
            first_request: self.gateway_first_request_within,
            idle: self.gateway_idle_after,
            call: self.gateway_answer_taken_within,
        }
    }

    /// Returns the rate limits of unary calls.
    pub fn rates(&self) -> Rates {
        Rates {
            device_calls: Rate {
                per_second: self.gateway_calls_per_second,
                burst: self.gateway_call_burst,
            },
            device_sends: Rate {
                per_second: self.gateway_sends_per_second,
                burst: self.gateway_send_burst,
            },
            key_calls_per_second: self.gateway_key_calls_per_second,
            stranger_calls: (self.gateway_auth_calls_per_second > 0).then_some(Rate {
                per_second: self.gateway_auth_calls_per_second,
                burst: self.gateway_auth_call_burst,
            }),
        }
    }

    /// Returns the settings of sessions.
    pub fn settings(&self) -> Settings {
        let standard = Settings::default();
        Settings {
            // A stream has shown no credentials before Open, so it gets no more time than a connection
            // without any.
            open_timeout: standard.open_timeout.min(self.gateway_first_request_within),
            heartbeat_background: self.gateway_heartbeat_background,
            heartbeat_active: self.gateway_heartbeat_active,
            token_warning: self.gateway_token_warning,
            sends_per_second: self.gateway_sends_per_second,
            send_burst: self.gateway_send_burst,
            ack_timeout: self.gateway_ack_timeout,
            sweep_grace: self.gateway_sweep_grace,
            online_threshold: self.online_threshold,
            ..standard
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn a_time_at_which_a_loop_would_go_round_without_a_pause_is_refused() {
        for flag in [
            "--gateway-stalled-after",
            "--gateway-heartbeat-background",
            "--gateway-heartbeat-active",
            "--online-threshold",
            "--gateway-ack-timeout",
            "--gateway-sweep-interval",
        ] {
            let parse = |seconds: &str| {
                let all = ["gateway", "--token-verify-files", "key", flag, seconds];
                Flags::try_parse_from(all).map(|flags| flags.config)
            };
            assert!(parse("0").is_err(), "{flag} 0");
            assert!(parse("0.1").is_ok(), "{flag} 0.1");
        }
    }
}
