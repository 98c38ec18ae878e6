//! Tests of the schema on a real Postgres: new stores, the cells' tables as partitions, and the move from version 0.1.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tern_local::{Shared, until};
use tern_store::postgres::{self, PostgresArgs};
use tern_store::schema::{self, TABLES_OF_0_1, Wanted};
use tern_types::{Cells, ChatId, Slot, UserId};
use uuid::Uuid;

/// The migrations of version 0.1, as they were.
const VERSION_0_1: [&str; 10] = [
    include_str!("version_0_1/0001_spine.sql"),
    include_str!("version_0_1/0002_presence.sql"),
    include_str!("version_0_1/0003_media.sql"),
    include_str!("version_0_1/0010_suspension.sql"),
    include_str!("version_0_1/0020_statistics.sql"),
    include_str!("version_0_1/0021_pictures.sql"),
    include_str!("version_0_1/0034_stream_numbers.sql"),
    include_str!("version_0_1/0038_own_unread.sql"),
    include_str!("version_0_1/0040_revoked.sql"),
    include_str!("version_0_1/0042_met_strangers.sql"),
];

struct Store {
    args: PostgresArgs,
    url: String,
    servers: Shared,
}

impl Store {
    async fn new() -> Self {
        let servers = Shared::get().await.unwrap();
        let url = servers.database().await.unwrap();
        let args = PostgresArgs::from_url(&url).unwrap();
        Self { args, url, servers }
    }

    /// Makes a store of version 0.1 with `chats` chats, each with some messages and rows in every table.
    async fn of_version_0_1(chats: i64, messages: i64) -> Self {
        let store = Self::new().await;
        let mut db = store.connect().await;
        for migration in VERSION_0_1 {
            db.execute(migration).await.unwrap();
        }
        db.execute(
            "CREATE TABLE _sqlx_migrations (version int8 PRIMARY KEY, success boolean NOT NULL);
             INSERT INTO _sqlx_migrations VALUES (42, true);
             SELECT setval('stream_numbers', 700);
             INSERT INTO users (user_id, external_id, display_name) VALUES (gen_random_uuid(), 'alice', 'Alice');
             INSERT INTO devices (device_id, user_id, display_name, platform, request_id, active)
                 SELECT gen_random_uuid(), user_id, 'phone', 'ios', gen_random_uuid(), true FROM users",
        )
        .await
        .unwrap();
        let fill = format!(
            "CREATE TEMPORARY TABLE c AS SELECT gen_random_uuid() AS chat_id FROM generate_series(1, {chats});
             INSERT INTO chats (chat_id, kind, created_by, wrapped_key, picture)
                 SELECT chat_id, 1, chat_id, 'key', chat_id FROM c;
             INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) SELECT chat_id, {messages}, 7 FROM c;
             INSERT INTO members (chat_id, user_id, joined_seq, role, devices, own_unread)
                 SELECT chat_id, user_id, 1, 2, ARRAY[user_id], 3 FROM c, users;
             INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint,
                                   body, sent_at)
                 SELECT chat_id, seq, seq, 1, chat_id, chat_id, gen_random_uuid(), 'f', 'a message of 0.1', now()
                 FROM c, generate_series(1, {messages}) AS seq;
             INSERT INTO unsettled (chat_id, from_seq, slot) SELECT chat_id, 2, 1 FROM c;
             INSERT INTO inbox (chat_id, device_id, user_id, from_seq) SELECT chat_id, chat_id, chat_id, 2 FROM c;
             INSERT INTO media_refs (chat_id, media_id, seq) SELECT chat_id, chat_id, 1 FROM c"
        );
        db.execute(AssertSqlSafe(fill)).await.unwrap();
        db.close().await.unwrap();
        store
    }

    async fn migrate(&self, cells: Option<Cells>) -> anyhow::Result<()> {
        let citus = self.servers.is_citus();
        schema::migrate(&self.args, Wanted { cells, citus }).await
    }

    async fn moves_tables(&self) -> bool {
        let plain = Wanted::default();
        schema::moves_tables(&self.args, plain).await.unwrap()
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    async fn pool(&self) -> PgPool {
        postgres::pool(&self.args).await.unwrap()
    }
}

/// Returns a hash of all rows of a table, whatever their order.
async fn contents(db: &mut PgConnection, table: &str, columns: &str) -> i64 {
    let select = format!("SELECT coalesce(sum(hashtext(({columns})::text)::int8), 0)::int8 FROM {table}");
    sqlx::query_scalar(AssertSqlSafe(select))
        .fetch_one(db)
        .await
        .unwrap()
}

