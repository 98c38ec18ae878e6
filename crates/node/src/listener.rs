//! Serving HTTP on connections that others make to this process: accepted, TLS ended, HTTP/2 and HTTP/1.1 told apart, one task
//! each. Every listener of every role is this one, so that there is one place where a connection's time is bounded
//! ([`crate::connections`]).
//!
//! HTTP/1.1 is there for browsers and for probes. A connection that was upgraded to something else leaves its task for one that
//! the service begins.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;
use tracing::Instrument;

use crate::connections::{Bounds, Call, ClientAddress, Connection, Connections, Cuttable};
use crate::request_id::{self, REQUEST_ID};
use crate::telemetry;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Methods that the protos call streams: how long one may be is said by its own rules.
static STREAMS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| tern_proto::STREAMING.iter().copied().collect());

/// What a listener is.
pub struct Settings {
    /// In metrics and logs.
    pub name: &'static str,
    pub bounds: Bounds,
    pub http: auto::Builder<TokioExecutor>,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// Whether requests are calls, which have a name in logs and are traced.
    pub calls: bool,
    /// Whether whoever makes a request counts as known by that alone: where credentials are the network's, not the call's.
    pub known_by_request: bool,
}

/// How TLS is ended.
pub struct Tls {
    /// As the certificate is now.
    pub acceptor: Box<dyn Fn() -> TlsAcceptor + Send + Sync>,
    /// Who could not shake hands, and why.
    pub refused: fn(SocketAddr, &io::Error),
}

/// Serves on every connection.
pub struct Server {
    settings: Settings,
    router: Router,
    connections: Arc<Connections>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    _watch: AbortOnDropHandle<()>,
}

/// With TLS boxed: it is large, and a connection without it is not to pay for it.
type Io = Either<Cuttable<TcpStream>, Box<TlsStream<Cuttable<TcpStream>>>>;

impl Server {
    /// `tasks`: what else the service runs that is to be waited for.
    pub fn new(settings: Settings, router: Router, tasks: TaskTracker) -> Arc<Self> {
        let connections = Connections::new(settings.name, settings.bounds);
        let watch = connections.clone().watch();
        Arc::new(Self {
            settings,
            router,
            connections,
            stopping: CancellationToken::new(),
            tasks,
            _watch: AbortOnDropHandle::new(tokio::spawn(watch.in_current_span())),
        })
    }

    /// Takes connections until it is dropped; what was begun on them goes on then.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let (socket, peer) = self.connections.accept(listener).await;
            self.tasks.spawn(self.clone().connection(socket, peer));
        }
    }

    /// Takes connections until `stop`; then waits until the requests under way are done, and what else runs in `tasks`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.accept(&listener) => {}
            () = stop => {}
        }
        drop(listener);
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn connection(self: Arc<Self>, socket: Cuttable<TcpStream>, peer: SocketAddr) {
        let connection = socket.connection().clone();
        let Some(io) = self.handshake(socket, peer).await else {
            return;
        };
        self.requests(io, connection, ClientAddress::new(peer.ip())).await;
    }

    async fn handshake(&self, socket: Cuttable<TcpStream>, peer: SocketAddr) -> Option<Io> {
        let Some(tls) = &self.settings.tls else {
            return Some(Either::Left(socket));
        };
        // The handshake's state is large and soon over: the task is not to keep room for it.
        let handshake = Box::pin((tls.acceptor)().accept(socket));
        let patience = HANDSHAKE_TIMEOUT.min(self.settings.bounds.first_request);
        let shaken = tokio::time::timeout(patience, handshake).await;
        match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(io) => Some(Either::Right(Box::new(io))),
            Err(error) => {
                (tls.refused)(peer, &error);
                None
            }
        }
    }

    async fn requests(&self, io: Io, connection: Arc<Connection>, client: ClientAddress) {
        let (router, known) = (self.router.clone(), self.settings.known_by_request);
        let calls = self.settings.calls;
        let of = connection.clone();
        // Boxed: a stream's task keeps room for it as long as the stream lives, and it is over with the first bytes.
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            let under_way = of.begin(!STREAMS.contains(request.uri().path()));
            if known {
                of.known();
            }
            request.extensions_mut().insert(of.clone());
            request.extensions_mut().insert(client);
            Box::pin(answer(router.clone(), request, calls, under_way))
        });
        let served = self
            .settings
            .http
            .serve_connection_with_upgrades(TokioIo::new(io), service);
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.stopping.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
            () = poll_fn(|cx| connection.poll_leaves(cx)) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(listener = self.settings.name, %error, "a connection broke");
        }
    }
}

/// One request.
async fn answer(
    router: Router,
    request: http::Request<Incoming>,
    is_call: bool,
    under_way: Call,
) -> Result<http::Response<Answer>, Infallible> {
    let response = if is_call {
        call(router, request).await?
    } else {
        router.oneshot(request).await?
    };
    Ok(response.map(|body| Answer { body, under_way }))
}

/// A call, in a span that goes on with the caller's trace and has a name for the logs.
async fn call(router: Router, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let (mut head, body) = request.into_parts();
    let id = request_id::ensure(&mut head.headers);
    let head = http::Request::from_parts(head, ());
    let span = telemetry::call_span(&head);
    let mut response = router.oneshot(head.map(|()| body)).instrument(span).await?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response)
}

/// An answer; its call is under way until it is taken, or given up.
struct Answer {
    body: Body,
    #[allow(dead_code, reason = "what it does when it is dropped is what it is for")]
    under_way: Call,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
