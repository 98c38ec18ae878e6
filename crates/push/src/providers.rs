//! Sends pushes to the providers: Apple's and Google's, Web Push services, and a relay for apps of others.
//!
//! ```text
//!   Outgoing ──> sealed, or in clear text ──> apns, fcm ──┬──> http
//!            │                           └──> relay (gRPC) │
//!            └─> encrypted (RFC 8291) ──────> web_push ────┘
//! ```
//!
//! - [`http`], [`addresses`]: requests, and which addresses devices may name
//! - [`apns`], [`fcm`] with [`google`], [`web_push`] with [`vapid`], [`relay`]: one for each provider

pub(crate) mod addresses;
pub(crate) mod apns;
pub(crate) mod fcm;
pub(crate) mod google;
pub(crate) mod http;
pub(crate) mod relay;
pub(crate) mod vapid;
pub(crate) mod web_push;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tern_proto::v1::{Notification, PushClass};
use tern_push_core::Tag;

use crate::apps::Apps;
use crate::provider::{Delivery, Outgoing, Provider, Token};
use crate::seal;

use apns::Apns;
use fcm::Fcm;
use relay::Relay;
use web_push::WebPush;

/// The time that a push may take with all that is tried, so that the claim of its row does not run out meanwhile.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// The time that a relay gives a push. It is shorter, so that its answer still reaches the server that waits for it.
const RELAYED_LIMIT: Duration = Duration::from_secs(7);

/// The way in which pushes for a token are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// They go to the provider, with a key of the apps file.
    Direct,
    /// They go to the relay.
    Relay,
    /// They are not sent: there is neither a key for the app nor a relay.
    Nobody,
}

/// The providers, with their connections, which clones share.
#[derive(Clone)]
pub struct Providers(Arc<Inner>);

struct Inner {
    apns: Apns,
    fcm: Fcm,
    web_push: Option<WebPush>,
    relay: Option<Relay>,
    /// True if Apple's alerts say in clear text who sent something.
    templates: bool,
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").finish_non_exhaustive()
    }
}

/// A push as Apple's service, Google's or a relay gets it. Of what it announces, they can read nothing but `text`.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    /// The device's push token.
    pub token: Arc<Token>,
    /// The effect of the push on the device.
    pub class: PushClass,
    /// The name of the chat for the device.
    pub tag: Tag,
    /// The number of chats with something unread that waits for the device.
    pub badge: u32,
    /// The sealed notification.
    pub sealed: Option<Vec<u8>>,
    /// The text that an alert of Apple's shows in place of the app's.
    pub text: Option<String>,
    /// The time for which the provider keeps trying. With zero it tries once.
    pub lifetime: Duration,
}

impl Providers {
    /// Makes the providers of the apps file. They connect when they are first used. It has to be called in a Tokio
    /// runtime if there is a relay.
    ///
    /// # Errors
    ///
    /// Fails if a certificate of `ca_file` is of no use, or the relay's address.
    pub fn new(apps: &Apps) -> anyhow::Result<Self> {
        let roots = http::roots(&apps.roots)?;
        let web_push = apps.web_push.as_ref().map(|app| WebPush::new(app, &roots));
        let relay = apps.relay.as_ref().map(|app| Relay::new(app, &roots));
        Ok(Self(Arc::new(Inner {
            apns: Apns::new(&apps.apns, http::http2(&roots, apps.proxy.as_ref())?),
            fcm: Fcm::new(&apps.fcm, http::negotiated(&roots, apps.proxy.as_ref())?),
            web_push: web_push.transpose()?,
            relay: relay.transpose()?,
            templates: apps.templates,
        })))
    }

    /// Returns the public key of Web Push (VAPID), 65 bytes, uncompressed. `None` if there is no Web Push.
    pub fn web_push_key(&self) -> Option<Vec<u8>> {
        self.0.web_push.as_ref().map(|web_push| web_push.key().to_vec())
    }

