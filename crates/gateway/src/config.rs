//! The flags of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tern_node::config::seconds;
use tern_node::connections::Bounds;
use tern_node::descriptors;

use crate::call_limits::{Rate, Rates};
use crate::origins::Origins;
use crate::session::Settings;

/// Settings of a gateway.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where clients connect by gRPC
    #[arg(long, env = "TERN_GATEWAY_LISTEN", default_value = "127.0.0.1:7443")]
    pub gateway_listen: SocketAddr,
    /// File with the certificate chain for clients, in PEM. Without it the listener is plain text
    #[arg(long, env = "TERN_GATEWAY_TLS_CERT", requires = "gateway_tls_key")]
    pub gateway_tls_cert: Option<PathBuf>,
    /// File with the certificate's private key, in PEM
    #[arg(long, env = "TERN_GATEWAY_TLS_KEY", requires = "gateway_tls_cert")]
    pub gateway_tls_key: Option<PathBuf>,
    /// Serve plain text on an address that is not loopback: only behind something that ends TLS
    #[arg(long, env = "TERN_GATEWAY_PLAINTEXT")]
    pub gateway_plaintext: bool,
    /// Web sites whose pages may use this gateway from a browser, by gRPC-Web and WebSocket: origins such as
    /// https://app.example.com, comma separated, or * for all. Clients that are no browsers need none
    #[arg(long, env = "TERN_GATEWAY_ALLOWED_ORIGINS", default_value = "")]
    pub gateway_allowed_origins: Origins,
    /// Files with the Ed25519 keys that access tokens are verified with, in PEM, private or public, comma separated
    #[arg(long, env = "TERN_TOKEN_VERIFY_FILES", value_delimiter = ',', required = true)]
    pub token_verify_files: Vec<PathBuf>,
    /// Serve gRPC reflection to clients
    #[arg(long, env = "TERN_GATEWAY_REFLECTION")]
    pub gateway_reflection: bool,
    /// Streams that this gateway holds at most; more are told to come back later
    #[arg(long, env = "TERN_GATEWAY_MAX_SESSIONS", default_value_t = 100_000)]
    pub gateway_max_sessions: usize,
    /// Connections that this gateway holds at most. 0: as many as its file descriptors allow. When there are no more, one without
    /// credentials goes for each that comes, the oldest that does nothing first; one with an authenticated stream never
    #[arg(long, env = "TERN_GATEWAY_MAX_CONNECTIONS", default_value_t = 0)]
    pub gateway_max_connections: usize,
    /// Connections without credentials that one address may have at once; its oldest goes for each more. 0: no limit, for gateways
    /// behind a load balancer that ends connections, where all clients have its address
    #[arg(long, env = "TERN_GATEWAY_MAX_STRANGERS_PER_ADDRESS", default_value_t = 0)]
    pub gateway_max_strangers_per_address: usize,
    /// Seconds from accepting a connection to its first request; the same from each request to the next where none has credentials
    #[arg(long, env = "TERN_GATEWAY_FIRST_REQUEST_WITHIN", default_value = "30", value_parser = bound)]
    pub gateway_first_request_within: Duration,
    /// Seconds that a connection whose calls had good credentials may be without a call or a stream
    #[arg(long, env = "TERN_GATEWAY_IDLE_AFTER", default_value = "600", value_parser = bound)]
    pub gateway_idle_after: Duration,
    /// Seconds that a unary call may take until its answer is taken; ten times as many where other calls or streams share the
    /// connection
    #[arg(long, env = "TERN_GATEWAY_ANSWER_TAKEN_WITHIN", default_value = "300", value_parser = bound)]
    pub gateway_answer_taken_within: Duration,
    /// Seconds after which a stream that takes nothing of what is to be written is cut off with its connection; ten
    /// times as many where other streams share the connection
    #[arg(long, env = "TERN_GATEWAY_STALLED_AFTER", default_value = "60", value_parser = seconds)]
    pub gateway_stalled_after: Duration,
    /// Seconds between heartbeats of a device that nobody looks at
    #[arg(long, env = "TERN_GATEWAY_HEARTBEAT_BACKGROUND", default_value = "180", value_parser = seconds)]
    pub gateway_heartbeat_background: Duration,
    /// Seconds between heartbeats of a device that somebody looks at
    #[arg(long, env = "TERN_GATEWAY_HEARTBEAT_ACTIVE", default_value = "45", value_parser = seconds)]
    pub gateway_heartbeat_active: Duration,
    /// Seconds that a person counts as online after each sign of activity; the same on gateways and presence nodes
    #[arg(long, env = "TERN_ONLINE_THRESHOLD", default_value = "30", value_parser = seconds)]
    pub online_threshold: Duration,
    /// Seconds that the end of an access token is announced ahead
    #[arg(long, env = "TERN_GATEWAY_TOKEN_WARNING", default_value = "300", value_parser = seconds)]
    pub gateway_token_warning: Duration,
    /// Messages that a device may send in a second, over time
    #[arg(long, env = "TERN_GATEWAY_SENDS_PER_SECOND", default_value_t = 20)]
    pub gateway_sends_per_second: u32,
    /// Messages that a device may send at once
    #[arg(long, env = "TERN_GATEWAY_SEND_BURST", default_value_t = 200)]
    pub gateway_send_burst: u32,
    /// Unary calls that a device may make in a second, over time; for sending the limits of messages hold besides
    #[arg(long, env = "TERN_GATEWAY_CALLS_PER_SECOND", default_value_t = 50)]
    pub gateway_calls_per_second: u32,
    /// Unary calls that a device may make at once: one that is set up anew asks for each of its chats
    #[arg(long, env = "TERN_GATEWAY_CALL_BURST", default_value_t = 1000)]
    pub gateway_call_burst: u32,
    /// Unary calls that a back end's API key may make in a second on this gateway
    #[arg(long, env = "TERN_GATEWAY_KEY_CALLS_PER_SECOND", default_value_t = 5000)]
    pub gateway_key_calls_per_second: u32,
    /// Calls of Auth, which carry no credentials, that one address may make in a second over time. 0: no limit, for
    /// gateways behind a load balancer that ends connections, where all clients have its address
    #[arg(long, env = "TERN_GATEWAY_AUTH_CALLS_PER_SECOND", default_value_t = 20)]
    pub gateway_auth_calls_per_second: u32,
    /// Calls of Auth that one address may make at once: many phones share one behind a carrier's or an office's NAT
    #[arg(long, env = "TERN_GATEWAY_AUTH_CALL_BURST", default_value_t = 500)]
    pub gateway_auth_call_burst: u32,
    /// Seconds after which what a device has not acknowledged is sent again
    #[arg(long, env = "TERN_GATEWAY_ACK_TIMEOUT", default_value = "5", value_parser = seconds)]
    pub gateway_ack_timeout: Duration,
    /// Seconds between sweeps of the devices' inboxes: the net below live delivery
    #[arg(long, env = "TERN_GATEWAY_SWEEP_INTERVAL", default_value = "60", value_parser = seconds)]
    pub gateway_sweep_interval: Duration,
    /// Seconds that an inbox row may be old before a sweep that finds it counts it as a defect
    #[arg(long, env = "TERN_GATEWAY_SWEEP_GRACE", default_value = "10", value_parser = seconds)]
    pub gateway_sweep_grace: Duration,
    /// Seconds over which reading inboxes again is spread at most, after the cluster changed
    #[arg(long, env = "TERN_GATEWAY_DRAIN_SPREAD", default_value = "10", value_parser = seconds)]
    pub gateway_drain_spread: Duration,
}

/// Shorter ones would end connections that were just made.
const SHORTEST_BOUND: Duration = Duration::from_millis(100);

fn bound(text: &str) -> Result<Duration, String> {
    let bound = seconds(text)?;
    if bound < SHORTEST_BOUND {
        return Err("must be 0.1 seconds or more".to_owned());
    }
    Ok(bound)
}

impl Config {
    /// What clients' connections are held to.
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

    /// What callers of unary methods are held to.
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

    /// What sessions are held to.
    pub fn settings(&self) -> Settings {
        let standard = Settings::default();
        Settings {
            // A stream that was not opened is a connection without credentials.
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
