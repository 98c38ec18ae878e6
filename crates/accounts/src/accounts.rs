//! Carries out each call from beginning to end: it checks who may make the call, applies the rules, changes the store,
//! and tells the other nodes.
//!
//! Besides the reasons that it names, every call fails with the reason of [`crate::domain::access`] if the caller may
//! not make it, and with UNAVAILABLE if the store, or another node that it has to ask, cannot be reached.
//!
//! - [`users`], [`devices`], [`tokens`], [`push_tokens`], [`privacy`], [`notifications`], [`watching`] and [`admin`]
//!   have the calls; checks of API keys are in this file; [`own_log`] tells users' devices what the calls have changed

mod admin;
mod devices;
mod notifications;
mod own_log;
mod privacy;
mod push_tokens;
mod tokens;
mod users;
mod watching;

use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;

use crate::metrics;
use crate::peers::Peers;
use crate::secrets::ApiKey;
use crate::store::Store;

pub use devices::NewDevice;
pub use privacy::ContactChange;
pub use tokens::{Pair, TokenMaker};
pub use watching::Watchable;

/// The calls of the accounts role.
pub struct Accounts {
    store: Store,
    peers: Peers,
    tokens: TokenMaker,
    limits: Limits,
}

/// The limits that an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of new strangers that one user may watch within 24 hours.
    pub new_strangers: usize,
}

/// The owner of an API key: the key's id, and the scopes it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    /// The id of the key, a UUID.
    pub key_id: String,
    /// The names of the scopes.
    pub scopes: Vec<String>,
}

impl Accounts {
    /// Makes the calls from the parts that they need: the store, the other nodes, the token keys and the limits.
    pub fn new(store: Store, peers: Peers, tokens: TokenMaker, limits: Limits) -> Self {
        Self {
            store,
            peers,
            tokens,
            limits,
        }
    }

    /// Returns the owner of the API key `text`, or `Err` with API_KEY_INVALID if it is not a key, or is unknown or
    /// revoked.
    pub async fn authenticate_key(&self, text: &str) -> Result<KeyHolder, ApiError> {
        let holder = match ApiKey::parse(text) {
            Some(key) => {
                let live = self.store.live_key(key.key_id).await?;
                live.filter(|(hash, _)| key.matches(hash))
                    .map(|(_, scopes)| (key.key_id, scopes))
            }
            None => None,
        };
        metrics::key_check(if holder.is_some() { "valid" } else { "invalid" });
        let (key_id, scopes) = holder
            .ok_or_else(|| ApiError::new(ErrorReason::ApiKeyInvalid, "the API key is unknown or revoked"))?;
        Ok(KeyHolder {
            key_id: key_id.to_string(),
            scopes,
        })
    }

    /// Checks that a calling device is still active, because its access token stays valid for up to an hour
    /// after the device was revoked. Returns `Err` with DEVICE_REVOKED if it was, and with TOKEN_INVALID if
    /// the device is not known, as after a restore from an older backup. A suspended user's devices stay
    /// active; gateways refuse their calls.
    async fn check_device(&self, principal: &Principal) -> Result<(), ApiError> {
        if let Principal::Device { user, device } = principal
            && !self.store.is_active(*user, *device).await?
        {
            return Err(match self.store.was_revoked(*device).await? {
                true => ApiError::new(ErrorReason::DeviceRevoked, "the device was revoked"),
                false => ApiError::new(ErrorReason::TokenInvalid, "the device is not known"),
            });
        }
        Ok(())
    }
}

fn no_such_device() -> ApiError {
    ApiError::new(ErrorReason::DeviceNotFound, "there is no such device")
}
