//! `tern push relay`: forwards pushes of other platforms to Apple and Google, for apps whose keys only this server has.
//!
//! ```text
//!   push nodes of others ──gRPC, key──> listener ──> service: key, rate ──> lanes ──> providers ──> APNs, FCM
//! ```
//!
//! - [`keys`]: who may have pushes forwarded, and how many
//! - [`service`]: understands a call, and forwards what it has
//! - [`metrics`]: what is counted
//!
//! The relay keeps nothing: a push is forwarded while its call waits. No token and no key is ever logged. The contents
//! of a push are sealed to the device.

mod keys;
mod metrics;
mod service;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tern_telemetry::TelemetryArgs;
use tern_transport::admin::{self, Readiness};
use tern_transport::connections::Bounds;
use tern_transport::descriptors;
use tern_transport::listener::{Server, Settings, Tls};
use tern_transport::tls::{self, File, Renewed};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::service::Routes;

use crate::apps::Apps;
use crate::providers::Providers;
use keys::Keys;
use service::Service;

/// The most calls of one connection at a time. A push node makes 16 for each of two providers.
const MAX_STREAMS: u32 = 64;
/// The time between two pings on a connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// The time within which a ping has to be answered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The time that a connection may be without a call by a key that is known.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// The time that a connection may be idle.
const IDLE: Duration = Duration::from_secs(600);
/// The time that a call may take, until its answer is taken. A push takes 9 s at most.
const CALL: Duration = Duration::from_secs(30);
/// The most connections of one address on which nobody has shown a key.
const STRANGERS: usize = 32;
/// The most bytes of a request's header fields, which are a key and little else.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Forward pushes of other platforms, for apps whose keys from Apple and Google only this server has
#[derive(clap::Args, Clone, Debug)]
pub struct RelayArgs {
    /// Address at which push nodes of other platforms call, by gRPC
    #[arg(long, env = "TERN_RELAY_LISTEN", default_value = "127.0.0.1:7443")]
    pub listen: SocketAddr,
    /// Certificate of the listener, with its chain, in PEM. This file and the key are read again when they change
    #[arg(long, env = "TERN_RELAY_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, env = "TERN_RELAY_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve plain text on an address that is not loopback. Only behind a proxy or load balancer that ends TLS
    #[arg(long, env = "TERN_RELAY_PLAINTEXT")]
    pub plaintext: bool,
    /// File with the apps for which pushes are sent, and their keys, in JSON
    #[arg(long, env = "TERN_PUSH_APPS")]
    pub push_apps: PathBuf,
    /// File with those who may have pushes forwarded: a line for each, with a name, a blank, and the SHA-256 of the
    /// key in hex. It is read at the start
    #[arg(long, env = "TERN_RELAY_KEYS")]
    pub keys: PathBuf,
    /// Pushes a second that one key may have forwarded over a longer time
    #[arg(long, env = "TERN_RELAY_RATE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Address for /metrics, /healthz and /readyz, by HTTP
    #[arg(long, env = "TERN_ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Serves until `shutdown` resolves, then until the calls under way are done. It sets up logs and metrics of the
/// process.
///
/// # Errors
///
/// Fails if a flag, a file or a certificate is of no use, or an address cannot be bound.
pub async fn run(args: RelayArgs, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let _telemetry = tern_telemetry::init(&args.telemetry, "push-relay")?;
    let exported = tern_telemetry::recorder()?;
    tern_transport::metrics::describe();
    descriptors::raise();
    let apps = Apps::read(&args.push_apps).context("--push-apps")?;
    anyhow::ensure!(
        apps.relay.is_none(),
        "--push-apps: a relay forwards to the providers alone, so the file must name no relay"
    );
    let keys = Keys::read(&args.keys, args.rate).context("--keys")?;
    metrics::describe(keys.names());
    let tls = acceptor(&args).await?;
    anyhow::ensure!(
        tls.is_some() || args.listen.ip().is_loopback() || args.plaintext,
        "--listen {} is not loopback: give --tls-cert and --tls-key, or --plaintext where something before it \
         ends TLS",
        args.listen
    );
    let admin = TcpListener::bind(args.admin_listen)
        .await
        .with_context(|| format!("--admin-listen {}", args.admin_listen))?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    let readiness = Readiness::default();
    let _probes = AbortOnDropHandle::new(tokio::spawn(admin::serve(admin, exported, readiness.clone())));
    let service = Service::new(Providers::new(&apps).context("--push-apps")?, keys);
    tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "forwarding pushes");
    readiness.set(true);
    let stop = async {
        shutdown.await;
        readiness.set(false);
    };
    serve(listener, tls, service, stop).await;
    Ok(())
}

/// Serves calls on the listener until `stop` resolves, then until the calls under way are done.
async fn serve(listener: TcpListener, tls: Option<Tls>, service: Service, stop: impl Future<Output = ()>) {
    let settings = Settings {
        name: "relay",
        bounds: Bounds {
            connections: descriptors::shares().clients,
            strangers_of_address: Some(STRANGERS),
            first_request: FIRST_REQUEST,
            idle: IDLE,
            call: CALL,
        },
        http: http(),
        tls,
        calls: true,
        known_by_request: false,
    };
    let routes = Routes::new(service.guarded());
    let router = routes.prepare().into_axum_router();
    Server::new(settings, router, TaskTracker::new())
        .serve(listener, stop)
        .await;
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new()).http2_only();
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    http
}

/// Reads the certificate and the key that the flags name. Returns `None` if they name none.
async fn acceptor(args: &RelayArgs) -> anyhow::Result<Option<Tls>> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    let file = |flag, path: &PathBuf| File {
        flag,
        path: path.clone(),
    };
    let files = vec![file("--tls-cert", cert), file("--tls-key", key)];
    let config = Renewed::follow("edge", files, server).await?;
    Ok(Some(Tls {
        acceptor: Box::new(move || TlsAcceptor::from(config.current())),
        refused: |peer, error| tracing::debug!(%peer, %error, "no TLS handshake"),
    }))
}

fn server(files: &[Vec<u8>]) -> anyhow::Result<ServerConfig> {
    let [cert, key] = files else {
        anyhow::bail!("a certificate and a key")
    };
    let chain = tls::certificates(cert).context("--tls-cert")?;
    let key = tls::private_key(key).context("--tls-key")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("--tls-cert")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
