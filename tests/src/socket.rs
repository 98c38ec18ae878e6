//! One device stream over a WebSocket with TLS, as a browser opens it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tern_proto::v1::{
    ClientFrame, ClientItem, Opened, Sent, ServerFrame, client_item::Item, send_result::Outcome,
    server_event::Event,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::bounds::BOUND;
use crate::{Device, World, wire};

/// The protocols that a browser offers for a WebSocket.
const HTTP1: &[&[u8]] = &[b"http/1.1"];

/// A device stream over a WebSocket.
pub struct Socket {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    waiting: VecDeque<Event>,
}

/// The way in which the server ended a stream.
#[derive(Debug)]
pub struct End {
    /// The last event before the end.
    pub last: Option<Event>,
    /// The code of the close frame.
    pub code: u16,
    pub reason: String,
}

/// Connects to a gateway with TLS, and offers these protocols by ALPN. Returns the connection and the protocol that
/// was chosen.
pub async fn connect(
    world: &World,
    gateway: usize,
    offered: &[&[u8]],
) -> (TlsStream<TcpStream>, Option<Vec<u8>>) {
    try_connect(world, gateway, offered).await.expect("TLS")
}

/// Connects as [`connect`] does, for tests in which the gateway may end the connection before there is TLS.
pub async fn try_connect(
    world: &World,
    gateway: usize,
    offered: &[&[u8]],
) -> std::io::Result<(TlsStream<TcpStream>, Option<Vec<u8>>)> {
    let mut roots = RootCertStore::empty();
    let ca = world.platform.ca_pem().expect("a CA");
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate"))
        .expect("a root");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    let url = world.platform.gateway_url(gateway);
    let address = url.trim_start_matches("https://");
    let tcp = TcpStream::connect(address).await.expect("a gateway");
    let name = address.split(':').next().expect("a name").to_owned();
    let name = ServerName::try_from(name).expect("a name");
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let chosen = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((tls, chosen))
}

/// Returns a frame with one item, as it is on the wire.
pub fn framed(item: Item) -> Vec<u8> {
    let items = vec![ClientItem { item: Some(item) }];
    ClientFrame { items }.encode_to_vec()
}

impl Socket {
    /// Opens a socket without sending anything. `origin` is the page that opens it; `None`: it is no browser.
    pub async fn silent(world: &World, gateway: usize, origin: Option<&str>) -> Result<Self, Error> {
        let (tls, _) = connect(world, gateway, HTTP1).await;
        let url = world.platform.gateway_url(gateway).replacen("https", "wss", 1);
        let mut request = format!("{url}/v1/stream").into_client_request()?;
        if let Some(origin) = origin {
            let origin = origin.parse().expect("a header");
            request.headers_mut().insert("origin", origin);
        }
        let (socket, _) = tokio_tungstenite::client_async(request, tls).await?;
        let waiting = VecDeque::new();
        Ok(Self { socket, waiting })
    }

    /// Opens a socket, sends `Open`, and waits for `Opened`.
    pub async fn open(world: &World, gateway: usize, device: &Device) -> (Self, Opened) {
        let mut socket = Self::silent(world, gateway, None).await.expect("a WebSocket");
        socket.say(wire::open(&device.access_token)).await;
        match socket.next().await {
            Ok(Event::Opened(opened)) => (socket, opened),
            other => panic!("the first event is Opened, not {other:?}"),
        }
    }

    /// Sends one item in its own frame.
    pub async fn say(&mut self, item: Item) {
        self.message(Message::binary(framed(item))).await;
    }

    /// Sends a message unchanged. If the socket has ended, it is dropped: the test sees the end in what it receives.
    pub async fn message(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// Skips frames until one comes that contains these bytes, and returns it as it came.
    pub async fn frame_with(&mut self, bytes: &[u8]) -> Bytes {
        let frames = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(frame)))
                        if frame.windows(bytes.len()).any(|part| part == bytes) =>
                    {
                        return frame;
                    }
                    Some(Ok(_)) => {}
                    other => panic!("the stream ended before the frame came: {other:?}"),
                }
            }
        };
        tokio::time::timeout(BOUND, frames)
            .await
            .unwrap_or_else(|_| panic!("the frame did not come within {BOUND:?}"))
    }

    /// Waits for the next event, or returns how the stream ended.
    pub async fn next(&mut self) -> Result<Event, End> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let message = tokio::time::timeout(BOUND, self.socket.next()).await;
            match message.unwrap_or_else(|_| panic!("nothing came within {BOUND:?}")) {
                Some(Ok(Message::Binary(frame))) => {
                    let frame = ServerFrame::decode(frame).expect("a ServerFrame");
                    self.waiting
                        .extend(frame.events.into_iter().filter_map(|event| event.event));
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err(End {
                        last: None,
                        code: close.code.into(),
                        reason: close.reason.to_string(),
                    });
                }
                other => panic!("neither a frame nor a close: {other:?}"),
            }
        }
    }

    /// Skips events until `pick` takes one.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Ok(event) => {
                    if let Some(picked) = pick(event) {
                        return picked;
                    }
                }
                Err(end) => panic!("the stream ended before what was expected: {end:?}"),
            }
        }
    }

    /// Sends a frame with one message, and returns the message's place. It is sent again while the server cannot take
    /// it, as every client does. All other events are skipped.
    pub async fn send(&mut self, frame: impl Into<Bytes>) -> Sent {
        let frame = Message::binary(frame);
        let end = Instant::now() + BOUND;
        loop {
            self.message(frame.clone()).await;
            let outcome = self.until(|event| match event {
                Event::SendResult(result) => result.outcome,
                _ => None,
            });
            let outcome = outcome.await;
            match (wire::again_after(&outcome), outcome) {
                (Some(wait), _) if Instant::now() < end => sleep(wait).await,
                (_, Outcome::Sent(sent)) => return sent,
                (_, Outcome::Error(error)) => panic!("{error:?}"),
            }
        }
    }

    /// Skips events until the stream ends.
    pub async fn end(&mut self) -> End {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(event) => last = Some(event),
                Err(end) => return End { last, ..end },
            }
        }
    }

    /// Closes the socket as a page does, and checks that the server closes it too.
    pub async fn close(mut self) {
        let code = CloseCode::Normal;
        let reason = "".into();
        self.message(Message::Close(Some(CloseFrame { code, reason })))
            .await;
        assert_eq!(self.end().await.code, 1000);
    }
}
