//! Tests the plans of all hot statements, on empty and on filled tables: they use indexes only. A statement that is
//! prepared while a table is empty must not keep a sequential scan.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tern_chat::store::{
    ack, acts, change, commit, devices, direct, doors, entries, erasing, heads, history, inboxes, invites,
    join_requests, joining, last_messages, listing, load, own, people, readable, retention, settle,
    strangers, timeline, trim, withdraw, written,
};
use tern_store::postgres::{connect_hot, hot_connect_options};
use tern_types::Seq;

use crate::harness::Store;

/// The statements that run for each message, connect, load or page, and those that walk through a user's chats.
const HOT: &[(&str, &str)] = &[
    ("commit", commit::COMMIT),
    ("commit with media", commit::COMMIT_WITH_MEDIA),
    ("commit with targets", commit::COMMIT_WITH_TARGETS),
    ("share users", people::SHARE),
    ("share free users", people::SHARE_FREE),
    ("existing users", people::EXISTING),
    ("devices of users", people::DEVICES),
    ("active devices", people::ACTIVE),
    ("no contacts", people::NO_CONTACTS),
    ("add members", joining::ADD_MEMBERS),
    ("remove member", change::REMOVE_MEMBER),
    ("settle", settle::SETTLE),
    ("lock heads", heads::LOCK_HEADS),
    ("lock free heads", heads::LOCK_FREE_HEADS),
    ("lock free heads to commit", heads::LOCK_FREE_HEADS_TO_COMMIT),
    ("locked members", ack::LOCKED_MEMBERS),
    ("close", settle::CLOSE),
    ("unsettled", settle::UNSETTLED),
    ("ack", ack::ACK),
    ("reads", ack::READS),
    ("withdraw", withdraw::WITHDRAW),
    ("load chat", load::CHAT),
    ("blocked", people::BLOCKED),
    ("have written", written::HAVE_WRITTEN),
    ("blockers", people::BLOCKERS),
    ("addable", joining::ADDABLE),
    ("is placed", joining::IS_PLACED),
    ("strangers of a day", strangers::DAY),
    ("meet strangers", strangers::MEET),
    ("load placed", load::PLACED),
    ("act counts", acts::COUNTS),
    ("oldest erasure", erasing::OLDEST),
    ("erase", erasing::ERASE),
    ("existing chats", direct::EXISTING),
    ("make direct chats", direct::MAKE),
    ("window", entries::UPWARDS),
    ("history", entries::DOWNWARDS),
    ("messages downwards", history::ALL[0]),
    ("messages upwards", history::ALL[1]),
    ("messages of a sender downwards", history::OF_SENDER[0]),
    ("messages of a sender upwards", history::OF_SENDER[1]),
    ("thread downwards", history::IN_THREAD[0]),
    ("thread upwards", history::IN_THREAD[1]),
    ("attachments downwards", history::WITH_ATTACHMENTS[0]),
    ("attachments upwards", history::WITH_ATTACHMENTS[1]),
    ("pinned downwards", history::PINNED[0]),
    ("pinned upwards", history::PINNED[1]),
    ("edits downwards", history::EDITS[0]),
    ("edits upwards", history::EDITS[1]),
    ("reactions", history::reactions::REACTIONS),
    ("messages at places", history::places::AT),
    ("messages of all chats", timeline::SENT),
    ("undelivered messages", timeline::UNDELIVERED),
    ("undelivered messages of a chat", timeline::UNDELIVERED_IN),
    ("seq of a request", history::SEQ_OF_REQUEST),
    ("parts", readable::PARTS),
    ("last messages", last_messages::LAST_MESSAGES),
    ("joiner history", joining::JOINER_HISTORY),
    ("last", entries::LAST),
    ("place", entries::PLACE),
    ("between", entries::BETWEEN),
    ("key", entries::KEY),
    ("inbox", inboxes::INBOX),
    ("revoked", people::REVOKED),
    ("chats", listing::PAGE),
    ("one chat", listing::ONE),
    ("ordinals", listing::ORDINALS),
    ("receipts and load members", listing::RECEIPTS),
    ("members", listing::MEMBERS),
    ("is member", listing::IS_MEMBER),
    ("setting of a user", people::READ_RECEIPTS_OFF),
    ("sender of a message", listing::MESSAGE),
    ("chats of a device", devices::CHATS),
    ("link", devices::JOIN),
    ("take over", devices::TAKE_OVER),
    ("leave", devices::LEAVE),
    ("forget", devices::FORGET),
    ("door", doors::DOOR),
    ("lock what bounds links", doors::LOCK),
    ("one link", invites::ONE),
    ("forget links", invites::FORGET),
    ("make a link", invites::MAKE),
    ("links", invites::LIST),
    ("revoke a link", invites::REVOKE),
    ("revoke all links of a maker", invites::REVOKE_ALL),
    ("offer of a link", invites::OFFER),
    ("lock the offer of a link", invites::LOCK_OFFER),
    ("use a link", invites::USE),
    ("members of a role", invites::OF_ROLE),
    ("was removed", joining::WAS_REMOVED),
    ("one request to join", join_requests::ONE),
    ("forget requests to join", join_requests::FORGET),
    ("ask to join", join_requests::ASK),
    ("who asks to join", join_requests::WAITING),
    ("asks to join", join_requests::IS_WAITING),
    ("refuse a request to join", join_requests::REFUSE),
    ("withdraw a request to join", join_requests::WITHDRAW),
    ("end requests to join", join_requests::END),
    ("let in who asked to join", join_requests::ADMIT),
    ("answerers of requests to join", join_requests::ANSWERERS),
    ("what disappears", retention::EXPIRING),
    ("due messages", trim::disappear::DUE),
    ("end of messages", trim::disappear::END),
    ("erase what disappears", trim::erase::DISAPPEARED),
    ("erase what was kept", trim::erase::KEPT_ENOUGH),
    ("acts", trim::erase::ACTS),
    ("erase acts", trim::erase::BLANK),
    ("first that is due", trim::FIRST_DUE),
    ("claim chats", trim::CLAIM),
    ("chats to be trimmed", trim::STATES),
    ("entries to be trimmed", trim::ENTRIES),
    ("mark trimmed", trim::MARK),
    ("forget entries", trim::FORGET),
    ("schedule trimming", trim::SCHEDULE),
    ("untimed chats", trim::UNTIMED),
    ("note a linked device", devices::NOTE_LINKED),
    ("some chats", listing::SOME),
    ("read mark", listing::READ_MARK),
    ("make an own log", own::MAKE),
    ("settings of chats", own::settings::OF_CHATS),
    ("head of an own log", own::settings::HEAD),
    ("pinned chats", own::settings::PINS),
    ("archive", own::settings::ARCHIVED),
    ("changed settings", own::settings::CHANGED),
    ("seen settings", change::own::SEEN),
    ("other pinned chats", change::own::OTHER_PINS),
    ("set settings", change::own::SET),
    ("hidden messages", change::own::HIDDEN),
    ("hide messages", change::own::HIDE),
    ("hidden among messages", own::hidden::AMONG),
];

