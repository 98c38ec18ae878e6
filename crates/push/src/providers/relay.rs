//! Sends pushes by a relay (`push_relay.proto`), for apps whose keys somebody else has. Pushes that wait go together: a
//! call takes all that wait when it begins, and a push waits only while no more calls may be under way.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rustls::RootCertStore;
use tern_proto::v1::push_relay_client::PushRelayClient;
use tern_proto::v1::relayed_push::Provider as Named;
use tern_proto::v1::{ApnsToken, FcmToken, ForwardRequest, ForwardResult, PushOutcome, RelayedPush};
use tern_types::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::{Parcel, refused};
use crate::apps::RelayApp;
use crate::provider::{Delivery, Provider, RELAYED, TOO_MANY};

/// The most pushes of a call, as the proto says.
pub(crate) const MAX_PUSHES: usize = 256;
/// The pushes to one provider that may wait for a call. A worker claims fewer at a time.
const QUEUE: usize = 4 * MAX_PUSHES;
/// The most calls under way at a time for one provider. Each may take as long as the provider does.
const CALLS: usize = 16;
/// The time within which the relay has to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The time that a call may take, which is as long as a push may.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The time between two pings on the connection.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The time within which a ping has to be answered.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes of an answer's words that are kept.
const MAX_DETAIL: usize = 300;

/// A relay, with its connection.
pub(crate) struct Relay {
    /// Each provider has calls of its own, because a call takes as long as the slowest of its pushes.
    apns: mpsc::Sender<Waiting>,
    fcm: mpsc::Sender<Waiting>,
}

/// A push that waits for its call, with the channel on which its sender waits for the outcome.
struct Waiting {
    push: RelayedPush,
    done: oneshot::Sender<Delivery>,
}

/// The parts that every call needs.
#[derive(Clone)]
struct Caller {
    client: PushRelayClient<Channel>,
    bearer: MetadataValue<Ascii>,
}

impl Relay {
    /// Makes the channel, which connects when it is first used, and the tasks that call. Fails if the address or the key
    /// is of no use.
    pub(crate) fn new(app: &RelayApp, roots: &RootCertStore) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::from_shared(app.url.clone())
            .context("relay.url")?
            .connect_timeout(CONNECT_LIMIT)
            .timeout(CALL_LIMIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT)
            .keep_alive_while_idle(true);
        if app.url.starts_with("https://") {
            let tls = ClientTlsConfig::new().trust_anchors(roots.roots.iter().cloned());
            endpoint = endpoint.tls_config(tls).context("relay.url")?;
        }
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", app.key.0)
            .parse()
            .context("relay.key_file")?;
        bearer.set_sensitive(true);
        let caller = Caller {
            client: PushRelayClient::new(endpoint.connect_lazy()),
            bearer,
        };
        let [apns, fcm] = [caller.clone(), caller].map(|caller| {
            let (queue, waiting) = mpsc::channel(QUEUE);
            tokio::spawn(call(caller, waiting));
            queue
        });
        Ok(Self { apns, fcm })
    }

    /// Sends a push by the relay.
    pub(crate) async fn send(&self, parcel: &Parcel) -> Delivery {
        let Some(push) = relayed(parcel) else {
            return refused("request", "the token is none of APNs or FCM");
        };
        let (done, became) = oneshot::channel();
        let gone = || Delivery::Later {
            after: None,
            reason: "broken",
            detail: "the call to the relay was given up".to_owned(),
        };
        let queue = match parcel.token.provider {
            Provider::Fcm => &self.fcm,
            Provider::Apns | Provider::WebPush => &self.apns,
        };
        if queue.send(Waiting { push, done }).await.is_err() {
            return gone();
        }
        became.await.unwrap_or_else(|_| gone())
    }
}

/// Makes calls of what waits, until nobody can send any more.
async fn call(caller: Caller, mut waiting: mpsc::Receiver<Waiting>) {
    let room = Arc::new(Semaphore::new(CALLS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, MAX_PUSHES).await == 0 {
            return;
        }
        // A push is left out if its sender waits no more, because the time for it is over.
        batch.retain(|one| !one.done.is_closed());
        let caller = caller.clone();
        tokio::spawn(async move {
            forward(caller, batch).await;
            drop(place);
        });
    }
}

async fn forward(mut caller: Caller, batch: Vec<Waiting>) {
    if batch.is_empty() {
        return;
    }
    let (pushes, waiters): (Vec<RelayedPush>, Vec<oneshot::Sender<Delivery>>) =
        batch.into_iter().map(|one| (one.push, one.done)).unzip();
    let mut request = Request::new(ForwardRequest { pushes });
    request
        .metadata_mut()
        .insert("authorization", caller.bearer.clone());
    let results = match caller.client.forward(request).await {
        Ok(response) => response.into_inner().results,
        Err(status) => {
            let delivery = failed(&status);
            for waiter in waiters {
                // The sender may wait no more. Then nobody needs the outcome.
                let _ = waiter.send(delivery.clone());
            }
            return;
        }
    };
    let mut results = results.into_iter();
    for waiter in waiters {
        let _ = waiter.send(results.next().map_or_else(missing, delivered));
    }
}

