//! Alice edits a message, Bob and Carol react to it, and Carol deletes one. Every device shows the same, also one that
//! was away.

use std::time::Instant;

use anyhow::Context as _;
use tern_client::{Act, Message};
use tern_proto::v1::SendErrorCode;
use tern_types::{ChatId, Seq};

use crate::demo::phone::Phone;
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;
use crate::demo::talk::{Said, did, say};

/// The text of Alice's message after her edit.
const EDITED: &str = "Shall we meet at the pier at six?";

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Alice edits, Bob reacts, Carol deletes");
    let group = stage.group()?;
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    let text = "Shall we meet at the peer at six?";
    let said = say(report, alice, group, text, &[laptop, bob, carol]).await?;
    edit(stage, report, &said).await?;
    react(stage, report, &said).await?;
    delete(stage, report, group).await
}

/// Lets Alice edit and pin her message. Bob may not edit it.
async fn edit(stage: &Stage, report: &mut Report, said: &Said) -> anyhow::Result<()> {
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    let (chat, seq) = (said.chat, said.seq);
    let began = Instant::now();
    let request = alice.client()?.edit(chat, seq, EDITED).await?;
    let what = format!("edits it: {EDITED}");
    did(report, alice, (began, request), &what, &[laptop, bob, carol]).await?;
    let began = Instant::now();
    let request = alice.client()?.pin(chat, seq, false).await?;
    did(report, alice, (began, request), "pins it", &[laptop, bob, carol]).await?;
    for phone in stage.phones() {
        let message = shown(phone, chat, seq).await?;
        let text = message.entry.text().unwrap_or_default();
        let right = text == EDITED && message.edited_at.is_some() && message.pinned;
        anyhow::ensure!(right, "{} shows {message:?}", phone.name);
        let pinned = phone.client()?.pinned(chat).await?;
        anyhow::ensure!(pinned == [message], "{} has pinned {pinned:?}", phone.name);
    }
    let request = bob.client()?.edit(chat, seq, "At seven").await?;
    let code = bob.refused(request).await?;
    anyhow::ensure!(
        code == SendErrorCode::NotAllowed,
        "Bob's edit of Alice's message was answered {code:?}"
    );
    bob.client()?.discard(request).await?;
    report.checked("every device shows the new text as edited and pinned; Bob may not edit it");
    Ok(())
}

/// Lets Bob and Carol react to Alice's message, and Bob take his reaction back.
async fn react(stage: &Stage, report: &mut Report, said: &Said) -> anyhow::Result<()> {
    let (alice, laptop, bob, carol) = (&stage.alice, &stage.laptop, &stage.bob, &stage.carol);
    let (chat, seq) = (said.chat, said.seq);
    for (from, others, take_back, users) in [
        (bob, [alice, laptop, carol], false, vec![bob.user]),
        (carol, [alice, laptop, bob], false, vec![bob.user, carol.user]),
        (bob, [alice, laptop, carol], true, vec![carol.user]),
    ] {
        let began = Instant::now();
        let request = from.client()?.react(chat, seq, "👍", take_back).await?;
        let what = if take_back {
            "takes 👍 back"
        } else {
            "reacts 👍"
        };
        did(report, from, (began, request), what, &others).await?;
        for phone in stage.phones() {
            let message = shown(phone, chat, seq).await?;
            let reactions: Vec<_> = message.reactions.iter().map(|reaction| &reaction.users).collect();
            anyhow::ensure!(reactions == [&users], "{} shows {message:?}", phone.name);
        }
    }
    report.checked("every device counted 👍 once, twice, and once again");
    Ok(())
}

/// Lets Carol delete a message while Alice's laptop is away, which then gets the message without its content.
async fn delete(stage: &mut Stage, report: &mut Report, group: ChatId) -> anyhow::Result<()> {
    stage.laptop.disconnect().await?;
    let (alice, bob, carol) = (&stage.alice, &stage.bob, &stage.carol);
    let text = "My key lies under the mat";
    let said = say(report, carol, group, text, &[alice, bob]).await?;
    let (began, seq) = (Instant::now(), said.seq);
    let request = carol.client()?.delete(group, seq).await?;
    did(
        report,
        carol,
        (began, request),
        "deletes it for everyone",
        &[alice, bob],
    )
    .await?;

    let began = Instant::now();
    stage.laptop.connect().await?;
    for request in [said.request, request] {
        let (at, _) = stage.laptop.hears(request).await?;
        report.delivered(at.saturating_duration_since(began));
    }
    let (_, entry) = stage.laptop.hears(said.request).await?;
    anyhow::ensure!(
        entry.act() == Act::Erased,
        "the laptop got what was deleted: {entry:?}"
    );
    report.note(&format!(
        "{}'s laptop was away; it gets the message without its content after {}",
        report.name("Alice"),
        millis(began.elapsed())
    ));
    for phone in stage.phones() {
        let message = shown(phone, group, seq).await?;
        let by = message.deleted.and_then(|deletion| deletion.by);
        let right = by == Some(stage.carol.user) && message.entry.message().is_none();
        anyhow::ensure!(right, "{} shows {message:?}", phone.name);
    }
    report.checked("every device shows that Carol deleted it, and none has its text");
    Ok(())
}

/// Returns a message as a device shows it.
async fn shown(phone: &Phone, chat: ChatId, seq: Seq) -> anyhow::Result<Message> {
    let message = phone.client()?.message(chat, seq).await?;
    message.with_context(|| format!("{} does not have the message {seq}", phone.name))
}
