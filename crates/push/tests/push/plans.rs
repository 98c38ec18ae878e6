//! Tests that no statement of a worker reads a whole table.

use sqlx::{AssertSqlSafe, Executor, Row};
use tern_push::store::{aged, claim, look, note, people, settings, tokens};
use tern_store::postgres::{cell_connect_options, connect_hot, hot_connect_options};
use tern_types::Cell;

use crate::world::World;

const OF_CELLS: [(&str, &str, usize); 7] = [
    ("aged", aged::AGED, 2),
    ("claim", claim::CLAIM, 2),
    ("due", claim::DUE, 1),
    ("look", look::LOOK, 3),
    ("badges", look::BADGES, 2),
    ("settings", settings::SETTINGS, 2),
    ("note", note::NOTE, 10),
];

const OF_PEOPLE: [(&str, &str, usize); 5] = [
    ("devices", people::DEVICES, 1),
    ("blocked", people::BLOCKED, 2),
    ("names", people::NAMES, 1),
    ("end a token", tokens::END, 5),
    ("end unnamed tokens", tokens::END_UNNAMED, 2),
];

/// On empty tables, and on empty tables that were analysed, the planner would choose to read them whole.
#[tokio::test]
async fn what_workers_ask_goes_by_indexes() {
    let world = World::start().await;
    let cell = cell_connect_options(&world.args, Cell::FIRST);
    let people = hot_connect_options(&world.args);
    for analysed in [false, true] {
        for (options, statements) in [(&cell, &OF_CELLS[..]), (&people, &OF_PEOPLE[..])] {
            let mut db = connect_hot(options).await.unwrap();
            if analysed {
                db.execute("ANALYZE").await.unwrap();
            }
            for (name, sql, arguments) in statements {
                db.execute(AssertSqlSafe(format!("PREPARE asked AS {sql}")))
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                let nulls = vec!["NULL"; *arguments].join(", ");
                let explain = format!("EXPLAIN (COSTS OFF) EXECUTE asked({nulls})");
                let plan = sqlx::raw_sql(AssertSqlSafe(explain))
                    .fetch_all(&mut db)
                    .await
                    .unwrap();
                let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
                let plan = plan.join("\n");
                assert!(!plan.contains("Seq Scan"), "{name}, analysed: {analysed}\n{plan}");
                db.execute("DEALLOCATE asked").await.unwrap();
            }
        }
    }
}
