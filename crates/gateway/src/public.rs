//! The listener for clients. It serves the device stream by gRPC and by WebSocket, the unary APIs (also as gRPC-Web),
//! health, and reflection if that is turned on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use futures::future::{Ready, ready};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tern_transport::connections::{Bounds, Connection};
use tern_transport::listener::{Server, Settings, Tls};
use tern_types::limits::MAX_FRAME_BYTES;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::{Layer, service_fn};

use crate::Config;
use crate::codec::{Frame, FrameCodec, GrpcFrames, Incoming};
use crate::cors;
use crate::gateway::Gateway;
use crate::methods::SERVICES;
use crate::origins::Origins;
use crate::proxy::Proxy;
use crate::refused::unknown_method;
use crate::stream::DeviceStream;
use crate::tls::Edge;
use crate::websocket::upgrade::{self, WebSockets};

/// The path at which device streams are opened by gRPC.
const STREAM_PATH: &str = "/tern.v1.Messaging/Stream";
/// HTTP/2's window of a connection in bytes. h2 charges small frames that were not read yet against half of it, and
/// ends the connection when that is used up. So it is generous: an idle window costs nothing.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// HTTP/2's window of a stream in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// The most streams of a connection. A device needs one stream and some unary calls; a proxy in front of the gateway
/// carries those of many devices on one connection.
const MAX_STREAMS: u32 = 1000;
/// The time of silence after which HTTP/2 pings a client. It is longer than the default interval of
/// heartbeats, so that no ping wakes a device that sends its heartbeats.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(240);
/// The longest time that a client may take to answer a ping: a phone on a bad network may need that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of a request's header fields: an access token and little else.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// The size of HTTP/1.1's buffers in bytes. A request's header fields have to fit into one.
const HTTP1_BUFFER: usize = 16 << 10;

/// The listener for clients, bound and not yet serving.
pub struct Public {
    listener: TcpListener,
    tls: Option<Edge>,
    bounds: Bounds,
    tasks: TaskTracker,
    routes: Routes,
    health: HealthReporter,
}

impl Public {
    /// Binds the listener. `Err` if the address cannot be bound, if the certificate cannot be used, or if others could
    /// reach the address in plain text and that was not asked for.
    pub async fn bind(config: &Config, gateway: Arc<Gateway>, proxy: Arc<Proxy>) -> anyhow::Result<Self> {
        let tls = Edge::load(config).await?;
        let address = config.gateway_listen;
        anyhow::ensure!(
            tls.is_some() || address.ip().is_loopback() || config.gateway_plaintext,
            "--gateway-listen {address} is not loopback: give --gateway-tls-cert and --gateway-tls-key, or \
             --gateway-plaintext where something before it ends TLS"
        );
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--gateway-listen {address}"))?;
        let tasks = TaskTracker::new();
        let origins = Arc::new(config.gateway_allowed_origins.clone());
        let sockets = WebSockets::new(gateway.clone(), origins.clone(), tasks.clone());
        let (health, service) = tonic_health::server::health_reporter();
        let mut routes = Routes::from(router(sockets, gateway, proxy, origins)).add_service(service);
        if config.gateway_reflection {
            let reflection = tonic_reflection::server::Builder::configure();
            let reflection = reflection.register_encoded_file_descriptor_set(tern_proto::DESCRIPTORS);
            routes = routes.add_service(reflection.build_v1()?);
        }
        tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "serving clients");
        Ok(Self {
            listener,
            tls,
            bounds: config.bounds(),
            tasks,
            routes,
            health,
        })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> anyhow::Result<std::net::SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Returns the handle that sets what gRPC health tells load balancers: whether to send clients here.
    pub fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    /// Serves until `shutdown` resolves, then until the calls and sockets under way are done.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let settings = Settings {
            name: "clients",
            bounds: self.bounds,
            http: http(self.bounds.first_request),
            tls: self.tls.map(shake_hands),
            calls: true,
            known_by_request: false,
        };
        let router = self.routes.prepare().into_axum_router();
        Server::new(settings, router, self.tasks)
            .serve(self.listener, shutdown)
            .await;
    }
}

fn shake_hands(edge: Edge) -> Tls {
    Tls {
        acceptor: Box::new(move || edge.acceptor()),
        refused: |peer, error| tracing::debug!(%peer, %error, "no TLS handshake"),
    }
}

/// Makes the settings of HTTP. `headers_within` is the time that HTTP/1.1 has from one request to the last header field
/// of the next.
fn http(headers_within: Duration) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_within)
        .max_buf_size(HTTP1_BUFFER);
    http.http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_header_list_size(MAX_HEADER_BYTES);
    http
}

fn router(sockets: WebSockets, gateway: Arc<Gateway>, proxy: Arc<Proxy>, origins: Arc<Origins>) -> Router {
    let streams = service_fn(move |request: http::Request<axum::body::Body>| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(stream(gateway, request.map(Body::new)).await) }
    });
    let sockets = Arc::new(sockets);
    let sockets = service_fn(move |request: http::Request<axum::body::Body>| {
        ready(Ok::<_, Infallible>(sockets.answer(request)))
    });
    let unary = service_fn(move |request: http::Request<Body>| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.serve(request).await) }
    });
    let unary = GrpcWebLayer::new().layer(unary);
    let unary = service_fn(move |request: http::Request<axum::body::Body>| {
        let (origins, unary) = (origins.clone(), unary.clone());
        async move { Ok::<_, Infallible>(cors::answer(&origins, unary, request).await) }
    });
    let router = SERVICES.iter().fold(Router::new(), |router, service| {
        router.route_service(&format!("/{service}/{{*method}}"), unary.clone())
    });
    router
        .route_service(STREAM_PATH, streams)
        .route_service(upgrade::PATH, sockets)
        .fallback(unknown)
}

async fn unknown() -> http::Response<Body> {
    unknown_method().into_http()
}

async fn stream(gateway: Arc<Gateway>, request: http::Request<Body>) -> http::Response<Body> {
    Grpc::new(FrameCodec)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .streaming(Streams(gateway), request)
        .await
}

/// The service that makes the response stream of each call of Messaging/Stream.
struct Streams(Arc<Gateway>);

impl StreamingService<Incoming> for Streams {
    type Response = Frame;
    type ResponseStream = DeviceStream<GrpcFrames>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Incoming>>) -> Self::Future {
        let (_, extensions, inbound) = request.into_parts();
        let connection = Connection::of(&extensions);
        ready(Ok(Response::new(DeviceStream::new(
            self.0.clone(),
            GrpcFrames(inbound),
            connection,
        ))))
    }
}
