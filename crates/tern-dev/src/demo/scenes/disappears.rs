//! Messages of Alice and Bob disappear after 5 s: from each of their devices, and from the server's store.

use std::time::Instant;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};
use tern_local::until;
use tern_proto::v1::Retention;
use tern_types::{ChatId, Seq};
use tokio::sync::Mutex;

use crate::demo::phone::{BOUND, Phone};
use crate::demo::report::Report;
use crate::demo::stage::Stage;
use crate::demo::talk::say;

/// The time after which messages disappear, in seconds. It is the shortest one that the server takes.
const AFTER: u32 = 5;
/// The statement that says whether nothing is left of the content of message $2 of chat $1.
const IS_BLANK: &str = "SELECT octet_length(body) = 0 FROM messages WHERE chat_id = $1 AND seq = $2";

/// Plays the scene. Returns the error of the first step that did not happen.
pub async fn play(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.scene("A message disappears");
    let chat = stage.direct();
    let (alice, laptop, bob) = (&stage.alice, &stage.laptop, &stage.bob);
    disappear(alice, chat, AFTER).await?;
    report.note(&format!(
        "{}: messages disappear here after {AFTER} s",
        report.name("Alice")
    ));
    let said = say(
        report,
        alice,
        chat,
        "The nest is behind the third dune",
        &[bob, laptop],
    )
    .await?;
    let began = Instant::now();
    for phone in [alice, laptop, bob] {
        until::some("the message is gone", BOUND, || gone(phone, chat, said.seq))
            .await
            .with_context(|| phone.name)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    report.note(&report.dim(&format!("gone from all three devices after {seconds:.1} s")));
    let db = Mutex::new(PgConnection::connect(stage.platform.database_url()).await?);
    until::some("the message is erased", BOUND, || erased(&db, chat, said.seq)).await?;
    db.into_inner().close().await?;
    disappear(alice, chat, 0).await?;
    report.checked("no device has the message any more, nor has Postgres anything of what it said");
    Ok(())
}

/// Lets messages of a chat disappear after this many seconds; 0 is never.
async fn disappear(who: &Phone, chat: ChatId, disappear_after_s: u32) -> anyhow::Result<()> {
    let retention = Retention {
        disappear_after_s,
        ..Default::default()
    };
    who.client()?.set_retention(chat, retention).await?;
    Ok(())
}

/// Fails while a device has the content of a message.
async fn gone(phone: &Phone, chat: ChatId, seq: Seq) -> anyhow::Result<()> {
    let message = phone.client()?.message(chat, seq).await?;
    let text = message.and_then(|message| message.entry.text().map(std::borrow::Cow::into_owned));
    anyhow::ensure!(text.is_none(), "it still says {text:?}");
    Ok(())
}

/// Fails while the server's store has the content of a message. The entry itself stays, with its seq.
async fn erased(db: &Mutex<PgConnection>, chat: ChatId, seq: Seq) -> anyhow::Result<()> {
    let blank: Option<bool> = sqlx::query_scalar(IS_BLANK)
        .bind(chat.0)
        .bind(seq.to_i64())
        .fetch_optional(&mut *db.lock().await)
        .await?;
    match blank {
        Some(true) => Ok(()),
        Some(false) => anyhow::bail!("Postgres still has it"),
        None => anyhow::bail!("Postgres has no such entry"),
    }
}
