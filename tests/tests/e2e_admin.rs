//! What operators' tools do: users kept out, what is known of chats, nodes and queues.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use serde_json::Value;
use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, CloseCode, ErrorReason, client_item::Item};
use tern_tests::wire::Wire;
use tern_tests::world::BOUND;
use tern_tests::{Api, Device, World};
use tern_types::{ChatId, RequestId, Slot, TraceContext};
use tokio::process::Command;
use tonic::Status;

/// What `tern admin …` prints as JSON.
async fn tern(world: &World, args: &[&str]) -> Value {
    let output = command(world, args).arg("--json").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What it prints for people.
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

/// The device in a trace.
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
    let trace = |sent: v1::Sent| {
        let (world, chat) = (&world, chat.to_string());
        async move { tern(world, &["trace", "--chat", &chat, "--seq", &sent.seq.to_string()]).await }
    };

    // Right after its commit a message is not settled: nobody knows of the tablet, the phone's acknowledgement is in the
    // owner's memory. On a busy machine half a second may be over before it was asked.
    let seen = tokio::time::timeout(BOUND, async {
        loop {
            let sent = his.say(chat, "hello").await;
            phone.has(chat, sent.seq).await;
            let trace = trace(sent).await;
            if trace["settled"] == false && device(&trace, phone.device())["state"] == "acknowledged" {
                break trace;
            }
        }
    });
    let unsettled = seen.await.expect("one that was asked for in time");
    assert!(
        unsettled["unsettled_since_ms"].as_i64().unwrap() > 0,
        "{unsettled}"
    );
    let state = &device(&unsettled, &tablet)["state"];
    // The row of an earlier message covers this one too.
    assert!(state == "pending" || state == "owes", "{unsettled}");

    // Settled: the tablet, which is offline, owes it.
    let request = his.send(chat, "and you?").await;
    let sent = his.sent(request).await;
    phone.has(chat, sent.seq).await;
    world.settled().await;
    let settled = trace(sent.clone()).await;
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
    assert_eq!(on_phone["state"], "acknowledged");
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

    // The same by what its sender calls it, with and without the chat.
    let (sender, request, id) = (bob.id.to_string(), request.to_string(), chat.to_string());
    let named = ["trace", "--sender", &sender, "--request-id", &request];
    assert_eq!(tern(&world, &named).await["seq"], sent.seq);
    let named = [&named[..], &["--chat", &id]].concat();
    assert_eq!(tern(&world, &named).await["seq"], sent.seq);

    // Online again, the tablet has it.
    let tablet = world.phone_of(&tablet).await;
    tablet.has(chat, sent.seq).await;
    until::holds("the tablet has acknowledged", BOUND, || async {
        Ok(device(&trace(sent.clone()).await, tablet.device())["state"] == "acknowledged")
    })
    .await
    .unwrap();
    let text = prints(&world, &["trace", "--chat", &id, "--seq", &sent.seq.to_string()]).await;
    assert!(
        text.contains("settled     yes") && text.contains("acknowledged; online at gateway-"),
        "{text}"
    );

    // What the client traced is known by its trace.
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
    let suspended = operator.suspend_user(request).await.unwrap().into_inner();
    assert_eq!((suspended.closed, suspended.gateways_missed.len()), (1, 0));
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

    // A gateway that starts now was never told.
    let name = "gateway-1";
    world.platform.kill(name).await.unwrap();
    let mut world = world;
    world.platform.restart(name).await.unwrap();
    world.platform.linked().await.unwrap();
    let api = Api::new(world.new_channel(1), &device.access_token);
    until::holds("the new gateway knows", Duration::from_secs(20), || async {
        let refused = api.chats().list_chats(v1::ListChatsRequest::default()).await;
        Ok(refused.is_err_and(|status| reason_of(&status) == Some(ErrorReason::UserSuspended)))
    })
    .await
    .unwrap();

    // What others send is kept.
    let sent = hers.say(bob.id, "while you were out").await;
    let request = v1::ResumeUserRequest { user_id };
    operator.resume_user(request).await.unwrap();
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
    let shown = operator.inspect_chat(inspect).await.unwrap().into_inner();
    assert_eq!(shown.kind(), v1::ChatKind::Direct);
    assert_eq!((shown.head_seq, shown.unsettled, shown.inbox_rows), (1, 0, 1));
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

    let queues = operator
        .get_queues(v1::GetQueuesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(queues.unsettled, []);
    let inbox = queues.inbox.unwrap();
    assert_eq!((inbox.rows, inbox.estimated), (1, false));
    let nodes: std::collections::BTreeSet<_> = queues.shards.iter().map(|shard| &*shard.node).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["chat-0", "chat-1"]);

    let map = operator.get_cluster_map(v1::GetClusterMapRequest {}).await;
    let map = map.unwrap().into_inner();
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
        let answer = node.answer.as_ref().unwrap_or_else(|| panic!("{node:?}"));
        assert_eq!(answer.map_version, map.map_version);
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

    // The same by the commands.
    let id = chat.to_string();
    assert_eq!(tern(&world, &["chat", &id]).await["owner_node"], shown.owner_node);
    assert_eq!(
        tern(&world, &["map", "--chat", &id]).await["owner_node"],
        shown.owner_node
    );
    assert_eq!(tern(&world, &["map"]).await["nodes"].as_array().unwrap().len(), 6);
    assert_eq!(
        tern(&world, &["nodes"]).await[0]["answer"]["map_version"],
        map.map_version
    );
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

    // Who is gone is shown without an answer, until its lease has ended.
    let victim = "presence-0";
    world.platform.freeze(victim).unwrap();
    let frozen = until::some("a map with a frozen node", Duration::from_secs(20), || async {
        let mut operator = operator.clone();
        let map = operator.get_cluster_map(v1::GetClusterMapRequest {});
        let map = tokio::time::timeout(Duration::from_secs(5), map)
            .await??
            .into_inner();
        let node = map.nodes.into_iter().find(|node| node.name == victim);
        node.ok_or_else(|| anyhow::anyhow!("gone already"))
    })
    .await
    .unwrap();
    assert_eq!(frozen.answer, None);
    world.platform.thaw(victim).unwrap();
    drop(away);
    world.end().await;
}