/// Returns the columns of a cell's table whose values a move keeps.
fn kept(table: &str) -> &'static str {
    match table {
        "chats" => "chat_id, kind, created_by, wrapped_key, created_at, picture",
        "chat_heads" => "chat_id, head_seq, head_ordinal",
        "members" => "chat_id, user_id, joined_seq, role, devices, read_seq, own_unread",
        "messages" => "chat_id, seq, ordinal, kind, sender_user, request_id, fingerprint, body, sent_at",
        "unsettled" => "chat_id, from_seq, committed_at",
        "inbox" => "chat_id, device_id, user_id, from_seq, since",
        _ => "chat_id, media_id, seq",
    }
}

#[tokio::test]
async fn the_number_of_cells_is_chosen_once() {
    let store = Store::new().await;
    let eight = Cells::new(8);
    store.migrate(eight).await.unwrap();
    let pool = store.pool().await;
    assert_eq!(Some(schema::require(&pool).await.unwrap()), eight);
    for again in [None, eight] {
        store.migrate(again).await.unwrap();
    }
    let refused = store.migrate(Cells::new(4)).await.unwrap_err();
    assert!(refused.to_string().contains("has 8 cells"), "{refused:#}");
    assert_eq!(Some(schema::require(&pool).await.unwrap()), eight);
}

/// Whoever wants a cluster and has none is told what is missing, and nothing is made. The store can be made without one.
#[tokio::test]
async fn a_single_postgres_is_no_cluster() {
    let store = Store::new().await;
    if store.servers.is_citus() {
        return;
    }
    let wanted = Wanted {
        cells: None,
        citus: true,
    };
    let refused = schema::migrate(&store.args, wanted).await.unwrap_err();
    assert!(refused.to_string().contains("the extension citus"), "{refused:#}");
    let pool = store.pool().await;
    let made: bool = sqlx::query_scalar("SELECT to_regnamespace('tern') IS NOT NULL")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(!made, "nothing is written");
    store.migrate(None).await.unwrap();
    schema::require(&pool).await.unwrap();
}

/// A table of another app that has the name of one of Tern's is an error, and stays as it is.
#[tokio::test]
#[ignore = "needs Citus: scripts/check-citus runs it"]
async fn a_table_of_somebody_else_is_left_alone() {
    let store = Store::new().await;
    let mut db = store.connect().await;
    db.execute("CREATE TABLE public.chats AS SELECT 7 AS number")
        .await
        .unwrap();
    let refused = store.migrate(None).await.unwrap_err();
    assert!(refused.to_string().contains("the view chats"), "{refused:#}");
    let number: i32 = sqlx::query_scalar("SELECT number FROM public.chats")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(number, 7);
}

/// The rows of a store that was on a plain Postgres are copied to where its schemas are placed.
#[tokio::test]
#[ignore = "needs Citus: scripts/check-citus runs it"]
async fn a_store_of_one_postgres_is_placed_on_a_cluster() {
    let store = Store::new().await;
    schema::migrate(&store.args, Wanted::default()).await.unwrap();
    let mut db = store.connect().await;
    db.execute(
        "INSERT INTO people.users (user_id, external_id, display_name) VALUES (gen_random_uuid(), 'alice', 'Alice');
         INSERT INTO public.chat_heads SELECT gen_random_uuid(), number, 0 FROM generate_series(1, 100) AS number",
    )
    .await
    .unwrap();
    let (columns, people) = (kept("chat_heads"), "user_id, external_id");
    let before = (
        contents(&mut db, "public.chat_heads", columns).await,
        contents(&mut db, "people.users", people).await,
    );
    let (cells, citus) = (None, true);
    let used = store.pool().await;
    used.execute("SELECT 1").await.unwrap();
    let refused = schema::migrate(&store.args, Wanted { cells, citus })
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("stop all nodes"), "{refused:#}");
    used.close().await;
    assert!(
        schema::moves_tables(&store.args, Wanted { cells, citus })
            .await
            .unwrap()
    );
    // Postgres ends the connection a moment later.
    until::some("the store is placed", Duration::from_secs(60), || {
        schema::migrate(&store.args, Wanted { cells, citus })
    })
    .await
    .unwrap();
    let after = (
        contents(&mut db, "public.chat_heads", columns).await,
        contents(&mut db, "people.users", people).await,
    );
    assert_eq!(after, before);
    assert!(
        !schema::moves_tables(&store.args, Wanted { cells, citus })
            .await
            .unwrap()
    );
    // It stays there, whoever migrates.
    schema::migrate(&store.args, Wanted::default()).await.unwrap();
    let placed: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_dist_schema")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(placed, 5, "people and four cells");
    schema::require(&store.pool().await).await.unwrap();
}

