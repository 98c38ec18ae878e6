//! Places the store on a Citus cluster: the schema `people`, and each cell, whole on one node that Citus chooses. A
//! statement of Tern names the tables of one schema, so each runs unchanged on one node, whichever node it is sent to.
//!
//! - `tern.store` stays on the coordinator. Every node of the cluster sends a statement that reads it there.
//!   Such a statement also draws from `tern.stream_numbers`, so all numbers come from the coordinator's
//!   sequence, and streams have one order.
//! - The tables of `public` are views here: a table that Citus places is no partition of another.
//!
//! Everything here may be run again, and does what is missing.

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tern_types::Cells;

use super::{CELL_TABLES, schemas};

/// Lets the next statements of a connection make triggers on tables that Citus places. The cells' triggers change rows
/// of their own cell alone, and those are on the same node.
const ALLOW_TRIGGERS: &str = "SET citus.enable_unsafe_triggers = on";

/// Makes the sequence known to the other nodes, which have to find its name when they parse a statement.
/// Numbers are drawn from the coordinator's sequence only, because numbers of another one would break the
/// order of streams. So the sequences of the other nodes are exhausted: a draw from one fails.
const SEQUENCE_ON_WORKERS: &str = "
SELECT success, result FROM run_command_on_workers($$
    DO $do$ BEGIN
        CREATE SEQUENCE IF NOT EXISTS tern.stream_numbers AS bigint;
        ALTER SEQUENCE tern.stream_numbers MAXVALUE 2;
        PERFORM setval('tern.stream_numbers', 2);
    END $do$
$$)";

/// Gives every node those settings of Tern's connections that have to hold there. A node carries a statement
/// out on a connection that another node of the cluster opened, and such a connection has no settings of
/// Tern's. Only one `lock_timeout`, in milliseconds, is possible there, while Tern's own connections have
/// different ones. So on another node than the coordinator a migration, too, waits that long for a table, and has to be
/// run again if it was in vain.
const SETTINGS: &str = "
SELECT success, result FROM run_command_on_all_nodes($$
    DO $do$ BEGIN
        SET LOCAL citus.enable_ddl_propagation = off;
        EXECUTE format('ALTER DATABASE %I SET lock_timeout = 500', current_database());
        EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
    END $do$
$$)";

/// Selects each column that has an `n_distinct`, which tells the planner how many rows to expect for a value:
/// its table, and the command that sets it on the table of a node. Citus does not pass this setting on.
const EXPECTATIONS: &str = "
SELECT format('%I.%I', relnamespace::regnamespace, relname),
       format('ALTER TABLE %%s ALTER COLUMN %I SET (%s)', attname, option)
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, unnest(attoptions) AS option
WHERE relnamespace = ANY($1::text[]::regnamespace[]) AND option LIKE 'n_distinct=%'";

/// Returns whether the store is on Citus, or was on its way there when it was interrupted.
pub(super) async fn is_used(db: &mut PgConnection) -> sqlx::Result<bool> {
    let has_citus: bool = sqlx::query_scalar("SELECT to_regclass('pg_catalog.pg_dist_schema') IS NOT NULL")
        .fetch_one(&mut *db)
        .await?;
    if !has_citus {
        return Ok(false);
    }
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('tern.store'))",
    )
    .fetch_one(db)
    .await
}

/// Lets the connection change tables that Citus places.
pub(super) async fn enter(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute(ALLOW_TRIGGERS).await?;
    Ok(())
}

/// Takes the first step, whole or not at all: notes that the store is on Citus, after which every migration goes on with
/// it. The tables of a store that was on a plain Postgres are detached from their parents, which are dropped.
///
/// # Errors
///
/// Nodes of Tern use the store, or a statement fails.
pub(super) async fn adopt(db: &mut PgConnection, is_new: bool) -> anyhow::Result<()> {
    if is_used(db).await? {
        return Ok(());
    }
    if !is_new {
        super::refuse_if_used(db, "its tables are placed anew").await?;
    }
    let mut tx = db.begin().await?;
    for table in CELL_TABLES {
        let leaves = super::partitions(&mut tx, table).await?;
        if leaves.is_empty() {
            // A table of this name, if there is one, is somebody else's.
            continue;
        }
        for leaf in leaves {
            let detach = format!("ALTER TABLE public.{table} DETACH PARTITION {leaf}");
            tx.execute(AssertSqlSafe(detach)).await?;
        }
        tx.execute(AssertSqlSafe(format!("DROP TABLE public.{table}")))
            .await?;
    }
    tx.execute("SELECT citus_add_local_table_to_metadata('tern.store')")
        .await
        .context("the table tern.store cannot be made known to the cluster")?;
    Ok(tx.commit().await?)
}

