//! Runs a TCP proxy that a test can cut, between a node and etcd, Postgres, or the other nodes.
//!
//! While the proxy is cut it passes no bytes on, like a network that drops packets: connections get nothing,
//! and new ones are accepted and get nothing either. After [`Cable::mend`] they go on where they were: bytes
//! sent during the cut arrive, and a connection that one side closed is closed for the other side too.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A running proxy. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    whole: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Cable {
    /// Starts a proxy whose target is set later, by [`Self::leads_to`].
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let upstream = Arc::new(Mutex::new(None));
        let (whole, state) = watch::channel(true);
        let task = tokio::spawn(accept(listener, upstream.clone(), state));
        Ok(Self {
            address,
            upstream,
            whole,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Starts a proxy to `upstream`, an address such as `127.0.0.1:5432`. Fails if `upstream` is no address.
    pub async fn to(upstream: &str) -> anyhow::Result<Self> {
        let cable = Self::start().await?;
        cable.leads_to(upstream.parse().context("an address")?);
        Ok(cable)
    }

    /// Sets the target of connections that are made from now on.
    pub fn leads_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the cable: it passes no bytes on.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Mends the cable: it passes bytes on again.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn accept(
    listener: TcpListener,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    whole: watch::Receiver<bool>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let upstream = *upstream.lock().unwrap_or_else(PoisonError::into_inner);
                connections.spawn(carry(near, upstream, whole.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(near: TcpStream, upstream: Option<SocketAddr>, mut whole: watch::Receiver<bool>) {
    let Some(upstream) = upstream else { return };
    if whole.wait_for(|whole| *whole).await.is_err() {
        return;
    }
    // If the target refuses the connection, the client's connection ends, because the proxy has accepted it already.
    let Ok(far) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // The end of one direction ends both: nothing here uses half-closed connections.
    tokio::select! {
        () = pass(near_in, far_out, whole.clone()) => {}
        () = pass(far_in, near_out, whole) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut whole: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        // The end of the connection does not pass a cut cable either.
        let ended = whole.wait_for(|whole| *whole).await.is_err();
        match read {
            Ok(count) if count > 0 && !ended && to.write_all(&buffer[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns a cable that was cut, and the two ends of a connection that leads through it.
    async fn cut() -> (Cable, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cable = Cable::to(&server.local_addr().unwrap().to_string())
            .await
            .unwrap();
        let mut near = TcpStream::connect(cable.address()).await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        near.write_all(b"a").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'a');
        cable.cut();
        (cable, near, far)
    }

    #[tokio::test]
    async fn what_is_cut_hears_nothing_until_it_is_mended() {
        let (cable, mut near, mut far) = cut().await;
        far.write_all(b"b").await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(200), near.read_u8()).await;
        assert!(heard.is_err(), "{heard:?}");
        cable.mend();
        assert_eq!(near.read_u8().await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn a_connection_that_one_side_closes_during_the_cut_hangs_for_the_other_until_it_is_mended() {
        let (cable, near, mut far) = cut().await;
        drop(near);
        let heard = tokio::time::timeout(Duration::from_millis(200), far.read_u8()).await;
        assert!(heard.is_err(), "{heard:?}");
        cable.mend();
        far.read_u8().await.unwrap_err();
    }
}
