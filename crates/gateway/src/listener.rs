//! Connections of clients: accepted, TLS ended, HTTP/2 and HTTP/1.1 told apart, one task each.
//!
//! HTTP/1.1 is there for browsers: gRPC-Web through proxies that speak nothing newer, and WebSockets, which are made from
//! it by an upgrade. A connection that was upgraded leaves its task for one that [`crate::websocket`] begins.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tern_node::request_id::{self, REQUEST_ID};
use tern_node::telemetry;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

use crate::connection::{ClientAddress, Connection, Cuttable};
use crate::tls::Edge;

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
/// HTTP/1.1: from one request to the next one's last header field.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Header fields of a request: an access token and little else.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// HTTP/1.1: what is read or written at once; a request's header fields have to fit.
const HTTP1_BUFFER: usize = 16 << 10;
/// Without a file descriptor to spare, accepting fails at once every time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on every connection until `stop`; then waits until the requests under way are done, and what else
/// runs in `tasks`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Edge>,
    router: Router,
    tasks: TaskTracker,
    stop: impl Future<Output = ()>,
) {
    let server = Arc::new(Server {
        http: http(),
        tls,
        router,
        stopping: CancellationToken::new(),
    });
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let client = ClientAddress::new(peer.ip());
                tasks.spawn(server.clone().connection(socket, client));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    server.stopping.cancel();
    tasks.close();
    tasks.wait().await;
}

struct Server {
    http: auto::Builder<TokioExecutor>,
    tls: Option<Edge>,
    router: Router,
    stopping: CancellationToken,
}

/// With TLS boxed: it is large, and a connection without it is not to pay for it.
type Io = Either<Cuttable<TcpStream>, Box<TlsStream<Cuttable<TcpStream>>>>;

impl Server {
    async fn connection(self: Arc<Self>, socket: TcpStream, client: ClientAddress) {
        // A frame is written as a whole: there is nothing to gather. Where it cannot be set the connection is gone.
        let _ = socket.set_nodelay(true);
        let socket = Cuttable::new(socket);
        let connection = socket.connection();
        let Some(io) = self.handshake(socket).await else {
            return;
        };
        self.requests(io, connection, client).await;
    }

    async fn handshake(&self, socket: Cuttable<TcpStream>) -> Option<Io> {
        let Some(tls) = &self.tls else {
            return Some(Either::Left(socket));
        };
        // The handshake's state is large and soon over: the task is not to keep room for it.
        let handshake = Box::pin(tls.acceptor().accept(socket));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(io)) => Some(Either::Right(Box::new(io))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS handshake");
                None
            }
            Err(_) => {
                tracing::debug!("the TLS handshake took too long");
                None
            }
        }
    }

    async fn requests(&self, io: Io, connection: Arc<Connection>, client: ClientAddress) {
        let router = self.router.clone();
        // Boxed: a stream's task keeps room for it as long as the stream lives, and it is over with the first bytes.
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(connection.clone());
            request.extensions_mut().insert(client);
            Box::pin(call(router.clone(), request))
        });
        let served = self
            .http
            .serve_connection_with_upgrades(TokioIo::new(io), service);
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.stopping.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
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

/// One request, in a span that goes on with the caller's trace and has a name for the logs.
async fn call(
    router: Router,
    request: http::Request<Incoming>,
) -> Result<http::Response<axum::body::Body>, std::convert::Infallible> {
    let (mut head, body) = request.into_parts();
    let id = request_id::ensure(&mut head.headers);
    let head = http::Request::from_parts(head, ());
    let span = telemetry::call_span(&head);
    let mut response = router.oneshot(head.map(|()| body)).instrument(span).await?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response)
}
