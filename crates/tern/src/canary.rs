//! `tern canary`: two synthetic users exchange messages through the gateways, again and again, as real clients would.
//!
//! ```text
//!  people (API key) ─▶ pair of clients ─▶ watch: a message each interval, in turns
//!                                            │ events of both
//!                                            ▼
//!                                          round (pure): how long each step took, and which did not come
//! ```
//!
//! - [`people`]: the two users, created if they do not exist, each with one newly linked device
//! - [`round`]: follows one message from its send to its receipt
//! - [`watch`]: runs round after round, and goes on when a stream is lost
//! - [`metrics`]: the metrics that are exported

mod metrics;
mod people;
mod round;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tern_client::{BackEnd, Tls};
use tern_cluster::config::seconds;
use tern_telemetry::TelemetryArgs;
use tern_transport::admin::{self, Readiness};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use people::People;

/// The longest name in bytes. With the suffix `-a` or `-b` it is still a valid external id.
const MAX_NAME: usize = 64;

/// Exchange messages between two synthetic users, and export success and latency as metrics
///
/// It comes through the front door, as clients do. The users are called NAME-a and NAME-b. Two canaries of one
/// platform need different names.
#[derive(clap::Args, Clone, Debug)]
pub struct CanaryArgs {
    /// URLs of the front door, such as https://chat.example.com, comma separated
    #[arg(
        long = "gateway",
        env = "TERN_CANARY_GATEWAY",
        value_delimiter = ',',
        required = true
    )]
    pub gateways: Vec<String>,
    /// File with the authority that signed the gateways' certificate, in PEM [default: the system's roots]
    #[arg(long, env = "TERN_CANARY_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// API key with the scopes users:read, users:write and devices:link
    #[arg(long, env = "TERN_API_KEY", hide_env_values = true, required = true)]
    pub api_key: String,
    /// Prefix of the two users' external ids
    #[arg(long, env = "TERN_CANARY_NAME", default_value = "canary", value_parser = name)]
    pub name: String,
    /// Seconds between two messages
    #[arg(long, env = "TERN_CANARY_INTERVAL", default_value = "10", value_parser = positive)]
    pub interval: Duration,
    /// Seconds after which a message without a receipt has failed
    #[arg(long, env = "TERN_CANARY_TIMEOUT", default_value = "10", value_parser = positive)]
    pub timeout: Duration,
    /// Exchange one message each way, then end; fails if one did not come
    #[arg(long)]
    pub once: bool,
    /// Address for /metrics, /healthz and /readyz, by HTTP
    #[arg(long, env = "TERN_ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Runs until SIGTERM or SIGINT. With `--once` it exchanges one message each way and ends.
///
/// # Errors
///
/// Returns an error if flags or files are wrong or the port is taken, which trying again would not help. With
/// `--once` also if a message did not come in time.
pub async fn run(args: CanaryArgs) -> anyhow::Result<()> {
    let _telemetry = tern_telemetry::init(&args.telemetry, "canary")?;
    let people = people(&args).await?;
    if args.once {
        return watch::once(&people, args.timeout).await;
    }
    let exported = tern_telemetry::recorder()?;
    metrics::describe();
    let listener = TcpListener::bind(args.admin_listen)
        .await
        .with_context(|| format!("cannot listen on {} (--admin-listen)", args.admin_listen))?;
    let readiness = Readiness::default();
    let _probes = AbortOnDropHandle::new(tokio::spawn(admin::serve(listener, exported, readiness.clone())));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = Box::pin(watch::run(&people, args.interval, args.timeout, &readiness)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Prepares the two users from the flags. Fails if the file of `--ca-file` cannot be read or a flag is invalid.
async fn people(args: &CanaryArgs) -> anyhow::Result<People> {
    let tls = match &args.ca_file {
        Some(file) => {
            let pem = tokio::fs::read_to_string(file).await;
            Tls::Roots(pem.with_context(|| format!("read {} (--ca-file)", file.display()))?)
        }
        None => Tls::System,
    };
    let back_end = BackEnd::new(&args.gateways, &tls, args.api_key.trim())?;
    Ok(People {
        back_end,
        gateways: args.gateways.clone(),
        tls,
        name: args.name.clone(),
    })
}

/// Parses the flag `--name`.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) {
        return Err(format!("must have 1 to {MAX_NAME} of a-z, A-Z, 0-9, -, _ and ."));
    }
    Ok(text.to_owned())
}

/// Parses a number of seconds that is above 0.
fn positive(text: &str) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if duration.is_zero() {
        return Err("must be more than 0 seconds".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_external_ids_and_no_interval_is_zero() {
        assert_eq!(name("canary-eu.1"), Ok("canary-eu.1".to_owned()));
        for bad in ["", "a b", "é", &"a".repeat(MAX_NAME + 1)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(positive("0.5"), Ok(Duration::from_millis(500)));
        assert!(positive("0").is_err());
    }
}
