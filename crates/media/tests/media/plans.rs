//! Tests that no statement that a client waits for reads a whole table.

use sqlx::Row;
use tern_media::store::{access, collect, pictures, uploads};

use crate::world::World;

#[tokio::test]
async fn what_clients_wait_for_goes_by_indexes() {
    let world = World::start().await;
    let by_request = format!("{} user_id = $1 AND request_id = $2", uploads::COLUMNS);
    let mut db = world.pool.acquire().await.unwrap();
    // Sequential scans are switched off, because Postgres would choose them for empty tables.
    for set in [
        "SET enable_seqscan = off",
        "SET plan_cache_mode = force_generic_plan",
        "SET search_path = cell_00, people",
    ] {
        sqlx::query(set).execute(&mut *db).await.unwrap();
    }
    for (name, sql, arguments) in [
        ("has_user", access::HAS_USER, 1),
        ("in_chat", access::IN_CHAT, 3),
        ("media", access::MEDIA, 1),
        ("share_a_chat", access::SHARE_A_CHAT, 2),
        ("in_any_chat", access::IN_ANY_CHAT, 2),
        ("referred_to", collect::REFERRED_TO, 1),
        ("own", access::OWN, 2),
        ("picture_of", access::PICTURE_OF, 3),
        ("set_picture", pictures::SET, 3),
        ("stored_for", access::STORED_FOR, 4),
        ("ticket", access::TICKET, 2),
        ("by_request", by_request.as_str(), 2),
        ("lock_open", uploads::LOCK_OPEN, 1),
        ("end", uploads::END, 3),
    ] {
        let prepare = format!("PREPARE p_{name} AS {sql}");
        sqlx::query(sqlx::AssertSqlSafe(prepare))
            .execute(&mut *db)
            .await
            .unwrap();
        let nulls = vec!["NULL"; arguments].join(", ");
        let explain = format!("EXPLAIN EXECUTE p_{name}({nulls})");
        let plan = sqlx::raw_sql(sqlx::AssertSqlSafe(explain))
            .fetch_all(&mut *db)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("Index"), "{name}:\n{plan}");
        assert!(!plan.contains("Seq Scan"), "{name}:\n{plan}");
    }
}
