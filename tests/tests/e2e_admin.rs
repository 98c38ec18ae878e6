//! What operators' tools do: users kept out, what is known of chats, nodes and queues.

use std::time::Duration;

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, CloseCode, ErrorReason};
use tern_tests::wire::Wire;
use tern_tests::{Api, World};
use tern_types::{ChatId, Slot};
use tonic::Status;

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

    // Who is gone is shown without an answer.
    let victim = if world.owner_of(chat).await == "chat-0" {
        "chat-1"
    } else {
        "chat-0"
    };
    world.platform.freeze(victim).unwrap();
    let frozen = until::some("a map with a frozen node", Duration::from_secs(20), || async {
        // Any chat node answers, when it is not this one.
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
