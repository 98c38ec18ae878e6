//! The chat node that owns the group is killed in the middle of the conversation. Everybody goes on writing. Every
//! message arrives once, in order, at every device.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tern_client::Client;
use tern_local::Role;
use tern_types::{ChatId, RequestId, Slot};
use tokio::sync::mpsc;

use crate::demo::phone::Phone;
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::say;

/// The number of messages that each of the three people writes.
const MESSAGES: usize = 12;
/// The pause between a person's messages. All of them together take longer than the lease of a dead node (4 s).
const PAUSE: Duration = Duration::from_millis(800);
/// The capacity of the queue of messages that are not shown yet. It has room for all of them and for the kill.
const LIVE: usize = 3 * MESSAGES + 1;
/// The number of messages that Alice has written when the node is killed.
const BEFORE: usize = 3;

/// The people who write.
const SPEAKERS: [&str; 3] = ["Alice", "Bob", "Carol"];
/// The texts, in the order of [`SPEAKERS`].
const LINES: [[&str; 3]; MESSAGES] = [
    ["One over the pier", "Where?", "I see it from here"],
    ["Left of the green buoy", "Got it!", "It is diving"],
    [
        "With a fish, look",
        "A sand eel, I think",
        "Noted: 14:05, sand eel",
    ],
    ["Here comes another", "From the north?", "From the north"],
    ["They are calling", "Is it windy where you are?", "Force four"],
    ["Same here", "My hat is gone", "I saw it pass"],
    ["Two on the mast", "A pair?", "The lower one is ringed"],
    ["Can you read it?", "Blue, I think", "Blue 7C"],
    ["That one is from Iceland!", "All this way?", "Every year"],
    [
        "And then to the Antarctic",
        "My hat too, then",
        "It will need a ring",
    ],
    ["They are leaving", "All at once", "As they do"],
    ["So quiet now", "Tea?", "Tea"],
];

/// An event to show in the transcript.
enum Live {
    /// A person has written a message.
    Written(Written),
    /// The node was killed, as this text says.
    Killed(String),
}

/// A message that was handed to its writer's client at the time `at`.
struct Written {
    who: &'static str,
    text: String,
    request: RequestId,
    at: Instant,
}

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    let group = stage.group()?;
    let owner = stage.platform.owner(Role::Chat, Slot::of_chat(group)).await?;
    report.scene(&format!("{owner}, which owns the group, is killed"));
    let before: HashMap<&str, usize> = stage
        .phones()
        .map(|phone| (phone.name, phone.log(group).len()))
        .into();
    let start = Instant::now();
    let (tell, told) = mpsc::channel(LIVE);
    let mut writing = tokio::task::JoinSet::new();
    for (index, phone) in [&stage.alice, &stage.bob, &stage.carol].into_iter().enumerate() {
        let from = start + PAUSE / 3 * u32::try_from(index)?;
        writing.spawn(write(index, phone.client()?.clone(), group, from, tell.clone()));
    }
    let (killed, shown) = tokio::try_join!(kill(stage, &owner, start, tell), show(stage, report, told))?;
    let (written, sent) = shown;
    writing
        .join_all()
        .await
        .into_iter()
        .collect::<anyhow::Result<Vec<()>>>()?;
    anyhow::ensure!(
        written.len() == 3 * MESSAGES,
        "{} messages were written",
        written.len()
    );
    let next = sent
        .iter()
        .filter(|at| **at > killed)
        .min()
        .context("nothing was sent after the kill")?;
    let pause = *next - killed;
    same_everywhere(stage, group, &written, &before).await?;
    report.checked(&format!(
        "{} messages written around the crash, each at every device once, in one order, in their writer's order",
        written.len()
    ));
    report.note(&format!(
        "from the kill to the first message of the new owner: {}",
        report.latency(pause)
    ));
    recover(stage, report, &owner, group).await
}

/// Writes one person's lines, one after the other.
async fn write(
    speaker: usize,
    client: Client,
    group: ChatId,
    start: Instant,
    tell: mpsc::Sender<Live>,
) -> anyhow::Result<()> {
    for (number, lines) in LINES.iter().enumerate() {
        tokio::time::sleep_until((start + PAUSE * u32::try_from(number)?).into()).await;
        let text = lines[speaker].to_owned();
        let at = Instant::now();
        let request = client.send(group, text.clone()).await?;
        tell.send(Live::Written(Written {
            who: SPEAKERS[speaker],
            text,
            request,
            at,
        }))
        .await?;
    }
    Ok(())
}

/// Waits until the conversation is under way, then kills the node with SIGKILL. Returns the time of the kill.
async fn kill(
    stage: &Stage,
    owner: &str,
    start: Instant,
    tell: mpsc::Sender<Live>,
) -> anyhow::Result<Instant> {
    tokio::time::sleep_until((start + PAUSE * u32::try_from(BEFORE)? - PAUSE / 6).into()).await;
    let pid = stage.platform.node(owner)?.process.pid();
    let killed = Instant::now();
    stage.platform.kill(owner).await?;
    tell.send(Live::Killed(format!(
        "kill -9 {pid} ({owner}); everybody goes on writing …"
    )))
    .await?;
    Ok(killed)
}

