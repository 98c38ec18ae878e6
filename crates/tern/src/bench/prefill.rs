//! Fills the store with the past, so that the present has to find its place in tables and indexes that are larger than
//! Postgres's memory. Written by SQL into chats of nobody's: what is measured afterwards is not helped by it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tern_types::Clock;

use super::target::Target;

/// Messages of each chat of the past.
const MESSAGES_OF_A_CHAT: u64 = 1000;
/// Chats of one statement.
const CHATS_AT_ONCE: u64 = 20;

/// Chats with their heads and messages; bodies as long as sealed ones, and as incompressible.
const FILL: &str = "
WITH c AS (
    SELECT gen_random_uuid() AS chat_id FROM generate_series(1, $1)
), chat AS (
    INSERT INTO chats (chat_id, kind, created_by, wrapped_key) SELECT chat_id, 1, chat_id, '' FROM c
), head AS (
    INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) SELECT chat_id, $2, $2 FROM c
)
INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
SELECT chat_id, seq, seq, 1, chat_id, chat_id, gen_random_uuid(), uuid_send(gen_random_uuid()),
       (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, $3 + 0 * seq)), now()
FROM c, generate_series(1, $2) AS seq";

/// Puts at least `messages` there, then has Postgres write everything out.
#[allow(clippy::print_stderr, reason = "it takes a while, and a person waits")]
pub async fn fill(target: &Target, messages: u64, body: u32) -> anyhow::Result<()> {
    let url = target
        .database_url
        .as_ref()
        .context("--prefill needs --database-url")?;
    let began = Clock::monotonic();
    let mut db = PgConnection::connect(url).await?;
    let chats = messages.div_ceil(MESSAGES_OF_A_CHAT);
    let mut left = chats;
    while left > 0 {
        let some = left.min(CHATS_AT_ONCE);
        sqlx::query(FILL)
            .bind(i64::try_from(some)?)
            .bind(i64::try_from(MESSAGES_OF_A_CHAT)?)
            .bind(i32::try_from(body.div_ceil(16) + 2)?)
            .execute(&mut db)
            .await?;
        left -= some;
    }
    db.execute("CHECKPOINT").await?;
    db.execute("ANALYZE").await?;
    let size: String = sqlx::query_scalar("SELECT pg_size_pretty(pg_database_size(current_database()))")
        .fetch_one(&mut db)
        .await?;
    db.close().await?;
    eprintln!(
        "filled with {} messages in {chats} chats, {size}, in {:.0} s",
        chats * MESSAGES_OF_A_CHAT,
        Clock::monotonic().since(began).as_secs_f64()
    );
    Ok(())
}

/// Has the machine forget what it holds of a directory's files, after Postgres has written them out and ended.
pub fn evict(dir: &Path) -> anyhow::Result<()> {
    nix::unistd::sync();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                posix_fadvise(
                    File::open(entry.path())?,
                    0,
                    0,
                    PosixFadviseAdvice::POSIX_FADV_DONTNEED,
                )?;
            }
        }
    }
    Ok(())
}
