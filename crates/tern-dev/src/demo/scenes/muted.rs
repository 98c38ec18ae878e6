//! Alice mutes the group on her phone. Her laptop mutes it too, and nobody else is told.

use std::time::Instant;

use tern_client::ChatSettingsChange;

use crate::demo::phone::Heard;
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice mutes the group");
    let group = stage.group()?;
    let (alice, laptop, bob) = (&stage.alice, &stage.laptop, &stage.bob);
    for (muted_until, what) in [(i64::MAX, "muted"), (0, "not muted any more")] {
        let change = ChatSettingsChange {
            muted_until: Some(muted_until),
            ..Default::default()
        };
        let began = Instant::now();
        alice.client()?.set_chat_settings(group, change).await?;
        let shows = |heard: &Heard| {
            let chat = heard.chats.get(&group)?;
            (chat.settings.muted_until_ms == muted_until).then(Instant::now)
        };
        let at = laptop.until(&format!("shows the group as {what}"), shows).await?;
        let took = millis(at.saturating_duration_since(began));
        report.note(&format!(
            "{}'s laptop shows the group as {what} after {took}",
            report.name("Alice")
        ));
        let others = bob
            .heard()
            .chats
            .get(&group)
            .map(|chat| chat.settings.muted_until_ms);
        anyhow::ensure!(
            others.is_none_or(|until| until == 0),
            "Bob has the group muted: {others:?}"
        );
    }
    report.checked("what Alice did on one device the other did too, and Bob's did not");
    Ok(())
}
