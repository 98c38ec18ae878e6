//! Channels to the gateways, and the stream on one of them.

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

/// TCP and TLS together; a phone on a bad network needs some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What waits unread for the app, for all streams of a connection: frames are small, and a full window would stall
/// unary calls beside the stream.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Frames handed over to HTTP/2 and not yet written: two in the writing, more only waste memory.
const WRITE_QUEUE: usize = 4;

/// The gateways of a configuration, in turn.
#[derive(Debug, Clone)]
pub struct Gateways {
    endpoints: Arc<[Endpoint]>,
    channels: Arc<[Channel]>,
    current: Arc<AtomicUsize>,
}

impl Gateways {
    /// Connects to none yet.
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

    /// The channel for unary calls, with its turn.
    pub fn channel(&self) -> (Channel, usize) {
        let turn = self.current.load(Ordering::Relaxed);
        (self.channels[turn % self.channels.len()].clone(), turn)
    }

    /// The gateway of this turn does not answer: the next one.
    pub fn advance(&self, turn: usize) {
        // Lost only when somebody else advanced meanwhile, which is as good.
        let _ = self
            .current
            .compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The endpoint of an attempt to open a stream.
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

/// An open stream: frames out, frames in.
#[derive(Debug)]
pub struct Stream {
    pub writer: mpsc::Sender<ClientFrame>,
    pub frames: Streaming<ServerFrame>,
}

/// Connects anew (a stream never shares the connection of one that ended) and sends `open`.
pub async fn open_stream(endpoint: Endpoint, open: Open) -> Result<Stream, CallError> {
    let (writer, queue) = mpsc::channel(WRITE_QUEUE);
    let first = ClientFrame {
        items: vec![ClientItem {
            item: Some(Item::Open(open)),
        }],
    };
    // There is room: the queue is new.
    let _ = writer.try_send(first);
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| CallError::unavailable(describe(&error)))?;
    let mut client = MessagingClient::new(channel);
    let frames = client.stream(ReceiverStream::new(queue)).await?.into_inner();
    Ok(Stream { writer, frames })
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
