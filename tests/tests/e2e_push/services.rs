//! The push services of a test, and what has arrived at them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use tern_local::Builder;
use tern_local::push::{APP, Answer, PushServers, Received, Record};
use tern_proto::v1::push_token::Provider;
use tern_proto::v1::{self, Notification, PushClass};
use tern_types::Timestamp;

/// A push service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Apns,
    Fcm,
    WebPush,
}

pub const SERVICES: [Service; 3] = [Service::Apns, Service::Fcm, Service::WebPush];

/// The address at which a device of a test gets its pushes.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    pub service: Service,
    pub provider: Provider,
    /// The name by which the push service knows the token.
    pub name: String,
}

/// A push as it arrived at its push service.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The time at which it came.
    pub at: Instant,
    pub class: PushClass,
    pub tag: String,
    pub badge: u64,
    /// The notification that is sealed to the device's key, as base64 (APNs, FCM).
    pub sealed: Option<String>,
    /// The notification that the subscription's keys have decrypted (Web Push).
    pub notification: Option<Notification>,
    pub received: Received,
}

impl Arrived {
    /// Returns a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.received.headers.get(name).map_or("", String::as_str)
    }
}

/// The push services of one test.
pub struct Services(PushServers);

impl Services {
    pub async fn start(dir: &Path) -> Self {
        let servers = PushServers::start(dir).await;
        Self(servers.unwrap_or_else(|error| panic!("push services: {error:#}")))
    }

    /// Gives a platform a push node that sends to these services.
    pub fn of(&self, builder: Builder) -> Builder {
        builder.push(&self.0)
    }

    /// Returns the file with the settings of a push node that sends to these services.
    pub fn apps_file(&self) -> &Path {
        self.0.apps_file()
    }

    /// Returns a new token of the service.
    pub fn address(&self, service: Service) -> Address {
        let random: [u8; 32] = rand::random();
        let name = hex(&random);
        let (provider, name) = match service {
            Service::Apns => {
                let apns = v1::ApnsToken {
                    token: random.to_vec().into(),
                    bundle_id: APP.to_owned(),
                    ..Default::default()
                };
                (Provider::Apns(apns), name)
            }
            Service::Fcm => {
                let fcm = v1::FcmToken {
                    token: name.clone(),
                    app: APP.to_owned(),
                };
                (Provider::Fcm(fcm), name)
            }
            Service::WebPush => {
                let subscription = self.0.web_push.subscribe();
                let web_push = v1::WebPushSubscription {
                    endpoint: subscription.endpoint.clone(),
                    p256dh: subscription.p256dh.to_vec().into(),
                    auth: subscription.auth.to_vec().into(),
                };
                (Provider::WebPush(web_push), subscription.id)
            }
        };
        Address {
            service,
            provider,
            name,
        }
    }

    /// Returns the pushes to a token that its service took, in order.
    pub fn taken(&self, address: &Address) -> Vec<Arrived> {
        of(address, self.record(address.service).received())
            .iter()
            .map(arrived)
            .collect()
    }

    /// Returns the pushes to a token that its service did not take.
    pub fn refused(&self, address: &Address) -> Vec<Received> {
        of(address, self.record(address.service).refused())
    }

    /// Returns what Apple, Google and whoever forwards a Web Push can read of all pushes.
    pub fn readable(&self) -> String {
        let mut readable = String::new();
        for service in SERVICES {
            let record = self.record(service);
            for push in [record.received(), record.refused()].concat() {
                let _ = write!(readable, "{} {:?} ", push.token, push.headers);
                match service {
                    Service::Apns | Service::Fcm => {
                        let _ = writeln!(readable, "{}", push.payload);
                    }
                    // The payload is what the subscription's keys have decrypted, so it is left out.
                    Service::WebPush => readable.push('\n'),
                }
            }
        }
        readable
    }

    /// Returns the number of connections that were made to a service.
    pub fn connections(&self, service: Service) -> usize {
        self.record(service).connections()
    }

    /// Has a service answer pushes to this token like this from now on.
    pub fn answer(&self, address: &Address, answer: Answer) {
        self.record(address.service).answer(&address.name, answer);
    }

    fn record(&self, service: Service) -> &Record {
        match service {
            Service::Apns => &self.0.apns,
            Service::Fcm => &self.0.fcm,
            Service::WebPush => &self.0.web_push,
        }
    }
}

/// Returns Apple's answer that a token has not been valid since this time.
pub fn unregistered(since: Timestamp) -> Answer {
    Answer::Status {
        status: 410,
        reason: "Unregistered".to_owned(),
        since: Some(since),
        retry_after: None,
    }
}

/// Returns Apple's answer that there are too many pushes, and that the next one is to come after this time.
pub fn too_many(retry_after: Duration) -> Answer {
    Answer::Status {
        status: 429,
        reason: "TooManyRequests".to_owned(),
        since: None,
        retry_after: Some(retry_after),
    }
}

fn of(address: &Address, mut all: Vec<Received>) -> Vec<Received> {
    all.retain(|received| received.token == address.name);
    all
}

fn arrived(received: &Received) -> Arrived {
    let says = received.notification().map(|bytes| STANDARD.encode(bytes));
    let (sealed, notification) = match &*received
        .headers
        .get("content-encoding")
        .cloned()
        .unwrap_or_default()
    {
        "aes128gcm" => (None, says.map(|text| decoded(&text))),
        _ => (says, None),
    };
    Arrived {
        at: received.at,
        class: class(received),
        tag: received.tag().expect("a tag").to_owned(),
        badge: received.badge().expect("a badge"),
        sealed,
        notification,
        received: received.clone(),
    }
}

fn decoded(text: &str) -> Notification {
    let bytes = STANDARD.decode(text).expect("base64");
    Notification::decode(bytes.as_slice()).expect("a notification")
}

/// Returns what a push does. Only Apple is told which pushes do nothing but wake the app.
fn class(received: &Received) -> PushClass {
    let header = |name: &str| received.headers.get(name).map_or("", String::as_str);
    match (header("apns-push-type"), header("urgency")) {
        ("voip", _) => PushClass::Call,
        _ if received.withdraws() => PushClass::Withdraw,
        _ if received.alerts() => PushClass::Alert,
        ("background", _) | (_, "low") => PushClass::Silent,
        _ => PushClass::Badge,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
