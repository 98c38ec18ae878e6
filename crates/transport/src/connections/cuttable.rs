//! A client's connection as the listener accepted it, with a handle by which it can be asked to leave, or cut off,
//! from outside.
//!
//! HTTP/2 gives no other way to end a stream whose peer grants no room to write: the stream's body is not polled
//! then, and only the connection's own task can reset it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Connections;

/// The handle of a connection, shared by all of its requests.
#[derive(Debug, Default)]
pub struct Connection {
    cut: AtomicBool,
    leaves: AtomicBool,
    /// The waker of the one task that reads from and writes to the connection.
    task: AtomicWaker,
    /// The number of device streams that the connection carries. It is more than one if a proxy shares the connection
    /// among clients.
    pub streams: AtomicUsize,
    /// The listener that accepted the connection, and the connection's id there, or `None` if no listener limits the
    /// connection.
    listener: Option<(Arc<Connections>, u64)>,
}

impl Connection {
    pub(super) fn of_listener(listener: Arc<Connections>, id: u64) -> Self {
        Self {
            listener: Some((listener, id)),
            ..Self::default()
        }
    }

    /// Cuts the connection off, with all its streams.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Asks the task that serves the connection to end it as soon as nothing is under way.
    pub(super) fn leave(&self) {
        self.leaves.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Returns `Ready` once the connection was asked to leave. Only the task that reads from and writes to the
    /// connection may call this, because there is one waker.
    pub fn poll_leaves(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if self.leaves.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Returns the connection that a request with these extensions came on, with TLS or without, or `None` if no
    /// listener set it.
    pub fn of(extensions: &http::Extensions) -> Option<Arc<Self>> {
        extensions.get::<Arc<Self>>().cloned()
    }

    /// Notes that a call begins. If `bounded` is set, its answer has to be taken within the listener's bound for calls.
    /// The call ends when the returned value is dropped.
    pub fn begin(self: &Arc<Self>, bounded: bool) -> Call {
        let number = self
            .listener
            .as_ref()
            .map_or(0, |(of, id)| of.table().call_began(*id, bounded, of.now()));
        Call {
            connection: self.clone(),
            number,
        }
    }

    /// Notes that a client with good credentials uses the connection.
    pub fn known(&self) {
        if let Some((of, id)) = &self.listener {
            of.table().known(*id, of.now());
        }
    }

    /// Notes that a client with good credentials has a stream on the connection. As long as the returned value lives,
    /// the connection is not ended for being idle nor to make room for others.
    pub fn hold(self: &Arc<Self>) -> StreamHold {
        if let Some((of, id)) = &self.listener {
            of.table().stream_began(*id, of.now());
        }
        StreamHold(self.clone())
    }

    /// Fails if the connection was cut off. It registers the task's waker, so that a cut wakes the task whatever it
    /// waits for.
    fn check(&self, cx: &mut Context<'_>) -> io::Result<()> {
        self.task.register(cx.waker());
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off"));
        }
        Ok(())
    }
}

/// A call under way on a connection. It ends when this is dropped.
#[derive(Debug)]
pub struct Call {
    connection: Arc<Connection>,
    number: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some((of, id)) = &self.connection.listener {
            of.table().call_ended(*id, self.number, of.now());
        }
    }
}

/// An authenticated stream on a connection. It ends when this is dropped.
#[derive(Debug)]
pub struct StreamHold(Arc<Connection>);

impl Drop for StreamHold {
    fn drop(&mut self) {
        if let Some((of, id)) = &self.0.listener {
            of.table().stream_ended(*id, of.now());
        }
    }
}

/// The address that a request comes from, as the connection has it. Behind a load balancer that terminates connections,
/// this is the balancer's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// Returns the address of a connection's peer. All addresses that one subscriber has count as one, so IPv6
    /// addresses are reduced to their network of 64 bits. For example, `2001:db8:1:2::1` becomes `2001:db8:1:2::`.
    pub fn new(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V6(peer) => Self(Ipv6Addr::from_bits(peer.to_bits() & !u128::from(u64::MAX)).into()),
            v4 => Self(v4),
        }
    }

    /// Returns the address that a request with these extensions came from, or `None` if no listener set it.
    pub fn of(extensions: &http::Extensions) -> Option<Self> {
        extensions.get::<Self>().copied()
    }
}

/// A connection that ends with an error once its [`Connection`] is cut. When it is dropped, its listener removes it
/// from the table.
#[derive(Debug)]
pub struct Cuttable<T> {
    pub(super) io: T,
    registered: Registered,
}

#[derive(Debug)]
struct Registered(Arc<Connection>);

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some((of, id)) = &self.0.listener {
            of.gone(*id);
        }
    }
}

impl<T> Cuttable<T> {
    /// Makes `io` end with an error once `connection` is cut.
    pub fn new(io: T, connection: Arc<Connection>) -> Self {
        Self {
            io,
            registered: Registered(connection),
        }
    }

    /// Returns the handle that goes into the extensions of each request on this connection, where [`Connection::of`]
    /// finds it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.registered.0
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cuttable<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.connection().check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cuttable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.connection().check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection().check(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection().check(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_subscriber_has_one_address() {
        let address = |text: &str| ClientAddress::new(text.parse().expect("an address"));
        assert_eq!(address("192.0.2.7"), address("::ffff:192.0.2.7"));
        assert_ne!(address("192.0.2.7"), address("192.0.2.8"));
        assert_eq!(
            address("2001:db8:1:2::1"),
            address("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_wakes_its_reader_with_an_error_and_writes_no_more() {
        let (here, _there) = tokio::io::duplex(64);
        let mut io = Cuttable::new(here, Arc::default());
        let connection = io.connection().clone();
        io.write_all(b"words").await.expect("written");
        let read = async { io.read_u8().await.map_err(|error| error.kind()) };
        let cut = async { connection.cut() };
        let (read, ()) = tokio::join!(read, cut);
        assert_eq!(read, Err(io::ErrorKind::ConnectionAborted));
        assert!(io.write_all(b"more").await.is_err());
    }
}
