//! Wakes devices (docs/delivery.md, step 8 (b)). The devices that a settle found missing have inbox rows now. Those
//! that are online have sessions, and a wake makes these sessions responsible for delivering the rows.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use tern_types::{ChatId, DeviceId, Seq, SessionId, UserId};
use tokio::time::timeout;

use tern_chat_core::Missing;
use tern_chat_core::shard::Woken;

use crate::fanout::Fanout;
use crate::gateways::Gateways;
use crate::metrics;

/// The longest time that a wake waits for a gateway's confirmation. A gateway confirms at once; one that does not is
/// tried again with the next settle.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// Looks up the missing devices, and wakes their sessions for the entries up to `upto`. All devices count as woken only
/// if the look-up succeeded, its maps were certainly up to date, and every gateway concerned has confirmed (fine
/// print 5).
pub async fn wake(
    fanout: &Fanout,
    gateways: &Gateways,
    chat: ChatId,
    upto: Seq,
    missing: &[Missing],
) -> Woken {
    let mut users: Vec<UserId> = missing.iter().map(|missing| missing.user).collect();
    users.sort_unstable();
    users.dedup();
    let found = fanout.lookup.sessions(users).await;
    let mut done = !found.failed;
    // The sessions that were found are woken even if the look-up failed for others.
    if found.failed {
        metrics::lookup_failed("settle");
    } else if found.unsure {
        metrics::lookup_unsure();
    }
    let from: HashMap<DeviceId, Seq> = missing
        .iter()
        .map(|missing| (missing.device, missing.from))
        .collect();
    let mut by_gateway: HashMap<(&str, Seq), Vec<SessionId>> = HashMap::new();
    for session in &found.sessions {
        if let Some(from) = from.get(&session.device) {
            by_gateway
                .entry((&session.gateway, *from))
                .or_default()
                .push(session.session);
        }
    }
    let mut confirmations = Vec::with_capacity(by_gateway.len());
    for ((gateway, from), sessions) in by_gateway {
        match gateways.wake(gateway, chat, (from, upto), sessions) {
            Some(mut confirmation) => confirmations.push(async move {
                let came = timeout(CONFIRM_TIMEOUT, confirmation.came()).await;
                came.unwrap_or(false)
            }),
            None => done = false,
        }
    }
    for confirmed in join_all(confirmations).await {
        if !confirmed {
            metrics::wake_unconfirmed();
            done = false;
        }
    }
    match (done, found.unsure) {
        (false, _) => Woken::NotAll,
        (true, true) => Woken::Unsure,
        (true, false) => Woken::All,
    }
}
