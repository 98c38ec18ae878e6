//! Has many sessions look again at what they may have missed, spread over time, so that the store does not meet them all
//! at once.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use crate::inbox_reader::DEVICES;
use crate::metrics;
use crate::registry::Handle;

/// Between two queries' worth of sessions, when that keeps within the spread: 50 queries a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Presence may not have known these sessions for a while: they read their inboxes again, and then say CaughtUp again, for
/// receipts went past them. The first ones at once, all of them within `spread`.
pub fn redrain(sessions: Vec<Arc<Handle>>, spread: Duration, cause: &'static str) {
    let telling = each(sessions, spread, cause, |session| session.mailbox.announced());
    tokio::spawn(telling.in_current_span());
}

/// A chat node, or the way to it, was lost with receipts for whoever is here: the devices ask for them anew.
/// Returns when all are told.
pub async fn receipts_lost(sessions: Vec<Arc<Handle>>, spread: Duration) {
    each(sessions, spread, "receipts_lost", |session| {
        session.mailbox.receipts_lost();
    })
    .await;
}

async fn each(sessions: Vec<Arc<Handle>>, spread: Duration, cause: &'static str, tell: fn(&Handle)) {
    if sessions.is_empty() {
        return;
    }
    metrics::redrained(cause, sessions.len());
    tracing::debug!(sessions = sessions.len(), cause, "telling sessions to look again");
    let queries = sessions.len().div_ceil(DEVICES) as u32;
    let pause = PAUSE.min(spread / queries);
    for some in sessions.chunks(DEVICES) {
        for session in some {
            tell(session);
        }
        if queries > 1 {
            tokio::time::sleep(pause).await;
        }
    }
}
