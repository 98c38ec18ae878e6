//! Alice creates a group of three. Everybody gets it, and the writer sees who has read a message.

use std::time::Instant;

use tern_client::Mark;
use tern_types::ChatId;

use crate::demo::phone::Heard;
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::{Said, read, say};

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice makes a group of all three");
    let group = create(stage, report).await?;
    stage.group = Some(group);
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    say(report, alice, group, "Welcome, watchers!", &[bob, carol, laptop]).await?;
    say(report, bob, group, "Hello you two", &[alice, laptop, carol]).await?;
    let said = say(
        report,
        carol,
        group,
        "Forty-one pairs on the north beach!",
        &[alice, laptop, bob],
    )
    .await?;
    all_read(stage, report, &said).await?;
    report.checked("everybody has the same group, and Carol knows who has read her");
    Ok(())
}

/// Lets Alice create the group, and waits until every device has it.
async fn create(stage: &Stage, report: &mut Report) -> anyhow::Result<ChatId> {
    let began = Instant::now();
    let members = [stage.bob.user, stage.carol.user];
    let alice = stage.alice.client()?;
    let group = alice.create_group("Tern watchers", &members).await?;
    anyhow::ensure!(
        group.member_count == 3,
        "the group has {} members",
        group.member_count
    );
    for phone in stage.phones() {
        let created = |heard: &Heard| {
            let mut entries = heard.entries.iter();
            let first = entries.find(|(_, entry)| entry.chat == group.id && entry.seq.0 == 1);
            first.map(|(at, _)| *at)
        };
        let at = phone.until("hears that the group is made", created).await?;
        report.note(&report.dim(&format!(
            "{} has it after {}",
            phone.name,
            millis(at.saturating_duration_since(began))
        )));
    }
    Ok(group.id)
}

/// Lets Alice and then Bob read Carol's message. Checks that Carol sees that Alice has read it while Bob has not, and
/// then that both have.
async fn all_read(stage: &Stage, report: &mut Report, said: &Said) -> anyhow::Result<()> {
    let (alice, bob, carol) = (&stage.alice, &stage.bob, &stage.carol);
    read(report, alice, carol, said).await?;
    let bobs = carol
        .heard()
        .receipts
        .iter()
        .any(|(_, chat, user, mark)| *chat == said.chat && *user == bob.user && mark.read >= said.seq);
    anyhow::ensure!(!bobs, "Bob has read nothing, but Carol was told so");
    report.note(&format!(
        "{} sees: read by Alice · delivered to Bob",
        report.name("Carol")
    ));
    read(report, bob, carol, said).await?;
    let all = |mark: &Mark| mark.read >= said.seq;
    let readers = [alice.user, bob.user];
    carol
        .receipts("sees its message read by all", said.chat, &readers, all)
        .await?;
    Ok(())
}
