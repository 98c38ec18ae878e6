//! Makes the store's schemas and brings them up to date.
//!
//! - `tern`: facts about the store as a whole, in one row of `tern.store`
//! - `people`: everything that belongs to a user
//! - `cell_00` and so on: everything about the chats of one cell
//! - `public`: for each table of the cells a parent, whose hash partitions the cells' tables are. People and tools see
//!   one table there; no node uses it. On Citus it is a view.
//!
//! Each schema records its own migrations in `_sqlx_migrations`. A migration that was interrupted goes on when it is run
//! again.

mod citus;
mod legacy;

use std::sync::LazyLock;

use anyhow::Context;
use futures::{StreamExt, stream};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool};
use tern_types::{Cell, Cells};

use crate::postgres::{PostgresArgs, migration_options};

/// The migrations of the schema `people`. Migrations that a newer version of the program has run in addition
/// are no error: an older node that starts again, or that comes back by a rollback, has nothing to add to
/// them.
static PEOPLE: LazyLock<Migrator> = LazyLock::new(|| of(sqlx::migrate!("./migrations/people")));
/// The migrations of the schema of each cell. The same holds for them.
static CELLS: LazyLock<Migrator> = LazyLock::new(|| of(sqlx::migrate!("./migrations/cells")));

fn of(mut migrator: Migrator) -> Migrator {
    // One lock is held over all schemas, see [`migrate`].
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

/// The schema of what belongs to a user.
const PEOPLE_SCHEMA: &str = "people";

/// The tables of a cell.
pub const CELL_TABLES: [&str; 19] = [
    "chats",
    "chat_heads",
    "members",
    "messages",
    "unsettled",
    "inbox",
    "media_refs",
    "entry_targets",
    "message_state",
    "reactions",
    "mentions",
    "invites",
    "join_requests",
    "act_counts",
    "erasures",
    "expiring",
    "chat_settings",
    "hidden_messages",
    "push_hints",
];

/// The tables of a cell that version 0.1 had too. They are the first of [`CELL_TABLES`].
pub const TABLES_OF_0_1: &[&str] = {
    const ALL: &[&str] = &CELL_TABLES;
    ALL.split_at(7).0
};

/// The number of cells that are migrated at a time.
const CELLS_AT_ONCE: usize = 4;

/// The key of the lock that a migration holds, so that two do not run at the same time.
const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('tern migrate', 0))";

/// The advice to whoever finds the schema not up to date.
const MIGRATE: &str = "run `tern migrate` first";

/// Makes the table, the sequence and the function of the schema `tern`, which are about the store as a whole.
const STORE: &str = "
CREATE TABLE IF NOT EXISTS tern.store (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    -- Changed by an operator after a restore or a failover with loss: devices' cursors belong to it.
    epoch  uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The number of cells, which never changes.
    cells  int2 NOT NULL
);
-- The order of streams: each draws a number when it is opened, and of a device's streams the one with the highest is the
-- newest, whatever the clocks of the gateways say.
CREATE SEQUENCE IF NOT EXISTS tern.stream_numbers AS bigint;
-- Changes the columns of a cell's table, as a migration of a cell wants it. The table may be a partition, and a partition
-- has the columns of its parent. So the parent is changed, and all its partitions with it. The migrations of the other
-- cells find the change there, which needs an IF [NOT] EXISTS. Each runs in a transaction of its own, beside the others,
-- and so begins with its changes of columns: whoever waits for a parent has locked no cell's table yet.
CREATE OR REPLACE FUNCTION tern.alter_table(leaf regclass, change text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent regclass := (SELECT inhparent FROM pg_catalog.pg_inherits WHERE inhrelid = leaf);
BEGIN
    EXECUTE format('ALTER TABLE %s %s', coalesce(parent, leaf), change);
END $$";

/// Makes unqualified names mean the same on all connections of this role as on Tern's own, for operators' sessions.
const DEFAULT_PATH: &str = "
DO $$ BEGIN
    EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET search_path = people, tern, public', current_database());
END $$";

/// The store that a migration is to make of a database.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The number of cells of a new store. `None`: as many as an old store has, or [`Cells::DEFAULT`].
    pub cells: Option<Cells>,
    /// True if the store belongs on the Citus cluster whose coordinator the database is. A store that is on a cluster
    /// stays there, also if a later migration says false.
    pub citus: bool,
}