/// Checks that the database is the coordinator of a cluster with other nodes. It makes the extension, and nothing else.
///
/// # Errors
///
/// There is no such cluster.
pub(super) async fn require_cluster(db: &mut PgConnection) -> anyhow::Result<()> {
    let offered: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citus')")
            .fetch_one(&mut *db)
            .await?;
    anyhow::ensure!(offered, "this Postgres does not offer the extension citus");
    db.execute("CREATE EXTENSION IF NOT EXISTS citus")
        .await
        .context("the extension citus cannot be made: it has to be in shared_preload_libraries")?;
    let (is_coordinator, knows_itself, nodes): (bool, bool, i64) = sqlx::query_as(
        "SELECT (SELECT groupid = 0 FROM pg_dist_local_group),
                coalesce(bool_or(groupid = 0), false),
                count(*) FILTER (WHERE shouldhaveshards AND isactive AND noderole = 'primary')
         FROM pg_dist_node",
    )
    .fetch_one(db)
    .await?;
    anyhow::ensure!(
        is_coordinator,
        "this is not the cluster's coordinator, whose URL has to be the first"
    );
    anyhow::ensure!(
        knows_itself,
        "the coordinator's address is not known to the cluster: run SELECT citus_set_coordinator_host('its host', its port)"
    );
    anyhow::ensure!(
        nodes > 0,
        "the cluster has no node for tables: run SELECT citus_add_node('host', port) for each, in this database"
    );
    Ok(())
}

/// Places the schemas that are not placed yet, and brings the cluster's other nodes up to date. Citus copies the rows of
/// a schema that has some.
pub(super) async fn place(db: &mut PgConnection, cells: Cells) -> anyhow::Result<()> {
    enter(db).await?;
    for schema in unplaced(db, cells).await? {
        let placed = sqlx::query("SELECT citus_schema_distribute($1::text::regnamespace)")
            .bind(&schema)
            .execute(&mut *db)
            .await;
        placed.with_context(|| format!("the schema {schema} cannot be placed"))?;
        tracing::info!(schema, "placed");
    }
    on_all(db, SEQUENCE_ON_WORKERS).await?;
    on_all(db, SETTINGS).await?;
    let expectations: Vec<(String, String)> = sqlx::query_as(EXPECTATIONS)
        .bind(schemas(cells).collect::<Vec<_>>())
        .fetch_all(&mut *db)
        .await?;
    for (table, command) in expectations {
        let command =
            format!("SELECT success, result FROM run_command_on_placements('{table}', '{command}')");
        on_all(db, &command).await?;
    }
    make_views(db, cells).await
}

/// Runs a command that Citus passes on to nodes, and which returns for each whether it succeeded, and what it said.
async fn on_all(db: &mut PgConnection, command: &str) -> anyhow::Result<()> {
    let answers: Vec<(bool, String)> = sqlx::query_as(AssertSqlSafe(command.to_owned()))
        .fetch_all(db)
        .await?;
    let failed = answers.into_iter().find(|(success, _)| !success);
    anyhow::ensure!(
        failed.is_none(),
        "a node of the cluster refused a command: {}",
        failed.map_or_else(String::new, |(_, said)| said)
    );
    Ok(())
}

/// Returns the schemas that Citus has not placed.
async fn unplaced(db: &mut PgConnection, cells: Cells) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT name FROM unnest($1::text[]) AS name
         WHERE NOT EXISTS (SELECT FROM pg_dist_schema WHERE schemaid = to_regnamespace(name))",
    )
    .bind(schemas(cells).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// Makes for each table of the cells a view of all their rows, for people. A statement on it reads every cell whole.
async fn make_views(db: &mut PgConnection, cells: Cells) -> anyhow::Result<()> {
    for table in CELL_TABLES {
        let parts = cells
            .all()
            .map(|cell| format!("SELECT * FROM {}.{table}", cell.schema()));
        let all = parts.collect::<Vec<_>>().join(" UNION ALL ");
        // A view that is there gets the columns that were added since, and keeps the rights that were granted
        // on it.
        let make = format!("CREATE OR REPLACE VIEW public.{table} AS {all}");
        let made = db.execute(AssertSqlSafe(make)).await;
        made.with_context(|| format!("the view {table} cannot be made"))?;
    }
    Ok(())
}

/// Checks that every schema has its place, and that this node of the cluster can open streams.
///
/// # Errors
///
/// `tern migrate` has not come to its end, or not since this node joined the cluster.
pub(super) async fn require(db: &mut PgConnection, cells: Cells) -> anyhow::Result<()> {
    let unplaced = unplaced(db, cells).await?;
    anyhow::ensure!(
        unplaced.is_empty(),
        "the schemas {} are not placed on the cluster: {}",
        unplaced.join(", "),
        super::MIGRATE
    );
    let opens: bool = sqlx::query_scalar("SELECT to_regclass('tern.stream_numbers') IS NOT NULL")
        .fetch_one(db)
        .await?;
    anyhow::ensure!(opens, "this node joined the cluster later: {}", super::MIGRATE);
    Ok(())
}
