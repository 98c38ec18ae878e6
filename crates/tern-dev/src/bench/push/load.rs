//! Makes a load of messages to people who are away, and records which pushes have arrived.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use tern_client::Credentials;
use tern_local::PushServers;
use tern_local::push::{APP, Record, tag};
use tern_proto::v1;
use tern_proto::v1::send_message::To;
use tern_types::{ChatId, DeviceId, UserId};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;

use super::Service;
use crate::bench::line::{Heard, Line, Sends};
use crate::bench::meter::Meter;
use crate::bench::people::Person;
use crate::bench::target::Target;

/// The number of pushes of one device in a load, each of another chat. It is below the most that a device gets in a
/// minute.
pub const PUSHES_EACH: usize = 15;
/// The number of people who write. Each writes to a person once at most, so there are at least [`PUSHES_EACH`].
pub const WRITERS: usize = 32;
/// The largest number of messages of one writer without a result.
const WINDOW: usize = 16;
/// The number of calls of SetPushToken at a time.
const AT_ONCE: usize = 16;
/// The interval at which a late device acknowledges what it has. It is shorter than the time for which a push waits for
/// a device with a live stream.
const ACKNOWLEDGES_EVERY: Duration = Duration::from_secs(2);

/// The messages that a load has sent, by the tags of their pushes: each push is of one message.
pub struct Load {
    /// The counters of sends.
    pub meter: Meter,
    body: u32,
    sent: Mutex<HashMap<String, std::time::Instant>>,
    acknowledged: Mutex<HashMap<String, std::time::Instant>>,
}

/// A message that is to be sent.
struct Job {
    to: UserId,
    /// The tag of its push.
    tag: String,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Makes the record of a load with bodies of this many bytes.
    pub fn new(body: u32) -> Self {
        Self {
            meter: Meter::new(),
            body,
            sent: Mutex::default(),
            acknowledged: Mutex::default(),
        }
    }

    /// Returns the tags of the messages that were sent from this moment on, each with its time.
    pub fn sent_after(&self, since: std::time::Instant) -> Vec<(String, std::time::Instant)> {
        let sent = lock(&self.sent);
        let later = sent.iter().filter(|(_, at)| **at >= since);
        later.map(|(tag, at)| (tag.clone(), *at)).collect()
    }

    /// Returns the tags of the messages that were acknowledged, each with its time.
    pub fn acknowledged(&self) -> HashMap<String, std::time::Instant> {
        lock(&self.acknowledged).clone()
    }
}

/// Returns the jobs of each writer. A person's messages come at different times, each from another writer.
fn jobs(writers: &[Person], people: &[Person]) -> anyhow::Result<Vec<Vec<Job>>> {
    let mut jobs: Vec<Vec<Job>> = writers.iter().map(|_| Vec::new()).collect();
    for turn in 0..PUSHES_EACH {
        for (number, person) in people.iter().enumerate() {
            let writer = (number + turn) % writers.len();
            let chat = ChatId::direct(writers[writer].user, person.user);
            jobs[writer].push(Job {
                to: person.user,
                tag: tag(person.device()?.device, chat),
            });
        }
    }
    Ok(jobs)
}

/// Returns the tags of all pushes to these people.
pub fn tags(writers: &[Person], people: &[Person]) -> anyhow::Result<Vec<String>> {
    let jobs = jobs(writers, people)?;
    Ok(jobs.into_iter().flatten().map(|job| job.tag).collect())
}

/// Connects the writers, and lets them write to these people: each at this rate a second, or as fast as they can.
pub async fn spawn_writers(
    target: &Target,
    writers: &[Person],
    people: &[Person],
    rate: Option<f64>,
    load: &Arc<Load>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut lines = Vec::new();
    for (number, writer) in writers.iter().enumerate() {
        lines.push(Line::open(&target.gateways, number, writer.device()?).await?);
    }
    let mut writing = JoinSet::new();
    for (line, jobs) in lines.into_iter().zip(jobs(writers, people)?) {
        writing.spawn(write(line, jobs, rate, load.clone()));
    }
    Ok(writing)
}

/// Sends the messages of one writer, and waits for their results.
async fn write(mut line: Line, jobs: Vec<Job>, rate: Option<f64>, load: Arc<Load>) -> anyhow::Result<()> {
    let (mut sends, mut heard) = (Sends::default(), Vec::new());
    let mut jobs = jobs.into_iter().peekable();
    let mut next = Instant::now();
    while jobs.peek().is_some() || sends.unanswered() > 0 {
        let may = jobs.peek().is_some() && sends.unanswered() < WINDOW;
        tokio::select! {
            came = line.hear(&mut heard) => came?,
            () = sleep_until(next), if may => {
                let Some(job) = jobs.next() else { continue };
                let to = To::PeerUserId(job.to.to_string());
                let request = line.say(&to, load.body, &load.meter.clock);
                load.meter.sent.fetch_add(1, Ordering::Relaxed);
                lock(&load.sent).insert(job.tag, std::time::Instant::now());
                sends.sent(request, Instant::now());
                if let Some(rate) = rate {
                    // In a Poisson process the times between events are exponentially distributed.
                    let wait = -(1.0 - rand::random::<f64>()).ln() / rate;
                    next += Duration::from_secs_f64(wait.min(60.0));
                }
            }
        }
        for heard in heard.drain(..) {
            match heard {
                Heard::Sent { request, .. } => {
                    if let Some(began) = sends.answered(&request) {
                        load.meter.time(&load.meter.to_result, began.elapsed());
                    }
                }
                Heard::Refused { request, why } => {
                    sends.answered(&request);
                    load.meter.refused(why);
                }
                Heard::Entry { .. }
                | Heard::Receipt { .. }
                | Heard::CaughtUp
                | Heard::Presence { .. }
                | Heard::Watched { .. } => {}
            }
        }
        line.flush().await?;
    }
    Ok(())
}