#[tokio::test]
async fn top_shows_every_node_and_what_is_wrong() {
    let world = World::start().await;
    let top = |world: &World| {
        let mut command = Command::new(tern_tests::world::tern());
        command
            .args(["top", "--once", "--interval", "0.5"])
            .env("TERN_ADMIN_SERVER", world.platform.gateway_url(0))
            .env("TERN_ADMIN_CA_FILE", &world.platform.secrets().ca)
            .env("TERN_API_KEY", world.platform.api_key());
        async move {
            let output = command.output().await.unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        }
    };
    world.still_works().await;
    world.settled().await;
    let (well, text) = top(&world).await;
    assert!(well, "{text}");
    for node in [
        "gateway-0",
        "gateway-1",
        "chat-0",
        "chat-1",
        "presence-0",
        "accounts-0",
    ] {
        let line = text
            .lines()
            .find(|line| line.contains(node))
            .unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(" up "), "{line}");
    }
    assert!(text.contains("etcd          reached by 6 of 6"), "{text}");
    assert!(
        text.contains("postgres      answers") && text.contains("sweep hits    0"),
        "{text}"
    );
    assert!(!text.contains('!'), "{text}");

    world.platform.freeze("presence-0").unwrap();
    let (well, text) = top(&world).await;
    world.platform.thaw("presence-0").unwrap();
    // Later than its lease it is gone, and it was the only one.
    let said = ["! presence-0 does not answer", "! there is no presence node"];
    assert!(!well && said.iter().any(|said| text.contains(said)), "{text}");
    world.end().await;
}
