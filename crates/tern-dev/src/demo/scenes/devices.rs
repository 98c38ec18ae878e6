//! Alice has two devices. Each of them gets every entry, and messages that she reads on one are read on the other.

use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::say;

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice's second device keeps step");
    let group = stage.group()?;
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    say(
        report,
        laptop,
        group,
        "(from my laptop) I'll bring the telescope",
        &[alice, bob, carol],
    )
    .await?;
    let said = say(report, bob, group, "And I the thermos", &[alice, laptop, carol]).await?;
    laptop
        .until("counts an unread message", |heard| {
            heard.unread.get(&group).filter(|(count, _)| *count > 0).copied()
        })
        .await?;
    let began = std::time::Instant::now();
    alice.client()?.mark_read(group, said.seq).await?;
    let read = |heard: &crate::demo::phone::Heard| {
        heard
            .unread
            .get(&group)
            .filter(|(count, read)| *count == 0 && *read >= said.seq)
            .map(|_| std::time::Instant::now())
    };
    let at = laptop.until("has nothing unread any more", read).await?;
    report.note(&format!(
        "{} reads on her phone; her laptop shows nothing unread {} later",
        report.name("Alice"),
        millis(at.saturating_duration_since(began))
    ));
    for chat in [stage.direct(), group] {
        let (phone, other) = (alice.log(chat), laptop.log(chat));
        anyhow::ensure!(phone == other, "Alice's devices differ: {phone:?} and {other:?}");
    }
    report.checked("both devices have the same entries in the same order, in both chats");
    Ok(())
}