/// The statements of pages of history.
const HISTORY: [[&str; 2]; 7] = [
    history::EVERY,
    history::ALL,
    history::OF_SENDER,
    history::IN_THREAD,
    history::WITH_ATTACHMENTS,
    history::PINNED,
    history::EDITS,
];

/// The other statements that read messages for people and back ends.
const MESSAGES: [&str; 5] = [
    history::reactions::REACTIONS,
    history::places::AT,
    timeline::SENT,
    timeline::UNDELIVERED,
    timeline::UNDELIVERED_IN,
];

/// Returns the generic plan of a statement, line by line.
async fn plan(db: &mut PgConnection, name: &str, sql: &'static str) -> Vec<String> {
    db.execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    let arguments = (1..=40)
        .rev()
        .find(|n| sql.contains(&format!("${n}")))
        .unwrap_or(0);
    let values = vec!["NULL"; arguments].join(", ");
    db.execute(AssertSqlSafe(format!("PREPARE hot AS {sql}")))
        .await
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let explain = format!(
        "EXPLAIN (COSTS OFF) EXECUTE hot{}",
        if arguments > 0 {
            format!("({values})")
        } else {
            String::new()
        }
    );
    let plan = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_all(&mut *db)
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    db.execute("DEALLOCATE hot").await.unwrap();
    plan
}

