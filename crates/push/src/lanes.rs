//! Bounds how much is sent to each push service at a time, and leaves one alone while it does not answer, so that it
//! does not slow the others. Workers and the relay use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_push_core::{Breaker, away};
use tern_types::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;
use crate::provider::{Delivery, Provider, Token};

/// The most pushes that are under way to one service. At 50 ms each that is 5,000 a second.
const ROOM: usize = 256;
/// The wait of a push to a service that has no room.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// The most services that have lanes of their own. Devices choose the hosts of Web Push, so there may be any number of
/// them. Those beyond that share one lane for each provider, which has no breaker: the services that are away would
/// hold up the others.
const MAX_LANES: usize = 1024;

/// The push services of which something is known.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<Key, Arc<Lane>>>);

/// A push service: a provider for one app, or a host of Web Push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    provider: Provider,
    place: String,
}

struct Lane {
    provider: Provider,
    /// True if services share it.
    shared: bool,
    breaker: Mutex<Breaker>,
    room: Arc<Semaphore>,
}

/// The permission to send one push.
pub(crate) struct Pass {
    lane: Arc<Lane>,
    _room: OwnedSemaphorePermit,
}

/// Why a push has to wait before it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// The service has no room.
    Busy(Duration),
    /// The service did not answer lately.
    Open(Duration),
}

impl Shut {
    /// Returns the time to wait.
    pub(crate) fn wait(self) -> Duration {
        match self {
            Self::Busy(wait) | Self::Open(wait) => wait,
        }
    }

    /// Returns for how long a push is put off that has been due for this time.
    pub(crate) fn put_off(self, due_for: Duration) -> Duration {
        match self {
            Self::Busy(wait) => wait,
            Self::Open(wait) => away(wait, due_for, rand::random()),
        }
    }
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
    pub(crate) fn enter(&self, token: &Token) -> Result<Pass, Shut> {
        let lane = self.lane(Key::of(token));
        let Ok(room) = lane.room.clone().try_acquire_owned() else {
            return Err(Shut::Busy(BUSY_WAIT));
        };
        lane.pass(room)
    }

    /// The same, but a push waits for room for as long as `limit`.
    pub(crate) async fn enter_within(&self, token: &Token, limit: Duration) -> Result<Pass, Shut> {
        let lane = self.lane(Key::of(token));
        // While the service is away, nobody waits for those that are under way to it.
        lane.is_closed_for()?;
        let room = tokio::time::timeout(limit, lane.room.clone().acquire_owned()).await;
        let Ok(Ok(room)) = room else {
            return Err(Shut::Busy(BUSY_WAIT));
        };
        lane.pass(room)
    }

    /// Returns why a push to this token would have to wait, if that is known. Such a push need not be looked at before, so
    /// that what waits for a service does not delay what others would take.
    pub(crate) fn closed(&self, token: &Token) -> Option<Shut> {
        let lane = self.lanes().get(&Key::of(token)).cloned()?;
        let open = lane.is_closed_for().err();
        open.or_else(|| (lane.room.available_permits() == 0).then_some(Shut::Busy(BUSY_WAIT)))
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Key, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, key: Key) -> Arc<Lane> {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(&key) {
            return lane.clone();
        }
        if lanes.len() >= MAX_LANES {
            let in_use = |lane: &Arc<Lane>| Arc::strong_count(lane) > 1;
            lanes.retain(|_, lane| in_use(lane) || lane.breaker().is_open());
            if lanes.len() >= MAX_LANES {
                // Lanes with an open breaker go too: their services are soon found to be away again. If they stayed, a
                // service that answers would have to share a lane.
                lanes.retain(|_, lane| in_use(lane));
            }
        }
        let (provider, shared) = (key.provider, lanes.len() >= MAX_LANES);
        let place = if shared { String::new() } else { key.place };
        let key = Key { provider, place };
        lanes
            .entry(key)
            .or_insert_with(|| Lane::new(provider, shared))
            .clone()
    }
}

