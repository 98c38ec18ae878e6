//! Has many sessions read their inboxes again, spread over time, so that the store does not meet them all at once.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use crate::inbox_reader::DEVICES;
use crate::metrics;
use crate::registry::Handle;

/// Between two queries' worth of sessions, when that keeps within the spread: 50 queries a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Tells the sessions to read their inboxes again: the first ones at once, all of them within `spread`.
pub fn redrain(sessions: Vec<Arc<Handle>>, spread: Duration, cause: &'static str) {
    if sessions.is_empty() {
        return;
    }
    metrics::redrained(cause, sessions.len());
    tracing::debug!(sessions = sessions.len(), cause, "reading inboxes again");
    let tell = async move {
        let queries = sessions.len().div_ceil(DEVICES) as u32;
        let pause = PAUSE.min(spread / queries);
        for some in sessions.chunks(DEVICES) {
            for session in some {
                session.mailbox.redrain();
            }
            if queries > 1 {
                tokio::time::sleep(pause).await;
            }
        }
    };
    tokio::spawn(tell.in_current_span());
}
