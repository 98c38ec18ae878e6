//! Finds free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

/// The ports to choose from. They lie below the range from which Linux takes the ports of outgoing connections, so that
/// a restarted server gets its port back.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// The number of attempts with a random port. If half of the range is taken, all of them fail once in a billion times.
const TRIES: usize = 30;

/// The number of starts of one server, each with other ports. Another process may take a port between the choice and the
/// start of the server.
pub(crate) const STARTS: usize = 5;

/// Returns a port on which nobody listens, or an error if it finds none. Another process may take the port before the
/// caller does, so a caller starts its server again with another port if that happens.
pub fn free() -> anyhow::Result<u16> {
    let mut random = rand::rng();
    for _ in 0..TRIES {
        let port = random.random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port from {} to {}", RANGE.start, RANGE.end)
}
