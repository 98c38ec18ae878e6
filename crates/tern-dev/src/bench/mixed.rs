//! Plays a day in small. People with one or two devices write to each other and in groups, in bursts, and in some chats
//! much more than in others. They react to messages, and edit or delete some of their own. Now and then they mute a
//! chat. Some devices are away for a while and come back.
//!
//! - [`deeds`]: what a device sends next

mod deeds;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::seq::IndexedRandom as _;
use tern_client::connection::Gateways;
use tern_client::{BackEnd, Credentials};
use tern_proto::v1::SetChatSettingsRequest;
use tern_proto::v1::send_message::To;
use tern_types::{ChatId, RequestId};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use deeds::{Counts, Deed, Delivered, Known};

use super::line::{Cursors, Heard, Line, Sends};
use super::meter::Meter;
use super::people::{Person, make};
use super::report::Report;
use super::target::{Spent, Target};
use super::{Common, join};

/// The number of direct chats of each person.
const FRIENDS: usize = 8;
/// The range of the number of members of a group.
const GROUP_SIZES: std::ops::RangeInclusive<usize> = 3..=30;
/// The range of the number of messages that a person writes in a row. The pause before the next burst makes the rate
/// right.
const BURST: std::ops::RangeInclusive<u32> = 1..=6;
/// The mean pause between the messages of a burst.
const BETWEEN_IN_BURST: Duration = Duration::from_millis(400);
/// The mean time that a device stays online, in seconds.
const ONLINE: f64 = 10.0;
/// The mean time that a device is away, in seconds.
const AWAY: f64 = 4.0;
/// The probability that a device whose stream ends is away for a while instead of reconnecting at once.
const GOES_AWAY: f64 = 0.25;
/// The probability with which a person also changes how they keep the chat to which they write.
const SETTINGS: f64 = 0.01;
/// The time after the load for messages on their way to arrive. Devices that are away have to come back in it.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// A realistic day in small: direct chats and groups, bursts, devices that come and go
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// People; each fourth has a second device
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=5000))]
    people: u32,
    /// Groups
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    groups: u32,
    /// Messages a second in all, with reactions, edits and deletions
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
}

/// State that all devices share.
struct Scene {
    gateways: Gateways,
    back_end: BackEnd,
    meter: Meter,
    body: u32,
    /// The number of deliveries that the accepted messages cause.
    owed: AtomicU64,
    /// The number of deliveries that have come.
    got: AtomicU64,
    /// The numbers of reactions, edits and deletions that were sent.
    deeds: Counts,
    /// The number of changes of how chats are kept.
    settings: AtomicU64,
    /// The number of devices of all members, by chat.
    devices: HashMap<ChatId, u64>,
    end: CancellationToken,
}

impl Scene {
    /// Returns how many deliveries have not come yet.
    fn missing(&self) -> u64 {
        let got = self.got.load(Ordering::Relaxed);
        self.owed.load(Ordering::Relaxed).saturating_sub(got)
    }

