//! Channels to the gateways, and the stream that runs on one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::messaging_client::MessagingClient;
use tern_proto::v1::{ClientFrame, ClientItem, Open, ServerFrame};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::config::Tls;
use crate::error::{CallError, ClientError};

/// The time limit for TCP and TLS together. A phone on a bad network needs some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The received bytes that may wait unread, on an HTTP/2 stream and over all HTTP/2 streams of a connection.
/// Frames and most answers are small, so these windows are seldom full. A full one stalls the calls that
/// share the connection.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// The number of frames that may wait until HTTP/2 takes them. A few keep the connection busy; more only use memory.
const WRITE_QUEUE: usize = 4;

/// The gateways of a configuration. Unary calls stay on one gateway until it fails, then use the next.
#[derive(Debug, Clone)]
pub struct Gateways {
    endpoints: Arc<[Endpoint]>,
    channels: Arc<[Channel]>,
    current: Arc<AtomicUsize>,
}

impl Gateways {
    /// Builds the channels without connecting.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] if there is no address, or if an address or a certificate is invalid.
    pub fn new(addresses: &[String], tls: &Tls) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::Config("no gateway given".into()));
        }
        let endpoints = addresses
            .iter()
            .map(|address| endpoint(address, tls))
            .collect::<Result<Arc<[Endpoint]>, _>>()?;
        let channels = endpoints.iter().map(Endpoint::connect_lazy).collect();
        Ok(Self {
            endpoints,
            channels,
            current: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// Returns the channel for the next unary call, and its turn, for [`Gateways::advance`].
    pub fn channel(&self) -> (Channel, usize) {
        let turn = self.current.load(Ordering::Relaxed);
        (self.channels[turn % self.channels.len()].clone(), turn)
    }

    /// Says that the gateway of this turn does not answer: later calls use the next one.
    pub fn advance(&self, turn: usize) {
        // The exchange fails only if another call has advanced meanwhile, which does the same.
        let _ = self
            .current
            .compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the endpoint for the given attempt to open a stream; each attempt uses the next gateway.
    pub fn endpoint(&self, attempt: usize) -> Endpoint {
        self.endpoints[attempt % self.endpoints.len()].clone()
    }
}

fn endpoint(address: &str, tls: &Tls) -> Result<Endpoint, ClientError> {
    let invalid = |error: tonic::transport::Error| {
        let source = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        ClientError::Config(format!("{address}: {error}{source}"))
    };
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(invalid)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
    if !address.starts_with("https://") {
        return Ok(endpoint);
    }
    let config = match tls {
        Tls::Roots(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        Tls::System => ClientTlsConfig::new().with_enabled_roots(),
    };
    endpoint.tls_config(config).map_err(invalid)
}

/// An open stream: a sender for the client's frames and a reader of the server's.
#[derive(Debug)]
pub struct Stream {
    /// The sender for the client's frames. Dropping it half-closes the stream.
    pub writer: mpsc::Sender<ClientFrame>,
    /// The reader of the server's frames.
    pub frames: Streaming<ServerFrame>,
}

/// Connects, sends `open`, and returns the stream. Each stream gets a new connection, because the old one may be
/// broken. Fails if the gateway cannot be reached or refuses the stream.
pub async fn open_stream(endpoint: Endpoint, open: Open) -> Result<Stream, CallError> {
    let (writer, queue) = mpsc::channel(WRITE_QUEUE);
    let first = ClientFrame {
        items: vec![ClientItem {
            item: Some(Item::Open(open)),
        }],
    };
    // There is room, since the queue is new.
    let _ = writer.try_send(first);
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| CallError::unavailable(describe(&error)))?;
    let mut client = MessagingClient::new(channel);
    let frames = client.stream(ReceiverStream::new(queue)).await?.into_inner();
    Ok(Stream { writer, frames })
}

/// Formats an error with all its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
