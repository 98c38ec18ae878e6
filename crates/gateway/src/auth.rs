//! Authenticates unary calls: a device's access token is verified here, a back end's API key by an accounts node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use tern_cluster::{NodeContext, Role};
use tern_identity::principal::Principal;
use tern_identity::token::Verifier;
use tern_proto::ApiError;
use tern_proto::internal::AuthenticateKeyRequest;
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_proto::v1::ErrorReason;
use tern_types::Clock;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use tern_gateway_core::gcra::Gcra;

use crate::barred::Barred;
use crate::call_limits::{limited, since};
use crate::nodes;

/// The time for which a good answer to an API key is kept. A key that was revoked is refused after that.
const KEY_TTL: Duration = Duration::from_secs(10);
/// The most keys that are remembered: more than any operator has.
const MAX_KEYS: u64 = 10_000;
/// The time for which a refused key is refused without asking again. If the key was made after it was tried, it works
/// then.
const REFUSED_TTL: Duration = Duration::from_secs(5);
/// The time for which a key counts as known after it was good. A known key is looked up however much strangers ask.
const KNOWN_TTL: Duration = Duration::from_secs(3600);
/// The number of look-ups of unknown keys that may be made a second over a longer time, and at once. Someone
/// who guesses keys gets no more of accounts' time; an operator's back ends that all start at once stay below
/// it.
const STRANGERS: (u32, u32) = (50, 500);
/// The prefix of API keys, which no access token has.
const KEY_PREFIX: &str = "tern_";
/// The longest key that is looked up, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// The authenticator of the callers of unary methods.
pub struct Auth {
    ctx: NodeContext,
    verifier: Arc<Verifier>,
    /// The keys that accounts have found good, with their scopes.
    keys: Cache<String, Arc<Principal>>,
    /// The keys that accounts have refused.
    refused: Cache<String, ()>,
    /// The keys that were good within [`KNOWN_TTL`].
    known: Cache<String, ()>,
    /// The limit for look-ups of keys that are not known.
    strangers: Mutex<Gcra>,
    started: Instant,
    barred: Arc<Barred>,
}

impl Auth {
    /// Makes an authenticator that knows no API key yet.
    pub fn new(ctx: NodeContext, verifier: Arc<Verifier>, barred: Arc<Barred>) -> Self {
        Self {
            ctx,
            verifier,
            keys: Cache::builder()
                .max_capacity(MAX_KEYS)
                .time_to_live(KEY_TTL)
                .build(),
            refused: Cache::builder()
                .max_capacity(MAX_KEYS)
                .time_to_live(REFUSED_TTL)
                .build(),
            known: Cache::builder()
                .max_capacity(MAX_KEYS)
                .time_to_live(KNOWN_TTL)
                .build(),
            strangers: Mutex::new(Gcra::new(STRANGERS.0, STRANGERS.1)),
            started: Instant::now(),
            barred,
        }
    }

    /// Returns the caller whom the metadata `authorization` proves. `Err` is the status for the client: credentials
    /// that are missing or no good, a revoked device, a suspended user, too many keys that are not known, or
    /// UNAVAILABLE if the caller cannot be found out now.
    pub async fn principal(&self, metadata: &MetadataMap) -> Result<Arc<Principal>, Status> {
        let credentials = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, credentials)| credentials.trim())
            .filter(|credentials| !credentials.is_empty())
            .ok_or_else(|| {
                let message = "metadata authorization: Bearer <access token or API key> is needed";
                ApiError::new(ErrorReason::CredentialsMissing, message)
            })?;
        if credentials.starts_with(KEY_PREFIX) {
            return self.key(credentials).await;
        }
        let token = self.verifier.verify(credentials, Clock::wall())?;
        self.barred
            .listed()
            .await
            .map_err(|_| ApiError::unavailable("it is not known yet whose access tokens count"))?;
        if self.barred.device(token.device) {
            return Err(ApiError::new(ErrorReason::DeviceRevoked, "the device was revoked").into());
        }
        if self.barred.user(token.user) {
            return Err(ApiError::new(ErrorReason::UserSuspended, "the user is suspended").into());
        }
        Ok(Arc::new(Principal::Device {
            user: token.user,
            device: token.device,
        }))
    }

    async fn key(&self, key: &str) -> Result<Arc<Principal>, Status> {
        if key.len() > MAX_KEY_BYTES || self.refused.contains_key(key) {
            return Err(
                ApiError::new(ErrorReason::ApiKeyInvalid, "the API key is unknown or revoked").into(),
            );
        }
        let asked = self.keys.try_get_with_by_ref(key, self.look_up(key)).await;
        asked.map_err(|status: Arc<Status>| Status::clone(&status))
    }

    async fn look_up(&self, key: &str) -> Result<Arc<Principal>, Status> {
        if !self.known.contains_key(key) {
            let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            strangers.take(since(self.started)).map_err(limited)?;
        }
        let answer = self.ask(key).await;
        match &answer {
            Ok(_) => self.known.insert(key.to_owned(), ()).await,
            Err(status) if status.code() == Code::Unauthenticated => {
                self.known.invalidate(key).await;
                self.refused.insert(key.to_owned(), ()).await;
            }
            Err(_) => {}
        }
        answer
    }

    async fn ask(&self, key: &str) -> Result<Arc<Principal>, Status> {
        let (node, _) = nodes::find(&self.ctx.map, |map| map.any(Role::Accounts)).await?;
        let mut client = AccountsNodeClient::new(self.ctx.channels.get(&node.address)?);
        let known = client
            .authenticate_key(AuthenticateKeyRequest {
                api_key: key.to_owned(),
            })
            .await
            .map_err(crate::refused::told)?
            .into_inner();
        let scopes = known
            .scopes
            .iter()
            .filter_map(|scope| scope.parse().ok())
            .collect();
        Ok(Arc::new(Principal::Key {
            key_id: known.key_id,
            scopes,
        }))
    }
}