/// Brings the schema up to date. It is safe while nodes of the previous version run, and while another process migrates.
/// Only a store of version 0.1, and one that is to be placed on Citus, are refused while anybody uses them, because
/// their tables are moved.
///
/// # Errors
///
/// A statement fails, the store has another number of cells than is wanted, its tables are to be moved while it is in
/// use, or there is no Citus cluster where one is wanted.
pub async fn migrate(args: &PostgresArgs, wanted: Wanted) -> anyhow::Result<()> {
    let cells = wanted.cells;
    let mut db = connect(args, "public").await?;
    db.execute(LOCK).await?;
    if wanted.citus {
        // Nothing is made or moved before there is a cluster.
        citus::require_cluster(&mut db).await?;
    }
    legacy::adopt(&mut db, cells).await?;
    let is_new = !exists(&mut db).await?;
    make_schema(&mut db, "tern").await?;
    make_schema(&mut db, PEOPLE_SCHEMA).await?;
    db.execute(STORE)
        .await
        .context("the table tern.store cannot be made")?;
    let cells = settle_cells(&mut db, cells).await?;
    if wanted.citus {
        citus::adopt(&mut db, is_new).await?;
    }
    run(args, PEOPLE_SCHEMA, &PEOPLE).await?;
    let all = stream::iter(cells.all().map(|cell| migrate_cell(args, cells, cell)));
    // A cell that fails does not stop the others in the middle of a statement.
    let done: Vec<_> = all.buffer_unordered(CELLS_AT_ONCE).collect().await;
    done.into_iter().collect::<anyhow::Result<()>>()?;
    if citus::is_used(&mut db).await? {
        citus::place(&mut db, cells).await?;
    } else {
        attach(&mut db, cells).await?;
    }
    legacy::forget(&mut db).await?;
    db.execute(DEFAULT_PATH).await?;
    db.close().await?;
    Ok(())
}

/// Returns whether [`migrate`] would begin to move the tables of an old store: one of version 0.1, or one
/// that is to be placed on Citus and is not. It returns false for a move that was interrupted, because no
/// node starts on such a store.
///
/// # Errors
///
/// Postgres cannot be reached.
pub async fn moves_tables(args: &PostgresArgs, wanted: Wanted) -> anyhow::Result<bool> {
    let mut db = connect(args, "public").await?;
    let moves = legacy::is_legacy(&mut db).await?
        || wanted.citus && exists(&mut db).await? && !citus::is_used(&mut db).await?;
    db.close().await?;
    Ok(moves)
}

/// Returns whether the store has been made.
async fn exists(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass('tern.store') IS NOT NULL")
        .fetch_one(db)
        .await
}

