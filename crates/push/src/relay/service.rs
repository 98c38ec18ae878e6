//! Understands calls to the relay, and forwards what they have.

use std::sync::Arc;
use std::time::Duration;

use tern_proto::v1::push_relay_server::{PushRelay, PushRelayServer};
use tern_proto::v1::relayed_push::Provider as Named;
use tern_proto::v1::{ForwardRequest, ForwardResponse, ForwardResult, PushClass, PushOutcome, RelayedPush};
use tern_push_core::Tag;
use tern_transport::connections::Connection;
use tern_types::{Clock, Timestamp};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::keys::{Key, Keys};
use super::metrics;
use crate::lanes::{Lanes, Shut};
use crate::provider::{Delivery, Provider, Token};
use crate::providers::relay::MAX_PUSHES;
use crate::providers::{Parcel, Providers, Route, refused};

/// The time that a push waits for room at its provider. With the 7 s that it may take then, and the way to the caller,
/// it is less than the 10 s for which the caller waits.
const ROOM_LIMIT: Duration = Duration::from_secs(2);
/// The most bytes of a call: those of 256 pushes with the longest of all fields.
const MAX_CALL: usize = MAX_PUSHES * 8192;
/// The most bytes of the name of an app.
const MAX_APP: usize = 255;
/// The most bytes of a token of Apple's, as in `push.proto`.
const MAX_APNS_TOKEN: usize = 100;
/// The most bytes of a token of Google's, as in `push.proto`.
const MAX_FCM_TOKEN: usize = 4096;
/// The most characters of a tag, which goes into header fields. Those of this server have 22.
const MAX_TAG: usize = 32;
/// The most bytes of a sealed notification. Those of this server have less than 600.
const MAX_SEALED: usize = 2048;
/// The longest lifetime, which is Google's.
const MAX_LIFETIME: Duration = Duration::from_secs(28 * 24 * 3600);

/// The service `PushRelay`.
pub(super) struct Service {
    providers: Providers,
    keys: Keys,
    lanes: Lanes,
}

impl Service {
    pub(super) fn new(providers: Providers, keys: Keys) -> Self {
        Self {
            providers,
            keys,
            lanes: Lanes::default(),
        }
    }

    /// Makes the server of this service. It finds out who calls before it reads what they send.
    pub(super) fn guarded(self) -> InterceptedService<PushRelayServer<Self>, impl Interceptor + Clone> {
        let service = Arc::new(self);
        let server = PushRelayServer::from_arc(service.clone()).max_decoding_message_size(MAX_CALL);
        let guard = move |request: Request<()>| {
            let known = service.caller(&request).map(|_| ());
            known.map(|()| request)
        };
        InterceptedService::new(server, guard)
    }

    /// Finds who calls. Fails if the call has no key that is known.
    fn caller<T>(&self, request: &Request<T>) -> Result<&Key, Status> {
        let header = request.metadata().get("authorization");
        let header = header.and_then(|header| header.to_str().ok());
        let key = header.and_then(|header| header.strip_prefix("Bearer "));
        let Some(key) = key.and_then(|key| self.keys.find(key)) else {
            metrics::stranger();
            let message = "metadata authorization: Bearer <key of the relay> is needed";
            return Err(Status::unauthenticated(message));
        };
        if let Some(connection) = Connection::of(request.extensions()) {
            connection.known();
        }
        Ok(key)
    }

    async fn push(&self, key: &Key, push: RelayedPush) -> ForwardResult {
        let became = match parcel(push) {
            Ok(parcel) => self.forward_one(parcel).await,
            Err(delivery) => delivery,
        };
        metrics::forwarded(&key.name, &became);
        result(became)
    }

    /// Forwards a push, unless its provider has no room or is away.
    async fn forward_one(&self, parcel: Parcel) -> Delivery {
        // A push that no provider takes here gets no lane. Callers choose the names of apps, and each would make one.
        if self.providers.serves(&parcel.token) != Route::Direct {
            return self.providers.forward(parcel).await;
        }
        match self.lanes.enter_within(&parcel.token, ROOM_LIMIT).await {
            Ok(pass) => {
                let became = self.providers.forward(parcel).await;
                pass.done(&became);
                became
            }
            Err(shut) => waits(shut),
        }
    }
}

