//! Fills the store with old messages, so that the load has to find its place in tables and indexes that are larger
//! than Postgres's memory, or has messages beside it that are trimmed. They are written by SQL into chats that nobody is
//! a member of, so they do not take part in the load.

use anyhow::Context as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tern_types::Clock;

use super::target::Target;

/// The number of messages in each of these chats.
const MESSAGES_OF_A_CHAT: u64 = 1000;
/// The number of chats that one statement creates.
const CHATS_AT_ONCE: u64 = 20;

/// The statement that creates $1 chats with their heads and $2 messages each. Bodies are random bytes, $3 times 16 of
/// them, which are as long as sealed bodies and do not compress. The messages are $4 seconds old. If $5 is not 0, the
/// chats keep messages for so many seconds, and are to be trimmed in a day.
const FILL: &str = "
WITH c AS (
    SELECT gen_random_uuid() AS chat_id FROM generate_series(1, $1)
), chat AS (
    INSERT INTO chats (chat_id, kind, created_by, wrapped_key, retention_mode, keep_s, trim_at)
    SELECT chat_id, 1, chat_id, '', CASE WHEN $5::int4 > 0 THEN 2 ELSE 0 END, $5,
           CASE WHEN $5 > 0 THEN now() + interval '1 day' END
    FROM c
), head AS (
    INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) SELECT chat_id, $2, $2 FROM c
)
INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
SELECT chat_id, seq, seq, 1, chat_id, chat_id, gen_random_uuid(), uuid_send(gen_random_uuid()),
       (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, $3 + 0 * seq)),
       now() - make_interval(secs => $4::float8)
FROM c, generate_series(1, $2) AS seq";

/// The chats that are made.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The age of the messages in seconds.
    pub age_s: f64,
    /// The seconds for which the chats keep messages; 0: forever.
    pub keep_s: i32,
}

/// Adds at least `messages` messages, then makes Postgres write everything to disk. `body` is the size of a body before
/// it is sealed, in bytes; the stored bodies are 32 to 47 bytes longer. Fails if the target has no database URL.
#[allow(clippy::print_stderr, reason = "it takes a while, and a person waits")]
pub async fn fill(target: &Target, messages: u64, body: u32, kind: Kind) -> anyhow::Result<()> {
    let url = target
        .database_url
        .as_ref()
        .context("filling the store needs --database-url")?;
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
            .bind(kind.age_s)
            .bind(kind.keep_s)
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