/// Receives messages until `end`, and acknowledges them late. Notes when each was acknowledged.
pub async fn acknowledge_late(
    mut line: Line,
    device: DeviceId,
    load: Arc<Load>,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let (mut heard, mut held) = (Vec::new(), Vec::new());
    let mut turns = interval(ACKNOWLEDGES_EVERY);
    loop {
        tokio::select! {
            came = line.hear(&mut heard) => came?,
            _ = turns.tick() => {
                line.flush().await?;
                let now = std::time::Instant::now();
                lock(&load.acknowledged).extend(held.drain(..).map(|tag| (tag, now)));
            }
            () = end.cancelled() => return Ok(()),
        }
        for heard in heard.drain(..) {
            if let Heard::Entry { chat, .. } = heard {
                let chat: ChatId = std::str::from_utf8(&chat)?.parse()?;
                held.push(tag(device, chat));
            }
        }
    }
}

/// Returns the record of a push service.
pub fn record(servers: &PushServers, service: Service) -> &Record {
    match service {
        Service::Apns => &servers.apns,
        Service::Fcm => &servers.fcm,
        Service::WebPush => &servers.web_push,
    }
}

/// The pushes that have come, by tag.
pub struct Collected<'a> {
    record: &'a Record,
    /// The number of pushes that were looked at.
    seen: u64,
    came: HashMap<String, std::time::Instant>,
    /// The number of pushes whose tag had come before.
    pub repeated: u64,
}

impl<'a> Collected<'a> {
    /// Begins with the pushes that come from now on.
    pub fn from_now(record: &'a Record) -> Self {
        Self {
            record,
            seen: record.taken(),
            came: HashMap::new(),
            repeated: 0,
        }
    }

    /// Looks at the pushes that have come since the last time.
    pub fn take(&mut self) {
        for push in self.record.after(self.seen) {
            self.seen += 1;
            let Some(tag) = push.tag() else { continue };
            if self.came.contains_key(tag) {
                self.repeated += 1;
            } else {
                self.came.insert(tag.to_owned(), push.at);
            }
        }
    }

    /// Returns when the push with this tag came, or `None` if it has not come.
    pub fn at(&self, tag: &str) -> Option<std::time::Instant> {
        self.came.get(tag).copied()
    }

    /// Waits until the pushes with these tags have come.
    pub async fn until_all(&mut self, wanted: &[String]) {
        let mut missing = wanted.iter().peekable();
        loop {
            self.take();
            // The tags that were found need not be looked for again.
            while missing.next_if(|tag| self.came.contains_key(*tag)).is_some() {}
            if missing.peek().is_none() {
                return;
            }
            self.record.grown(self.seen).await;
        }
    }
}

/// Gives each of these people's devices a token.
pub async fn set_tokens(target: &Target, people: &[Person], service: Service) -> anyhow::Result<()> {
    let calls = people.iter().map(|person| async move {
        let token = token(target.push()?.0, service);
        set_token(target, person.device()?, token).await
    });
    futures::stream::iter(calls)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn set_token(target: &Target, device: &Credentials, token: v1::PushToken) -> anyhow::Result<()> {
    let (channel, _) = target.gateways.channel();
    let mut request = tonic::Request::new(v1::SetPushTokenRequest { token: Some(token) });
    let bearer: AsciiMetadataValue = format!("Bearer {}", device.access_token).parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let mut devices = v1::devices_client::DevicesClient::new(channel);
    devices.set_push_token(request).await?;
    Ok(())
}

/// Makes a token of a push service. It has no sealing key, so that the processor time is that of the push alone.
fn token(servers: &PushServers, service: Service) -> v1::PushToken {
    let provider = match service {
        Service::Apns => v1::push_token::Provider::Apns(v1::ApnsToken {
            token: rand::random::<[u8; 32]>().to_vec().into(),
            bundle_id: APP.to_owned(),
            sandbox: false,
            voip_token: bytes::Bytes::new(),
        }),
        Service::Fcm => v1::push_token::Provider::Fcm(v1::FcmToken {
            token: format!("{:032x}", rand::random::<u128>()),
            app: APP.to_owned(),
        }),
        Service::WebPush => {
            let subscription = servers.web_push.subscribe();
            v1::push_token::Provider::WebPush(v1::WebPushSubscription {
                endpoint: subscription.endpoint,
                p256dh: subscription.p256dh.into(),
                auth: subscription.auth.into(),
            })
        }
    };
    v1::PushToken {
        provider: Some(provider),
        sealing_key: bytes::Bytes::new(),
    }
}
