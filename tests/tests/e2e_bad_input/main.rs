//! Bad input gets a clear typed error, and no node panics, hangs or dies because of it.
//!
//! - [`stream`]: streams that break the protocol
//! - [`sends`]: sends that cannot be accepted
//! - [`calls`]: calls whose bytes are no request, whose ids do not exist, or whose metadata claims another identity
//! - [`fields`]: every field of every request and of every item of a stream, with each value that it should not hold.
//!   The requests come from the [`descriptors`], so that additions to the protos are tested too. [`hostile`] has the
//!   values, and [`cast`] has the requests into which they are put.

#![allow(
    clippy::expect_used,
    reason = "all of this is test code: what is not there fails the test"
)]

mod calls;
mod cast;
mod descriptors;
mod fields;
mod hostile;
mod sends;
mod stream;

use tempfile::TempDir;
use tern_local::Builder;
use tern_local::push::PushServers;
use tern_tests::World;

/// A platform with nodes of every role, so that each call finds one that answers it.
struct Whole {
    world: World,
    /// The services to which the push nodes send, and the directory of their keys.
    push: (PushServers, TempDir),
}

impl Whole {
    async fn start(change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let servers = PushServers::start(dir.path()).await.expect("push services");
        Self {
            world: World::with(|builder| change(builder.media(1).push(&servers))).await,
            push: (servers, dir),
        }
    }
}

const SQL: &str = "'; DROP TABLE messages; --";
