//! The gRPC services: each call is parsed, and answered from the store and the providers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tern_identity::principal::{Principal, Scope};
use tern_proto::internal::push_admin_server::PushAdmin;
use tern_proto::v1::push_server::Push;
use tern_proto::v1::{self, ErrorReason, PushClass, PushStep};
use tern_proto::{ApiError, parse};
use tern_push_core::Tag;
use tern_store::StoreError;
use tern_types::{ChatId, Clock, DeviceId, Timestamp};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::provider::{Delivery, Outgoing, Token};
use crate::providers::{Providers, Route};
use crate::store::people::{self, Device};
use crate::store::{Store, look};

/// The length of an X25519 public key in bytes.
const SEALING_KEY_BYTES: usize = 32;
/// The time for which a provider keeps a push that an operator sends as a test. It is short, because they wait for it.
const TEST_LIFETIME: Duration = Duration::from_secs(60);

/// The services `tern.v1.Push` and `tern.internal.v1.PushAdmin`.
#[derive(Clone)]
pub struct Service {
    store: Store,
    providers: Providers,
    calls: TaskTracker,
}

impl Service {
    /// Makes the service. `calls` counts the calls under way.
    pub fn new(store: Store, providers: Providers, calls: TaskTracker) -> Self {
        Self {
            store,
            providers,
            calls,
        }
    }

    async fn run<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<Response<T>, Status> {
        let _under_way = self.calls.token();
        Ok(Response::new(call.await?))
    }

    /// Sends a push to the device, and tells each step. The last step is the one that failed, or the provider's answer.
    async fn test(&self, device: DeviceId) -> Result<v1::TestPushResponse, ApiError> {
        let mut steps = Steps::default();
        let found = people::devices(self.store.pools().people(), &HashSet::from([device]))
            .await
            .map_err(StoreError::from)?;
        let Some(known) = found.get(&device) else {
            let message = format!("no device has the id {device}");
            return Err(ApiError::new(ErrorReason::DeviceNotFound, message));
        };
        let Some((token, route)) = self.reach(known, &mut steps) else {
            return Ok(steps.end(false));
        };
        let badges = look::badges(self.store.pools(), &[(device, known.user)]).await;
        let badges = badges.map_err(StoreError::from)?;
        let push = Outgoing {
            device,
            token,
            class: PushClass::Alert,
            tag: Tag::of(device, ChatId::own(known.user)),
            badge: badges.get(&device).map_or(0, |badge| badge.chats),
            notification: None,
            lifetime: TEST_LIFETIME,
        };
        steps.restart();
        let delivery = self.providers.send(&push).await;
        let (sent, detail) = told(&delivery);
        let name = match route {
            Route::Relay => "relay",
            Route::Direct | Route::Nobody => "provider",
        };
        steps.add(name, sent, detail);
        Ok(steps.end(sent))
    }

    /// Finds out whether the device can be pushed to, and by which route. Returns `None` if it cannot.
    fn reach(&self, device: &Device, steps: &mut Steps) -> Option<(Arc<Token>, Route)> {
        let recipient = device.recipient;
        let state = match (recipient.active, recipient.suspended) {
            (false, _) => "it is revoked",
            (true, true) => "its user is suspended",
            (true, false) => "it is active",
        };
        let usable = recipient.active && !recipient.suspended;
        steps.add("device", usable, format!("{state}, of the user {}", device.user));
        if !usable {
            return None;
        }
        let Some(token) = &device.token else {
            steps.add(
                "token",
                false,
                "the device has named none (Devices/SetPushToken)".to_owned(),
            );
            return None;
        };
        steps.add("token", true, describe(token));
        let route = self.providers.serves(token);
        let (served, way) = match route {
            Route::Direct => (true, "its provider is called with a key of this node"),
            Route::Relay => (true, "its pushes go through the relay"),
            Route::Nobody => (false, "this node has no key for it, and no relay (--push-apps)"),
        };
        steps.add("app", served, way.to_owned());
        if !served {
            return None;
        }
        let sealable = token
            .sealing_key
            .as_ref()
            .is_none_or(|key| key.len() == SEALING_KEY_BYTES);
        let sealing = match (&token.sealing_key, sealable) {
            (None, _) => "the device gave no key: a push says nothing but that something waits",
            (Some(_), true) => "notifications are sealed to the device's key; this test has none",
            (Some(_), false) => "the device's key is not 32 bytes",
        };
        steps.add("seal", sealable, sealing.to_owned());
        sealable.then(|| (token.clone(), route))
    }
}

#[tonic::async_trait]
impl Push for Service {
    async fn get_web_push_key(
        &self,
        request: Request<v1::GetWebPushKeyRequest>,
    ) -> Result<Response<v1::GetWebPushKeyResponse>, Status> {
        self.run(async {
            Principal::read(request.metadata())?.device()?;
            let key = self.providers.web_push_key().unwrap_or_default();
            Ok(v1::GetWebPushKeyResponse { key: key.into() })
        })
        .await
    }
}

#[tonic::async_trait]
impl PushAdmin for Service {
    async fn test_push(
        &self,
        request: Request<v1::TestPushRequest>,
    ) -> Result<Response<v1::TestPushResponse>, Status> {
        self.run(async {
            Principal::read(request.metadata())?.key(Scope::Admin)?;
            let device = parse::id("device_id", &request.get_ref().device_id)?;
            // The future is boxed because it contains the providers' calls, and is too large for the stack.
            Box::pin(self.test(device)).await
        })
        .await
    }
}

/// The steps of a test so far.
struct Steps {
    done: Vec<PushStep>,
    /// When the present step began, by the monotonic clock.
    began: Timestamp,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            began: Clock::monotonic(),
        }
    }
}

impl Steps {
    /// Adds the step that has just come to its end. The next one begins.
    fn add(&mut self, name: &str, ok: bool, detail: String) {
        let now = Clock::monotonic();
        self.done.push(PushStep {
            name: name.to_owned(),
            ok,
            detail,
            took_ms: u32::try_from(now.since(self.began).as_millis()).unwrap_or(u32::MAX),
        });
        self.began = now;
    }

    /// Has the present step begin now.
    fn restart(&mut self) {
        self.began = Clock::monotonic();
    }

    fn end(self, sent: bool) -> v1::TestPushResponse {
        v1::TestPushResponse {
            steps: self.done,
            sent,
        }
    }
}

/// Describes a token for people, without the token itself.
fn describe(token: &Token) -> String {
    let place = if token.app.is_empty() {
        String::new()
    } else {
        format!(" of {}", token.app)
    };
    let sandbox = if token.sandbox { ", in the sandbox" } else { "" };
    format!("{}{place}{sandbox}", token.provider.as_str())
}

/// Returns whether a push was sent, and the provider's answer as people read it.
fn told(delivery: &Delivery) -> (bool, String) {
    match delivery {
        Delivery::Sent => (true, "taken".to_owned()),
        Delivery::TokenEnded { reason, .. } => (false, format!("the token is not valid any more: {reason}")),
        Delivery::Later { reason, detail, .. } => (false, format!("not now: {reason}: {detail}")),
        Delivery::Refused { reason, detail } => (false, format!("refused: {reason}: {detail}")),
    }
}