/// Records the number of cells of a new store, and returns that of an old one.
async fn settle_cells(db: &mut PgConnection, wanted: Option<Cells>) -> anyhow::Result<Cells> {
    let count = wanted.unwrap_or(Cells::DEFAULT).count();
    sqlx::query("INSERT INTO tern.store (cells) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(i16::try_from(count)?)
        .execute(&mut *db)
        .await?;
    let cells = cells(db).await?;
    anyhow::ensure!(
        wanted.is_none_or(|wanted| wanted == cells),
        "this store has {} cells, which cannot be changed: leave --cells out, or give --cells {0}",
        cells.count()
    );
    Ok(cells)
}

/// Reads the number of cells of a store that [`require`] has found whole.
///
/// # Errors
///
/// Postgres does not answer, or the store has no number of cells.
pub(crate) async fn count(pool: &PgPool) -> anyhow::Result<Cells> {
    let mut db = pool.acquire().await?;
    cells(&mut db).await
}

/// Reads the number of cells.
async fn cells(db: &mut PgConnection) -> anyhow::Result<Cells> {
    let count: Option<i16> = sqlx::query_scalar("SELECT cells FROM tern.store")
        .fetch_optional(db)
        .await?;
    let count = count.with_context(|| format!("the store was made only in part: {MIGRATE}"))?;
    let cells = u16::try_from(count).ok().and_then(Cells::new);
    cells.with_context(|| format!("the store says that it has {count} cells, which is not possible"))
}

async fn migrate_cell(args: &PostgresArgs, cells: Cells, cell: Cell) -> anyhow::Result<()> {
    let schema = cell.schema();
    let mut db = connect(args, "public").await?;
    make_schema(&mut db, &schema).await?;
    run(args, &schema, &CELLS).await?;
    legacy::move_cell(&mut db, cells, cell).await?;
    db.close().await?;
    Ok(())
}

/// Makes a schema that is not there. That needs the right to make schemas, which a role for whom the schemas were made
/// does not have.
async fn make_schema(db: &mut PgConnection, schema: &str) -> anyhow::Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(schema)
        .fetch_one(&mut *db)
        .await?;
    if !exists {
        let made = db.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await;
        made.with_context(|| format!("the schema {schema} cannot be made"))?;
    }
    Ok(())
}

/// Runs the migrations of one schema that it does not have yet.
async fn run(args: &PostgresArgs, schema: &str, migrator: &Migrator) -> anyhow::Result<()> {
    let mut db = connect(args, schema).await?;
    if citus::is_used(&mut db).await? {
        citus::enter(&mut db).await?;
    }
    let done = migrator.run(&mut db).await;
    done.with_context(|| format!("a migration of the schema {schema} failed"))?;
    db.close().await?;
    Ok(())
}

/// Returns the cells' tables that are partitions of the parent of this name, with their schemas.
async fn partitions(db: &mut PgConnection, parent: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT format('%s.%s', leaf.relnamespace::regnamespace, leaf.relname)
         FROM pg_inherits JOIN pg_class parent ON parent.oid = inhparent JOIN pg_class leaf ON leaf.oid = inhrelid
         WHERE parent.relnamespace = 'public'::regnamespace AND parent.relkind = 'p' AND leaf.relkind = 'r'
             AND parent.relname = $1",
    )
    .bind(parent)
    .fetch_all(db)
    .await
}

/// Refuses to move tables while a node has a connection to the store.
async fn refuse_if_used(db: &mut PgConnection, why: &str) -> anyhow::Result<()> {
    let connections: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tern'",
    )
    .fetch_one(db)
    .await?;
    anyhow::ensure!(
        connections == 0,
        "nodes have {connections} connections to the store: {why}, so stop all nodes first"
    );
    Ok(())
}

/// Makes the parents of the cells' tables, and the cells' tables their partitions. Postgres checks that each row is in
/// the right one.
async fn attach(db: &mut PgConnection, cells: Cells) -> anyhow::Result<()> {
    for table in CELL_TABLES {
        let parent = format!(
            "CREATE TABLE IF NOT EXISTS public.{table} (LIKE {}.{table} INCLUDING DEFAULTS INCLUDING INDEXES)
             PARTITION BY HASH (chat_id)",
            Cell::FIRST.schema()
        );
        db.execute(AssertSqlSafe(parent)).await?;
        let attached = partitions(db, table).await?;
        for cell in cells.all() {
            let leaf = format!("{}.{table}", cell.schema());
            if attached.contains(&leaf) {
                continue;
            }
            let attach = format!(
                "ALTER TABLE public.{table} ATTACH PARTITION {leaf} FOR VALUES WITH (MODULUS {}, REMAINDER {})",
                cells.count(),
                cell.number()
            );
            let attached = db.execute(AssertSqlSafe(attach)).await;
            attached.map_err(|error| not_attached(&leaf, error))?;
        }
    }
    Ok(())
}