impl Lane {
    fn new(provider: Provider, shared: bool) -> Arc<Self> {
        Arc::new(Self {
            provider,
            shared,
            breaker: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM)),
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the breaker without becoming its probe.
    fn is_closed_for(&self) -> Result<(), Shut> {
        let now = Clock::monotonic();
        match self.breaker().closed_until(now) {
            Some(until) => Err(Shut::Open(until.since(now))),
            None => Ok(()),
        }
    }

    /// Asks the breaker for a push that has room.
    fn pass(self: Arc<Self>, room: OwnedSemaphorePermit) -> Result<Pass, Shut> {
        let now = Clock::monotonic();
        let admitted = self.breaker().admit(now);
        admitted.map_err(|until| Shut::Open(until.since(now)))?;
        Ok(Pass {
            lane: self,
            _room: room,
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.breaker().is_open() {
            metrics::breaker_closed(self.provider);
        }
    }
}

impl Pass {
    /// Notes what became of the push.
    pub(crate) fn done(self, delivery: &Delivery) {
        let provider = self.lane.provider;
        if self.lane.shared {
            return;
        }
        if !delivery.is_failure() {
            if self.lane.breaker().answered() {
                metrics::breaker_closed(provider);
            }
        } else if self.lane.breaker().failed(Clock::monotonic()) {
            metrics::breaker_opened(provider);
            tracing::warn!(provider = provider.as_str(), "a push service does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tern_types::Timestamp;

    use super::*;
    use crate::provider::{RELAYED, TOO_MANY};

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
        assert_eq!(lanes.enter(&one).err(), Some(Shut::Busy(BUSY_WAIT)));
        assert_eq!(lanes.closed(&one), Some(Shut::Busy(BUSY_WAIT)));
        assert!(lanes.enter(&other).is_ok() && lanes.closed(&other).is_none());
        drop(passes);
        assert!(lanes.closed(&one).is_none());
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
                .is_err_and(|shut| matches!(shut, Shut::Open(wait) if wait <= Duration::from_secs(1)))
        );
        assert!(matches!(lanes.closed(&dead), Some(Shut::Open(_))));
        assert!(lanes.closed(&alive).is_none());
        let same_host = token(Provider::WebPush, "", "https://DEAD.example/b");
        assert!(lanes.enter(&same_host).is_err());
        assert!(lanes.enter(&alive).is_ok());
    }

    #[test]
    fn an_answer_about_one_push_does_not_count_against_its_service() {
        let lanes = Lanes::default();
        let one = token(Provider::Apns, "one", "token");
        for reason in [TOO_MANY, RELAYED] {
            for _ in 0..20 {
                let delivery = Delivery::Later {
                    after: None,
                    reason,
                    detail: String::new(),
                };
                lanes.enter(&one).ok().unwrap().done(&delivery);
            }
        }
        assert!(lanes.enter(&one).is_ok());
    }

    #[tokio::test]
    async fn a_push_may_wait_for_room_unless_the_service_is_away() {
        let lanes = Lanes::default();
        let one = token(Provider::Apns, "one", "token");
        let mut passes: Vec<Pass> = (0..ROOM).map(|_| lanes.enter(&one).ok().unwrap()).collect();
        let none = lanes.enter_within(&one, Duration::ZERO).await;
        assert_eq!(none.err(), Some(Shut::Busy(BUSY_WAIT)));
        let long = Duration::from_secs(600);
        let (entered, ()) = tokio::join!(lanes.enter_within(&one, long), async {
            passes.pop();
        });
        passes.push(entered.ok().unwrap());
        for _ in 0..10 {
            passes.pop().unwrap().done(&later());
        }
        while passes.len() < ROOM {
            let Ok(room) = lanes.lane(Key::of(&one)).room.clone().try_acquire_owned() else {
                break;
            };
            passes.push(Pass {
                lane: lanes.lane(Key::of(&one)),
                _room: room,
            });
        }
        let away = lanes.enter_within(&one, Duration::ZERO).await;
        assert!(
            matches!(away.err(), Some(Shut::Open(_))),
            "it does not wait for room"
        );
    }

    fn service(n: usize) -> Token {
        token(Provider::WebPush, "", &format!("https://{n}.example/"))
    }

    #[test]
    fn services_that_are_away_do_not_have_others_share_a_lane() {
        let lanes = Lanes::default();
        for n in 0..2 * MAX_LANES {
            for _ in 0..10 {
                lanes.enter(&service(n)).ok().unwrap().done(&later());
            }
        }
        assert!(lanes.0.lock().unwrap().len() <= MAX_LANES);
        let alive = service(2 * MAX_LANES);
        lanes.enter(&alive).ok().unwrap().done(&Delivery::Sent);
        assert!(!lanes.lane(Key::of(&alive)).shared);
    }

    #[test]
    fn there_are_so_many_lanes_and_one_without_a_breaker_that_the_rest_share() {
        let lanes = Lanes::default();
        let _in_use: Vec<Pass> = (0..MAX_LANES)
            .map(|n| lanes.enter(&service(n)).ok().unwrap())
            .collect();
        for n in MAX_LANES..MAX_LANES + 20 {
            lanes.enter(&service(n)).ok().unwrap().done(&later());
        }
        assert_eq!(lanes.0.lock().unwrap().len(), MAX_LANES + 1);
        assert!(lanes.enter(&service(MAX_LANES + 20)).is_ok());
    }
}