/// Whoever cannot attach a cell's table is told whether its rows are the reason.
#[tokio::test]
async fn a_table_that_cannot_be_a_partition_is_named_with_the_reason() {
    let store = Store::new().await;
    if store.servers.is_citus() {
        return;
    }
    store.migrate(None).await.unwrap();
    let mut db = store.connect().await;
    let detach = "ALTER TABLE public.chat_heads DETACH PARTITION cell_01.chat_heads;";
    for (change, undo, reason) in [
        (
            "ALTER TABLE cell_01.chat_heads ADD COLUMN other int",
            "ALTER TABLE cell_01.chat_heads DROP COLUMN other",
            "cell_01.chat_heads cannot be attached",
        ),
        (
            "INSERT INTO cell_01.chat_heads SELECT gen_random_uuid(), 0, 0 FROM generate_series(1, 100)",
            "DELETE FROM cell_01.chat_heads",
            "cell_01.chat_heads has rows of another cell",
        ),
    ] {
        db.execute(AssertSqlSafe(format!("{detach}{change}")))
            .await
            .unwrap();
        let refused = store.migrate(None).await.unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused:#}");
        db.execute(undo).await.unwrap();
        store.migrate(None).await.unwrap();
    }
}

/// The slot, and with it the cell, follows from the hash by which Postgres finds the partition.
#[tokio::test]
async fn a_chat_is_in_the_cell_of_its_slot() {
    let store = Store::new().await;
    let cells = Cells::new(16).unwrap();
    store.migrate(Some(cells)).await.unwrap();
    let pool = store.pool().await;
    for _ in 0..300 {
        let chat = ChatId::own(UserId::random());
        let slot = i32::from(Slot::of_chat(chat).number());
        let (schema, is_slot): (String, bool) = sqlx::query_as(
            "WITH new AS (INSERT INTO public.chat_heads VALUES ($1, 0, 0) RETURNING tableoid)
             SELECT relnamespace::regnamespace::text,
                    satisfies_hash_partition('public.chat_heads'::regclass, 4096, $2, $1)
             FROM new JOIN pg_class ON pg_class.oid = new.tableoid",
        )
        .bind(chat.0)
        .bind(slot)
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!((schema, is_slot), (cells.of_chat(chat).schema(), true), "{chat}");
    }
}

/// An entry that is deleted, by whatever name of its table, ends what it refers to.
#[tokio::test]
async fn references_end_with_their_entry() {
    let store = Store::new().await;
    store.migrate(None).await.unwrap();
    let pool = store.pool().await;
    for sql in [
        "DELETE FROM LEAF.messages WHERE chat_id = $1",
        "UPDATE LEAF.messages SET body = '' WHERE chat_id = $1",
        "DELETE FROM public.messages WHERE chat_id = $1",
        "UPDATE public.messages SET body = '' WHERE chat_id = $1",
    ] {
        let chat = Uuid::new_v4();
        let leaf = Cells::DEFAULT.of_chat(ChatId(chat)).schema();
        if store.servers.is_citus() && sql.contains("public.") {
            // There it is a view.
            continue;
        }
        for insert in [
            "INSERT INTO LEAF.messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint,
                                        body, sent_at)
             VALUES ($1, 1, 1, 1, $1, $1, $1, '', 'x', now())",
            "INSERT INTO LEAF.media_refs (chat_id, media_id, seq) VALUES ($1, $1, 1)",
            sql,
        ] {
            let sql = AssertSqlSafe(insert.replace("LEAF", &leaf));
            sqlx::query(sql).bind(chat).execute(&pool).await.unwrap();
        }
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM media_refs")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(left, 0, "{sql}");
    }
}

