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
/// The time after which a connection that a unary call waits on is pinged if nothing comes. Together with
/// [`KEEP_ALIVE_TIMEOUT`] it is shorter than the time limit of one attempt of a call, so that the next attempt already
/// has a new connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(4);
/// The time within which a ping has to be answered. Otherwise the connection is dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
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
        let channels = endpoints
            .iter()
            .map(|endpoint| kept_alive(endpoint.clone()).connect_lazy())
            .collect();
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

/// Makes the connections of unary calls notice that they are dead, as after a change of network. An idle one is not
/// pinged, and neither is that of a stream, which has heartbeats: each ping wakes a phone's radio.
fn kept_alive(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(false)
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

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::io;
    use std::task::{Context, Poll};

    use hyper_util::rt::TokioIo;
    use tern_proto::v1::ListChatsRequest;
    use tern_proto::v1::chats_client::ChatsClient;
    use tokio::io::DuplexStream;

    use super::*;

    /// Connects to this end of a connection, once.
    struct Connector(Option<DuplexStream>);

    impl tonic::codegen::Service<hyper::Uri> for Connector {
        type Response = TokioIo<DuplexStream>;
        type Error = io::Error;
        type Future = Ready<Result<Self::Response, io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: hyper::Uri) -> Self::Future {
            let once = || io::Error::other("there is one connection");
            ready(self.0.take().map(TokioIo::new).ok_or_else(once))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_on_a_dead_connection_fails_within_the_time_of_one_attempt() {
        // The other end takes the request and stays silent.
        let (near, _far) = tokio::io::duplex(64 * 1024);
        let endpoint = kept_alive(endpoint("http://gateway.test", &Tls::System).unwrap());
        let channel = endpoint.connect_with_connector_lazy(Connector(Some(near)));
        let mut chats = ChatsClient::new(channel);
        let call = chats.list_chats(ListChatsRequest::default());
        let answer = tokio::time::timeout(Duration::from_secs(10), call).await;
        let error = CallError::from(answer.expect("it is noticed").unwrap_err());
        assert!(error.is_transient(), "{error}");
    }
}
