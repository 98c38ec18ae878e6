//! A picture is encrypted on Bob's device, put into the object store by a signed URL, and read by Alice. She forwards
//! it to Carol, who reads the same object.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use tern_client::{Attachment, Entry, Progress};
use tern_types::UserId;

use crate::demo::phone::Phone;
use crate::demo::report::{Report, millis};
use crate::demo::stage::Stage;

/// The size of the picture in bytes. It is a little more than 16 MiB, so that the picture has two parts.
const PICTURE: usize = (16 << 20) + 300_000;

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("Bob sends Alice a picture, Carol gets it forwarded");
    let s3 = stage.platform.s3().context("the platform has no object store")?;
    let dir = stage.platform.dir().join("pictures");
    std::fs::create_dir_all(&dir)?;
    let (original, before) = (dir.join("terns.png"), s3.objects()?);
    std::fs::write(&original, noise(PICTURE))?;
    let (alice, bob, carol) = (&stage.alice, &stage.bob, &stage.carol);

    let began = Instant::now();
    let silent = |_: Progress| {};
    let uploaded = bob.client()?.upload(&original, "image/png", &silent).await?;
    let line = format!(
        "encrypted and uploaded in two parts in {}",
        millis(began.elapsed())
    );
    report.note(&format!("{}: {}", report.name("Bob"), report.dim(&line)));
    let entry = send(report, bob, alice, uploaded).await?;
    save(report, alice, &entry, &original, &dir).await?;

    let file = entry.attached().and_then(|body| body.files.into_iter().next());
    let file = file.context("the message has no file")?;
    let forwarded = alice.client()?.forward(entry.chat, file).await?;
    let entry = send(report, alice, carol, forwarded).await?;
    save(report, carol, &entry, &original, &dir).await?;

    let stored = s3.objects()? - before;
    anyhow::ensure!(stored == 1, "the store holds {stored} objects of one picture");
    report.checked("both have it byte for byte, and the store holds one object, which it cannot read");
    Ok(())
}

/// Sends the picture and returns the entry that the recipient gets.
async fn send(report: &mut Report, from: &Phone, to: &Phone, picture: Attachment) -> anyhow::Result<Entry> {
    let (began, peer): (_, UserId) = (Instant::now(), to.user);
    let request = from.client()?.send_files(peer, "", vec![picture]).await?;
    report.sent();
    let (at, entry) = to.hears(request).await?;
    let latency = at.saturating_duration_since(began);
    report.delivered(latency);
    let arrival = format!("{} {}", to.name, millis(latency));
    report.message(from.name, "[terns.png · 17.1 MB]", "", &arrival);
    Ok(entry)
}

/// Downloads the picture and compares it with the original.
async fn save(
    report: &Report,
    who: &Phone,
    entry: &Entry,
    original: &Path,
    dir: &Path,
) -> anyhow::Result<()> {
    let body = entry.attached().context("the message has no file")?;
    let file = body.files.first().context("the message has no file")?;
    let to = dir.join(format!("terns of {}.png", who.name));
    let began = Instant::now();
    let silent = |_: Progress| {};
    who.client()?.download(entry.chat, file, &to, &silent).await?;
    let same = std::fs::read(&to)? == std::fs::read(original)?;
    anyhow::ensure!(same, "{} has got another picture", who.name);
    let line = format!("downloaded and decrypted in {}", millis(began.elapsed()));
    report.note(&format!("{}: {}", report.name(who.name), report.dim(&line)));
    Ok(())
}

/// Returns this many random bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes[..]);
    bytes
}