#[tokio::test]
async fn the_rows_of_version_0_1_are_moved_into_the_cells() {
    for count in [4, 32] {
        let store = Store::of_version_0_1(400, 5).await;
        let mut db = store.connect().await;
        let epoch: Uuid = sqlx::query_scalar("SELECT epoch FROM store")
            .fetch_one(&mut db)
            .await
            .unwrap();
        let mut before = Vec::new();
        for &table in TABLES_OF_0_1 {
            before.push(contents(&mut db, &format!("public.{table}"), kept(table)).await);
        }
        assert!(store.moves_tables().await);
        store.migrate(Cells::new(count)).await.unwrap();
        assert!(!store.moves_tables().await);
        for (&table, before) in TABLES_OF_0_1.iter().zip(before) {
            let after = contents(&mut db, &format!("public.{table}"), kept(table)).await;
            assert_eq!(after, before, "{table} in {count} cells");
        }
        let pool = store.pool().await;
        assert_eq!(schema::require(&pool).await.unwrap().count(), count);
        let opened: (Uuid, i64) = sqlx::query_as("SELECT epoch, nextval('stream_numbers') FROM store")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(opened, (epoch, 701));
        let device: (String, bool) =
            sqlx::query_as("SELECT external_id, active FROM users JOIN devices USING (user_id)")
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!(device, ("alice".to_owned(), true));
        let slots: Vec<(Uuid, i16)> = sqlx::query_as("SELECT chat_id, slot FROM unsettled")
            .fetch_all(&pool)
            .await
            .unwrap();
        assert_eq!(slots.len(), 400);
        for (chat, slot) in slots {
            assert_eq!(i32::from(slot), i32::from(Slot::of_chat(ChatId(chat)).number()));
        }
    }
}

/// Two migrations run one after the other, also if the database has a `lock_timeout`, as that of a store on Citus has.
#[tokio::test]
async fn a_migration_waits_for_another_however_long_that_takes() {
    let store = Store::new().await;
    if store.servers.is_citus() {
        // There the cluster's own connections would have it too.
        return;
    }
    let mut other = store.connect().await;
    other
        .execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 1', current_database()); END $$;
             SELECT pg_advisory_lock(hashtextextended('tern migrate', 0))",
        )
        .await
        .unwrap();
    let pool = store.pool().await;
    let migrates = store.migrate(None);
    let waits = async {
        until::holds("the migration waits", Duration::from_secs(30), || async {
            let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                             AND application_name = 'tern migrate' AND wait_event_type = 'Lock')";
            Ok(sqlx::query_scalar(waits).fetch_one(&pool).await?)
        })
        .await
        .unwrap();
        other.close().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(migrates, waits);
    migrated.unwrap();
    schema::require(&pool).await.unwrap();
}

/// A move that fails in one cell leaves the store to nobody, and goes on when it is run again.
#[tokio::test]
async fn a_move_that_was_interrupted_goes_on() {
    let store = Store::of_version_0_1(100, 2).await;
    let mut db = store.connect().await;
    let before = contents(&mut db, "public.messages", kept("messages")).await;
    // Nothing can be made in this schema, because the names are taken.
    db.execute("CREATE SCHEMA cell_02; CREATE TABLE cell_02.chats ()")
        .await
        .unwrap();
    let failed = store.migrate(None).await.unwrap_err();
    assert!(failed.to_string().contains("cell_02"), "{failed:#}");
    let pool = store.pool().await;
    let refused = schema::require(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("tern migrate"), "{refused:#}");
    let moved: Vec<i16> = sqlx::query_scalar("SELECT cell FROM tern_0_1.moved ORDER BY cell")
        .fetch_all(&mut db)
        .await
        .unwrap();
    assert_eq!(moved, [0, 1, 3], "the other cells are done");
    db.execute("DROP TABLE cell_02.chats").await.unwrap();
    store.migrate(None).await.unwrap();
    schema::require(&pool).await.unwrap();
    assert_eq!(
        contents(&mut db, "public.messages", kept("messages")).await,
        before
    );
}

#[tokio::test]
async fn a_store_of_version_0_1_is_not_moved_while_a_node_uses_it() {
    let store = Store::of_version_0_1(1, 1).await;
    let pool = store.pool().await;
    pool.execute("SELECT 1").await.unwrap();
    let refused = store.migrate(None).await.unwrap_err();
    assert!(refused.to_string().contains("stop all nodes"), "{refused:#}");
    assert!(store.moves_tables().await);
    pool.close().await;
    // Postgres ends the connection a moment later.
    until::some("the store is moved", Duration::from_secs(60), || {
        store.migrate(None)
    })
    .await
    .unwrap();
}

/// With `--no-capture` it prints how long the move took.
#[tokio::test]
async fn a_million_messages_are_moved() {
    let store = Store::of_version_0_1(10_000, 100).await;
    let began = Instant::now();
    store.migrate(None).await.unwrap();
    let took = began.elapsed();
    let pool = store.pool().await;
    let mut messages = 0;
    for cell in Cells::DEFAULT.all() {
        let count = format!("SELECT count(*) FROM {}.messages", cell.schema());
        let counted = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count)).fetch_one(&pool);
        messages += counted.await.unwrap();
    }
    assert_eq!(messages, 1_000_000);
    println!("a million messages were moved in {took:.1?}");
}
