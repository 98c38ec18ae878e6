//! Keeps channels to other nodes: one connection to each node, shared by everything that talks to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tern_proto::ApiError;
use tonic::transport::{Channel, Endpoint};

use crate::internal_tls::InternalTls;

/// The time within which a node has to accept a connection. Otherwise it counts as away, and links try again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two pings on a connection. A dead peer is noticed within this time and [`KEEP_ALIVE_TIMEOUT`]
/// together, which is less than the lease of its registration.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// The time within which a ping has to be answered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The HTTP/2 flow control window of a stream in bytes. So much may be under way on a link's stream before its reader
/// has to catch up.
const STREAM_WINDOW: u32 = 2 << 20;
/// The window of a connection in bytes, shared by all its streams. h2 charges small unread frames against it, so it
/// is generous.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// The most channels that are kept. Channels to nodes that start again on new ports would otherwise pile up. When there
/// are so many, all are forgotten, which costs a reconnect each.
const MAX_CHANNELS: usize = 1024;

/// Channels by address, which connect when they are first used and reconnect by themselves. The default ones use
/// plain text.
#[derive(Clone, Default)]
pub struct Channels {
    tls: Option<InternalTls>,
    open: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Channels {
    /// Makes channels, none of them open yet. They use mutual TLS if `tls` is given, and plain text otherwise.
    pub fn new(tls: Option<InternalTls>) -> Self {
        Self {
            tls,
            open: Arc::default(),
        }
    }

    /// Returns the channel to `address` (host:port), or `Err` if the address is not usable in a URI.
    pub fn get(&self, address: &str) -> Result<Channel, ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        if open.len() >= MAX_CHANNELS {
            open.clear();
        }
        let endpoint = endpoint(address)?;
        let channel = match &self.tls {
            None => endpoint.connect_lazy(),
            Some(tls) => {
                let (tls, address) = (tls.clone(), address.to_owned());
                let connect = move |_: http::Uri| tls.clone().connect(address.clone());
                endpoint.connect_with_connector_lazy(tower::service_fn(connect))
            }
        };
        open.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn endpoint(address: &str) -> Result<Endpoint, ApiError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        ApiError::unavailable(format!("the address {address} of a node is unusable: {error}"))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}
