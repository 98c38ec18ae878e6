//! Connections that stop half way. The gateway ends each of them, whatever its state, and together they keep nobody
//! out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use tern_local::{Role, http};
use tern_proto::v1;
use tern_tests::raw::framed;
use tern_tests::{Device, World, h2, socket, wire, world};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The time within which a connection has to end. The bounds of the test's gateway are seconds, but a busy machine may
/// take much longer to act on them.
const PATIENCE: Duration = Duration::from_secs(90);
/// The bounds of connections in seconds. They are short enough for a test, and long enough for a handshake on a busy
/// machine.
const BOUNDS: [(&str, &str); 5] = [
    ("TERN_GATEWAY_FIRST_REQUEST_WITHIN", "5"),
    ("TERN_GATEWAY_IDLE_AFTER", "6"),
    ("TERN_GATEWAY_ANSWER_TAKEN_WITHIN", "7"),
    ("TERN_GATEWAY_STALLED_AFTER", "3"),
    // Devices are sent nothing in the meantime.
    ("TERN_GATEWAY_HEARTBEAT_BACKGROUND", "300"),
];

const H2: &[&[u8]] = &[b"h2"];
const HTTP1: &[&[u8]] = &[b"http/1.1"];
const NEITHER: &[&[u8]] = &[];

