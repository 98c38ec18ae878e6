//! Messages of Alice and Bob disappear after 5 s: from each of their devices, and from the server's store.

use std::time::Instant;

use sqlx::{Connection as _, PgConnection};
use tern_local::until;
use tern_proto::v1::Retention;
use tern_types::{ChatId, Seq};
use tokio::sync::Mutex;

use crate::demo::phone::{BOUND, Heard, Phone};
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
    let phones = [alice, laptop, bob];
    disappear(phones, chat, AFTER).await?;
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
    for phone in phones {
        gone(phone, chat, said.seq).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    report.note(&report.dim(&format!("gone from all three devices after {seconds:.1} s")));
    let db = Mutex::new(PgConnection::connect(stage.platform.database_url()).await?);
    until::some("the message is erased", BOUND, || erased(&db, chat, said.seq)).await?;
    db.into_inner().close().await?;
    disappear(phones, chat, 0).await?;
    report.checked("no device has the message any more, nor has Postgres anything of what it said");
    Ok(())
}

/// Lets Alice set after how many seconds messages of the chat disappear, 0 being never, and waits until all know it.
async fn disappear(phones: [&Phone; 3], chat: ChatId, disappear_after_s: u32) -> anyhow::Result<()> {
    let retention = Retention {
        disappear_after_s,
        ..Default::default()
    };
    phones[0].client()?.set_retention(chat, retention).await?;
    for phone in phones {
        let knows = |heard: &Heard| {
            let chat = heard.chats.get(&chat)?;
            (chat.retention == retention).then_some(())
        };
        phone.until("knows when messages disappear", knows).await?;
    }
    Ok(())
}

/// Waits until a message is gone from a device, and checks that nothing of it is left there.
async fn gone(phone: &Phone, chat: ChatId, seq: Seq) -> anyhow::Result<()> {
    let is_gone = |heard: &Heard| heard.gone.contains(&(chat, seq)).then_some(());
    phone.until("lets the message disappear", is_gone).await?;
    let message = phone.client()?.message(chat, seq).await?;
    anyhow::ensure!(message.is_none(), "{} still has {message:?}", phone.name);
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