/// Returns the error of a table that could not be made a partition, with the reason if it is the table's rows.
fn not_attached(leaf: &str, error: sqlx::Error) -> anyhow::Error {
    let by_rows = error
        .as_database_error()
        .is_some_and(|error| error.is_check_violation());
    let what = match by_rows {
        true => "has rows of another cell",
        false => "cannot be attached to its parent",
    };
    anyhow::Error::new(error).context(format!("{leaf} {what}"))
}

/// Opens a connection on which unqualified names are those of one schema. Its statements may take any time.
async fn connect(args: &PostgresArgs, schema: &str) -> anyhow::Result<PgConnection> {
    let connection = migration_options(args, schema).connect().await;
    connection.with_context(|| format!("cannot connect to Postgres at {:?}", args.database_url))
}

/// Checks that [`migrate`] has run, and returns the number of cells. A schema that is newer than this program is
/// accepted.
///
/// # Errors
///
/// Postgres does not answer, the schema is older than this program needs, the database has other cells than the store
/// says, or a migration or a move of tables was interrupted.
pub async fn require(pool: &PgPool) -> anyhow::Result<Cells> {
    let mut db = pool.acquire().await?;
    let exists = exists(&mut db).await?;
    anyhow::ensure!(exists, "the database has no schema of this version: {MIGRATE}");
    let cells = cells(&mut db).await?;
    anyhow::ensure!(
        !legacy::is_moving(&mut db).await?,
        "the tables of version 0.1 were moved only in part: {MIGRATE}"
    );
    require_no_others(&mut db, cells).await?;
    let on_citus = citus::is_used(&mut db).await?;
    if on_citus {
        citus::require(&mut db, cells).await?;
    }
    for schema in schemas(cells) {
        let migrator = if schema == PEOPLE_SCHEMA { &PEOPLE } else { &CELLS };
        let wanted = migrator
            .iter()
            .map(|migration| migration.version)
            .max()
            .unwrap_or(0);
        let found = version(&mut db, &schema).await?;
        anyhow::ensure!(
            found >= wanted,
            "the schema {schema} has version {found}, {wanted} is needed: {MIGRATE}"
        );
    }
    if !on_citus {
        require_attached(&mut db, cells).await?;
    }
    Ok(cells)
}

/// Checks that the database has no cells besides those of the store. With a number that is too low, nodes would look for
/// chats in cells that do not have them.
async fn require_no_others(db: &mut PgConnection, cells: Cells) -> anyhow::Result<()> {
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^cell_[0-9]+$'")
        .fetch_one(db)
        .await?;
    anyhow::ensure!(
        found <= i64::from(cells.count()),
        "the database has {found} cells, and tern.store says that the store has {}",
        cells.count()
    );
    Ok(())
}

async fn require_attached(db: &mut PgConnection, cells: Cells) -> anyhow::Result<()> {
    for table in CELL_TABLES {
        let attached = partitions(db, table).await?.len();
        anyhow::ensure!(
            attached == usize::from(cells.count()),
            "of {table} not all cells' tables are attached to their parent: {MIGRATE}"
        );
    }
    Ok(())
}

/// Returns the names of the schemas that have tables of their own: that of people, and those of the cells.
fn schemas(cells: Cells) -> impl Iterator<Item = String> {
    std::iter::once(PEOPLE_SCHEMA.to_owned()).chain(cells.all().map(|cell| cell.schema()))
}

/// Reads the version of a schema; 0 if nothing was ever migrated there.
async fn version(db: &mut PgConnection, schema: &str) -> anyhow::Result<i64> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{schema}._sqlx_migrations"))
        .fetch_one(&mut *db)
        .await?;
    if !exists {
        return Ok(0);
    }
    let select = format!("SELECT coalesce(max(version), 0) FROM {schema}._sqlx_migrations WHERE success");
    Ok(sqlx::query_scalar(AssertSqlSafe(select)).fetch_one(db).await?)
}
