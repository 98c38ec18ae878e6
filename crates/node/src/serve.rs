//! The internal gRPC server of a process: the services of all its roles on one listener.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;

/// As [`crate::channels`]: of a link's stream, and of all streams of a connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A peer that is gone is noticed within their sum.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A role that runs in this process.
pub struct Running {
    pub name: &'static str,
    /// Ends when the role has drained; before a drain only when the role cannot go on.
    pub done: BoxFuture<'static, ()>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Serves the roles' services, gRPC health and (when `reflection`) reflection until `shutdown`; streams still open
/// then are cut off.
pub async fn internal(
    listener: TcpListener,
    mut routes: Routes,
    reflection: bool,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (_reporter, health) = health();
    routes = routes.add_service(health);
    if reflection {
        routes = routes.add_service(reflection_service()?);
    }
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = server => Ok(served?),
        () = shutdown => Ok(()),
    }
}

/// gRPC health; "" is the process as a whole.
pub fn health() -> (
    HealthReporter,
    tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>,
) {
    tonic_health::server::health_reporter()
}

/// gRPC reflection of every proto of ours.
pub fn reflection_service() -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tern_proto::DESCRIPTORS)
        .build_v1()?)
}
