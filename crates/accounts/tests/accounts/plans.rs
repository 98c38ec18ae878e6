//! Tests of the query plans of the statements that connecting, calls and refreshes depend on, on empty and on filled
//! tables. The plans have to use indexes only: a generic plan that was made on an empty table must not keep a
//! sequential scan.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tern_accounts::store::{
    admin, blocks, contacts, devices, keys, notifications, own_log, privacy, push_tokens, tokens, users,
};

use crate::world::World;

const HOT: &[(&str, &str)] = &[
    ("user by id or external id", users::SELECT),
    ("user exists", users::EXISTS),
    ("new user", users::INSERT),
    ("rename", users::UPDATE),
    ("lock user", devices::LOCK_USER),
    ("link before", devices::BEFORE),
    ("other devices", devices::OTHERS),
    ("devices never linked", devices::FORGET_PENDING),
    ("new device", devices::INSERT),
    ("resume", devices::RESUME),
    ("device", devices::SELECT),
    ("devices of a user", devices::LIST),
    ("device is active", devices::ACTIVE),
    ("device was revoked", devices::WAS_REVOKED),
    ("revoke", devices::REVOKE),
    ("unlinked", devices::UNLINKED),
    ("unfinished revocations", devices::UNFINISHED),
    ("refresh token", tokens::LOCK),
    ("save refresh token", tokens::SAVE),
    ("API key", keys::LIVE),
    ("block", blocks::INSERT),
    ("other blocks", blocks::OTHERS),
    ("unblock", blocks::DELETE),
    ("blocked people", blocks::PAGE),
    ("no contacts", contacts::CLEAR),
    ("new contacts", contacts::INSERT),
    ("fewer contacts", contacts::DELETE),
    ("how many contacts", contacts::COUNT),
    ("contacts", contacts::PAGE),
    ("settings", privacy::SELECT),
    ("new settings", privacy::UPDATE),
    ("who sees whom", privacy::RELATIONS),
    ("who is seen by whom", privacy::OBSERVERS),
    ("settings of notifications", notifications::SELECT),
    ("new settings of notifications", notifications::SET),
    ("default settings of notifications", notifications::CLEAR),
    ("lock device", push_tokens::LOCK),
    ("another push token", push_tokens::FORGET_OTHER),
    ("push token", push_tokens::SET),
    ("no push token", push_tokens::FORGET),
    ("strangers of before", privacy::FORGET_STRANGERS),
    ("strangers", privacy::STRANGERS),
    ("new strangers", privacy::ADD_STRANGERS),
    ("is suspended", admin::IS_SUSPENDED),
    ("recently suspended", admin::RECENTLY_SUSPENDED),
    ("recently revoked", devices::RECENTLY_REVOKED),
    ("page of users", admin::PAGE),
    ("account", admin::ONE),
    ("all devices of a user", admin::ALL_DEVICES),
    ("note for an own log", own_log::NOTE),
    ("notes of a user", own_log::WAITING),
    ("told note", own_log::TOLD),
];

/// Fills the tables with users, each with three devices (one in fifty of them revoked), a push token of each, settings,
/// one API key and a few relations.
const FILL: &str = "
INSERT INTO users (user_id, external_id, display_name)
SELECT gen_random_uuid(), 'e-' || n, 'somebody' FROM generate_series(1, 3000) n;
INSERT INTO devices (device_id, user_id, request_id, display_name, platform, active, revoked_at, unlinked_at)
SELECT gen_random_uuid(), user_id, gen_random_uuid(), 'a phone', 'test', NOT gone,
       CASE WHEN gone THEN now() END, CASE WHEN gone AND random() < 0.9 THEN now() END
  FROM users, generate_series(1, 3), LATERAL (SELECT random() < 0.02 AS gone WHERE user_id IS NOT NULL) dice;
INSERT INTO push_tokens (device_id, user_id, provider, app, token, registered_at, named_at)
SELECT device_id, user_id, 1, 'com.example', uuid_send(device_id), now(), now() FROM devices;
INSERT INTO notification_settings (user_id, quiet_from, quiet_to, time_zone)
SELECT user_id, 1320, 420, 'Europe/Berlin' FROM users;
INSERT INTO api_keys (key_id, name, secret_hash, scopes)
SELECT gen_random_uuid(), 'key', '\\x00', '{admin}' FROM generate_series(1, 3000);
INSERT INTO blocks (user_id, blocked_id)
SELECT a.user_id, b.user_id FROM users a, LATERAL (SELECT user_id FROM users WHERE user_id > a.user_id ORDER BY user_id LIMIT 5) b;
INSERT INTO contacts (user_id, contact_id)
SELECT a.user_id, b.user_id FROM users a, LATERAL (SELECT user_id FROM users WHERE user_id > a.user_id ORDER BY user_id LIMIT 5) b;
INSERT INTO watched_strangers (user_id, watched_id)
SELECT a.user_id, b.user_id FROM users a, LATERAL (SELECT user_id FROM users WHERE user_id > a.user_id ORDER BY user_id LIMIT 5) b;
ANALYZE users, devices, push_tokens, notification_settings, api_keys, blocks, contacts, watched_strangers";

#[tokio::test]
async fn hot_statements_use_indexes_on_empty_and_on_filled_tables() {
    let world = World::start().await;
    // A generic plan is forced, because Postgres may choose one on a node's connection after a few executions.
    let mut db = world.pool.acquire().await.unwrap();
    db.execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    assert_plans(&mut db, "empty").await;
    sqlx::raw_sql(FILL).execute(&mut *db).await.unwrap();
    assert_plans(&mut db, "filled").await;
}

async fn assert_plans(db: &mut PgConnection, tables: &str) {
    for &(name, sql) in HOT {
        let plan = plan(db, name, sql).await;
        let bad: Vec<&String> = plan.iter().filter(|line| line.contains("Seq Scan")).collect();
        assert!(
            bad.is_empty(),
            "{name} on {tables} tables: {bad:?}\n{}",
            plan.join("\n")
        );
    }
}

async fn plan(db: &mut PgConnection, name: &str, sql: &str) -> Vec<String> {
    let arguments = (1..=11)
        .rev()
        .find(|n| sql.contains(&format!("${n}")))
        .unwrap_or(0);
    let nulls = vec!["NULL"; arguments].join(", ");
    db.execute(AssertSqlSafe(format!("PREPARE hot AS {sql}")))
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE hot({nulls})");
    let plan = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_all(&mut *db)
        .await
        .unwrap();
    db.execute("DEALLOCATE hot").await.unwrap();
    plan.iter().map(|row| row.get(0)).collect()
}
