//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

/// Below the range from which Linux takes the ports of outgoing connections, so that a restarted server gets its
/// port back.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Tries of a random port: with half of the range taken, all fail once in a billion.
const TRIES: usize = 30;

/// A port nobody listens on. Another process may take it before its user does: who starts a server starts it again
/// with another port then.
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
