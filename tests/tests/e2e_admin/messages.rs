//! An operator's trace of a message says where it is, and which devices have it.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tern_local::until;
use tern_proto::v1::{self, client_item::Item};
use tern_tests::wire::Wire;
use tern_tests::world::BOUND;
use tern_tests::{Device, Phone, User, World};
use tern_types::{ChatId, RequestId, TraceContext};

use crate::commands::{command, prints, tern};

/// Waits until the trace of a message is as `wanted`, and returns it.
async fn trace_until(world: &World, chat: ChatId, seq: u64, wanted: impl Fn(&Value) -> bool) -> Value {
    let (chat, seq) = (chat.to_string(), seq.to_string());
    let trace = until::some("the trace that is wanted", BOUND, || async {
        let trace = tern(world, &["trace", "--chat", &chat, "--seq", &seq]).await;
        anyhow::ensure!(wanted(&trace), "{trace}");
        Ok(trace)
    });
    trace.await.unwrap()
}

/// Returns the part of a trace about a device.
fn device<'a>(trace: &'a Value, device: &Device) -> &'a Value {
    let id = device.id.to_string();
    let members = trace["members"].as_array().unwrap().iter();
    let mut devices = members.flat_map(|member| member["devices"].as_array().unwrap());
    devices
        .find(|device| device["device_id"] == *id)
        .unwrap_or_else(|| panic!("{id} is not in {trace}"))
}

fn state_of<'a>(trace: &'a Value, of: &Device) -> &'a str {
    device(trace, of)["state"].as_str().unwrap()
}

/// Decides whether the trace says that the device is online and has acknowledged the message, and no presence node failed
/// to answer.
fn has_acknowledged(trace: &Value, of: &Device) -> bool {
    let online = device(trace, of)["sessions"][0]["gateway"].is_string();
    state_of(trace, of) == "acknowledged" && online && trace["sessions_incomplete"] == false
}

#[tokio::test]
async fn an_operator_finds_where_a_message_is() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let chat = world.group(&[&bob, &alice, &carol]).await;
    let (phone, tablet) = (world.phone(&alice).await, world.device(&alice).await);
    let his = world.phone(&bob).await;
    // The group was made before she had a device. So the first entry waited for her first device, which is the phone.
    world.settled().await;
    trace_until(&world, chat, 1, |trace| state_of(trace, phone.device()) != "owes").await;
    an_unsettled_message_is_shown_as_such(&world, chat, &his, &phone, &tablet).await;

    // After the settle the tablet, which is offline, owes an acknowledgement of the next message.
    let request = his.send(chat, "and you?").await;
    let sent = his.sent(request).await;
    phone.has(chat, sent.seq).await;
    world.settled().await;
    // The phone owes one too until it has acknowledged the message.
    let settled = trace_until(&world, chat, sent.seq, |trace| {
        has_acknowledged(trace, phone.device())
    })
    .await;
    assert_eq!(settled["sender_user_id"], *bob.id.to_string());
    assert_eq!(settled["sender_device_id"], *his.device().id.to_string());
    assert_eq!(settled["owner_node"], *world.owner_of(chat).await);
    is_a_settled_message(&settled);
    is_owed_by_the_tablet(&settled, phone.device(), &tablet, sent.seq);
    is_owed_by_the_first_device_of(&carol, &settled);
    is_found_by_its_request(&world, chat, &bob, request, sent.seq).await;

    let _tablet = the_tablet_gets_it(&world, chat, &tablet, sent.seq).await;
    let _wire = the_trace_id_is_shown(&world, chat, &world.device(&bob).await, &phone, sent.seq + 1).await;
    what_does_not_exist_is_no_message(&world, chat).await;
    world.end().await;
}

/// Checks the trace of a message right after its commit, while it is not settled: no inbox row was written for it, and
/// the phone's acknowledgement is only in the owner's memory. That lasts for half a second, or as long as another
/// connection locks the inbox.
async fn an_unsettled_message_is_shown_as_such(
    world: &World,
    chat: ChatId,
    from: &Phone,
    phone: &Phone,
    tablet: &Device,
) {
    let mut other = PgConnection::connect(world.platform.database_url())
        .await
        .unwrap();
    let mut tx = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE inbox IN SHARE MODE")
        .execute(&mut *tx)
        .await
        .unwrap();
    let sent = from.say(chat, "hello").await;
    phone.has(chat, sent.seq).await;
    let unsettled = trace_until(world, chat, sent.seq, |trace| {
        state_of(trace, phone.device()) == "acknowledged"
    })
    .await;
    tx.rollback().await.unwrap();
    assert_eq!(unsettled["settled"], false, "{unsettled}");
    assert!(
        unsettled["unsettled_since_ms"].as_i64().unwrap() > 0,
        "{unsettled}"
    );
    let state = state_of(&unsettled, tablet);
    // The row of an earlier message covers this one too.
    assert!(state == "pending" || state == "owes", "{unsettled}");
}