/// Makes the message to the relay. Returns `None` if pushes of this provider are not relayed.
fn relayed(parcel: &Parcel) -> Option<RelayedPush> {
    let token = &parcel.token;
    let provider = match token.provider {
        Provider::Apns => Named::Apns(ApnsToken {
            token: token.token.clone(),
            bundle_id: token.app.clone(),
            sandbox: token.sandbox,
            voip_token: token.second_key.clone().unwrap_or_default(),
        }),
        Provider::Fcm => Named::Fcm(FcmToken {
            token: String::from_utf8(token.token.to_vec()).ok()?,
            app: token.app.clone(),
        }),
        Provider::WebPush => return None,
    };
    Some(RelayedPush {
        provider: Some(provider),
        push_class: parcel.class.into(),
        tag: parcel.tag.0.clone(),
        badge: parcel.badge,
        sealed: parcel.sealed.clone().map(Bytes::from).unwrap_or_default(),
        lifetime_s: u32::try_from(parcel.lifetime.as_secs()).unwrap_or(u32::MAX),
    })
}

/// Understands what the relay says of a push.
fn delivered(result: ForwardResult) -> Delivery {
    let time = (result.time_ms > 0).then_some(result.time_ms);
    let mut detail = result.detail;
    detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
    match PushOutcome::try_from(result.outcome) {
        Ok(PushOutcome::Sent) => Delivery::Sent,
        Ok(PushOutcome::TokenEnded) => Delivery::TokenEnded {
            since: time.map(Timestamp),
            reason: detail,
        },
        Ok(PushOutcome::Later) => Delivery::Later {
            after: time.map(|ms| Duration::from_millis(ms.unsigned_abs())),
            reason: RELAYED,
            detail,
        },
        Ok(PushOutcome::Refused) => refused("relay", &detail),
        Ok(PushOutcome::Unspecified) | Err(_) => missing(),
    }
}

/// Returns what becomes of a push of which the relay says nothing.
fn missing() -> Delivery {
    Delivery::Later {
        after: None,
        reason: "unexpected",
        detail: "the relay does not say what became of the push".to_owned(),
    }
}

/// Understands a call that failed.
fn failed(status: &Status) -> Delivery {
    let detail = format!("relay: {:?} {}", status.code(), status.message());
    let reason = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => return refused("relay", &detail),
        // The operators of both can mend it, and then what waits is still wanted.
        Code::Unauthenticated | Code::PermissionDenied => "provider_token",
        Code::DeadlineExceeded | Code::Cancelled => "timeout",
        Code::ResourceExhausted => TOO_MANY,
        _ => "unavailable",
    };
    Delivery::Later {
        after: None,
        reason,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::tests::parcel;
    use tern_proto::v1::PushClass;

    #[test]
    fn the_relay_gets_what_the_provider_needs_and_nothing_else() {
        let mut push = parcel(PushClass::Alert);
        push.sealed = Some(vec![1, 2, 3]);
        push.text = Some("Alice in Ferry".into());
        let expected = RelayedPush {
            provider: Some(Named::Apns(ApnsToken {
                token: Bytes::from_static(b"token"),
                bundle_id: "com.example.chat".into(),
                sandbox: false,
                voip_token: Bytes::from_static(b"voip"),
            })),
            push_class: PushClass::Alert.into(),
            tag: "tag".into(),
            badge: 3,
            sealed: Bytes::from_static(&[1, 2, 3]),
            lifetime_s: 259_200,
        };
        assert_eq!(relayed(&push), Some(expected));
    }

    #[test]
    fn what_the_relay_says_is_what_became_of_the_push() {
        let result = |outcome: PushOutcome, time_ms| ForwardResult {
            outcome: outcome.into(),
            time_ms,
            detail: "d".into(),
        };
        let ended = |since| Delivery::TokenEnded {
            since,
            reason: "d".into(),
        };
        let later = |after| Delivery::Later {
            after,
            reason: RELAYED,
            detail: "d".into(),
        };
        for (outcome, time_ms, expected) in [
            (PushOutcome::Sent, 0, Delivery::Sent),
            (PushOutcome::TokenEnded, 0, ended(None)),
            (PushOutcome::TokenEnded, 7, ended(Some(Timestamp(7)))),
            (PushOutcome::Later, 0, later(None)),
            (PushOutcome::Later, 7, later(Some(Duration::from_millis(7)))),
            (PushOutcome::Refused, 0, refused("relay", "d")),
            (PushOutcome::Unspecified, 0, missing()),
        ] {
            assert_eq!(delivered(result(outcome, time_ms)), expected);
        }
        for (code, is_refused) in [
            (Code::Unauthenticated, false),
            (Code::PermissionDenied, false),
            (Code::InvalidArgument, true),
            (Code::ResourceExhausted, false),
            (Code::Unavailable, false),
            (Code::DeadlineExceeded, false),
        ] {
            let became = failed(&Status::new(code, ""));
            assert_eq!(matches!(became, Delivery::Refused { .. }), is_refused, "{code:?}");
        }
    }
}
