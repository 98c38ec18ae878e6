//! Rate limits of unary calls: a device may make few calls, a back end many. SendMessage also has the limit of the
//! stream's sends, so that a device gains nothing by sending in calls. A user may try few invite links. Calls without
//! credentials are counted by the address that they come from. Each gateway counts for itself.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_transport::connections::ClientAddress;
use tern_types::{DeviceId, Timestamp, UserId};
use tokio::time::Instant;

use tern_gateway_core::gcra::Gcra;

/// The most callers that are remembered: more than call within [`IDLE`]. A forgotten one begins with a full burst.
const MAX_CALLERS: u64 = 200_000;
/// The time without a call after which a caller may be forgotten. With the default rates its burst is full again long
/// before.
const IDLE: Duration = Duration::from_secs(60);
/// The burst of an API key, in seconds of its rate.
const KEY_BURST_SECONDS: u32 = 2;
/// The most addresses that are remembered. They have a cache of their own, so that strangers with many addresses
/// displace only other strangers.
const MAX_ADDRESSES: u64 = 100_000;
/// The method that also has the limit of sends.
const SEND: &str = "/tern.v1.Chats/SendMessage";
/// The methods by which a user tries an invite link. They are counted together, over all devices of the user.
const INVITES: [&str; 2] = ["/tern.v1.Groups/LookUpInvite", "/tern.v1.Groups/JoinByInvite"];
/// The invite links that a user may try at once: those of an evening in which many are sent around.
const INVITE_BURST: u32 = 30;
/// The time after which a user may try one more link.
const INVITE_EVERY: Duration = Duration::from_secs(2 * 60);
/// The time without a try after which a user may be forgotten: the burst is full again.
const INVITE_IDLE: Duration = Duration::from_secs(2 * 60 * INVITE_BURST as u64);
/// The most users whose tries are remembered: more than try a link within [`INVITE_IDLE`].
const MAX_INVITED: u64 = 100_000;

/// A sustained rate with bursts.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// The calls a second that pass over a longer time.
    pub per_second: u32,
    /// The calls that pass at once.
    pub burst: u32,
}

impl Rate {
    /// Returns a limiter with this rate that has counted nothing.
    fn limiter(self) -> Gcra {
        Gcra::new(self.per_second, self.burst)
    }
}

/// The rate limits of all kinds of callers.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// The unary calls of one device.
    pub device_calls: Rate,
    /// The calls of SendMessage of one device.
    pub device_sends: Rate,
    /// The calls a second of one API key.
    pub key_calls_per_second: u32,
    /// The calls without credentials from one address. `None` if there is no limit.
    pub stranger_calls: Option<Rate>,
}

/// The key of one limiter, which says whose calls it counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    Calls(DeviceId),
    Sends(DeviceId),
    Key(String),
}

/// The counts of the unary calls of all callers.
#[derive(Debug)]
pub struct CallLimits {
    rates: Rates,
    counts: Cache<Counted, Arc<Mutex<Gcra>>>,
    addresses: Cache<ClientAddress, Arc<Mutex<Gcra>>>,
    /// The counts of invite links. They have a cache of their own, because they are kept for longer.
    invited: Cache<UserId, Arc<Mutex<Gcra>>>,
    started: Instant,
}

impl CallLimits {
    /// Makes limits for callers that have made no call yet.
    pub fn new(rates: Rates) -> Self {
        Self {
            rates,
            counts: Cache::builder()
                .max_capacity(MAX_CALLERS)
                .time_to_idle(IDLE)
                .build(),
            addresses: Cache::builder()
                .max_capacity(MAX_ADDRESSES)
                .time_to_idle(IDLE)
                .build(),
            invited: Cache::builder()
                .max_capacity(MAX_INVITED)
                .time_to_idle(INVITE_IDLE)
                .build(),
            started: Instant::now(),
        }
    }

    /// Counts one call of the method at `path`.
    ///
    /// # Errors
    ///
    /// RATE_LIMITED, with the time after which the call would be let through.
    pub async fn take(&self, caller: &Principal, path: &str) -> Result<(), ApiError> {
        let rates = &self.rates;
        match caller {
            Principal::Device { user, device } => {
                self.count(Counted::Calls(*device), rates.device_calls).await?;
                if path == SEND {
                    self.count(Counted::Sends(*device), rates.device_sends).await?;
                }
                if INVITES.contains(&path) {
                    let limiter = Gcra::every(INVITE_EVERY, INVITE_BURST);
                    self.take_one(&self.invited, *user, limiter).await?;
                }
                Ok(())
            }
            Principal::Key { key_id, .. } => {
                let per_second = rates.key_calls_per_second;
                let burst = per_second.saturating_mul(KEY_BURST_SECONDS);
                let rate = Rate { per_second, burst };
                self.count(Counted::Key(key_id.clone()), rate).await
            }
        }
    }

    /// Counts one call without credentials. A call whose address is not known passes.
    ///
    /// # Errors
    ///
    /// RATE_LIMITED, with the time after which the call would be let through.
    pub async fn take_stranger(&self, address: Option<ClientAddress>) -> Result<(), ApiError> {
        let (Some(address), Some(rate)) = (address, self.rates.stranger_calls) else {
            return Ok(());
        };
        self.take_one(&self.addresses, address, rate.limiter()).await
    }

    async fn count(&self, what: Counted, rate: Rate) -> Result<(), ApiError> {
        self.take_one(&self.counts, what, rate.limiter()).await
    }

