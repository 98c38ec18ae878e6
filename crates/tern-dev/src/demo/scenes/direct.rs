//! Two people write to each other for the first time; no chat has to be created before. Ticks go from sent to
//! delivered to read.

use anyhow::Context as _;

use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::{read, say};

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice writes to Bob");
    for phone in [
        &mut stage.alice,
        &mut stage.laptop,
        &mut stage.bob,
        &mut stage.carol,
    ] {
        let took = phone
            .connect()
            .await
            .with_context(|| format!("{} could not connect", phone.name))?;
        let gateway = phone.gateway(&stage.gateways);
        let line = format!("{} is on {gateway} after {}", phone.name, millis(took));
        report.note(&report.dim(&line));
    }
    let (alice, laptop, bob) = (&stage.alice, &stage.laptop, &stage.bob);
    anyhow::ensure!(
        alice.gateway(&stage.gateways) != bob.gateway(&stage.gateways),
        "Alice and Bob should be on different gateways"
    );
    let first = say(
        report,
        alice,
        bob.user,
        "Hi Bob! Have you seen the terns at the pier?",
        &[bob, laptop],
    )
    .await?;
    anyhow::ensure!(
        first.chat == stage.direct(),
        "the chat of two people has another id than theirs"
    );
    read(report, bob, alice, &first).await?;
    say(
        report,
        bob,
        alice.user,
        "Hi Alice! All of them. And you?",
        &[alice, laptop],
    )
    .await?;
    let last = say(
        report,
        alice,
        first.chat,
        "Since this morning. Coffee?",
        &[bob, laptop],
    )
    .await?;
    read(report, bob, alice, &last).await?;
    report.checked("ticks went from ✓ sent to ✓✓ delivered to ✓✓ read, across two gateways");
    Ok(())
}
