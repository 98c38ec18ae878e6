//! The internal gRPC server of a process: the services of all its roles on one listener.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::Readiness;
use crate::internal_tls::InternalTls;
use crate::telemetry;

/// As [`crate::channels`]: of a link's stream, and of all streams of a connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A peer that is gone is noticed within their sum.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

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

/// What every internal server has beside the roles' services.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras {
    /// gRPC reflection, for development.
    pub reflection: bool,
}

/// Serves the roles' services, gRPC health (the process as a whole, under "") and what else is asked for. Nobody new
/// is let in after `shutdown`; streams still open then end with the process.
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
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .trace_fn(telemetry::call_span)
        .add_routes(routes);
    let serve = async {
        match tls {
            None => {
                let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
                server.serve_with_incoming(connections).await
            }
            Some(tls) => server.serve_with_incoming(tls.accept(listener)).await,
        }
    };
    tokio::select! {
        served = serve => Ok(served?),
        () = report(reporter, readiness) => Ok(()),
        () = shutdown => Ok(()),
    }
}

/// gRPC health follows readiness.
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
