//! The operators' tools: suspending users, and looking at chats, messages, sessions, nodes and queues.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, CloseCode, ErrorReason, client_item::Item};
use tern_tests::wire::Wire;
use tern_tests::world::BOUND;
use tern_tests::{Api, Device, World};
use tern_types::{ChatId, RequestId, Slot, TraceContext};
use tokio::process::Command;
use tonic::Status;

/// Runs `tern admin …`, and returns the JSON that it prints.
async fn tern(world: &World, args: &[&str]) -> Value {
    let output = command(world, args).arg("--json").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `tern admin …`, and returns the text that it prints for people.
async fn prints(world: &World, args: &[&str]) -> String {
    let output = command(world, args).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(tern_tests::world::tern());
    command
        .arg("admin")
        .args(args)
        .env("TERN_ADMIN_SERVER", world.platform.gateway_url(0))
        .env("TERN_ADMIN_CA_FILE", &world.platform.secrets().ca)
        .env("TERN_API_KEY", world.platform.api_key());
    command
}

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

#[tokio::test]
async fn an_operator_finds_where_a_message_is() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let chat = world.group(&[&bob, &alice, &carol]).await;
    let (phone, tablet) = (world.phone(&alice).await, world.device(&alice).await);
    let his = world.phone(&bob).await;
    let state_of = |trace: &Value, of: &Device| device(trace, of)["state"].as_str().unwrap().to_owned();
    // The group was made before she had a device, so the phone, her first device, was owed the first entry.
    world.settled().await;
    trace_until(&world, chat, 1, |trace| state_of(trace, phone.device()) != "owes").await;

    // Right after its commit a message is not settled: no inbox row names the tablet, and the phone's acknowledgement
    // is only in the owner's memory. That lasts for half a second, or as long as another connection locks the inbox.
    let mut other = PgConnection::connect(world.platform.database_url())
        .await
        .unwrap();
    let mut tx = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE inbox IN SHARE MODE")
        .execute(&mut *tx)
        .await
        .unwrap();
    let sent = his.say(chat, "hello").await;
    phone.has(chat, sent.seq).await;
    let unsettled = trace_until(&world, chat, sent.seq, |trace| {
        state_of(trace, phone.device()) == "acknowledged"
    })
    .await;
    tx.rollback().await.unwrap();
    assert_eq!(unsettled["settled"], false, "{unsettled}");
    assert!(
        unsettled["unsettled_since_ms"].as_i64().unwrap() > 0,
        "{unsettled}"
    );
    let state = &device(&unsettled, &tablet)["state"];
    // The row of an earlier message covers this one too.
    assert!(state == "pending" || state == "owes", "{unsettled}");

    // After the settle, the tablet, which is offline, owes it.
    let request = his.send(chat, "and you?").await;
    let sent = his.sent(request).await;
    phone.has(chat, sent.seq).await;
    world.settled().await;
    // Until the phone has acknowledged it, the phone owes it too.
    let settled = trace_until(&world, chat, sent.seq, |trace| {
        state_of(trace, phone.device()) == "acknowledged" && trace["sessions_incomplete"] == false
    })
    .await;
    assert_eq!(
        (&settled["settled"], &settled["unsettled_since_ms"]),
        (&true.into(), &0.into())
    );
    assert_eq!(settled["kind"], "message");
    assert_eq!(settled["sender_user_id"], *bob.id.to_string());
    assert_eq!(settled["sender_device_id"], *his.device().id.to_string());
    assert_eq!(settled["owner_node"], *world.owner_of(chat).await);
    assert_eq!(settled["trace_id"], "");
    assert!(settled["stored_at_ms"].as_i64().unwrap() > 0);
    let (on_phone, on_tablet) = (device(&settled, phone.device()), device(&settled, &tablet));
    let gateway = on_phone["sessions"][0]["gateway"].as_str().unwrap();
    assert!(gateway.starts_with("gateway-"), "{settled}");
    assert_eq!(on_tablet["state"], "owes");
    assert_eq!(on_tablet["sessions"], serde_json::json!([]));
    assert!(on_tablet["owes_from_seq"].as_u64().unwrap() <= sent.seq);
    assert!(on_tablet["owes_since_ms"].as_i64().unwrap() > 0);
    let carols = settled["members"].as_array().unwrap().iter();
    let carols = carols
        .clone()
        .find(|member| member["user_id"] == *carol.id.to_string())
        .unwrap();
    assert_eq!(
        carols["devices"][0]["state"], "owes",
        "by the first device that is linked"
    );
    assert_eq!(carols["devices"][0]["device_id"], "");

    // The message is also found by its sender and request_id, with and without the chat.
    let (sender, request, id) = (bob.id.to_string(), request.to_string(), chat.to_string());
    let named = ["trace", "--sender", &sender, "--request-id", &request];
    assert_eq!(tern(&world, &named).await["seq"], sent.seq);
    let named = [&named[..], &["--chat", &id]].concat();
    assert_eq!(tern(&world, &named).await["seq"], sent.seq);

    // When the tablet is online again, it gets the message.
    let tablet = world.phone_of(&tablet).await;
    tablet.has(chat, sent.seq).await;
    trace_until(&world, chat, sent.seq, |trace| {
        state_of(trace, tablet.device()) == "acknowledged" && trace["sessions_incomplete"] == false
    })
    .await;
    until::holds("the same for people", BOUND, || async {
        let text = prints(&world, &["trace", "--chat", &id, "--seq", &sent.seq.to_string()]).await;
        let all = ["settled     yes", "acknowledged; online at gateway-"];
        anyhow::ensure!(all.iter().all(|said| text.contains(said)), "{text}");
        Ok(true)
    })
    .await
    .unwrap();

    // A message that the client traced is shown with its trace id.
    let traced = TraceContext {
        trace_id: [0xa1; 16],
        span_id: [1; 8],
        sampled: true,
    };
    let other = world.device(&bob).await;
    let (wire, _) = Wire::open(world.new_channel(1), &other).await.unwrap();
    let request = RequestId::random();
    wire.say(Item::Send(v1::SendMessage {
        request_id: request.to_string(),
        to: Some(v1::send_message::To::ChatId(chat.to_string())),
        envelope: Some(v1::Envelope {
            traceparent: traced.to_string(),
            ..tern_tests::wire::plain()
        }),
        body: "traced".into(),
    }))
    .await;
    let seq = sent.seq + 1;
    phone.has(chat, seq).await;
    let known = tern(&world, &["trace", "--chat", &id, "--seq", &seq.to_string()]).await;
    assert_eq!(known["trace_id"], "a1".repeat(16));

    let output = command(&world, &["trace", "--chat", &id, "--seq", "999"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("no such message"),
        "{said}"
    );
    world.end().await;
}

fn reason(status: &Status) -> ErrorReason {
    reason_of(status).unwrap_or_else(|| panic!("{status:?}"))
}

#[tokio::test]
async fn a_suspended_user_is_out_at_once_and_finds_everything_when_resumed() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let (device, offline) = (world.device(&bob).await, world.device(&bob).await);
    let (mut his, _) = Wire::open(world.new_channel(1), &device).await.unwrap();
    let mut operator = world.back_end().await.admin();
    let user_id = bob.id.to_string();
    let calls = || async {
        for gateway in 0..world.gateways() {
            let api = Api::new(world.channel(gateway), &device.access_token);
            api.chats().list_chats(v1::ListChatsRequest::default()).await?;
        }
        Ok::<_, Status>(())
    };
    calls().await.unwrap();

    let request = v1::SuspendUserRequest {
        user_id: user_id.clone(),
    };
    let suspended = operator.suspend_user(request.clone()).await.unwrap().into_inner();
    if suspended.gateways_missed.is_empty() {
        assert_eq!(suspended.closed, 1);
    } else {
        // Gateways that did not answer in time are told again.
        until::holds("all gateways are told", BOUND, || async {
            let suspended = operator.clone().suspend_user(request.clone()).await?.into_inner();
            Ok(suspended.gateways_missed.is_empty())
        })
        .await
        .unwrap();
    }
    let (closing, status) = his.end().await;
    let Some(v1::server_event::Event::Closing(closing)) = closing else {
        panic!("{closing:?}")
    };
    assert_eq!(closing.code(), CloseCode::UserSuspended);
    assert!(!closing.may_reconnect);
    assert_eq!(reason(&status), ErrorReason::UserSuspended);
    assert_eq!(reason(&calls().await.unwrap_err()), ErrorReason::UserSuspended);
    for gateway in 0..world.gateways() {
        for device in [&device, &offline] {
            let refused = Wire::open(world.new_channel(gateway), device)
                .await
                .map(|_| ())
                .unwrap_err();
            assert_eq!(reason(&refused), ErrorReason::UserSuspended);
        }
    }
    let refresh = v1::RefreshTokenRequest {
        refresh_token: device.refresh_token.clone(),
    };
    let mut auth = Api::anonymous(world.channel(0)).auth();
    let refused = auth.refresh_token(refresh.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::UserSuspended);

    // A gateway that starts now was never told of the suspension.
    let name = "gateway-1";
    world.platform.kill(name).await.unwrap();
    let mut world = world;
    world.platform.restart(name).await.unwrap();
    world.platform.linked().await.unwrap();
    let api = Api::new(world.new_channel(1), &device.access_token);
    until::holds("the new gateway knows", BOUND, || async {
        let refused = api.chats().list_chats(v1::ListChatsRequest::default()).await;
        Ok(refused.is_err_and(|status| reason_of(&status) == Some(ErrorReason::UserSuspended)))
    })
    .await
    .unwrap();

    // Messages for the suspended user are kept.
    let sent = hers.say(bob.id, "while you were out").await;
    let request = v1::ResumeUserRequest { user_id };
    until::holds("all gateways are told that he is back", BOUND, || async {
        let resumed = operator.clone().resume_user(request.clone()).await?.into_inner();
        Ok(resumed.gateways_missed.is_empty())
    })
    .await
    .unwrap();
    let tokens = auth
        .refresh_token(refresh)
        .await
        .unwrap()
        .into_inner()
        .tokens
        .unwrap();
    assert!(!tokens.access_token.is_empty());
    for device in [&device, &offline] {
        let back = world.phone_of(device).await;
        back.has(ChatId::direct(alice.id, bob.id), sent.seq).await;
        hers.receipt(ChatId::direct(alice.id, bob.id), bob.id, sent.seq, 0)
            .await;
    }
    world.settled().await;
    world.end().await;
}

