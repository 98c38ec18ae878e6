//! The harness of these tests: a gateway with fake nodes around it, and clients.
//!
//! - [`world`]: the gateway, its nodes' map, tokens
//! - [`nodes`], [`calls`]: the fake nodes' links, their answers to unary calls
//! - [`phone`], [`socket`]: a client by gRPC, by WebSocket
//! - [`items`], [`raw`]: what clients send, well formed and as arbitrary bytes

pub mod calls;
pub mod items;
pub mod nodes;
pub mod phone;
pub mod raw;
pub mod socket;
pub mod world;

use std::time::Duration;

pub use phone::Phone;
pub use world::World;

/// A time that is longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that comes at once.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it comes in time")
}

/// Waits until `holds`, for something that the gateway finds out by itself.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "{what}: not in time"
    );
}
