//! The sessions that missed receipts, until their gateways are told. It is pure.
//!
//! A gateway that has a live stream is always noted, and told with its next frame. A gateway without one is told when
//! it opens one. It may be gone for good, because the pods of a Deployment get new names. So only a bounded number of
//! such gateways is kept. Once some were forgotten, every gateway that opens a stream is told that any of its sessions
//! may have missed receipts.

use tern_types::{IdMap, IdSet};

/// The number of sessions of one gateway, half a queue, from which no further ones are noted to have missed receipts.
/// The gateway is then told that any of its sessions may have missed some.
pub(super) const MAX_SESSIONS: usize = 4_096;
/// The number of gateways from which those without a live stream are forgotten: more than a platform has.
const MAX_GATEWAYS: usize = 1_024;

/// The sessions of one gateway that missed receipts.
#[derive(Debug, Default)]
pub struct MissedOnGateway {
    /// The sessions that are known to have missed some.
    pub sessions: IdSet<u64>,
    /// True if any session of the gateway may have missed some.
    pub any: bool,
}

/// The sessions that each gateway is to be told of, by the gateway's name.
#[derive(Debug, Default)]
pub(super) struct MissedReceipts {
    by_gateway: IdMap<String, MissedOnGateway>,
    /// True once a gateway was forgotten.
    forgot: bool,
}

impl MissedReceipts {
    /// Notes that these sessions of the gateway missed a receipt. `is_live` says of a gateway whether it has a live
    /// stream.
    pub fn note(&mut self, gateway: &str, sessions: &[u64], is_live: impl Fn(&str) -> bool) {
        if !self.by_gateway.contains_key(gateway) && !self.has_room(gateway, is_live) {
            self.forgot = true;
            return;
        }
        let missed = self.by_gateway.entry(gateway.to_owned()).or_default();
        if missed.sessions.len() < MAX_SESSIONS {
            missed.sessions.extend(sessions);
        } else {
            missed.any = true;
        }
    }

    /// Notes that any session of the gateway, which has a live stream, may have missed receipts.
    pub fn note_any(&mut self, gateway: &str) {
        self.by_gateway.entry(gateway.to_owned()).or_default().any = true;
    }

    /// Notes that the gateway opens a live stream. If some gateway was forgotten, it may have been this one.
    pub fn opened(&mut self, gateway: &str) {
        if self.forgot {
            self.note_any(gateway);
        }
    }

    /// Takes what the gateway is to be told.
    pub fn take(&mut self, gateway: &str) -> MissedOnGateway {
        self.by_gateway.remove(gateway).unwrap_or_default()
    }

    /// Returns whether another gateway may be noted. If there are too many, it first forgets those without a live
    /// stream.
    fn has_room(&mut self, gateway: &str, is_live: impl Fn(&str) -> bool) -> bool {
        let before = self.by_gateway.len();
        if before < MAX_GATEWAYS {
            return true;
        }
        self.by_gateway.retain(|name, _| is_live(name));
        self.forgot |= self.by_gateway.len() < before;
        self.by_gateway.len() < MAX_GATEWAYS || is_live(gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_that_never_come_back_leave_room_for_those_that_are_there() {
        let mut missed = MissedReceipts::default();
        let is_live = |name: &str| name == "gateway-here";
        missed.note("gateway-here", &[1], is_live);
        for gone in 0..10 * MAX_GATEWAYS {
            missed.note(&format!("gateway-{gone}"), &[7], is_live);
            assert!(missed.by_gateway.len() <= MAX_GATEWAYS);
        }
        missed.note("gateway-here", &[2], is_live);
        let here = missed.take("gateway-here");
        assert_eq!((here.sessions, here.any), (IdSet::from_iter([1, 2]), false));
    }

    #[test]
    fn a_gateway_that_was_forgotten_is_told_that_any_session_may_have_missed_receipts() {
        let mut missed = MissedReceipts::default();
        missed.note("gateway-late", &[1], |_| false);
        missed.opened("gateway-late");
        assert!(!missed.take("gateway-late").any, "nobody was forgotten yet");
        missed.note("gateway-late", &[1], |_| false);
        for gone in 0..MAX_GATEWAYS {
            missed.note(&format!("gateway-{gone}"), &[7], |_| false);
        }
        missed.opened("gateway-late");
        assert!(missed.take("gateway-late").any);
    }

    #[test]
    fn a_gateway_with_a_live_stream_is_noted_whatever_the_number_of_the_others() {
        let mut missed = MissedReceipts::default();
        for number in 0..=MAX_GATEWAYS {
            missed.note(&format!("gateway-{number}"), &[7], |_| true);
        }
        assert!(!missed.forgot);
        let last = missed.take(&format!("gateway-{MAX_GATEWAYS}"));
        assert_eq!(last.sessions, IdSet::from_iter([7]));
    }
}