#[tonic::async_trait]
impl PushRelay for Service {
    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        let key = self.caller(&request)?;
        let mut pushes = request.into_inner().pushes;
        if pushes.len() > MAX_PUSHES {
            let message = format!("pushes: a call carries at most {MAX_PUSHES}");
            return Err(Status::invalid_argument(message));
        }
        let (granted, wait) = key.take(pushes.len(), Clock::monotonic());
        let above = pushes.split_off(granted);
        metrics::limited(&key.name, above.len() as u64);
        let forwarded = pushes.into_iter().map(|push| self.push(key, push));
        let mut results = futures::future::join_all(forwarded).await;
        results.extend(above.iter().map(|_| limited(wait)));
        Ok(Response::new(ForwardResponse { results }))
    }
}

/// Makes a parcel of a push that another platform sent. Returns `Err` with what becomes of the push if it is of no use.
fn parcel(push: RelayedPush) -> Result<Parcel, Delivery> {
    let bad = |field: &str| refused("request", &format!("{field} is of no use"));
    let class = PushClass::try_from(push.push_class).unwrap_or(PushClass::Unspecified);
    if class == PushClass::Unspecified {
        return Err(bad("push_class"));
    }
    let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=MAX_TAG).contains(&push.tag.len()) || !push.tag.bytes().all(url_safe) {
        return Err(bad("tag"));
    }
    if push.sealed.len() > MAX_SEALED {
        return Err(bad("sealed"));
    }
    let token = token(push.provider.ok_or_else(|| bad("provider"))?).ok_or_else(|| bad("token"))?;
    Ok(Parcel {
        token: Arc::new(token),
        class,
        tag: Tag(push.tag),
        badge: push.badge,
        sealed: (!push.sealed.is_empty()).then(|| push.sealed.to_vec()),
        text: None,
        lifetime: Duration::from_secs(push.lifetime_s.into()).min(MAX_LIFETIME),
    })
}

fn token(named: Named) -> Option<Token> {
    let token = match named {
        Named::Apns(apns) => Token {
            provider: Provider::Apns,
            app: apns.bundle_id,
            sandbox: apns.sandbox,
            token: apns.token,
            second_key: Some(apns.voip_token).filter(|token| !token.is_empty()),
            auth: None,
            sealing_key: None,
            registered_at: Timestamp(0),
        },
        Named::Fcm(fcm) => Token {
            provider: Provider::Fcm,
            app: fcm.app,
            sandbox: false,
            token: fcm.token.into(),
            second_key: None,
            auth: None,
            sealing_key: None,
            registered_at: Timestamp(0),
        },
    };
    let most = match token.provider {
        Provider::Apns => MAX_APNS_TOKEN,
        Provider::Fcm | Provider::WebPush => MAX_FCM_TOKEN,
    };
    let second = token.second_key.as_ref().map_or(0, |key| key.len());
    let fits =
        (1..=most).contains(&token.token.len()) && second <= MAX_APNS_TOKEN && token.app.len() <= MAX_APP;
    fits.then_some(token)
}

/// Says what became of a push.
fn result(became: Delivery) -> ForwardResult {
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (outcome, time_ms, detail) = match became {
        Delivery::Sent => (PushOutcome::Sent, 0, String::new()),
        Delivery::TokenEnded { since, reason } => {
            (PushOutcome::TokenEnded, since.map_or(0, |since| since.0), reason)
        }
        Delivery::Later {
            after,
            reason,
            detail,
        } => (
            PushOutcome::Later,
            after.map_or(0, milliseconds),
            format!("{reason}: {detail}"),
        ),
        Delivery::Refused { reason, detail } => (PushOutcome::Refused, 0, format!("{reason}: {detail}")),
    };
    ForwardResult {
        outcome: outcome.into(),
        time_ms,
        detail,
    }
}

/// Says that a push was not tried.
fn waits(shut: Shut) -> Delivery {
    let (reason, detail) = match shut {
        Shut::Busy(_) => ("busy", "too many pushes are under way to the provider"),
        Shut::Open(_) => ("breaker", "the provider did not answer at the last tries"),
    };
    Delivery::Later {
        after: Some(shut.wait()),
        reason,
        detail: detail.to_owned(),
    }
}

/// Says that a push is above the key's rate.
fn limited(wait: Duration) -> ForwardResult {
    result(Delivery::Later {
        after: Some(wait),
        reason: "rate",
        detail: "more pushes a second than the relay's operator allows".to_owned(),
    })
}

#[cfg(test)]
mod tests;