fn assert_no_seq_scan(plan: &[String], name: &str, tables: &str) {
    let bad: Vec<&String> = plan.iter().filter(|line| line.contains("Seq Scan")).collect();
    assert!(
        bad.is_empty(),
        "{name} on {tables} tables: {bad:?}\n{}",
        plan.join("\n")
    );
}

/// Checks the plans on the tables of one cell and of people.
async fn assert_plans(db: &mut PgConnection, tables: &str) {
    for &(name, sql) in HOT {
        assert_no_seq_scan(&plan(db, name, sql).await, name, tables);
    }
    let repeated = [
        ("commit", commit::COMMIT),
        ("commit with targets", commit::COMMIT_WITH_TARGETS),
        ("load placed", load::PLACED),
    ];
    for (name, sql) in repeated {
        assert_probes(&plan(db, name, sql).await, &format!("{name} on {tables} tables"));
    }
    // If a table was empty when it was analysed, the planner takes any index to be as good as another.
    if tables != "empty, analysed" {
        let pages = HISTORY.iter().flatten().chain(&MESSAGES);
        for &sql in pages {
            let plan = plan(db, "history", sql).await;
            assert_bounded(&plan, &OF_CHATS, &format!("history on {tables} tables: {sql}"));
        }
    }
    for (name, sql) in [
        ("commit with targets", commit::COMMIT_WITH_TARGETS),
        ("erase", erasing::ERASE),
    ] {
        let erasing = plan(db, name, sql).await;
        let what = format!("{name} on {tables} tables");
        assert_bounded(&erasing, &OF_ERASED, &what);
        if tables != "empty, analysed" {
            assert_bounded(&erasing, &[" on messages o", " on entry_targets "], &what);
        }
    }
    if tables != "empty, analysed" {
        let of_trimmer = [" on messages r", " on messages m", " on entry_targets "];
        let erasing = [
            trim::erase::DISAPPEARED,
            trim::erase::KEPT_ENOUGH,
            trim::erase::ACTS,
        ];
        for sql in erasing.into_iter().chain([trim::erase::BLANK, trim::ENTRIES]) {
            let plan = plan(db, "trim", sql).await;
            assert_bounded(&plan, &of_trimmer, &format!("trim on {tables} tables: {sql}"));
        }
    }
}

/// The tables from which a deletion takes rows. Those of `messages` and of the other tables are named by their places.
const OF_ERASED: [&str; 4] = [
    " on messages b",
    " on reactions ",
    " on mentions ",
    " on act_counts ",
];

/// The tables of chats of which a statement about messages may read only what it names by seqs.
const OF_CHATS: [&str; 5] = [
    " on messages ",
    " on message_state ",
    " on entry_targets ",
    " on media_refs ",
    " on reactions ",
];

/// Asserts that a statement reads these tables by seqs, or by the places of rows that it has found by seqs. Otherwise
/// each message would cost as much as the chat is long.
fn assert_bounded(plan: &[String], tables: &[&str], what: &str) {
    for (scan, condition) in plan.iter().zip(&plan[1..]) {
        if scan.contains("Scan") && tables.iter().any(|table| scan.contains(table)) {
            // A bitmap scan says `Recheck Cond` here.
            let by_seq = condition.contains("Cond: ") && condition.contains("seq ");
            let bounded = by_seq || condition.contains("TID Cond: ");
            assert!(bounded, "{what}\n{scan}\n{condition}");
        }
    }
}