/// Prints every message as soon as it has arrived everywhere. Returns all of them, and the time at which each had its
/// result.
async fn show(
    stage: &Stage,
    report: &mut Report,
    mut told: mpsc::Receiver<Live>,
) -> anyhow::Result<(Vec<Written>, Vec<Instant>)> {
    let (mut written, mut sent): (Vec<Written>, Vec<Instant>) = (Vec::new(), Vec::new());
    // The outage is `Some(None)` after the kill. It is `Some(Some(at))` after the first message that was written later
    // has its result, at the time `at`.
    let mut outage: Option<Option<Instant>> = None;
    while let Some(live) = told.recv().await {
        let message = match live {
            Live::Written(message) => message,
            Live::Killed(text) => {
                report.alarm(&text);
                report.part("   written while nobody owned the group");
                outage = Some(None);
                continue;
            }
        };
        if let Some(Some(over)) = outage
            && message.at > over
        {
            report.part("   written after that");
            outage = None;
        }
        let at = arrives(stage, report, &message).await?;
        if outage == Some(None) {
            outage = Some(Some(at));
        }
        sent.push(at);
        written.push(message);
    }
    Ok((written, sent))
}

/// Waits until a message has arrived everywhere, and prints it with its tick and its arrivals. Returns the time at
/// which the sender had the result.
async fn arrives(stage: &Stage, report: &mut Report, message: &Written) -> anyhow::Result<Instant> {
    let mut phones = stage.phones().into_iter();
    let speaker = phones
        .find(|phone| phone.name == message.who)
        .context("no such person")?;
    let (sent_at, _) = speaker.sent(message.request).await?;
    report.sent();
    let mut arrivals = Vec::new();
    for phone in stage
        .phones()
        .into_iter()
        .filter(|phone| phone.name != speaker.name)
    {
        let (at, _) = phone.hears(message.request).await?;
        let latency = at.saturating_duration_since(message.at);
        report.delivered(latency);
        arrivals.push(format!("{} {}", phone.name, millis(latency)));
    }
    // Wait for the sender's own entry too: entries that others wrote before it may come after its result.
    speaker.hears(message.request).await?;
    let tick = report.tick("✓", sent_at.saturating_duration_since(message.at));
    report.message(
        message.who,
        &message.text,
        &tick,
        &format!("→ {}", arrivals.join(" · ")),
    );
    Ok(sent_at)
}

/// Checks that every device has each message once, in the same order and without gaps, and that each person's
/// messages are in the order in which they were written.
async fn same_everywhere(
    stage: &Stage,
    group: ChatId,
    written: &[Written],
    before: &HashMap<&str, usize>,
) -> anyhow::Result<()> {
    let mut logs = Vec::new();
    for phone in stage.phones() {
        let log = phone.log(group);
        let new = &log[before.get(phone.name).copied().unwrap_or_default()..];
        anyhow::ensure!(
            new.len() == written.len(),
            "{} has {} of {} messages",
            phone.name,
            new.len(),
            written.len()
        );
        gap_free(phone, &log)?;
        logs.push((phone.name, new.to_vec()));
    }
    let (_, one) = logs.first().context("no devices")?;
    for (name, log) in &logs {
        anyhow::ensure!(log == one, "{name} has another order than Alice");
    }
    for who in SPEAKERS {
        let wrote: Vec<RequestId> = written
            .iter()
            .filter(|message| message.who == who)
            .map(|message| message.request)
            .collect();
        let logged: Vec<RequestId> = one
            .iter()
            .filter_map(|(_, request)| *request)
            .filter(|id| wrote.contains(id))
            .collect();
        anyhow::ensure!(
            wrote == logged,
            "{who}'s messages are not in the order of writing"
        );
    }
    Ok(())
}

/// Checks that each seq of a device's log is the one after the seq before.
fn gap_free(phone: &Phone, log: &[(tern_types::Seq, Option<RequestId>)]) -> anyhow::Result<()> {
    let gap = log.windows(2).find(|pair| pair[1].0 != pair[0].0.next());
    anyhow::ensure!(gap.is_none(), "{} has a gap: {gap:?}", phone.name);
    Ok(())
}

/// Restarts the node, checks that it owns its chats again, and that the conversation goes on.
async fn recover(stage: &mut Stage, report: &mut Report, owner: &str, group: ChatId) -> anyhow::Result<()> {
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    say(
        report,
        carol,
        group,
        "Did anybody notice anything?",
        &[alice, laptop, bob],
    )
    .await?;
    stage.platform.restart(owner).await?;
    let now = stage.platform.owner(Role::Chat, Slot::of_chat(group)).await?;
    anyhow::ensure!(now == owner, "{owner} is back, but {now} owns the group");
    report.note(&format!("{owner} is started again and owns the group again"));
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    say(
        report,
        bob,
        group,
        "Nothing at all. Same time tomorrow?",
        &[alice, laptop, carol],
    )
    .await?;
    say(report, alice, group, "Same time tomorrow!", &[laptop, bob, carol]).await?;
    for phone in stage.phones() {
        gap_free(phone, &phone.log(group))?;
    }
    report.checked("the conversation went on over the crash and over the return");
    Ok(())
}
