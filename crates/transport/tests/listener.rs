//! Tests of the listener that every role uses: how it ends connections that are idle, that are too slow, or
//! that have to make room.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use tern_transport::connections::{Bounds, Connection};
use tern_transport::listener::{Server, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// The longest time that the tests wait for anything, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// A bound that is longer than a request takes on a busy machine.
const SHORT: Duration = Duration::from_secs(2);
/// The time for which a connection is watched to see that it does not end.
const MOMENT: Duration = Duration::from_millis(200);
/// A bound that is never reached.
const LONG: Duration = Duration::from_secs(3600);
/// A path that the protos declare as a stream.
const STREAM: &str = "/tern.v1.Messaging/Stream";

struct Listener {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

/// Answers with a body that does not end.
async fn endless() -> Body {
    let first = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from("begun")) });
    Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
}

/// Marks the connection as known, as a gateway does for a client with good credentials.
async fn known(request: axum::extract::Request) -> &'static str {
    Connection::of(request.extensions()).unwrap().known();
    "known"
}

/// Marks the connection as known, and holds a stream on it that does not end.
async fn stream(request: axum::extract::Request) -> Body {
    let held = Connection::of(request.extensions()).unwrap().hold();
    let first = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from("begun")) });
    let for_ever = futures::stream::once(async move {
        let _held = held;
        std::future::pending().await
    });
    Body::from_stream(futures::StreamExt::chain(first, for_ever))
}

impl Listener {
    async fn start(bounds: Bounds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "answered" }))
            .route("/known", get(known))
            .route("/endless", get(endless))
            .route(STREAM, get(stream));
        let settings = Settings {
            name: "test",
            bounds,
            http: auto::Builder::new(TokioExecutor::new()),
            tls: None,
            calls: false,
            known_by_request: false,
        };
        let server = Server::new(settings, router, TaskTracker::new());
        let serving = tokio::spawn(async move { server.accept(&listener).await });
        Self {
            address,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Opens a connection and sends these bytes on it.
    async fn say(&self, bytes: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client
    }

    /// Opens a connection, asks for this path, and reads the beginning of the answer. On a busy machine a bound may end
    /// the connection before the request is read; then it opens another one.
    async fn ask(&self, path: &str) -> TcpStream {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let answered = async {
            loop {
                let mut client = self.say(request.as_bytes()).await;
                if let Ok(heard) = client.read_u8().await {
                    assert_eq!(heard, b'H', "HTTP/1.1 200 OK");
                    return client;
                }
            }
        };
        timeout(PATIENCE, answered).await.expect("an answer")
    }
}

/// Waits until the server ends the connection.
async fn ends(client: &mut TcpStream) {
    let heard_out = async {
        let mut heard = [0; 1024];
        while let Ok(1..) = client.read(&mut heard).await {}
    };
    timeout(PATIENCE, heard_out).await.expect("it ends");
}

/// Checks that the connection is not ended. Bytes of its own answer may still arrive.
async fn goes_on(client: &mut TcpStream) {
    let mut heard = [0; 1024];
    while let Ok(read) = timeout(MOMENT, client.read(&mut heard)).await {
        assert!(matches!(read, Ok(1..)), "it has ended: {read:?}");
    }
}

fn bounds() -> Bounds {
    Bounds {
        connections: 100,
        strangers_of_address: None,
        first_request: LONG,
        idle: LONG,
        call: LONG,
    }
}

#[tokio::test]
async fn who_makes_no_request_is_ended_in_every_state_before_one() {
    let listener = Listener::start(Bounds {
        first_request: SHORT,
        ..bounds()
    })
    .await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let mut held = listener.ask(STREAM).await;
    for said in [&b""[..], b"PRI * HT", preface, &settings, b"GET / HTTP/1.1\r\nho"] {
        ends(&mut listener.say(said).await).await;
    }
    ends(&mut listener.ask("/").await).await;
    goes_on(&mut held).await;
}

#[tokio::test]
async fn who_is_known_may_be_idle_for_longer() {
    let listener = Listener::start(Bounds {
        first_request: SHORT,
        ..bounds()
    })
    .await;
    let mut known = listener.ask("/known").await;
    ends(&mut listener.say(b"").await).await;
    goes_on(&mut known).await;

    let listener = Listener::start(Bounds {
        idle: SHORT,
        ..bounds()
    })
    .await;
    let mut stranger = listener.say(b"").await;
    ends(&mut listener.ask("/known").await).await;
    goes_on(&mut stranger).await;
}

#[tokio::test]
async fn a_call_ends_unless_the_protos_call_it_a_stream() {
    let listener = Listener::start(Bounds {
        call: SHORT,
        ..bounds()
    })
    .await;
    let mut stream = listener.ask(STREAM).await;
    ends(&mut listener.ask("/endless").await).await;
    goes_on(&mut stream).await;
}

#[tokio::test]
async fn when_no_more_fit_the_oldest_that_does_nothing_goes_and_a_stream_never() {
    let listener = Listener::start(Bounds {
        connections: 3,
        ..bounds()
    })
    .await;
    let mut stream = listener.ask(STREAM).await;
    let mut oldest = listener.ask("/").await;
    let mut busy = listener.ask("/endless").await;
    let mut newest = listener.ask("/").await;
    ends(&mut oldest).await;
    goes_on(&mut busy).await;
    goes_on(&mut newest).await;
    // Streams of known clients take the place of all other connections. Then no more are accepted.
    let mut streams = [listener.ask(STREAM).await, listener.ask(STREAM).await];
    ends(&mut newest).await;
    ends(&mut busy).await;
    ends(&mut listener.say(b"GET / HTTP/1.1\r\n\r\n").await).await;
    for stream in streams.iter_mut().chain([&mut stream]) {
        goes_on(stream).await;
    }
}

#[tokio::test]
async fn one_address_pushes_out_its_own() {
    let listener = Listener::start(Bounds {
        strangers_of_address: Some(2),
        ..bounds()
    })
    .await;
    let mut known = listener.ask("/known").await;
    let mut clients = [listener.ask("/").await, listener.ask("/").await];
    let mut third = listener.ask("/").await;
    ends(&mut clients[0]).await;
    for client in [&mut clients[1], &mut third, &mut known] {
        goes_on(client).await;
    }
}
