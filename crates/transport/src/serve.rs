//! Runs the internal gRPC server of a process, with the services of all its roles on one listener.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::Readiness;
use crate::connections::Bounds;
use crate::descriptors;
use crate::internal_tls::InternalTls;
use crate::listener::{Server, Settings};

/// The HTTP/2 flow control window of one stream in bytes, the same as in [`crate::channels`].
const STREAM_WINDOW: u32 = 2 << 20;
/// The window of all streams of a connection together, in bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// The time between two pings on a connection. A peer that is gone is noticed within this time and
/// [`KEEP_ALIVE_TIMEOUT`] together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// The time within which a ping has to be answered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The time that a new connection may be without a request. Nodes connect when they have something to ask.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// The time that a connection may be idle. The connections of links are never idle, and other callers can connect
/// again.
const IDLE: Duration = Duration::from_secs(600);
/// The time that a unary call may take. No call between nodes takes as long. Methods that the protos declare as streams
/// have no such bound; a broken stream is noticed by its connection's keep-alive.
const CALL: Duration = Duration::from_secs(300);

/// A role that runs in this process.
pub struct Running {
    /// The role's name.
    pub name: &'static str,
    /// Resolves when the role has drained. Before a drain, it resolves only if the role cannot go on.
    pub done: BoxFuture<'static, ()>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The settings of an internal server besides the roles' services.
#[derive(Debug, Clone, Copy)]
pub struct Extras {
    /// True if gRPC reflection is served, for development.
    pub reflection: bool,
    /// The limits of other nodes' connections.
    pub bounds: Bounds,
}

impl Default for Extras {
    fn default() -> Self {
        let bounds = Bounds {
            connections: descriptors::shares().internal,
            strangers_of_address: None,
            first_request: FIRST_REQUEST,
            idle: IDLE,
            call: CALL,
        };
        Self {
            reflection: false,
            bounds,
        }
    }
}

/// Serves the roles' services, gRPC health (of the process as a whole, under the name "") and what `extras` asks for,
/// until `shutdown` resolves. From then on no connection is accepted; streams that are still open end with the process.
/// Returns `Err` if the reflection service cannot be made.
pub async fn internal(
    listener: TcpListener,
    tls: Option<InternalTls>,
    routes: Routes,
    extras: Extras,
    readiness: Readiness,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = routes.add_service(health);
    if extras.reflection {
        let reflection = tonic_reflection::server::Builder::configure();
        routes = routes.add_service(
            reflection
                .register_encoded_file_descriptor_set(tern_proto::DESCRIPTORS)
                .build_v1()?,
        );
    }
    let settings = Settings {
        name: "internal",
        bounds: extras.bounds,
        http: http(),
        tls: tls.map(InternalTls::server),
        calls: true,
        // Anybody who reaches this listener is trusted as a node, because of the certificate or of the network.
        known_by_request: true,
    };
    let router = routes.prepare().into_axum_router();
    let server = Server::new(settings, router, TaskTracker::new());
    tokio::select! {
        () = server.accept(&listener) => Ok(()),
        () = report(reporter, readiness) => Ok(()),
        () = shutdown => Ok(()),
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new()).http2_only();
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // All calls of another node share one connection, and are limited at their source.
        .max_concurrent_streams(None)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    http
}

/// Keeps the gRPC health status equal to `readiness`.
async fn report(reporter: HealthReporter, mut readiness: Readiness) {
    loop {
        let status = if readiness.is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
        readiness.changed().await;
    }
}
