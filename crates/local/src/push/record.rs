//! Records what a push service has been sent, and keeps how it is to answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tern_types::{Clock, Timestamp};
use tokio::sync::watch;

/// The number of pushes that a service remembers, of those that it took and of those that it did not. The oldest is
/// forgotten for a new one, so that a platform of development may run for weeks. It is more than a load of the bench
/// sends in a minute.
const REMEMBERED: usize = 500_000;

/// A push service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Apple's.
    Apns,
    /// Google's.
    Fcm,
    /// A browser vendor's.
    WebPush,
}

impl Provider {
    /// Returns the name, as in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "web_push",
        }
    }
}

/// A push that came to a service.
#[derive(Debug, Clone)]
pub struct Received {
    /// The service.
    pub provider: Provider,
    /// True if it came to Apple's sandbox.
    pub sandbox: bool,
    /// The time at which it came.
    pub at: Instant,
    /// The time at which it came, by the wall clock.
    pub wall: Timestamp,
    /// Apple's device token in hex, Google's registration token, or the id of the subscription.
    pub token: String,
    /// The headers, by their names in lower case, without `authorization`.
    pub headers: BTreeMap<String, String>,
    /// Apple's payload, Google's message, or the decrypted text of a Web Push. `Null` if it could not be read.
    pub payload: Value,
    /// The HTTP status of the answer; 0 if there was none.
    pub status: u16,
    /// The reason of the answer, as the service says it; empty if it took the push.
    pub reason: String,
}

impl Received {
    /// Returns a part of what our server wrote into the push, wherever that stands at this service.
    fn part(&self, name: &str) -> Option<&Value> {
        match self.provider {
            Provider::Apns => self.payload.get("tern")?.get(name),
            Provider::Fcm => self.payload.get("data")?.get(name),
            Provider::WebPush => self.payload.get(name),
        }
    }

    /// Returns the tag.
    pub fn tag(&self) -> Option<&str> {
        self.part("tag")?.as_str()
    }

    /// Returns the badge.
    pub fn badge(&self) -> Option<u64> {
        let badge = match self.provider {
            Provider::Apns => self
                .payload
                .get("aps")?
                .get("badge")
                .or_else(|| self.part("badge"))?,
            Provider::Fcm | Provider::WebPush => self.part("badge")?,
        };
        badge.as_u64().or_else(|| badge.as_str()?.parse().ok())
    }

    /// Returns the bytes of the sealed notification, or of a Web Push those of the notification itself.
    pub fn notification(&self) -> Option<Vec<u8>> {
        let name = match self.provider {
            Provider::Apns | Provider::Fcm => "sealed",
            Provider::WebPush => "notification",
        };
        STANDARD.decode(self.part(name)?.as_str()?).ok()
    }

    /// Returns whether the push removes a notification.
    pub fn withdraws(&self) -> bool {
        self.part("withdraw")
            .is_some_and(|withdraw| withdraw == &Value::Bool(true) || withdraw == "true")
    }

    /// Returns whether the push shows something: Apple's alerts by what they say, Google's and browsers' by their
    /// urgency, because there the app decides.
    pub fn alerts(&self) -> bool {
        match self.provider {
            Provider::Apns => self
                .payload
                .get("aps")
                .is_some_and(|aps| aps.get("alert").is_some()),
            Provider::Fcm => {
                let android = self.payload.get("android");
                let priority = android.and_then(|android| android.get("priority"));
                priority.is_some_and(|priority| priority == "HIGH")
            }
            Provider::WebPush => self
                .headers
                .get("urgency")
                .is_some_and(|urgency| urgency == "high"),
        }
    }
}

/// The answer of a service to a push that is in order. A push that is not in order is refused whatever this says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// It takes the push.
    #[default]
    Ok,
    /// It answers with this status.
    Status {
        /// The HTTP status.
        status: u16,
        /// The reason, in the service's own words: `Unregistered`, `UNREGISTERED`.
        reason: String,
        /// The time since which the token is not valid any more. Only Apple says it, with status 410.
        since: Option<Timestamp>,
        /// The time after which the push may be sent again.
        retry_after: Option<Duration>,
    },
    /// It takes the push, and answers after this time.
    Slow(Duration),
    /// It resets the stream of the request and does not take the push. Other streams of the connection go on.
    Reset,
    /// It cuts the connection with all its streams, and does not take the push.
    Cut,
    /// It takes the push, and ends the connection in good order, with GOAWAY.
    GoAway,
}