    /// Waits until no delivery is missing.
    async fn everything_arrived(&self) {
        while self.missing() > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Runs the load and returns its results. Fails if users cannot be created or a stream breaks.
pub async fn run(target: &Target, common: &Common, args: Args) -> anyhow::Result<Report> {
    let people = people(target, &args).await?;
    let (mut devices, mut chats_of) = (HashMap::new(), vec![Vec::new(); people.len()]);
    befriend(&people, &mut devices, &mut chats_of);
    for _ in 0..args.groups {
        group(target, &people, &mut devices, &mut chats_of).await?;
    }
    let scene = Arc::new(Scene {
        gateways: target.gateways.clone(),
        back_end: target.back_end.clone(),
        meter: Meter::new(),
        body: common.body,
        owed: AtomicU64::new(0),
        got: AtomicU64::new(0),
        deeds: Counts::default(),
        settings: AtomicU64::new(0),
        devices,
        end: CancellationToken::new(),
    });
    let mean_burst = f64::from(BURST.start() + BURST.end()) / 2.0;
    let pause = mean_burst * f64::from(args.people) / args.rate;
    let running = set_going(&scene, &people, chats_of, pause);
    let spent = target.measure(common, &scene.meter).await?;
    // Whatever has not arrived when this time is over counts as lost.
    let _late = timeout(LAST_WORDS, scene.everything_arrived()).await;
    scene.end.cancel();
    join(running).await?;
    scene.meter.lost.fetch_add(scene.missing(), Ordering::Relaxed);
    report(target, &args, &scene, &spent).await
}

/// Creates the people. Each fourth has a second device.
async fn people(target: &Target, args: &Args) -> anyhow::Result<Vec<Person>> {
    let mut people = make(&target.back_end, args.people as usize, 1).await?;
    for person in people.iter_mut().step_by(4) {
        let second = target
            .back_end
            .link_device(person.user, "bench 2", "bench")
            .await?;
        person.devices.push(second);
    }
    Ok(people)
}

/// Starts a task for each device. Only a person's first device writes, to the chats in `chats_of`. `pause` is the mean
/// time between its bursts, in seconds.
fn set_going(
    scene: &Arc<Scene>,
    people: &[Person],
    chats_of: Vec<Vec<(ChatId, To)>>,
    pause: f64,
) -> JoinSet<anyhow::Result<()>> {
    let mut running = JoinSet::new();
    for ((number, person), mut chats) in people.iter().enumerate().zip(chats_of) {
        for (device, credentials) in person.devices.iter().enumerate() {
            let chats = std::mem::take(&mut chats);
            let names = chats.iter().map(|(chat, _)| Bytes::from(chat.to_string()));
            let device = Device {
                scene: scene.clone(),
                credentials: credentials.clone(),
                number: number + device,
                places: names.zip(0..).collect(),
                known: chats.iter().map(|_| Known::default()).collect(),
                chats,
                cursors: Cursors::new(),
                sends: Sends::default(),
                keeping: None,
                pause,
            };
            running.spawn(device.run());
        }
    }
    running
}

async fn report(target: &Target, args: &Args, scene: &Scene, spent: &Spent) -> anyhow::Result<Report> {
    let load = format!(
        "mixed: {} people, {} groups, {} messages a second, {}-byte bodies",
        args.people, args.groups, args.rate, scene.body
    );
    let meter = &scene.meter;
    let mut report = Report::on(target, load).await?;
    report.add_duration(spent);
    let messages = meter.messages.load(Ordering::Relaxed);
    report.a_second("messages a second", messages, spent);
    report.a_second(
        "deliveries a second",
        meter.deliveries.load(Ordering::Relaxed),
        spent,
    );
    let settings = scene.settings.load(Ordering::Relaxed);
    report.a_second("settings changes a second", settings, spent);
    let sent = meter.sent.load(Ordering::Relaxed).max(1);
    let share = scene.deeds.total() as f64 * 100.0 / sent as f64;
    report.noted("about earlier messages", share, "%", scene.deeds.to_string());
    report.latency("send to result", &meter.to_result);
    report.latency("delivered while online", &meter.to_delivered);
    report.latency("reconnect to caught up", &meter.to_last);
    report.spent(spent, messages);
    report.check(meter, target.sweep_found().await?);
    Ok(report)
}

/// Makes everybody a friend of the next people in the list. Direct chats exist without being created.
fn befriend(people: &[Person], devices: &mut HashMap<ChatId, u64>, chats_of: &mut [Vec<(ChatId, To)>]) {
    for (number, person) in people.iter().enumerate() {
        for step in 1..=FRIENDS / 2 {
            let other = (number + step) % people.len();
            let friend = &people[other];
            let chat = ChatId::direct(person.user, friend.user);
            devices.insert(chat, (person.devices.len() + friend.devices.len()) as u64);
            chats_of[number].push((chat, To::PeerUserId(friend.user.to_string())));
            chats_of[other].push((chat, To::PeerUserId(person.user.to_string())));
        }
    }
}

/// Creates a group of people who are chosen at random.
async fn group(
    target: &Target,
    people: &[Person],
    devices: &mut HashMap<ChatId, u64>,
    chats_of: &mut [Vec<(ChatId, To)>],
) -> anyhow::Result<()> {
    let numbers: Vec<usize> = (0..people.len()).collect();
    let size = rand::random_range(GROUP_SIZES).min(people.len());
    let members: Vec<usize> = numbers.choose_multiple(&mut rand::rng(), size).copied().collect();
    let owner = people[members[0]].user;
    let others: Vec<_> = members[1..].iter().map(|member| people[*member].user).collect();
    let chat = target.back_end.create_group(owner, "Bench", &others).await?;
    devices.insert(
        chat,
        members
            .iter()
            .map(|member| people[*member].devices.len() as u64)
            .sum(),
    );
    for member in members {
        // Groups come first in a person's list, and Zipf's law makes the first chats the busiest.
        chats_of[member].insert(0, (chat, To::ChatId(chat.to_string())));
    }
    Ok(())
}

/// A device that comes and goes.
struct Device {
    scene: Arc<Scene>,
    credentials: Credentials,
    /// The number that chooses the device's gateway.
    number: usize,
    /// The chats to which the device writes, the busiest first; empty if it does not write.
    chats: Vec<(ChatId, To)>,
    /// The place of each chat in `chats`, by its id as text.
    places: HashMap<Bytes, usize>,
    /// The messages of each chat to which the device may do something, in the order of `chats`.
    known: Vec<Known>,
    /// The device's cursors, kept over reconnects as a phone keeps them.
    cursors: Cursors,
    /// The sends without a result.
    sends: Sends<Said>,
    /// The last change of how the person keeps a chat. There is one at a time.
    keeping: Option<JoinHandle<()>>,
    /// The mean time between bursts, in seconds.
    pause: f64,
}

/// A send without a result.
struct Said {
    at: Instant,
    /// The place of its chat in [`Device::chats`].
    place: usize,
    deed: Deed,
}

/// Returns an exponentially distributed duration with this mean in seconds, within 1 ms and 60 s.
fn about(mean: f64) -> Duration {
    Duration::from_secs_f64((-(1.0 - rand::random::<f64>()).ln() * mean).clamp(0.001, 60.0))
}

impl Device {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut next = Instant::now() + about(self.pause);
        while !self.scene.end.is_cancelled() {
            let began = Instant::now();
            let line = Line::open(&self.scene.gateways, self.number, &self.credentials).await?;
            let line = line.resuming(std::mem::take(&mut self.cursors));
            next = self.online(line, began, next).await?;
            if !self.scene.meter.is_stopped() && rand::random_bool(GOES_AWAY) {
                tokio::select! {
                    () = sleep(about(AWAY)) => {}
                    () = self.scene.end.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    /// Runs one connection, which `began` at this time. `next` is the time at which the next message is due. Returns
    /// the time at which the first message after the connection is due.
    async fn online(&mut self, mut line: Line, began: Instant, mut next: Instant) -> anyhow::Result<Instant> {
        let scene = self.scene.clone();
        let leaves = Instant::now() + about(ONLINE);
        let (mut heard, mut burst, mut caught_up) = (Vec::new(), 0, None);
        loop {
            // A device leaves only after its sends have results, and not after the end of the load.
            let may_leave = self.sends.unanswered() == 0 && !scene.meter.is_stopped();
            tokio::select! {
                came = line.hear(&mut heard) => came?,
                () = sleep_until(next), if !self.chats.is_empty() && !scene.meter.is_stopped() => {
                    if burst == 0 {
                        burst = rand::random_range(BURST);
                    }
                    burst -= 1;
                    next = Instant::now() + if burst == 0 { about(self.pause) } else { about(BETWEEN_IN_BURST.as_secs_f64()) };
                    self.say(&mut line);
                }
                () = sleep_until(leaves), if may_leave => break,
                () = scene.end.cancelled() => break,
            }
            self.take(&mut heard, began, &mut caught_up);
            line.flush().await?;
        }
        self.cursors = line.into_cursors();
        Ok(next)
    }

    /// Sends a message, or something about an earlier one, to a chat that is chosen by Zipf's law: the first one is
    /// chosen twice as often as the second, and three times as often as the third.
    fn say(&mut self, line: &mut Line) {
        let weight = |place: usize| 1.0 / (place + 1) as f64;
        let total: f64 = (0..self.chats.len()).map(weight).sum();
        let mut at = rand::random::<f64>() * total;
        let place = (0..self.chats.len()).find(|place| {
            at -= weight(*place);
            at <= 0.0
        });
        let place = place.unwrap_or(0);
        if rand::random_bool(SETTINGS) {
            self.keep(place);
        }
        let (scene, at) = (&self.scene, Instant::now());
        let deed = self.known[place].choose(rand::random());
        let (envelope, body) = deed.message(&scene.meter.clock, scene.body);
        let request = line.send(&self.chats[place].1, &envelope, body);
        scene.meter.sent.fetch_add(1, Ordering::Relaxed);
        scene.deeds.add(deed);
        self.sends.sent(request, Said { at, place, deed });
    }

    /// Lets the person mute a chat until some time, unless nothing was written in it yet, or the last such call has not
    /// ended.
    fn keep(&mut self, place: usize) {
        let waits = self.keeping.as_ref().is_some_and(|call| !call.is_finished());
        if waits || !self.known[place].is_begun() {
            return;
        }
        let request = SetChatSettingsRequest {
            user_id: self.credentials.user.to_string(),
            request_id: RequestId::random().to_string(),
            chat_id: self.chats[place].0.to_string(),
            muted_until_ms: Some(rand::random_range(1..1_000_000_000)),
            ..Default::default()
        };
        let scene = self.scene.clone();
        self.keeping = Some(tokio::spawn(async move {
            match scene.back_end.api().set_chat_settings(request).await {
                Ok(_) => scene.meter.count(&scene.settings),
                Err(error) => scene.meter.refused(error.to_string()),
            }
        }));
    }

    fn take(&mut self, heard: &mut Vec<Heard>, began: Instant, caught_up: &mut Option<Instant>) {
        let (scene, meter) = (&self.scene, &self.scene.meter);
        for heard in heard.drain(..) {
            match heard {
                Heard::Entry { chat, seq, content } => {
                    let Some(delivered) = Delivered::read(content) else {
                        continue;
                    };
                    scene.got.fetch_add(1, Ordering::Relaxed);
                    meter.count(&meter.deliveries);
                    if let Some(place) = self.places.get(&chat).filter(|_| delivered.is_message) {
                        self.known[*place].heard(seq);
                    }
                    // The age of a message that waited while the device was away says nothing about the platform.
                    let online = caught_up.map_or(Duration::ZERO, |since| since.elapsed());
                    let age = meter.clock.age_of(&delivered.body);
                    if let Some(age) = age.filter(|age| *age < online) {
                        meter.time(&meter.to_delivered, age);
                    }
                }
                Heard::Sent { request, seq } => {
                    if let Some(Said { at, place, deed }) = self.sends.answered(&request) {
                        if deed == Deed::Say {
                            self.known[place].sent(seq);
                        }
                        meter.time(&meter.to_result, at.elapsed());
                        meter.count(&meter.messages);
                        let all = scene.devices.get(&self.chats[place].0).copied().unwrap_or(1);
                        // The sender's own device needs no delivery, because it has the result.
                        scene.owed.fetch_add(all - 1, Ordering::Relaxed);
                    }
                }
                Heard::Refused { request, why } => {
                    self.sends.answered(&request);
                    meter.refused(why);
                }
                Heard::CaughtUp => {
                    // It comes again on an open stream, which is no reconnect.
                    if caught_up.is_none() {
                        *caught_up = Some(Instant::now());
                        meter.time(&meter.to_last, began.elapsed());
                    }
                }
                Heard::Receipt { .. } | Heard::Presence { .. } | Heard::Watched { .. } => {}
            }
        }
    }
}
