//! Tests of a worker from the claim to the note, with services that answer what the test says.

use std::time::Duration;

use tern_proto::v1::{NotificationReason, PushClass};
use tern_push::provider::Delivery;
use tern_push_core::Tag;
use tern_types::{Cell, ChatId, UserId};

use crate::world::{MESSAGE, Services, World};

#[tokio::test]
async fn a_notification_is_shown_once_and_withdrawn_when_the_chat_is_read_elsewhere() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ann, seq) = world.group_with_message(phone).await;
    let services = Services::default();
    let worker = world.worker(&services);
    let classes = || services.take().iter().map(|push| push.class).collect::<Vec<_>>();

    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 1);
    let [push] = services.take().try_into().unwrap();
    let notification = push.notification.unwrap();
    assert_eq!(
        (push.class, push.badge, push.device),
        (PushClass::Alert, 1, phone.1)
    );
    assert_eq!(push.tag, Tag::of(phone.1, chat));
    assert_eq!(notification.chat_id, chat.to_string());
    assert_eq!(
        (notification.chat_title.as_str(), notification.group),
        ("Ferry", true)
    );
    assert_eq!(
        (notification.sender_name.as_str(), notification.seq),
        ("Ann", seq.unsigned_abs())
    );
    assert_eq!(notification.reason(), NotificationReason::Message);
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 0, "nothing is due");

    let next = world.entry(chat, MESSAGE, ann).await;
    world.due(chat, phone, seq).await;
    worker.round(Cell::FIRST).await.unwrap();
    assert_eq!(classes(), [PushClass::Badge]);

    world.reads(chat, phone.0, next).await;
    world.due(chat, phone, seq).await;
    worker.round(Cell::FIRST).await.unwrap();
    assert_eq!(classes(), [PushClass::Withdraw]);

    world.entry(chat, MESSAGE, ann).await;
    world.due(chat, phone, seq).await;
    worker.round(Cell::FIRST).await.unwrap();
    assert_eq!(classes(), [PushClass::Alert], "it is shown anew");
}

#[tokio::test]
async fn a_worker_that_was_killed_after_its_claim_is_followed_by_another() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    let services = Services::default();
    let worker = world.worker(&services);
    let _killed = world.claim(256).await.unwrap();
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 0);
    world.claims_run_out(chat).await;
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 1);
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 0);
    assert_eq!(services.take().len(), 1);
}

#[tokio::test]
async fn nothing_goes_out_that_nobody_is_to_see() {
    let world = World::start().await;
    let services = Services::default();
    let worker = world.worker(&services);
    let set = |user: UserId, chat: ChatId, column: &'static str| {
        let world = &world;
        async move {
            let insert = format!(
                "INSERT INTO chat_settings (chat_id, of_chat, seq, muted_until, mentions_only)
                 VALUES ($1, $2, 1, {column})"
            );
            let own = ChatId::own(user);
            let query = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(own.0).bind(chat.0);
            query.execute(world.pools.of(own)).await.unwrap();
        }
    };
    for case in [
        "muted",
        "mentions only",
        "blocked",
        "suspended",
        "revoked",
        "no token",
        "quiet",
    ] {
        let phone = world.phone("Bob").await;
        let (chat, ann, _) = world.group_with_message(phone).await;
        let people = match case {
            "blocked" => "INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2)",
            "suspended" => {
                "UPDATE users SET suspended_at = now() WHERE user_id = $1 AND $2::uuid IS NOT NULL"
            }
            "revoked" => "UPDATE devices SET active = false WHERE user_id = $1 AND $2::uuid IS NOT NULL",
            "no token" => "DELETE FROM push_tokens WHERE user_id = $1 AND $2::uuid IS NOT NULL",
            "quiet" => {
                "INSERT INTO notification_settings (user_id, quiet_from, quiet_to, time_zone)
                 SELECT $1, (minute + 1430) % 1440, (minute + 10) % 1440, 'UTC'
                 FROM (SELECT (extract(hour FROM utc) * 60 + extract(minute FROM utc))::int4 AS minute
                       FROM (SELECT now() AT TIME ZONE 'UTC' AS utc) t) m WHERE $2::uuid IS NOT NULL"
            }
            _ => "SELECT $1::uuid, $2::uuid",
        };
        let query = sqlx::query(people).bind(phone.0.0).bind(ann.0);
        query.execute(world.pools.people()).await.unwrap();
        match case {
            "muted" => set(phone.0, chat, "9223372036854775807, false").await,
            "mentions only" => set(phone.0, chat, "0, true").await,
            _ => {}
        }
        assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 1, "{case}");
        assert_eq!(services.take().len(), 0, "{case}");
        let state = world.state(chat, phone.1).await.unwrap();
        assert_eq!(
            (state.open, state.due, state.shown),
            (case == "quiet", false, false),
            "{case}"
        );
    }
}

#[tokio::test]
async fn what_was_due_for_a_day_ends_unless_something_was_said_since() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let services = Services::default();
    let worker = world.worker(&services);
    let (quiet, ..) = world.group_with_message(phone).await;
    let (busy, ann, _) = world.group_with_message(phone).await;
    for chat in [quiet, busy] {
        let due = "UPDATE inbox SET push_since = push_since - interval '25 h' WHERE chat_id = $1";
        world.run(chat, due, &[]).await;
        let sent = "UPDATE messages SET sent_at = sent_at - interval '25 h' WHERE chat_id = $1";
        world.run(chat, sent, &[]).await;
    }
    let said = world.entry(busy, MESSAGE, ann).await;
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 2);
    let [push] = services.take().try_into().unwrap();
    let notification = push.notification.unwrap();
    assert_eq!(
        (notification.chat_id.as_str(), notification.seq),
        (busy.to_string().as_str(), said.unsigned_abs())
    );
    let state = world.state(quiet, phone.1).await.unwrap();
    assert_eq!((state.open, state.pushed, state.shown), (false, false, false));
}

#[tokio::test]
async fn a_push_that_failed_is_tried_again_and_a_token_that_ended_is_not() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    let services = Services::default();
    let worker = world.worker(&services);
    services.answers.lock().unwrap().extend([
        Delivery::Later {
            after: Some(Duration::from_secs(600)),
            reason: "busy",
            detail: String::new(),
        },
        Delivery::TokenEnded {
            since: None,
            reason: "Unregistered".to_owned(),
        },
    ]);
    worker.round(Cell::FIRST).await.unwrap();
    let state = world.state(chat, phone.1).await.unwrap();
    assert_eq!(
        (state.open, state.due, state.tries, state.shown),
        (true, false, 1, false)
    );
    world
        .run(chat, "UPDATE inbox SET push_at = now() WHERE chat_id = $1", &[])
        .await;
    worker.round(Cell::FIRST).await.unwrap();
    let state = world.state(chat, phone.1).await.unwrap();
    assert_eq!((state.open, state.tries, state.shown), (false, 0, false));
    world.due(chat, phone, 2).await;
    worker.round(Cell::FIRST).await.unwrap();
    assert_eq!(services.take().len(), 2, "the device has no token any more");
}

#[tokio::test]
async fn a_device_gets_so_many_pushes_a_minute_and_the_rest_waits() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    for _ in 0..25 {
        world.group_with_message(phone).await;
    }
    let services = Services::default();
    let worker = world.worker(&services);
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 25);
    assert_eq!(services.take().len(), 20);
    world.group_with_message(phone).await;
    assert_eq!(worker.round(Cell::FIRST).await.unwrap(), 1);
    assert_eq!(services.take().len(), 0, "what was sent before counts");
}