fn is_a_settled_message(trace: &Value) {
    assert_eq!(
        (&trace["settled"], &trace["unsettled_since_ms"]),
        (&true.into(), &0.into())
    );
    assert_eq!(trace["kind"], "message");
    assert_eq!(trace["trace_id"], "");
    assert!(trace["stored_at_ms"].as_i64().unwrap() > 0);
}

fn is_owed_by_the_tablet(trace: &Value, phone: &Device, tablet: &Device, seq: u64) {
    let (on_phone, on_tablet) = (device(trace, phone), device(trace, tablet));
    let gateway = on_phone["sessions"][0]["gateway"].as_str().unwrap();
    assert!(gateway.starts_with("gateway-"), "{trace}");
    assert_eq!(on_tablet["state"], "owes");
    assert_eq!(on_tablet["sessions"], serde_json::json!([]));
    assert!(on_tablet["owes_from_seq"].as_u64().unwrap() <= seq);
    assert!(on_tablet["owes_since_ms"].as_i64().unwrap() > 0);
}

fn is_owed_by_the_first_device_of(user: &User, trace: &Value) {
    let mut members = trace["members"].as_array().unwrap().iter();
    let member = members
        .find(|member| member["user_id"] == *user.id.to_string())
        .unwrap();
    assert_eq!(
        member["devices"][0]["state"], "owes",
        "by the first device that is linked"
    );
    assert_eq!(member["devices"][0]["device_id"], "");
}

/// Checks that a message is also found by its sender and request_id, with and without the chat.
async fn is_found_by_its_request(world: &World, chat: ChatId, sender: &User, request: RequestId, seq: u64) {
    let (sender, request, chat) = (sender.id.to_string(), request.to_string(), chat.to_string());
    let named = ["trace", "--sender", &sender, "--request-id", &request];
    assert_eq!(tern(world, &named).await["seq"], seq);
    let named = [&named[..], &["--chat", &chat]].concat();
    assert_eq!(tern(world, &named).await["seq"], seq);
}

/// Brings the tablet online, and checks that it gets the message. Returns its client, which stays online.
async fn the_tablet_gets_it(world: &World, chat: ChatId, tablet: &Device, seq: u64) -> Phone {
    let tablet = world.phone_of(tablet).await;
    tablet.has(chat, seq).await;
    trace_until(world, chat, seq, |trace| has_acknowledged(trace, tablet.device())).await;
    let (chat, seq) = (chat.to_string(), seq.to_string());
    until::holds("the same for people", BOUND, || async {
        let text = prints(world, &["trace", "--chat", &chat, "--seq", &seq]).await;
        let all = ["settled     yes", "acknowledged; online at gateway-"];
        anyhow::ensure!(all.iter().all(|said| text.contains(said)), "{text}");
        Ok(true)
    })
    .await
    .unwrap();
    tablet
}

/// Checks that a message that the client traced is shown with its trace id. Returns the client's stream.
async fn the_trace_id_is_shown(world: &World, chat: ChatId, from: &Device, to: &Phone, seq: u64) -> Wire {
    let traced = TraceContext {
        trace_id: [0xa1; 16],
        span_id: [1; 8],
        sampled: true,
    };
    let (mut wire, _) = Wire::open(world.new_channel(1), from).await.unwrap();
    let message = Item::Send(v1::SendMessage {
        request_id: RequestId::random().to_string(),
        to: Some(v1::send_message::To::ChatId(chat.to_string())),
        envelope: v1::Envelope {
            traceparent: traced.to_string(),
            ..tern_tests::wire::plain()
        }
        .encoded(),
        body: "traced".into(),
    });
    assert_eq!(wire.send(message).await.seq, seq);
    to.has(chat, seq).await;
    let (chat, seq) = (chat.to_string(), seq.to_string());
    let known = tern(world, &["trace", "--chat", &chat, "--seq", &seq]).await;
    assert_eq!(known["trace_id"], "a1".repeat(16));
    wire
}

async fn what_does_not_exist_is_no_message(world: &World, chat: ChatId) {
    let output = command(world, &["trace", "--chat", &chat.to_string(), "--seq", "999"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("no such message"),
        "{said}"
    );
}
