//! Bob is offline for a while, then catches up in order. The latencies of the messages that he missed are counted from
//! the moment in which he connects.

use std::time::Instant;

use tern_types::{ChatId, RequestId};

use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::{read, say};

/// The messages that Bob misses in the group. Alice writes him two more messages directly.
const MISSED: [&str; 5] = [
    "Has anybody seen Bob?",
    "He is on the ferry, no signal",
    "Then he misses the feeding",
    "Three chicks now!",
    "He will read all of this at once, poor man",
];

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Bob is offline for a while");
    let group = stage.group()?;
    stage.bob.disconnect().await?;
    report.note(&format!("{} is on the ferry: no signal", report.name("Bob")));
    let before = stage.bob.heard().entries.len();
    let missed = write_to_bob(stage, report, group).await?;
    come_back(stage, report, &missed).await?;
    each_once_and_in_order(stage, before, &missed)?;
    report.checked(&format!(
        "Bob got all {} messages, each once, in order; he has {} unread in the group",
        missed.len(),
        stage.bob.unread(group)
    ));
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    let said = say(
        report,
        bob,
        group,
        "Back! Three chicks? On my way",
        &[alice, laptop, carol],
    )
    .await?;
    read(report, carol, bob, &said).await?;
    Ok(())
}

/// Lets Carol and Alice write in the group, and Alice to Bob. Returns the messages in this order.
async fn write_to_bob(stage: &Stage, report: &mut Report, group: ChatId) -> anyhow::Result<Vec<RequestId>> {
    let (alice, laptop, carol) = (&stage.alice, &stage.laptop, &stage.carol);
    let mut missed = Vec::new();
    for (index, text) in MISSED.into_iter().enumerate() {
        let said = match index % 2 {
            0 => say(report, carol, group, text, &[alice, laptop]).await?,
            _ => say(report, alice, group, text, &[carol, laptop]).await?,
        };
        missed.push(said.request);
    }
    for text in ["Call me when you are ashore", "Or write"] {
        let said = say(report, alice, stage.direct(), text, &[laptop]).await?;
        missed.push(said.request);
    }
    Ok(missed)
}

/// Connects Bob, and waits until he has all that he missed.
async fn come_back(stage: &mut Stage, report: &mut Report, missed: &[RequestId]) -> anyhow::Result<()> {
    let began = Instant::now();
    let took = stage.bob.connect().await?;
    report.note(&format!(
        "{} is ashore; connected and caught up after {}",
        report.name("Bob"),
        millis(took)
    ));
    for request in missed {
        let (at, entry) = stage.bob.hears(*request).await?;
        let latency = at.saturating_duration_since(began);
        report.delivered(latency);
        let text = entry.text().unwrap_or_default();
        report.note(&format!("{} → {text}", report.latency(latency)));
    }
    Ok(())
}

/// Checks that Bob's entries from index `before` on are the messages that he missed, and that those of each chat came
/// in order.
fn each_once_and_in_order(stage: &Stage, before: usize, missed: &[RequestId]) -> anyhow::Result<()> {
    let heard: Vec<_> = stage.bob.heard().entries[before..]
        .iter()
        .map(|(_, entry)| (entry.chat, entry.request))
        .collect();
    for chat in [stage.group()?, stage.direct()] {
        let got: Vec<_> = heard
            .iter()
            .filter(|(of, _)| *of == chat)
            .filter_map(|(_, request)| *request)
            .collect();
        let wanted: Vec<_> = missed
            .iter()
            .copied()
            .filter(|request| got.contains(request))
            .collect();
        anyhow::ensure!(got == wanted, "Bob heard {got:?} in place of {wanted:?}");
    }
    anyhow::ensure!(
        heard.len() == missed.len(),
        "Bob heard {} of {}",
        heard.len(),
        missed.len()
    );
    Ok(())
}
