//! Sends all devices to other gateways: when this one drains, or while others reach much more of the cluster.

use std::time::Duration;

use crate::registry::Registry;

/// The time between two devices that are asked to reconnect: the other gateways' TLS handshakes and inbox queries keep
/// up with that easily. It is shorter only if the drain's time would not suffice for all devices.
const RECONNECT_PACE: Duration = Duration::from_millis(2);
/// The share of the drain's time by which the last device is asked to reconnect.
const RECONNECT_PART: f64 = 0.6;
/// The share of the drain's time by which the last stream is cut off.
pub const CLOSE_PART: f64 = 0.8;
/// The longest time from when a device is to reconnect to when its old stream is cut off.
const RECONNECT_GRACE: Duration = Duration::from_secs(5);

/// Tells every device to reconnect after a time of its own, one after the other, and cuts off those that have
/// not left some time after that. `deadline` is the whole time for it, and `why` is for the log.
pub fn ask(registry: &Registry, deadline: Duration, why: &'static str) {
    let sessions = registry.sessions(|_| true);
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
    let spread = deadline.mul_f64(RECONNECT_PART).min(RECONNECT_PACE * count);
    let last = deadline.mul_f64(CLOSE_PART);
    tracing::info!(sessions = count, ?spread, why, "asking devices to reconnect");
    for (number, session) in sessions.iter().enumerate() {
        let reconnect_after = spread.mul_f64(number as f64 / f64::from(count));
        let close_after = (reconnect_after + RECONNECT_GRACE).min(last.max(reconnect_after));
        session.mailbox.drain(reconnect_after, close_after);
    }
}
