//! Each call as one story: who may, what the rules say, what the store keeps, who else is told.
//!
//! - [`users`], [`devices`], [`tokens`], [`privacy`], [`watching`], [`admin`], and API keys here

mod admin;
mod devices;
mod privacy;
mod tokens;
mod users;
mod watching;

use tern_node::principal::Principal;
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

pub struct Accounts {
    store: Store,
    peers: Peers,
    tokens: TokenMaker,
    limits: Limits,
}

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// New strangers that one user may watch a day.
    pub new_strangers: usize,
}

/// Who an API key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    pub key_id: String,
    pub scopes: Vec<String>,
}

impl Accounts {
    pub fn new(store: Store, peers: Peers, tokens: TokenMaker, limits: Limits) -> Self {
        Self {
            store,
            peers,
            tokens,
            limits,
        }
    }

    /// Who an API key is; API_KEY_INVALID for any other text.
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

    /// A device's access token outlives its revocation, and its user's suspension; here it does not count any more.
    async fn check_device(&self, principal: &Principal) -> Result<(), ApiError> {
        if let Principal::Device { user, device } = principal
            && !self.store.is_active(*user, *device).await?
        {
            return Err(ApiError::new(
                ErrorReason::DeviceRevoked,
                "the device was revoked",
            ));
        }
        Ok(())
    }
}
