//! The types of pushes and of their outcomes, which are the same for all providers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::{Notification, PushClass};
use tern_push_core::Tag;
use tern_types::{DeviceId, Timestamp};

/// A push service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Apple's push service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
    /// A Web Push service (RFC 8030), or a UnifiedPush distributor.
    WebPush,
}

impl Provider {
    /// All providers.
    pub const ALL: [Self; 3] = [Self::Apns, Self::Fcm, Self::WebPush];

    /// Returns the name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "web_push",
        }
    }

    /// Returns the number as it is stored (`push_tokens.provider`).
    pub fn number(self) -> i16 {
        match self {
            Self::Apns => 1,
            Self::Fcm => 2,
            Self::WebPush => 3,
        }
    }

    /// Returns the provider with this stored number, and `None` if there is none.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.number() == number)
    }
}

/// The push token of a device, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The provider.
    pub provider: Provider,
    /// The bundle id or the package name; empty for Web Push.
    pub app: String,
    /// True if the token is for Apple's sandbox.
    pub sandbox: bool,
    /// The provider's token; for Web Push it is the endpoint, as UTF-8.
    pub token: Bytes,
    /// The token for calls (APNs), or the subscription's public key (Web Push).
    pub second_key: Option<Bytes>,
    /// The subscription's secret (Web Push).
    pub auth: Option<Bytes>,
    /// The X25519 public key to which notifications are sealed.
    pub sealing_key: Option<Bytes>,
    /// The time at which the device first named the token, by the wall clock.
    pub registered_at: Timestamp,
}

/// One push to one device.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The device.
    pub device: DeviceId,
    /// The device's push token.
    pub token: Arc<Token>,
    /// The effect of the push on the device.
    pub class: PushClass,
    /// The name of the chat for the device.
    pub tag: Tag,
    /// The number of chats with something unread that waits for the device.
    pub badge: u32,
    /// The notification; `None` if the push says only that something waits, or announces nothing.
    pub notification: Option<Arc<Notification>>,
    /// The time for which the provider keeps trying. With zero it tries once.
    pub lifetime: Duration,
}

/// The reason of a [`Delivery::Later`] that says that the device, the app or this server sends too much.
pub const TOO_MANY: &str = "too_many";
/// The reason of a [`Delivery::Later`] that a relay gave: the relay is there, and has breakers of its own.
pub const RELAYED: &str = "relay_later";

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The provider took it.
    Sent,
    /// The provider says that the token is not valid any more: since this time by the wall clock, if it says so.
    TokenEnded {
        /// The time since which it is not valid.
        since: Option<Timestamp>,
        /// The provider's reason.
        reason: String,
    },
    /// It may succeed later: the provider, or the way to it, is away or too busy.
    Later {
        /// The time to wait, if the provider says it.
        after: Option<Duration>,
        /// The reason in a word, for metrics. There are few such words.
        reason: &'static str,
        /// The provider's answer in its own words.
        detail: String,
    },
    /// The provider does not take it and never will, or no key is set up for the token's app.
    Refused {
        /// The reason in a word, for metrics. There are few such words.
        reason: &'static str,
        /// The provider's answer in its own words.
        detail: String,
    },
}

impl Delivery {
    /// Returns whether it says that the provider, or the way to it, is away. What a provider answers of one push says
    /// nothing of the others.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Later { reason, .. } => ![TOO_MANY, RELAYED].contains(reason),
            Self::Sent | Self::TokenEnded { .. } | Self::Refused { .. } => false,
        }
    }
}
