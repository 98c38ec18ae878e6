//! Serves HTTP on connections that others make to this process. It accepts them, terminates TLS, tells HTTP/2 from
//! HTTP/1.1, and runs one task for each. Every listener of every role uses it, so there is one place where the time of
//! a connection is bounded ([`crate::connections`]).
//!
//! HTTP/1.1 is there for browsers and for probes. When a connection is upgraded to something else, its task here
//! ends, and a task that the service starts takes the connection over.

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

use tern_telemetry::request_id::{self, REQUEST_ID};

use crate::connections::{Bounds, Call, ClientAddress, Connection, Connections, Cuttable};

/// The timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The paths of the methods that the protos declare as streams. [`Bounds::call`] does not limit them; streams have
/// rules of their own for how long they may last.
static STREAMS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| tern_proto::STREAMING.iter().copied().collect());

/// The settings of a listener.
pub struct Settings {
    /// The listener's name in metrics and logs.
    pub name: &'static str,
    /// The limits of its connections.
    pub bounds: Bounds,
    /// The HTTP settings of its connections.
    pub http: auto::Builder<TokioExecutor>,
    /// The TLS settings, or `None` for plain text.
    pub tls: Option<Tls>,
    /// True if the requests are gRPC calls, which get a request id and are traced.
    pub calls: bool,
    /// True if anybody who makes a request counts as a client with good credentials. This is for listeners on which the
    /// network or a certificate vouches for the caller, not credentials in the call.
    pub known_by_request: bool,
}

/// The way in which TLS connections are accepted.
pub struct Tls {
    /// A function that returns an acceptor with the present certificate.
    pub acceptor: Box<dyn Fn() -> TlsAcceptor + Send + Sync>,
    /// A function that is called for each failed handshake, with the client's address and the error.
    pub refused: fn(SocketAddr, &io::Error),
}

/// A server that serves a router on every connection of a listener.
pub struct Server {
    settings: Settings,
    router: Router,
    connections: Arc<Connections>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    _watch: AbortOnDropHandle<()>,
}

/// A connection with or without TLS. The TLS variant is boxed because it is large, and connections without it should
/// not reserve that room.
type Io = Either<Cuttable<TcpStream>, Box<TlsStream<Cuttable<TcpStream>>>>;

impl Server {
    /// Makes a server that runs its connections in `tasks`. The service may run other tasks there, which
    /// [`Self::serve`] waits for too.
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

    /// Accepts connections until the returned future is dropped. Connections that it has accepted are still
    /// served after that.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let (socket, peer) = self.connections.accept(listener).await;
            self.tasks.spawn(self.clone().connection(socket, peer));
        }
    }

    /// Accepts connections until `stop` resolves, then waits until the requests under way and all other `tasks` are
    /// done.
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
        // The handshake is boxed because its state is large and soon over, and the connection's task should not keep
        // room for it.
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
        // The future is boxed because it is done when the response begins. Otherwise the task of a stream would keep
        // room for it as long as the stream lives.
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

/// Answers one request.
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

/// Answers a call in a span that continues the caller's trace, and gives it a request id.
async fn call(router: Router, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let (mut head, body) = request.into_parts();
    let id = request_id::ensure(&mut head.headers);
    let head = http::Request::from_parts(head, ());
    let span = tern_telemetry::call_span(&head);
    let mut response = router.oneshot(head.map(|()| body)).instrument(span).await?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response)
}

/// The body of an answer. The call counts as under way until the body is dropped, because the client has taken it or
/// given it up.
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
