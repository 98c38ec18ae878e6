//! Bounds how much is sent to each push service at a time, and leaves one alone while it does not answer, so that it
//! does not slow the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_push_core::Breaker;
use tern_types::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;
use crate::provider::{Delivery, Provider, Token};

/// The most pushes that are under way to one service. At 50 ms each that is 5,000 a second.
const ROOM: usize = 256;
/// The wait of a push to a service that has no room.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// The most services that have a lane of their own. Devices choose the hosts of Web Push, so there may be any number of
/// them. The others of a provider share one lane.
const MAX_LANES: usize = 1024;

/// The lanes of all push services: how much is under way to each, and whether it answers.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<Key, Arc<Lane>>>);

/// A push service: a provider for one app, or a host of Web Push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    provider: Provider,
    place: String,
}

struct Lane {
    provider: Provider,
    breaker: Mutex<Breaker>,
    room: Arc<Semaphore>,
}

/// The permission to send one push.
pub(super) struct Pass {
    lane: Arc<Lane>,
    _room: OwnedSemaphorePermit,
}

impl Key {
    fn of(token: &Token) -> Self {
        let place = match token.provider {
            Provider::Apns if token.sandbox => format!("{} sandbox", token.app),
            Provider::Apns | Provider::Fcm => token.app.clone(),
            Provider::WebPush => host(&token.token),
        };
        Self {
            provider: token.provider,
            place,
        }
    }
}

/// Returns the host and port of an endpoint, and an empty string if it is no URL.
fn host(endpoint: &[u8]) -> String {
    let uri: Option<http::Uri> = endpoint.try_into().ok();
    let authority = uri.as_ref().and_then(http::Uri::authority);
    authority.map_or_else(String::new, |authority| authority.as_str().to_ascii_lowercase())
}

impl Lanes {
    /// Lets a push to this token through, or says how long it has to wait.
    pub(super) fn enter(&self, token: &Token) -> Result<Pass, Duration> {
        let lane = self.lane(Key::of(token));
        let Ok(room) = lane.room.clone().try_acquire_owned() else {
            return Err(BUSY_WAIT);
        };
        let now = Clock::monotonic();
        let admitted = lane.breaker().admit(now);
        admitted.map_err(|until| until.since(now))?;
        Ok(Pass { lane, _room: room })
    }

    fn lane(&self, key: Key) -> Arc<Lane> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&key) {
            return lane.clone();
        }
        if lanes.len() >= MAX_LANES {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.breaker().is_new());
        }
        let provider = key.provider;
        let key = if lanes.len() < MAX_LANES {
            key
        } else {
            Key {
                provider,
                place: String::new(),
            }
        };
        lanes.entry(key).or_insert_with(|| Lane::new(provider)).clone()
    }
}

impl Lane {
    fn new(provider: Provider) -> Arc<Self> {
        Arc::new(Self {
            provider,
            breaker: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM)),
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Notes what became of the push.
    pub(super) fn done(self, delivery: &Delivery) {
        let provider = self.lane.provider;
        match delivery {
            Delivery::Sent | Delivery::TokenEnded { .. } | Delivery::Refused { .. } => {
                if self.lane.breaker().answered() {
                    metrics::breaker_closed(provider);
                }
            }
            Delivery::Later { .. } => {
                if self.lane.breaker().failed(Clock::monotonic()) {
                    metrics::breaker_opened(provider);
                    tracing::warn!(provider = provider.as_str(), "a push service does not answer");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tern_types::Timestamp;

    use super::*;

    fn token(provider: Provider, app: &str, token: &str) -> Token {
        Token {
            provider,
            app: app.to_owned(),
            sandbox: false,
            token: Bytes::copy_from_slice(token.as_bytes()),
            second_key: None,
            auth: None,
            sealing_key: None,
            registered_at: Timestamp(0),
        }
    }

    fn later() -> Delivery {
        Delivery::Later {
            after: None,
            reason: "timeout",
            detail: String::new(),
        }
    }

    #[test]
    fn a_service_has_room_for_so_many_and_others_have_their_own() {
        let lanes = Lanes::default();
        let [one, other] = ["one", "other"].map(|app| token(Provider::Apns, app, "token"));
        let passes: Vec<Pass> = (0..ROOM).map(|_| lanes.enter(&one).ok().unwrap()).collect();
        assert_eq!(lanes.enter(&one).err(), Some(BUSY_WAIT));
        assert!(lanes.enter(&other).is_ok());
        drop(passes);
        assert!(lanes.enter(&one).is_ok());
    }

    #[test]
    fn a_service_that_does_not_answer_is_left_alone_and_others_are_not() {
        let lanes = Lanes::default();
        let [dead, alive] = ["https://dead.example/a", "https://alive.example/a"]
            .map(|url| token(Provider::WebPush, "", url));
        for _ in 0..10 {
            lanes.enter(&dead).ok().unwrap().done(&later());
            lanes.enter(&alive).ok().unwrap().done(&Delivery::Sent);
        }
        assert!(
            lanes
                .enter(&dead)
                .is_err_and(|wait| wait <= Duration::from_secs(1))
        );
        let same_host = token(Provider::WebPush, "", "https://DEAD.example/b");
        assert!(lanes.enter(&same_host).is_err());
        assert!(lanes.enter(&alive).is_ok());
    }

    #[test]
    fn there_are_so_many_lanes_and_no_more() {
        let lanes = Lanes::default();
        for n in 0..2 * MAX_LANES {
            let token = token(Provider::WebPush, "", &format!("https://{n}.example/"));
            let delivery = if n < MAX_LANES { later() } else { Delivery::Sent };
            lanes.enter(&token).ok().unwrap().done(&delivery);
        }
        assert_eq!(
            lanes.0.lock().unwrap().len(),
            MAX_LANES + 1,
            "with the one that they share"
        );
    }
}
