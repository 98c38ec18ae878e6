//! Limits the connections that others make to this process: how many there may be, and how long each may be idle.
//!
//! - [`table`]: the state of each connection, and which one is ended next (pure)
//! - [`cuttable`]: one connection, with a handle by which it can be asked to leave, or cut off, from outside
//! - this file accepts connections, and checks their times
//!
//! A connection has no timer and no task for its bounds: for each listener, one task checks all of its connections from
//! time to time.

mod cuttable;
pub mod table;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use cuttable::{Call, ClientAddress, Connection, Cuttable, StreamHold};
use table::{Admission, Millis, Table, Why, millis};

use crate::metrics;

/// The pause after an error in accepting. Without a free file descriptor, accepting fails at once every time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The number of checks within the shortest of the time bounds. With 8, a connection outlives that bound by at most an
/// eighth of it.
const LOOKS: u32 = 8;
/// The shortest time between two checks, so that checking does not occupy a processor.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);
/// The longest time between two checks, so that a connection outlives even a long bound by no more than this.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The limits of a listener's connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most connections at a time.
    pub connections: usize,
    /// The most connections at a time from one address on which nobody has shown good credentials. `None` means no
    /// limit.
    pub strangers_of_address: Option<usize>,
    /// The time from accepting a connection to its first request. It also bounds the time without a request on a
    /// connection that has not shown good credentials.
    pub first_request: Duration,
    /// The longest time without a request.
    pub idle: Duration,
    /// The longest time that a call may take, until its answer is taken. Methods that the protos declare as
    /// streams have no bound. A call that shares its connection with others may take ten times as long.
    pub call: Duration,
}

impl Bounds {
    /// Returns the time between two checks.
    fn look(&self) -> Duration {
        let shortest = self.first_request.min(self.idle).min(self.call);
        (shortest / LOOKS).clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }
}

/// The connections of one listener, kept within its [`Bounds`].
#[derive(Debug)]
pub struct Connections {
    /// The listener's name in metrics.
    name: &'static str,
    bounds: Bounds,
    table: Mutex<Table<Arc<Connection>>>,
    /// The id of the next connection.
    last: AtomicU64,
    /// The time from which [`Millis`] are counted.
    started: Instant,
    /// The notification that a connection is gone.
    went: Notify,
}

impl Connections {
    /// Makes the empty table of a listener. `name` is its name in metrics and logs.
    pub fn new(name: &'static str, bounds: Bounds) -> Arc<Self> {
        metrics::listener(name);
        Arc::new(Self {
            name,
            bounds,
            table: Mutex::new(Table::new(bounds)),
            last: AtomicU64::new(0),
            started: Instant::now(),
            went: Notify::new(),
        })
    }

    /// Waits for the next connection that is admitted. Another connection may be cut off to make room for it. A new
    /// connection that finds no room is closed, and the next one is waited for.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> (Cuttable<TcpStream>, SocketAddr) {
        loop {
            self.until_room().await;
            match listener.accept().await {
                Ok((socket, peer)) => {
                    // Nagle's algorithm is switched off, so that each frame goes out when it is written. Otherwise a
                    // frame would wait until the other side acknowledges the frame before, which that side may delay by
                    // 40 ms.
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(listener = self.name, %error, "a connection broke");
                        continue;
                    }
                    if let Some(connection) = self.admit(ClientAddress::new(peer.ip())) {
                        return (Cuttable::new(socket, connection), peer);
                    }
                }
                Err(error) => {
                    tracing::warn!(listener = self.name, %error, "cannot accept a connection");
                    if let Some(connection) = self.table().make_room(self.now()) {
                        self.cut(&connection, Why::Room);
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Ends the connections whose time is over. It runs until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.bounds.look()).await;
            let overdue = self.table().look(self.now());
            for (connection, why) in overdue.leave {
                metrics::connection_ended(self.name, why.name());
                connection.leave();
            }
            for (connection, why) in overdue.cut {
                // A connection that was asked to leave has been counted already.
                if why == Why::Call {
                    metrics::connection_ended(self.name, why.name());
                }
                connection.cut();
            }
        }
    }

    /// Admits a new connection, and cuts off another one if that makes the room. Returns `None` if it refuses the new
    /// one.
    fn admit(self: &Arc<Self>, address: ClientAddress) -> Option<Arc<Connection>> {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::of_listener(self.clone(), id));
        let (now, admission) = (self.now(), &mut *self.table());
        match admission.came(id, connection.clone(), address, now) {
            Admission::In(instead) => {
                metrics::connections(self.name, 1.0);
                if let Some(instead) = instead {
                    self.cut(&instead, Why::Room);
                }
                Some(connection)
            }
            Admission::Full => {
                metrics::connection_refused(self.name);
                tracing::debug!(listener = self.name, "no more connections fit");
                None
            }
        }
    }

    fn cut(&self, connection: &Connection, why: Why) {
        metrics::connection_ended(self.name, why.name());
        connection.cut();
    }

    /// Waits until so few connections are cut off and not yet gone that another one may be accepted.
    async fn until_room(&self) {
        loop {
            let went = self.went.notified();
            if !self.table().is_behind() {
                return;
            }
            went.await;
        }
    }

    fn gone(&self, id: u64) {
        metrics::connections(self.name, -1.0);
        self.table().gone(id);
        // The permit is kept if nobody waits for it at this moment, so the notification is not lost.
        self.went.notify_one();
    }

    fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    fn table(&self) -> MutexGuard<'_, Table<Arc<Connection>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_frames_are_not_held_back() {
        const LONG: Duration = Duration::from_secs(60);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(
            "test",
            Bounds {
                connections: 1,
                strangers_of_address: None,
                first_request: LONG,
                idle: LONG,
                call: LONG,
            },
        );
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, (accepted, _)) = tokio::join!(client, connections.accept(&listener));
        assert!(accepted.io.nodelay().unwrap());
    }
}