/// How far a client goes before it falls silent.
enum State {
    /// It sends these bytes without TLS.
    Tcp(&'static [u8]),
    /// It sends these bytes to another listener of the gateway.
    To(SocketAddr, &'static [u8]),
    /// It offers these protocols by ALPN, and sends these bytes over TLS.
    Tls(&'static [&'static [u8]], Vec<u8>),
}

/// A state with its name.
type Named = (&'static str, State);

const STREAM: &str = "/tern.v1.Messaging/Stream";
const REFRESH: &str = "/tern.v1.Auth/RefreshToken";
const CHATS: &str = "/tern.v1.Chats/ListChats";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Returns every state that a connection can be in, as docs/connections.md lists them.
fn states(device: &Device) -> Vec<Named> {
    [
        before_http(),
        before_a_call(),
        in_a_call(device),
        answered(device),
        in_a_stream(device),
        over_http1(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn over_h2(parts: &[Vec<u8>]) -> State {
    State::Tls(H2, parts.concat())
}

/// Returns the preface and settings of a client that accepts what comes.
fn greeting() -> Vec<u8> {
    [h2::PREFACE.to_vec(), h2::settings(&[])].concat()
}

/// Returns the preface and settings of a client that accepts no bytes on its streams.
fn deaf() -> Vec<u8> {
    [
        h2::PREFACE.to_vec(),
        h2::settings(&[(h2::INITIAL_WINDOW_SIZE, 0)]),
    ]
    .concat()
}

fn call(path: &str, bearer: &str) -> Vec<u8> {
    h2::headers(1, &h2::call(path, bearer), h2::END_HEADERS)
}

/// Returns an empty message, with the end of the call.
fn empty() -> Vec<u8> {
    h2::data(1, &framed(&[]), h2::END_STREAM)
}

fn bearer(device: &Device) -> String {
    format!("Bearer {}", device.access_token)
}

fn before_http() -> Vec<Named> {
    vec![
        ("connected", State::Tcp(b"")),
        ("half a client hello", State::Tcp(&[0x16, 3, 1, 2, 0, 1])),
        ("no TLS but text", State::Tcp(b"GET / HTTP/1.1\r\n")),
        ("TLS for HTTP/2", State::Tls(H2, vec![])),
        ("TLS for HTTP/1.1", State::Tls(HTTP1, vec![])),
        ("TLS for nothing", State::Tls(NEITHER, vec![])),
    ]
}

fn before_a_call() -> Vec<Named> {
    vec![
        ("half the preface", over_h2(&[b"PRI * HT".to_vec()])),
        (
            "half the preface without ALPN",
            State::Tls(NEITHER, b"PRI * HT".to_vec()),
        ),
        ("the preface", over_h2(&[h2::PREFACE.to_vec()])),
        ("preface and settings", over_h2(&[greeting()])),
        (
            "header fields that do not end",
            over_h2(&[greeting(), h2::headers(1, &h2::call(REFRESH, ""), 0)]),
        ),
    ]
}

fn in_a_call(device: &Device) -> Vec<Named> {
    vec![
        (
            "a call without its message",
            over_h2(&[greeting(), call(REFRESH, "")]),
        ),
        (
            "a call of a device without its message",
            over_h2(&[greeting(), call(CHATS, &bearer(device))]),
        ),
        (
            "half a message",
            over_h2(&[greeting(), call(REFRESH, ""), h2::data(1, &framed(&[])[..3], 0)]),
        ),
    ]
}

fn answered(device: &Device) -> Vec<Named> {
    vec![
        (
            "a call without credentials that was answered",
            over_h2(&[greeting(), call(REFRESH, ""), empty()]),
        ),
        (
            "a call of a device that was answered",
            over_h2(&[greeting(), call(CHATS, &bearer(device)), empty()]),
        ),
        (
            "an answer that is not taken",
            over_h2(&[deaf(), call(CHECK, ""), empty()]),
        ),
        (
            "an answer that never ends",
            over_h2(&[greeting(), call(WATCH, ""), empty()]),
        ),
    ]
}

fn in_a_stream(device: &Device) -> Vec<Named> {
    let open = v1::ClientFrame {
        items: vec![v1::ClientItem {
            item: Some(wire::open(&device.access_token)),
        }],
    };
    let open = framed(&open.encode_to_vec());
    vec![
        ("a stream without Open", over_h2(&[greeting(), call(STREAM, "")])),
        (
            "a stream that takes nothing",
            over_h2(&[deaf(), call(STREAM, ""), h2::data(1, &open, 0)]),
        ),
    ]
}

fn over_http1() -> Vec<Named> {
    let http1 = |text: &str| State::Tls(HTTP1, text.as_bytes().to_vec());
    vec![
        ("half a header field", http1("GET / HTTP/1.1\r\nhost: loc")),
        (
            "an answer, then silence",
            http1("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        ),
        (
            "a body that does not come",
            http1(
                "POST /tern.v1.Auth/RefreshToken HTTP/1.1\r\nhost: localhost\r\n\
                 content-type: application/grpc-web+proto\r\ncontent-length: 100\r\n\r\n",
            ),
        ),
        ("a WebSocket without Open", http1(UPGRADE)),
        (
            "a WebSocket with half a message",
            State::Tls(HTTP1, [UPGRADE.as_bytes(), &[0x82, 0xfe, 0x10]].concat()),
        ),
    ]
}

const UPGRADE: &str = "GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Brings a connection into a state, and reads until the server ends it. `Err` if it does not end within [`PATIENCE`].
async fn ends(name: &str, state: State, world: &World) -> Result<(), String> {
    let ended = async {
        match state {
            State::Tcp(bytes) => {
                let url = world.platform.gateway_url(0);
                let tcp = TcpStream::connect(url.trim_start_matches("https://")).await;
                say_and_hear(tcp.expect("a gateway"), bytes).await;
            }
            State::To(address, bytes) => {
                let tcp = TcpStream::connect(address).await.expect("a listener");
                say_and_hear(tcp, bytes).await;
            }
            State::Tls(offered, bytes) => {
                // A handshake on a busy machine may exceed the bound too. That connection ends in another state, so
                // another one is tried.
                let tls = loop {
                    if let Ok((tls, _)) = socket::try_connect(world, 0, offered).await {
                        break tls;
                    }
                };
                say_and_hear(tls, &bytes).await;
            }
        }
    };
    timeout(PATIENCE, ended)
        .await
        .map_err(|_| format!("{name}: still there"))
}

async fn say_and_hear(mut io: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    // If the server has ended the connection already, the test has what it waits for.
    if io.write_all(bytes).await.is_ok() && io.flush().await.is_ok() {
        let mut heard = [0; 4096];
        while let Ok(1..) = io.read(&mut heard).await {}
    }
}

/// Returns how many client connections the gateway has ended for this reason.
async fn counted(world: &World, why: &str) -> f64 {
    let labels = [("listener", "clients"), ("why", why)];
    let name = "tern_node_connections_ended_total";
    world.platform.metric("gateway-0", name, &labels).await.unwrap()
}

#[tokio::test]
async fn every_state_that_a_connection_can_be_in_ends() {
    let world = World::with(|builder| {
        let builder = builder.gateways(1);
        BOUNDS
            .iter()
            .fold(builder, |builder, (name, value)| builder.env(name, value))
    })
    .await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let phone = world.phone(&alice).await;
    let began = phone.state().sessions;
    // Each state has its own device, since a device has one stream.
    let mut states = states(&world.device(&bob).await);
    let node = world.platform.node("gateway-0").unwrap();
    states.extend([
        ("connected as a node", State::To(node.internal, b"")),
        (
            "half the preface of a node",
            State::To(node.internal, b"PRI * HT"),
        ),
        ("the preface of a node", State::To(node.internal, h2::PREFACE)),
        ("connected for metrics", State::To(node.admin, b"")),
        (
            "half a scrape",
            State::To(node.admin, b"GET /metrics HTTP/1.1\r\nho"),
        ),
    ]);
    let ended = join_all(states.into_iter().map(|(name, state)| ends(name, state, &world))).await;
    let left: Vec<String> = ended.into_iter().filter_map(Result::err).collect();
    assert!(left.is_empty(), "{left:#?}");
    for why in ["silent", "idle", "call"] {
        assert!(counted(&world, why).await >= 1.0, "{why}");
    }
    // The stream of the idle phone has outlived all of them.
    let state = phone.state();
    assert!(state.online && state.sessions == began, "{state:?}");
    world.end().await;
}

/// The number of file descriptors that the gateway in the test below may have.
const DESCRIPTORS: usize = 300;
/// The number of silent connections to that gateway.
const SILENT: usize = 281;

#[tokio::test]
async fn silent_connections_shut_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("tern");
    let tern = world::tern();
    let script = format!(
        "#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec {} \"$@\"\n",
        tern.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let world = World::with(|builder| {
        let builder = builder.gateways(1).program(Role::Gateway, &program);
        // With this bound a connection ends only for lack of descriptors, however long it takes to open them all.
        builder.env("TERN_GATEWAY_FIRST_REQUEST_WITHIN", "600")
    })
    .await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;

    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(socket::connect(&world, 0, H2).await.0);
    }
    // These use new connections while the silent ones are open.
    let bobs = world.device(&bob).await;
    let his = world.phone_of(&bobs).await;
    let sent = hers.say(bob.id, "are you there?").await;
    his.has(sent.chat_id.parse().unwrap(), sent.seq).await;
    let admin = world.platform.node("gateway-0").unwrap().admin;
    assert_eq!(http::get_patiently(admin, "/readyz").await.unwrap().0, 200);
    assert!(counted(&world, "room").await >= 1.0);
    for state in [hers.state(), his.state()] {
        assert!(state.online && state.ends.is_empty(), "a stream went for them");
    }
    // The oldest silent connection was ended, the phones' streams were not.
    let mut byte = [0];
    let oldest = timeout(PATIENCE, silent[0].read(&mut byte))
        .await
        .expect("it ends");
    assert!(!matches!(oldest, Ok(1..)), "{oldest:?}");
    drop(silent);
    world.end().await;
}
