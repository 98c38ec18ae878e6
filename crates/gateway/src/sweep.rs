//! The sweep reads the inboxes of all sessions from time to time, in case everything else has missed a row. A row that
//! is old and unknown to its session counts as a defect.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tern_cluster::Drain;
use tern_types::DeviceId;

use crate::inbox_reader::{DEVICES, InboxReader};
use crate::registry::{Handle, Registry};

/// Sweeps again and again until the drain has ended, each time after a pause of half of `interval` to all of it. The
/// queries of one sweep are spread over half of the interval.
pub async fn run(registry: Arc<Registry>, reader: InboxReader, interval: Duration, drain: Drain) {
    loop {
        let wait = interval.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.ended() => return,
        }
        sweep(&registry, &reader, interval / 2).await;
    }
}

async fn sweep(registry: &Registry, reader: &InboxReader, within: Duration) {
    let sessions = registry.sessions(|_| true);
    let queries = sessions.len().div_ceil(DEVICES).max(1) as u32;
    for some in sessions.chunks(DEVICES) {
        query(reader, some).await;
        if queries > 1 {
            tokio::time::sleep(within / queries).await;
        }
    }
}

async fn query(reader: &InboxReader, sessions: &[Arc<Handle>]) {
    let devices: Vec<DeviceId> = sessions.iter().map(|session| session.device).collect();
    let mut inboxes = match reader.read(&devices).await {
        Ok(inboxes) => inboxes,
        Err(status) => {
            tracing::warn!(code = ?status.code(), message = status.message(), "the sweep cannot read inboxes");
            return;
        }
    };
    for session in sessions {
        // A device may have two sessions here for a moment. The first of them gets the inbox; the other one gets the
        // next sweep's.
        if let Some(inbox) = inboxes.remove(&session.device) {
            session.mailbox.swept(inbox);
        }
    }
}
