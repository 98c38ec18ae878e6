//! Alice creates a group of three. Everybody gets it, and the writer sees who has read a message.

use std::time::Instant;

use tern_client::Mark;

use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::{read, say};

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice makes a group of all three");
    let began = Instant::now();
    let group = {
        let members = [stage.bob.user, stage.carol.user];
        stage
            .alice
            .client()?
            .create_group("Tern watchers", &members)
            .await?
    };
    stage.group = Some(group.id);
    anyhow::ensure!(
        group.member_count == 3,
        "the group has {} members",
        group.member_count
    );
    for phone in stage.phones() {
        let created = |heard: &crate::demo::phone::Heard| {
            heard
                .entries
                .iter()
                .find(|(_, entry)| entry.chat == group.id && entry.seq.0 == 1)
                .map(|(at, _)| *at)
        };
        let at = phone.until("hears that the group is made", created).await?;
        report.note(&report.dim(&format!(
            "{} has it after {}",
            phone.name,
            millis(at.saturating_duration_since(began))
        )));
    }
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    say(
        report,
        alice,
        group.id,
        "Welcome, watchers!",
        &[bob, carol, laptop],
    )
    .await?;
    say(report, bob, group.id, "Hello you two", &[alice, laptop, carol]).await?;
    let said = say(
        report,
        carol,
        group.id,
        "Forty-one pairs on the north beach!",
        &[alice, laptop, bob],
    )
    .await?;
    read(report, alice, carol, &said).await?;
    let bobs = carol
        .heard()
        .receipts
        .iter()
        .any(|(_, chat, user, mark)| *chat == group.id && *user == bob.user && mark.read >= said.seq);
    anyhow::ensure!(!bobs, "Bob has read nothing, but Carol was told so");
    report.note(&format!(
        "{} sees: read by Alice · delivered to Bob",
        report.name("Carol")
    ));
    read(report, bob, carol, &said).await?;
    let all = |mark: &Mark| mark.read >= said.seq;
    carol
        .receipts(
            "sees its message read by all",
            group.id,
            &[alice.user, bob.user],
            all,
        )
        .await?;
    report.checked("everybody has the same group, and Carol knows who has read her");
    Ok(())
}
