//! Finds free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use rand::Rng as _;

/// The ports to choose from. They lie below the range from which Linux takes the ports of outgoing connections, so that
/// a restarted server gets its port back.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// The number of attempts with a random port. If half of the range is taken, all of them fail once in a billion times.
const TRIES: usize = 30;

/// The number of starts of one server, each with other ports. Another process may take a port between the choice and the
/// start of the server.
pub(crate) const STARTS: usize = 5;

/// The claims to the ports that this process has chosen. They last as long as the process, so that a server that is
/// killed and started again finds its ports free.
static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// Returns a port on which nobody listens, or an error if it finds none. No other process gets the same port from this
/// function while this process lives. A process that chooses otherwise may still take it before the caller does, so a
/// caller starts its server again with another port if that happens.
pub fn free() -> anyhow::Result<u16> {
    let mut random = rand::rng();
    for _ in 0..TRIES {
        let port = random.random_range(RANGE);
        let Some(claim) = claim(port) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            return Ok(port);
        }
    }
    anyhow::bail!("no free port from {} to {}", RANGE.start, RANGE.end)
}

/// Claims a port by a socket with an abstract name (unix(7)). Returns `None` if another process has claimed it. The name
/// is free again as soon as the socket is closed, also if the process is killed.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("tern-port-{port}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_chosen_is_nobody_elses_until_this_process_ends() {
        let port = free().unwrap();
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        assert!(claim(port).is_none());
    }

    #[test]
    fn a_claim_ends_with_its_socket() {
        let port = RANGE.end;
        drop(claim(port).unwrap());
        assert!(claim(port).is_some());
    }
}
