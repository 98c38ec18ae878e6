//! Makes many sessions look again for what they may have missed. They are told one after the other, so that the store
//! is not asked for all of them at once.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use crate::inbox_reader::DEVICES;
use crate::metrics;
use crate::registry::Handle;

/// The longest pause between two groups of [`DEVICES`] sessions, each of which makes a query: 50 queries a second. The
/// pause is shorter if the sessions would take longer than the spread.
const PAUSE: Duration = Duration::from_millis(20);

/// Makes these sessions read their inboxes again and send CaughtUp after that: presence may not have known them for a
/// while, so receipts may have passed them by. A task tells them, the first ones at once and all of them within
/// `spread`. `cause` is for the metrics.
pub fn redrain(sessions: Vec<Arc<Handle>>, spread: Duration, cause: &'static str) {
    let telling = each(sessions, spread, cause, |session| session.mailbox.announced());
    tokio::spawn(telling.in_current_span());
}

/// Makes these sessions send CaughtUp, so that their devices ask for receipts: a chat node, or the link to it, was
/// lost, and receipts with it. Returns when all sessions were told, within `spread`.
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