/// Asserts that a request is looked up by its whole key. If it were looked up by a part of the key, each commit would
/// read the chat's log.
fn assert_probes(plan: &[String], what: &str) {
    let scans = plan.iter().zip(&plan[1..]).filter(|(scan, _)| {
        let table = scan.split(" on messages ").nth(1);
        table == Some("m")
    });
    let mut probes = 0;
    for (scan, condition) in scans {
        let key = ["Index Cond", "chat_id =", "sender_user =", "request_id ="];
        assert!(
            key.iter().all(|part| condition.contains(part)),
            "{what}: {scan}\n{condition}"
        );
        probes += 1;
    }
    assert_eq!(probes, 1, "{what}:\n{}", plan.join("\n"));
}

/// Asserts that statements about one chat do not search all chats of a user or a device, which may be very many.
async fn assert_chats_are_looked_up(db: &mut PgConnection) {
    let of_one_chat = [
        ("is member", listing::IS_MEMBER),
        ("remove member", change::REMOVE_MEMBER),
        ("settle", settle::SETTLE),
        ("ack", ack::ACK),
        ("reads", ack::READS),
        ("withdraw", withdraw::WITHDRAW),
    ];
    for (name, sql) in of_one_chat {
        let plan = plan(db, name, sql).await;
        let searched = plan
            .iter()
            .find(|line| line.contains("members_user") || line.contains("inbox_device"));
        assert_eq!(searched, None, "{name}:\n{}", plan.join("\n"));
    }
}

/// The schema of people and a cell may be on different machines, so no statement may need both.
#[tokio::test]
async fn every_hot_statement_is_about_people_alone_or_about_one_cell() {
    let store = Store::new().await;
    let mut db = store.shard().await;
    for &(name, sql) in HOT {
        let mut prepared = 0;
        for path in ["people, tern", "cell_00"] {
            db.execute(AssertSqlSafe(format!("SET search_path = {path}")))
                .await
                .unwrap();
            let made = db.execute(AssertSqlSafe(format!("PREPARE hot AS {sql}"))).await;
            if made.is_ok() {
                prepared += 1;
                db.execute("DEALLOCATE hot").await.unwrap();
            }
        }
        assert_eq!(prepared, 1, "{name}");
    }
}

#[tokio::test]
async fn hot_statements_use_indexes_on_empty_and_on_filled_tables() {
    let store = Store::new().await;
    let mut db = store.shard().await;
    let mut people = connect_hot(&hot_connect_options(&store.args)).await.unwrap();
    assert_no_seq_scan(&plan(&mut people, "epoch", listing::EPOCH).await, "epoch", "all");
    assert_plans(&mut db, "empty").await;
    db.execute("ANALYZE").await.unwrap();
    assert_plans(&mut db, "empty, analysed").await;

    let users = [store.user().await, store.user().await, store.user().await];
    for user in users {
        store.device(user).await;
    }
    for pair in [(0, 1), (1, 2), (0, 2)] {
        let mut chat = store.direct(users[pair.0], users[pair.1]).await;
        for _ in 0..200 {
            store.say(&mut db, &mut chat, users[pair.0], "x").await;
        }
        store.settle(&mut db, chat.id, Seq(150), &[]).await;
    }
    db.execute("ANALYZE").await.unwrap();
    assert_plans(&mut db, "filled").await;

    // The tables are filled as in the first days of a platform: one message in each chat, one chat for each user and
    // device.
    let one_message_a_chat = "
        INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
        SELECT gen_random_uuid(), 1, 1, 1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '', '', now()
        FROM generate_series(1, 20000)";
    db.execute("TRUNCATE messages").await.unwrap();
    db.execute(one_message_a_chat).await.unwrap();
    let one_chat_a_user = "
        INSERT INTO members (chat_id, user_id, joined_seq, role, devices)
        SELECT gen_random_uuid(), gen_random_uuid(), 1, 1, '{}' FROM generate_series(1, 20000)";
    db.execute(one_chat_a_user).await.unwrap();
    let one_chat_a_device = "
        INSERT INTO inbox (chat_id, device_id, user_id, from_seq)
        SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1 FROM generate_series(1, 20000)";
    db.execute(one_chat_a_device).await.unwrap();
    db.execute("ANALYZE").await.unwrap();
    assert_plans(&mut db, "young").await;
    assert_chats_are_looked_up(&mut db).await;
}