    async fn take_one<K>(
        &self,
        counts: &Cache<K, Arc<Mutex<Gcra>>>,
        what: K,
        limiter: Gcra,
    ) -> Result<(), ApiError>
    where
        K: Hash + Eq + Send + Sync + 'static,
    {
        let new = async { Arc::new(Mutex::new(limiter)) };
        let count = counts.get_with(what, new).await;
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        count.take(since(self.started)).map_err(limited)
    }
}

/// Returns the time since `start`, as a limiter takes it: no step of the wall clock changes it.
pub fn since(start: Instant) -> Timestamp {
    Timestamp(0) + start.elapsed()
}

/// Returns the error of a call that is over its limit and would pass after `wait`.
pub fn limited(wait: Duration) -> ApiError {
    ApiError::new(ErrorReason::RateLimited, "too many calls").retry_after(wait)
}

#[cfg(test)]
mod tests {
    use tern_types::UserId;

    use super::*;

    fn limits() -> CallLimits {
        CallLimits::new(Rates {
            device_calls: Rate {
                per_second: 10,
                burst: 5,
            },
            device_sends: Rate {
                per_second: 10,
                burst: 2,
            },
            key_calls_per_second: 50,
            stranger_calls: Some(Rate {
                per_second: 1,
                burst: 3,
            }),
        })
    }

    fn device() -> Principal {
        Principal::Device {
            user: UserId::random(),
            device: DeviceId::random(),
        }
    }

    async fn passed(limits: &CallLimits, caller: &Principal, path: &str) -> usize {
        let mut passed = 0;
        while limits.take(caller, path).await.is_ok() {
            passed += 1;
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_has_its_burst_then_its_rate_and_others_theirs() {
        let (limits, one, other) = (limits(), device(), device());
        assert_eq!(passed(&limits, &one, "/x").await, 5);
        let refused = limits.take(&one, "/x").await.expect_err("too many");
        assert_eq!(
            (refused.reason, refused.retry_after),
            (ErrorReason::RateLimited, Some(Duration::from_millis(100)))
        );
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(passed(&limits, &one, "/x").await, 1);
        assert_eq!(passed(&limits, &other, "/x").await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn sending_by_calls_has_the_streams_limit_and_a_back_end_is_let_through() {
        let (limits, one) = (limits(), device());
        assert_eq!(passed(&limits, &one, SEND).await, 2);
        assert_eq!(passed(&limits, &one, "/x").await, 2, "what the calls left");
        let key = Principal::Key {
            key_id: "k".into(),
            scopes: Vec::new(),
        };
        assert_eq!(passed(&limits, &key, SEND).await, 100);
    }

    /// The device may make any number of other calls.
    #[tokio::test(start_paused = true)]
    async fn a_user_tries_few_links_over_all_devices_and_a_back_end_any_number() {
        let many = Rate {
            per_second: 1000,
            burst: 1000,
        };
        let limits = CallLimits::new(Rates {
            device_calls: many,
            key_calls_per_second: 1000,
            ..limits().rates
        });
        let user = UserId::random();
        let [phone, tablet] = [DeviceId::random(), DeviceId::random()];
        let by = |device| Principal::Device { user, device };
        for at in 0..30 {
            let (device, path) = ([phone, tablet][at % 2], INVITES[at % 2]);
            limits.take(&by(device), path).await.expect("within the burst");
        }
        for (device, path) in [(phone, INVITES[0]), (tablet, INVITES[1])] {
            let refused = limits.take(&by(device), path).await.expect_err("too many");
            assert_eq!(
                (refused.reason, refused.retry_after),
                (ErrorReason::RateLimited, Some(INVITE_EVERY))
            );
        }
        assert!(
            limits
                .take(&by(phone), "/tern.v1.Groups/ListInvites")
                .await
                .is_ok()
        );
        assert!(limits.take(&device(), INVITES[0]).await.is_ok(), "another user");
        tokio::time::advance(INVITE_EVERY).await;
        assert!(limits.take(&by(tablet), INVITES[1]).await.is_ok());
        assert!(limits.take(&by(phone), INVITES[0]).await.is_err());

        let key = Principal::Key {
            key_id: "k".into(),
            scopes: Vec::new(),
        };
        for _ in 0..100 {
            limits
                .take(&key, INVITES[1])
                .await
                .expect("a back end is not limited");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_are_counted_by_address_apart_from_callers_or_not_at_all() {
        let limits = limits();
        let address = |last| Some(ClientAddress::new([192, 0, 2, last].into()));
        for last in [1, 2] {
            for _ in 0..3 {
                limits
                    .take_stranger(address(last))
                    .await
                    .expect("within the burst");
            }
            let refused = limits.take_stranger(address(last)).await.expect_err("too many");
            assert_eq!(
                (refused.reason, refused.retry_after),
                (ErrorReason::RateLimited, Some(Duration::from_secs(1)))
            );
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limits.take_stranger(address(1)).await.is_ok());
        assert!(limits.take_stranger(address(1)).await.is_err());
        assert!(limits.take_stranger(None).await.is_ok());

        let unlimited = CallLimits::new(Rates {
            stranger_calls: None,
            ..limits.rates
        });
        for _ in 0..1000 {
            unlimited.take_stranger(address(1)).await.expect("no limit");
        }
    }

    #[tokio::test]
    async fn addresses_take_bounded_memory() {
        let limits = limits();
        for number in 0..200_000_u32 {
            let address = ClientAddress::new(number.to_be_bytes().into());
            let _ = limits.take_stranger(Some(address)).await;
        }
        limits.addresses.run_pending_tasks().await;
        assert!(limits.addresses.entry_count() <= MAX_ADDRESSES);
    }
}
