//! The listener for clients: the device stream, the unary APIs (also as gRPC-Web), health, and reflection where wanted.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use futures::StreamExt;
use futures::future::{Ready, ready};
use tern_node::telemetry;
use tern_types::limits::MAX_FRAME_BYTES;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::{Layer, service_fn};

use crate::Config;
use crate::codec::{Frame, FrameCodec, Incoming};
use crate::connection::{Connection, Cuttable};
use crate::gateway::Gateway;
use crate::methods::SERVICES;
use crate::proxy::Proxy;
use crate::stream::DeviceStream;

/// h2 charges unread small frames against half of the connection's window, and ends the connection when it is used up:
/// generous, since an idle window costs nothing.
const CONNECTION_WINDOW: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 1 << 20;
/// A device needs one and some unary calls; a proxy in front carries those of many devices on one connection.
const MAX_STREAMS: u32 = 1000;
/// Longer than the longest heartbeat interval: a device that speaks is never woken by a ping.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(240);
/// A phone on a bad network may take this long to answer one.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Header fields of a request: an access token and little else.
const MAX_HEADER_BYTES: u32 = 16 << 10;

const STREAM_PATH: &str = "/tern.v1.Messaging/Stream";

/// The services of a gateway on one listener.
pub struct Public {
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    routes: Routes,
    health: HealthReporter,
}

impl Public {
    /// Binds. Refuses plain text on an address that others can reach, unless it is asked for.
    pub async fn bind(config: &Config, gateway: Arc<Gateway>, proxy: Arc<Proxy>) -> anyhow::Result<Self> {
        let tls = tls(config).await?;
        let address = config.gateway_listen;
        anyhow::ensure!(
            tls.is_some() || address.ip().is_loopback() || config.gateway_plaintext,
            "--gateway-listen {address} is not loopback: give --gateway-tls-cert and --gateway-tls-key, or \
             --gateway-plaintext where something before it ends TLS"
        );
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--gateway-listen {address}"))?;
        let (health, service) = tonic_health::server::health_reporter();
        let mut routes = Routes::from(router(gateway, proxy)).add_service(service);
        if config.gateway_reflection {
            let reflection = tonic_reflection::server::Builder::configure();
            let reflection = reflection.register_encoded_file_descriptor_set(tern_proto::DESCRIPTORS);
            routes = routes.add_service(reflection.build_v1()?);
        }
        tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "serving clients");
        Ok(Self {
            listener,
            tls,
            routes,
            health,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> anyhow::Result<std::net::SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Tells load balancers by gRPC health whether to send clients here.
    pub fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    /// Serves until `shutdown`, then until the calls under way are done.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut server = Server::builder()
            // gRPC-Web without TLS, behind a proxy, comes as HTTP/1.1.
            .accept_http1(true)
            .trace_fn(telemetry::call_span)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADER_BYTES);
        if let Some(tls) = self.tls {
            server = server.tls_config(tls)?;
        }
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let incoming = incoming.map(|accepted| accepted.map(Cuttable::new));
        server
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await?;
        Ok(())
    }
}

async fn tls(config: &Config) -> anyhow::Result<Option<ServerTlsConfig>> {
    let (Some(cert), Some(key)) = (&config.gateway_tls_cert, &config.gateway_tls_key) else {
        return Ok(None);
    };
    let cert = tokio::fs::read(cert)
        .await
        .with_context(|| format!("--gateway-tls-cert {}", cert.display()))?;
    let key = tokio::fs::read(key)
        .await
        .with_context(|| format!("--gateway-tls-key {}", key.display()))?;
    Ok(Some(
        ServerTlsConfig::new()
            .identity(Identity::from_pem(cert, key))
            .timeout(HANDSHAKE_TIMEOUT),
    ))
}

fn router(gateway: Arc<Gateway>, proxy: Arc<Proxy>) -> Router {
    let streams = service_fn(move |request: http::Request<axum::body::Body>| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(stream(gateway, request.map(Body::new)).await) }
    });
    let unary = service_fn(move |request: http::Request<Body>| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.serve(request).await) }
    });
    let unary = GrpcWebLayer::new().layer(unary);
    let router = SERVICES.iter().fold(Router::new(), |router, service| {
        router.route_service(&format!("/{service}/{{*method}}"), unary.clone())
    });
    router.route_service(STREAM_PATH, streams).fallback(unknown)
}

async fn unknown() -> http::Response<Body> {
    Status::unimplemented("there is no such service").into_http()
}

async fn stream(gateway: Arc<Gateway>, request: http::Request<Body>) -> http::Response<Body> {
    Grpc::new(FrameCodec)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .streaming(Streams(gateway), request)
        .await
}

/// Makes the response stream of each request.
struct Streams(Arc<Gateway>);

impl StreamingService<Incoming> for Streams {
    type Response = Frame;
    type ResponseStream = DeviceStream;
    type Future = Ready<Result<Response<DeviceStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Incoming>>) -> Self::Future {
        let (_, extensions, inbound) = request.into_parts();
        let connection = Connection::of(&extensions);
        ready(Ok(Response::new(DeviceStream::new(
            self.0.clone(),
            inbound,
            connection,
        ))))
    }
}
