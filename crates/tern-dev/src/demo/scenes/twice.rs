//! A message is sent twice with the same request_id, as a client does when the first answer got lost. It is stored
//! once.

use tern_client::Outgoing;
use tern_client::backend::{sent, unary};

use crate::demo::report::Report;
use crate::demo::stage::Stage;
use crate::demo::talk::say;

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("A message is sent twice");
    let group = stage.group()?;
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    let text = "Who has a spare battery?";
    let first = say(report, alice, group, text, &[laptop, bob, carol]).await?;
    let again = Outgoing {
        request: first.request,
        ..Outgoing::new(group, text)
    };
    let second = sent(
        alice
            .client()?
            .api()
            .send_message(unary(again, String::new()))
            .await?,
    )?;
    anyhow::ensure!(
        second.seq == first.seq.0,
        "the second time it got the place {} after {}",
        second.seq,
        first.seq
    );
    report.note(&format!(
        "{} sends it again with the same request_id: it has its place already, {}",
        report.name("Alice"),
        first.seq
    ));
    // This message arrives after any copy would, so the checks below would see a copy.
    say(
        report,
        bob,
        group,
        "I do, and only one question, I hope",
        &[alice, laptop, carol],
    )
    .await?;
    for phone in stage.phones() {
        let shown = phone.texts(group).iter().filter(|shown| *shown == text).count();
        anyhow::ensure!(shown == 1, "{} shows it {shown} times", phone.name);
    }
    report.checked("every device shows it once");
    Ok(())
}
