//! Moves the tables of version 0.1, which were all in the schema `public`, to where this version has them. Tables of
//! people change their schema, which takes a moment. The rows of chats are copied into the cells, a transaction for each
//! cell. A move that was interrupted goes on where it stopped.

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tern_types::{Cell, Cells};

use super::TABLES_OF_0_1;

/// The last migration of version 0.1.
const LAST: i64 = 42;
/// The number of partitions that each table about chats had.
const PARTITIONS: u16 = 16;

/// The tables about people.
const PEOPLE_TABLES: [&str; 13] = [
    "users",
    "devices",
    "api_keys",
    "blocks",
    "contacts",
    "watched_strangers",
    "met_strangers",
    "last_seen",
    "media",
    "media_uploaders",
    "uploads",
    "media_usage",
    "user_pictures",
];

/// Returns whether the store is of version 0.1, and no move has begun.
pub(super) async fn is_legacy(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT to_regclass('public._sqlx_migrations') IS NOT NULL AND to_regclass('tern.store') IS NULL",
    )
    .fetch_one(db)
    .await
}

/// Takes the first step if the store is of version 0.1: puts the tables of people into their schema, and the others into
/// the schema `tern_0_1`, from where [`move_cell`] takes the rows. Nodes of version 0.1 cannot use the store any more.
///
/// # Errors
///
/// The store is of an older version than 0.1, nodes are connected to it, or a statement fails.
pub(super) async fn adopt(db: &mut PgConnection, cells: Option<Cells>) -> anyhow::Result<()> {
    if !is_legacy(db).await? {
        return Ok(());
    }
    refuse_if_old(db).await?;
    super::refuse_if_used(db, "its tables are moved").await?;
    tracing::info!("the tables of version 0.1 are moved");
    let mut tx = db.begin().await?;
    tx.execute("CREATE SCHEMA tern; CREATE SCHEMA people; CREATE SCHEMA tern_0_1")
        .await?;
    for table in PEOPLE_TABLES {
        set_schema(&mut tx, table, "people").await?;
    }
    set_schema(&mut tx, "store", "tern").await?;
    tx.execute("ALTER SEQUENCE public.stream_numbers SET SCHEMA tern")
        .await?;
    tx.execute("ALTER TABLE tern.store ADD COLUMN cells int2").await?;
    let count = i16::try_from(cells.unwrap_or(Cells::DEFAULT).count())?;
    sqlx::query("UPDATE tern.store SET cells = $1")
        .bind(count)
        .execute(&mut *tx)
        .await?;
    tx.execute("ALTER TABLE tern.store ALTER COLUMN cells SET NOT NULL")
        .await?;
    for &table in TABLES_OF_0_1 {
        set_schema(&mut tx, table, "tern_0_1").await?;
        for partition in 0..PARTITIONS {
            set_schema(&mut tx, &format!("{table}_{partition:02}"), "tern_0_1").await?;
        }
    }
    set_schema(&mut tx, "_sqlx_migrations", "tern_0_1").await?;
    tx.execute("CREATE TABLE tern_0_1.moved (cell int2 PRIMARY KEY, row_count int8 NOT NULL)")
        .await?;
    Ok(tx.commit().await?)
}

async fn set_schema(db: &mut PgConnection, table: &str, schema: &str) -> anyhow::Result<()> {
    let alter = format!("ALTER TABLE public.{table} SET SCHEMA {schema}");
    let done = db.execute(AssertSqlSafe(alter)).await;
    done.with_context(|| format!("the table {table} cannot be moved"))?;
    Ok(())
}

async fn refuse_if_old(db: &mut PgConnection) -> anyhow::Result<()> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM public._sqlx_migrations WHERE success")
            .fetch_one(db)
            .await?;
    anyhow::ensure!(
        version.is_some_and(|version| version >= LAST),
        "the store is older than version 0.1: run `tern migrate` of version 0.1 first"
    );
    Ok(())
}

/// Returns whether a move is under way.
pub(super) async fn is_moving(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass('tern_0_1.moved') IS NOT NULL")
        .fetch_one(db)
        .await
}

/// Copies the rows of one cell, if a move is under way and has not copied them yet.
pub(super) async fn move_cell(db: &mut PgConnection, cells: Cells, cell: Cell) -> anyhow::Result<()> {
    if !is_moving(db).await? {
        return Ok(());
    }
    let number = i16::try_from(cell.number())?;
    let mut tx = db.begin().await?;
    let moved: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM tern_0_1.moved WHERE cell = $1)")
        .bind(number)
        .fetch_one(&mut *tx)
        .await?;
    if moved {
        return Ok(());
    }
    let mut rows = 0;
    for &table in TABLES_OF_0_1 {
        for statement in copies(table, cells, cell) {
            let copied = tx.execute(AssertSqlSafe(statement)).await;
            let copied = copied.with_context(|| format!("{table} of {cell} cannot be copied"))?;
            rows += i64::try_from(copied.rows_affected())?;
        }
    }
    sqlx::query("INSERT INTO tern_0_1.moved (cell, row_count) VALUES ($1, $2)")
        .bind(number)
        .bind(rows)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    for &table in TABLES_OF_0_1 {
        let analyze = format!("ANALYZE {}.{table}", cell.schema());
        db.execute(AssertSqlSafe(analyze)).await?;
    }
    tracing::info!(%cell, rows, "moved");
    Ok(())
}