#[tokio::test]
async fn an_operator_sees_sessions_chats_nodes_and_queues() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, away) = (world.phone(&alice).await, world.device(&bob).await);
    let sent = hers.say(bob.id, "hello").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    world.settled().await;
    let mut operator = world.back_end().await.admin();

    let user_id = alice.id.to_string();
    let sessions = operator.list_sessions(v1::ListSessionsRequest { user_id }).await;
    let sessions = sessions.unwrap().into_inner();
    assert_eq!(sessions.sessions.len(), 1);
    assert_eq!(sessions.sessions[0].device_id, hers.device().id.to_string());
    assert!(sessions.sessions[0].gateway.starts_with("gateway-") && sessions.sessions[0].since_ms > 0);
    let user_id = bob.id.to_string();
    let none = operator.list_sessions(v1::ListSessionsRequest { user_id }).await;
    assert_eq!(none.unwrap().into_inner().sessions, []);

    let inspect = v1::InspectChatRequest {
        chat_id: chat.to_string(),
    };
    // Until she has acknowledged her own message, her phone owes it too.
    let shown = until::some("the chat with one who owes", BOUND, || async {
        let shown = operator.clone().inspect_chat(inspect.clone()).await?.into_inner();
        let figures = (shown.head_seq, shown.unsettled, shown.inbox_rows);
        let reached = shown.members.iter().map(|member| member.delivered_seq).max();
        anyhow::ensure!(figures == (1, 0, 1) && reached == Some(1), "{shown:?}");
        Ok(shown)
    });
    let shown = shown.await.unwrap();
    assert_eq!(shown.kind(), v1::ChatKind::Direct);
    assert_eq!(shown.owner_node, world.owner_of(chat).await);
    assert_eq!(shown.slot, u32::from(Slot::of_chat(chat).number()));
    let member = |user: &tern_tests::User| {
        let id = user.id.to_string();
        shown
            .members
            .iter()
            .find(|member| member.user_id == id)
            .unwrap()
            .clone()
    };
    assert_eq!((member(&alice).delivered_seq, member(&alice).devices), (1, 1));
    assert_eq!((member(&bob).delivered_seq, member(&bob).devices), (0, 1));

    let queues = until::some("what all nodes say of their queues", BOUND, || async {
        let queues = operator
            .clone()
            .get_queues(v1::GetQueuesRequest {})
            .await?
            .into_inner();
        anyhow::ensure!(queues.nodes_missed.is_empty(), "{queues:?}");
        Ok(queues)
    });
    let queues = queues.await.unwrap();
    assert_eq!(queues.unsettled, []);
    let inbox = queues.inbox.unwrap();
    assert_eq!((inbox.rows, inbox.estimated), (1, false));
    let nodes: std::collections::BTreeSet<_> = queues.shards.iter().map(|shard| &*shard.node).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["chat-0", "chat-1"]);

    let map = until::some("a map that all nodes follow", BOUND, || async {
        let request = v1::GetClusterMapRequest {};
        let map = operator.clone().get_cluster_map(request).await?.into_inner();
        let follows = |answer: &v1::NodeAnswer| answer.map_version == map.map_version;
        let all = map
            .nodes
            .iter()
            .all(|node| node.answer.as_ref().is_some_and(follows));
        anyhow::ensure!(all, "{map:?}");
        Ok(map)
    });
    let map = map.await.unwrap();
    let roles: Vec<_> = map.nodes.iter().map(|node| (&*node.role, &*node.name)).collect();
    assert_eq!(
        roles,
        [
            ("gateway", "gateway-0"),
            ("gateway", "gateway-1"),
            ("chat", "chat-0"),
            ("chat", "chat-1"),
            ("presence", "presence-0"),
            ("accounts", "accounts-0"),
        ]
    );
    for node in &map.nodes {
        let answer = node.answer.as_ref().unwrap();
        assert_eq!(answer.incarnation, node.incarnation);
        let admin = world.platform.node(&node.name).unwrap().admin;
        assert_eq!(node.admin_address, admin.to_string());
    }
    let slots = |role| {
        map.nodes
            .iter()
            .filter(|node| node.role == role)
            .map(|node| node.slots)
            .sum::<u32>()
    };
    assert_eq!(
        (slots("chat"), slots("presence"), slots("gateway")),
        (4096, 4096, 0)
    );

    // The commands show the same.
    let id = chat.to_string();
    assert_eq!(tern(&world, &["chat", &id]).await["owner_node"], shown.owner_node);
    assert_eq!(
        tern(&world, &["map", "--chat", &id]).await["owner_node"],
        shown.owner_node
    );
    assert_eq!(tern(&world, &["map"]).await["nodes"].as_array().unwrap().len(), 6);
    until::holds("an answer of a node", BOUND, || async {
        let nodes = tern(&world, &["nodes"]).await;
        anyhow::ensure!(nodes[0]["answer"]["map_version"] == map.map_version, "{nodes}");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(tern(&world, &["queues"]).await["inbox_rows"], 1);
    let user = tern(&world, &["users", "show", &alice.external_id]).await;
    assert_eq!(user["user"]["user_id"], *alice.id.to_string());
    assert_eq!(
        tern(&world, &["devices", &alice.external_id]).await[0]["state"],
        "active"
    );
    let sessions = tern(&world, &["sessions", &alice.id.to_string()]).await;
    assert_eq!(sessions[0]["device_id"], *hers.device().id.to_string());
    for (args, wanted) in [
        (vec!["map"], "chat-1"),
        (vec!["nodes"], "METRICS"),
        (vec!["queues"], "inbox      1 rows, oldest"),
        (vec!["chat", &id], "1 devices owe"),
        (vec!["sessions", &alice.external_id], "GATEWAY"),
        (vec!["users", "list"], &alice.external_id),
    ] {
        let text = prints(&world, &args).await;
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
    assert_eq!(
        tern(&world, &["users", "list", "--suspended"]).await,
        serde_json::json!([])
    );

    // A dead node is shown without an answer until its lease has ended, and then not at all.
    let victim = "presence-0";
    world.platform.freeze(victim).unwrap();
    let map = until::some("a map with a frozen node", BOUND, || async {
        let request = v1::GetClusterMapRequest {};
        Ok(operator.clone().get_cluster_map(request).await?.into_inner())
    });
    let map = map.await.unwrap();
    let mut frozen = map.nodes.iter().filter(|node| node.name == victim);
    assert!(frozen.all(|node| node.answer.is_none()), "{map:?}");
    world.platform.thaw(victim).unwrap();
    drop(away);
    world.end().await;
}

/// Runs `tern top` once. Returns whether nothing is wrong, and what it prints.
async fn top(world: &World) -> (bool, String) {
    let mut command = Command::new(tern_tests::world::tern());
    command
        .args(["top", "--once", "--interval", "0.5"])
        .env("TERN_ADMIN_SERVER", world.platform.gateway_url(0))
        .env("TERN_ADMIN_CA_FILE", &world.platform.secrets().ca)
        .env("TERN_API_KEY", world.platform.api_key());
    let output = command.output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn top_shows_every_node_and_what_is_wrong() {
    let world = World::start().await;
    world.still_works().await;
    world.settled().await;
    // A busy node may answer too late.
    until::holds("nothing is wrong", BOUND, || async {
        let (well, text) = top(&world).await;
        let nodes = [
            "gateway-0",
            "gateway-1",
            "chat-0",
            "chat-1",
            "presence-0",
            "accounts-0",
        ];
        for node in nodes {
            let up = |line: &str| line.contains(node) && line.contains(" up ");
            anyhow::ensure!(text.lines().any(up), "{node} is not up: {text}");
        }
        for fact in [
            "etcd          reached by 6 of 6",
            "postgres      answers",
            "sweep hits    0",
        ] {
            anyhow::ensure!(text.contains(fact), "not {fact}: {text}");
        }
        anyhow::ensure!(!text.contains('!'), "{text}");
        Ok(well)
    })
    .await
    .unwrap();

    world.platform.freeze("presence-0").unwrap();
    let (well, text) = top(&world).await;
    world.platform.thaw("presence-0").unwrap();
    // After its lease the node is gone, and it was the only one of its role.
    let said = ["! presence-0 does not answer", "! there is no presence node"];
    assert!(!well && said.iter().any(|said| text.contains(said)), "{text}");
    world.end().await;
}
