//! The connections that others made to this process: how many there may be, and how long each may do nothing.
//!
//! - [`table`]: where each stands, and which has to go (pure)
//! - [`cuttable`]: one of them, with a handle by which it can be asked to leave and be cut off from outside
//! - here: what accepts them, and looks at the clock
//!
//! No task and no timer belongs to a connection: one task looks at all of a listener's from time to time.

mod cuttable;
pub mod table;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use cuttable::{Call, ClientAddress, Connection, Cuttable, Held};
use table::{Admission, Millis, Table, Why, millis};

use crate::metrics;

/// Without a file descriptor to spare, accepting fails at once every time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Looks at the clock in the shortest bound: a connection lives longer than its bound by at most this part of it.
const LOOKS: u32 = 8;
/// Between two looks: not so short that looking takes a processor, not longer than anybody notices.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// What a listener's connections are held to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// At most so many.
    pub connections: usize,
    /// Of one address at most so many on which nobody known is.
    pub strangers_of_address: Option<usize>,
    /// From accepting to the first request; and without a request where none had good credentials.
    pub first_request: Duration,
    /// Without a request.
    pub idle: Duration,
    /// A call, until its answer is taken.
    pub call: Duration,
}

impl Bounds {
    fn look(&self) -> Duration {
        let shortest = self.first_request.min(self.idle).min(self.call);
        (shortest / LOOKS).clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Connections {
    /// Which listener's, in metrics.
    name: &'static str,
    bounds: Bounds,
    table: Mutex<Table<Arc<Connection>>>,
    last: AtomicU64,
    started: Instant,
    /// One that was cut is gone.
    went: Notify,
}

impl Connections {
    /// `name`: of the listener.
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

    /// The next connection that is let in. Others may have to go for it; where none can, it is closed, and the next is waited for.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> (Cuttable<TcpStream>, SocketAddr) {
        loop {
            self.until_room().await;
            match listener.accept().await {
                Ok((socket, peer)) => {
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

    /// Looks at the clock until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.bounds.look()).await;
            let overdue = self.table().look(self.now());
            for (connection, why) in overdue.leave {
                metrics::connection_ended(self.name, why);
                connection.leave();
            }
            for (connection, why) in overdue.cut {
                // Who was asked to leave is counted already.
                if why == Why::Call {
                    metrics::connection_ended(self.name, why);
                }
                connection.cut();
            }
        }
    }

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
        metrics::connection_ended(self.name, why);
        connection.cut();
    }

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
        // One permit at most waits for who accepts.
        self.went.notify_one();
    }

    fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }

    fn table(&self) -> MutexGuard<'_, Table<Arc<Connection>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