/// Returns the statements that copy the rows of a cell from the partitions that have some.
fn copies(table: &str, cells: Cells, cell: Cell) -> Vec<String> {
    let columns = columns(table);
    // The slots are counted anew, by the hash of the partitions.
    let values = columns.replace("slot", &remainder(4096));
    let shared = PARTITIONS.min(cells.count());
    let partitions = (0..PARTITIONS).filter(|partition| partition % shared == cell.number() % shared);
    let only = if cells.count() > PARTITIONS {
        format!(" WHERE {} = {}", remainder(cells.count()), cell.number())
    } else {
        String::new()
    };
    let copy = |partition| {
        format!(
            "INSERT INTO {}.{table} ({columns}) SELECT {values} FROM tern_0_1.{table}_{partition:02}{only}",
            cell.schema()
        )
    };
    partitions.map(copy).collect()
}

/// Returns the SQL of the remainder of a chat's partition hash by a power of two of at most 4096 (see
/// `tern_types::Slot`). 2275 is the low 12 bits of the number that Postgres adds to the hash of the first
/// column.
fn remainder(modulus: u16) -> String {
    let mask = modulus - 1;
    format!("((uuid_hash_extended(chat_id, 8816678312871386365) & {mask}) + 2275) & {mask}")
}

fn columns(table: &str) -> &'static str {
    match table {
        "chats" => {
            "chat_id, kind, title, created_by, user_low, user_high, first_seq, wrapped_key, created_at, picture"
        }
        "chat_heads" => "chat_id, head_seq, head_ordinal",
        "members" => {
            "chat_id, user_id, joined_seq, left_seq, role, devices, read_seq, read_receipts_off, own_unread"
        }
        "messages" => {
            "chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at"
        }
        "unsettled" => "chat_id, from_seq, slot, committed_at",
        "inbox" => "chat_id, device_id, user_id, from_seq, since, notified_at",
        _ => "chat_id, media_id, seq",
    }
}

/// Deletes the tables of version 0.1 after all cells have got their rows.
///
/// # Errors
///
/// The cells have another number of rows than those tables, which stay then; or a statement fails.
pub(super) async fn forget(db: &mut PgConnection) -> anyhow::Result<()> {
    if !is_moving(db).await? {
        return Ok(());
    }
    let moved: i64 = sqlx::query_scalar("SELECT coalesce(sum(row_count), 0)::int8 FROM tern_0_1.moved")
        .fetch_one(&mut *db)
        .await?;
    let mut rows = 0;
    for &table in TABLES_OF_0_1 {
        let count = format!("SELECT count(*) FROM tern_0_1.{table}");
        rows += sqlx::query_scalar::<_, i64>(AssertSqlSafe(count))
            .fetch_one(&mut *db)
            .await?;
    }
    anyhow::ensure!(
        rows == moved,
        "of {rows} rows of version 0.1, {moved} were moved; those tables stay in the schema tern_0_1"
    );
    let mut tx = db.begin().await?;
    for table in TABLES_OF_0_1.iter().chain(&["_sqlx_migrations", "moved"]) {
        let dropped = tx
            .execute(AssertSqlSafe(format!("DROP TABLE tern_0_1.{table}")))
            .await;
        dropped.with_context(|| format!("tern_0_1.{table} cannot be dropped: drop what depends on it"))?;
    }
    tx.execute("DROP SCHEMA tern_0_1").await?;
    tx.execute("DROP FUNCTION IF EXISTS public.release_entry(), public.release_chat()")
        .await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each partition is read whole, or by each of the cells that share it.
    #[test]
    fn the_rows_of_a_cell_are_in_the_partitions_of_the_same_remainder() {
        let from = |cells: u16, number: usize| {
            let cells = Cells::new(cells).unwrap();
            let cell = cells.all().nth(number).unwrap();
            copies("chat_heads", cells, cell)
        };
        let of_four = from(4, 1);
        assert_eq!(of_four.len(), 4);
        assert!(
            of_four[1].ends_with("FROM tern_0_1.chat_heads_05"),
            "{}",
            of_four[1]
        );
        let of_sixty_four = from(64, 35);
        assert_eq!(of_sixty_four.len(), 1);
        assert!(
            of_sixty_four[0].contains("FROM tern_0_1.chat_heads_03 WHERE ")
                && of_sixty_four[0].ends_with("= 35"),
            "{}",
            of_sixty_four[0]
        );
        assert_eq!(from(1, 0).len(), 16);
    }
}