    /// Returns how pushes for a token are sent.
    pub fn serves(&self, token: &Token) -> Route {
        let direct = match token.provider {
            Provider::Apns => self.0.apns.serves(&token.app),
            Provider::Fcm => self.0.fcm.serves(&token.app),
            Provider::WebPush => self.0.web_push.is_some(),
        };
        match token.provider {
            Provider::Apns | Provider::Fcm | Provider::WebPush if direct => Route::Direct,
            Provider::Apns | Provider::Fcm if self.0.relay.is_some() => Route::Relay,
            Provider::Apns | Provider::Fcm | Provider::WebPush => Route::Nobody,
        }
    }

    /// Sends a push, and returns what became of it within 10 s.
    pub async fn send(&self, push: &Outgoing) -> Delivery {
        match push.token.provider {
            Provider::Apns | Provider::Fcm => within(SEND_LIMIT, self.by_route(self.parcel(push))).await,
            Provider::WebPush => within(SEND_LIMIT, self.web_push(push)).await,
        }
    }

    /// Forwards a push of another platform, if there is a key for its app, and returns what became of it within 7 s.
    pub(crate) async fn forward(&self, parcel: Parcel) -> Delivery {
        match self.serves(&parcel.token) {
            Route::Direct => within(RELAYED_LIMIT, self.by_route(parcel)).await,
            Route::Relay | Route::Nobody => no_key(&parcel.token),
        }
    }

    /// Sends a parcel by its route.
    async fn by_route(&self, parcel: Parcel) -> Delivery {
        if parcel.class == PushClass::Unspecified {
            return refused("class", "the push has no class");
        }
        let token = &parcel.token;
        match (self.serves(token), token.provider, &self.0.relay) {
            (Route::Direct, Provider::Apns, _) => self.0.apns.send(&parcel).await,
            (Route::Direct, Provider::Fcm, _) => self.0.fcm.send(&parcel).await,
            (Route::Relay, Provider::Apns | Provider::Fcm, Some(relay)) => relay.send(&parcel).await,
            (
                Route::Direct | Route::Relay | Route::Nobody,
                Provider::Apns | Provider::Fcm | Provider::WebPush,
                _,
            ) => no_key(token),
        }
    }

    async fn web_push(&self, push: &Outgoing) -> Delivery {
        let Some(web_push) = &self.0.web_push else {
            return no_key(&push.token);
        };
        match web_push.prepare(push) {
            Ok(prepared) => web_push.send(prepared).await,
            Err(delivery) => delivery,
        }
    }

    /// Makes what Apple, Google or a relay gets of a push.
    fn parcel(&self, push: &Outgoing) -> Parcel {
        let notification = push.notification.as_deref();
        let sealed = notification.zip(push.token.sealing_key.as_deref());
        // A device whose key is of no use gets a push that says nothing.
        let sealed = sealed.and_then(|(notification, key)| seal::seal(key, &push.tag, notification).ok());
        Parcel {
            token: push.token.clone(),
            class: push.class,
            tag: push.tag.clone(),
            badge: push.badge,
            sealed,
            text: notification.filter(|_| self.0.templates).and_then(clear_text),
            lifetime: push.lifetime,
        }
    }
}

/// Returns what became of a push, also if nothing is heard of it within `limit`.
async fn within(limit: Duration, sending: impl Future<Output = Delivery>) -> Delivery {
    let sent = tokio::time::timeout(limit, sending).await;
    sent.unwrap_or_else(|_| Delivery::Later {
        after: None,
        reason: "timeout",
        detail: "no answer in time".to_owned(),
    })
}

/// Returns the text that the operator's choice `templates` shows. `None` if nothing is to be said, so that the app's
/// constant text is shown. A chat that is encrypted is to get none either; no chat is yet.
fn clear_text(notification: &Notification) -> Option<String> {
    let short = seal::shortened(notification);
    match (short.sender_name.as_str(), short.chat_title.as_str()) {
        ("", "") => None,
        ("", title) => Some(title.to_owned()),
        (sender, "") => Some(sender.to_owned()),
        (sender, title) => Some(format!("{sender} in {title}")),
    }
}

/// Returns what becomes of a push for whose app there is no key.
fn no_key(token: &Token) -> Delivery {
    let provider = token.provider.as_str();
    refused(
        "no_key",
        &format!("no key is set up for {provider} and the app {}", token.app),
    )
}

/// Returns a delivery that was refused.
pub(crate) fn refused(reason: &'static str, detail: &str) -> Delivery {
    Delivery::Refused {
        reason,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