impl Answer {
    /// Returns an answer with this status and reason, and nothing else.
    pub fn status(status: u16, reason: &str) -> Self {
        Self::Status {
            status,
            reason: reason.to_owned(),
            since: None,
            retry_after: None,
        }
    }
}

/// The record of a service.
#[derive(Debug)]
pub struct Record {
    provider: Provider,
    state: Mutex<State>,
    /// The number of pushes that came since the start, whether or not they were taken.
    came: watch::Sender<u64>,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    taken: VecDeque<Received>,
    /// The number of pushes that were taken and are forgotten.
    forgotten: u64,
    refused: VecDeque<Received>,
    all: Answer,
    by_token: HashMap<String, Answer>,
}

impl Record {
    pub(super) fn new(provider: Provider) -> Self {
        Self {
            provider,
            state: Mutex::default(),
            came: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the service.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Returns the pushes that the service took, in the order in which they came.
    pub fn received(&self) -> Vec<Received> {
        self.lock().taken.iter().cloned().collect()
    }

    /// Returns the pushes that the service did not take, in the order in which they came, with the reasons.
    pub fn refused(&self) -> Vec<Received> {
        self.lock().refused.iter().cloned().collect()
    }

    /// Returns the number of pushes that the service took since its start.
    pub fn taken(&self) -> u64 {
        let state = self.lock();
        state.forgotten + state.taken.len() as u64
    }

    /// Returns the pushes that the service took after the first `seen` ones.
    pub fn after(&self, seen: u64) -> Vec<Received> {
        let state = self.lock();
        let skipped = usize::try_from(seen.saturating_sub(state.forgotten)).unwrap_or(usize::MAX);
        state.taken.iter().skip(skipped).cloned().collect()
    }

    /// Returns the number of connections that were made since the start.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets how pushes to this token are answered from now on.
    pub fn answer(&self, token: &str, answer: Answer) {
        self.lock().by_token.insert(token.to_owned(), answer);
    }

    /// Sets how pushes are answered from now on, whatever their token; what [`Record::answer`] has set before is
    /// forgotten.
    pub fn answer_all(&self, answer: Answer) {
        let mut state = self.lock();
        state.by_token.clear();
        state.all = answer;
    }

    /// Waits until `find` returns something of the pushes that the service took, and returns that. Fails after `bound`
    /// with an error that names `what`, and the newest push that was refused.
    pub async fn until<T>(
        &self,
        what: &str,
        bound: Duration,
        find: impl Fn(&[Received]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut came = self.came.subscribe();
        let wait = async {
            loop {
                if let Some(found) = find(self.lock().taken.make_contiguous()) {
                    return found;
                }
                // The sender lives as long as this record.
                let _ = came.changed().await;
            }
        };
        let found = tokio::time::timeout(bound, wait).await;
        found.with_context(|| {
            let refused = self
                .lock()
                .refused
                .back()
                .map(|last| (last.status, last.reason.clone()));
            let provider = self.provider.as_str();
            format!("{what}: not at {provider} within {bound:?}; refused last: {refused:?}")
        })
    }

    /// Waits until the service has taken more pushes than the first `seen` ones.
    pub async fn grown(&self, seen: u64) {
        let mut came = self.came.subscribe();
        while self.taken() <= seen {
            // The sender lives as long as this record.
            let _ = came.changed().await;
        }
    }

    /// Returns how a push that is in order is to be answered.
    pub(super) fn answer_to(&self, token: &str) -> Answer {
        let state = self.lock();
        state.by_token.get(token).unwrap_or(&state.all).clone()
    }

    /// Adds a push.
    pub(super) fn add(&self, push: Received) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let taken = push.reason.is_empty();
        let list = if taken {
            &mut state.taken
        } else {
            &mut state.refused
        };
        if list.len() == REMEMBERED {
            list.pop_front();
            state.forgotten += u64::from(taken);
        }
        list.push_back(push);
        drop(guard);
        self.came.send_modify(|came| *came += 1);
    }

    /// Returns a push that comes now, before it was judged.
    pub(super) fn coming(&self, token: &str, headers: &hyper::HeaderMap) -> Received {
        let readable = headers
            .iter()
            .filter(|(name, _)| **name != hyper::header::AUTHORIZATION)
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            });
        Received {
            provider: self.provider,
            sandbox: false,
            at: Instant::now(),
            wall: Clock::wall(),
            token: token.to_owned(),
            headers: readable.collect(),
            payload: Value::Null,
            status: 0,
            reason: String::new(),
        }
    }
}
