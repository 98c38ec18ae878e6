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
/// The most channels that are kept, which is more than a platform for a billion users has nodes. Channels to nodes that
/// start again on new ports would otherwise pile up. When there are so many, the half is forgotten that was not used for
/// longest; one that is needed after all costs a reconnect. A link keeps its own.
const MAX_CHANNELS: usize = 16_384;

/// Channels by address, which connect when they are first used and reconnect by themselves. The default ones use
/// plain text.
#[derive(Clone, Default)]
pub struct Channels {
    tls: Option<InternalTls>,
    open: Arc<Mutex<Recent<Channel>>>,
}

/// The things that were made for addresses, at most [`MAX_CHANNELS`].
struct Recent<T> {
    /// The thing that was made for each address, and the number of its last use.
    made: HashMap<String, (T, u64)>,
    /// The number of uses so far.
    uses: u64,
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
            return Ok(channel);
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
        open.put(address, channel.clone());
        Ok(channel)
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            made: HashMap::new(),
            uses: 0,
        }
    }
}

impl<T: Clone> Recent<T> {
    /// Uses the thing that was made for the address. Returns `None` if there is none.
    fn get(&mut self, address: &str) -> Option<T> {
        let (made, used) = self.made.get_mut(address)?;
        self.uses += 1;
        *used = self.uses;
        Some(made.clone())
    }

    /// Keeps a thing that was made for the address. If there is no room, it forgets the half that was not used for longest.
    fn put(&mut self, address: &str, made: T) {
        if self.made.len() >= MAX_CHANNELS {
            let mut uses: Vec<u64> = self.made.values().map(|(_, used)| *used).collect();
            let middle = uses.len() / 2;
            let (_, oldest_kept, _) = uses.select_nth_unstable(middle);
            self.made.retain(|_, (_, used)| *used >= *oldest_kept);
        }
        self.uses += 1;
        self.made.insert(address.to_owned(), (made, self.uses));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept_when_there_is_no_room_for_all() {
        let (mut recent, half) = (Recent::default(), MAX_CHANNELS / 2);
        let address = |number: usize| format!("node-{number}:7070");
        for number in 0..MAX_CHANNELS {
            recent.put(&address(number), number);
        }
        for number in 0..half {
            assert_eq!(recent.get(&address(number)), Some(number));
        }
        recent.put("another:7070", 0);
        assert_eq!(recent.made.len(), half + 1);
        for number in 0..half {
            assert_eq!(recent.get(&address(number)), Some(number), "{number} was used");
        }
        assert_eq!(recent.get(&address(half)), None);
    }
}
