//! Sessions, chats, nodes and queues as operators see them.

use std::collections::BTreeSet;

use tern_local::until;
use tern_proto::v1::{self, admin_client::AdminClient};
use tern_tests::api::Caller;
use tern_tests::world::{BOUND, patiently};
use tern_tests::{Device, User, World};
use tern_types::{ChatId, RequestId, Slot};

use crate::commands::{prints, tern, top};

type Operator = AdminClient<Caller>;

#[tokio::test]
async fn an_operator_sees_sessions_chats_nodes_and_queues() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, away) = (world.phone(&alice).await, world.device(&bob).await);
    let sent = hers.say(bob.id, "hello").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    world.settled().await;
    let mut operator = world.back_end().await.admin();

    one_is_online(&mut operator, hers.device(), &bob).await;
    let shown = the_chat_shows_who_has_the_message(&operator, chat, &alice, &bob).await;
    assert_eq!(shown.owner_node, world.owner_of(chat).await);
    the_queues_hold_one_row(&operator).await;
    let map = a_map_that_all_nodes_follow(&operator).await;
    shows_all_nodes(&map, &world);

    // The commands show the same.
    commands_show_the_chat_and_the_nodes(&world, chat, &shown.owner_node, &map).await;
    commands_show_her(&world, &alice, hers.device()).await;
    commands_find_who_has_a_uuid_of_the_app(&world).await;
    commands_print_for_people(&world, chat, &alice).await;
    assert_eq!(
        tern(&world, &["users", "list", "--suspended"]).await,
        serde_json::json!([])
    );

    a_dead_node_is_shown_without_an_answer(&world, &operator).await;
    drop(away);
    world.end().await;
}

async fn one_is_online(operator: &mut Operator, online: &Device, offline: &User) {
    let user_id = online.user.to_string();
    let request = v1::ListSessionsRequest { user_id };
    // After a reconnect the old session may still be there for a moment.
    let sessions = until::some("one session", BOUND, || async {
        let found = operator
            .clone()
            .list_sessions(request.clone())
            .await?
            .into_inner();
        anyhow::ensure!(found.sessions.len() == 1, "{found:?}");
        Ok(found)
    });
    let sessions = sessions.await.unwrap();
    assert_eq!(sessions.sessions[0].device_id, online.id.to_string());
    assert!(sessions.sessions[0].gateway.starts_with("gateway-") && sessions.sessions[0].since_ms > 0);
    let user_id = offline.id.to_string();
    let none = operator.list_sessions(v1::ListSessionsRequest { user_id }).await;
    assert_eq!(none.unwrap().into_inner().sessions, []);
}

/// Waits until only the recipient's device owes the chat's one message, and returns what is shown of the chat.
async fn the_chat_shows_who_has_the_message(
    operator: &Operator,
    chat: ChatId,
    sender: &User,
    recipient: &User,
) -> v1::InspectChatResponse {
    let inspect = v1::InspectChatRequest {
        chat_id: chat.to_string(),
    };
    // Her phone has an inbox row too until it has acknowledged her own message.
    let shown = until::some("the chat with one who owes", BOUND, || async {
        let shown = operator.clone().inspect_chat(inspect.clone()).await?.into_inner();
        let figures = (shown.head_seq, shown.unsettled, shown.inbox_rows);
        let reached = shown.members.iter().map(|member| member.delivered_seq).max();
        anyhow::ensure!(figures == (1, 0, 1) && reached == Some(1), "{shown:?}");
        Ok(shown)
    });
    let shown = shown.await.unwrap();
    assert_eq!(shown.kind(), v1::ChatKind::Direct);
    assert_eq!(shown.slot, u32::from(Slot::of_chat(chat).number()));
    let member = |user: &User| {
        let id = user.id.to_string();
        shown
            .members
            .iter()
            .find(|member| member.user_id == id)
            .unwrap()
            .clone()
    };
    assert_eq!((member(sender).delivered_seq, member(sender).devices), (1, 1));
    assert_eq!(
        (member(recipient).delivered_seq, member(recipient).devices),
        (0, 1)
    );
    shown
}

async fn the_queues_hold_one_row(operator: &Operator) {
    let queues = until::some("what all nodes say of their queues", BOUND, || async {
        let queues = operator
            .clone()
            .get_queues(v1::GetQueuesRequest {})
            .await?
            .into_inner();
        anyhow::ensure!(queues.nodes_missed.is_empty() && !queues.partial, "{queues:?}");
        // Her phone may not have acknowledged yet what her own log says of it.
        let rows = queues.inbox.as_ref().map(|inbox| inbox.rows);
        anyhow::ensure!(rows == Some(1), "{queues:?}");
        Ok(queues)
    });
    let queues = queues.await.unwrap();
    assert_eq!(queues.unsettled, []);
    assert!(!queues.inbox.unwrap().estimated);
    let nodes: BTreeSet<_> = queues.shards.iter().map(|shard| &*shard.node).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["chat-0", "chat-1"]);
}

async fn a_map_that_all_nodes_follow(operator: &Operator) -> v1::GetClusterMapResponse {
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
    map.await.unwrap()
}

fn shows_all_nodes(map: &v1::GetClusterMapResponse, world: &World) {
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
}

async fn commands_show_the_chat_and_the_nodes(
    world: &World,
    chat: ChatId,
    owner: &str,
    map: &v1::GetClusterMapResponse,
) {
    let id = chat.to_string();
    assert_eq!(tern(world, &["chat", &id]).await["owner_node"], owner);
    assert_eq!(tern(world, &["map", "--chat", &id]).await["owner_node"], owner);
    assert_eq!(tern(world, &["map"]).await["nodes"].as_array().unwrap().len(), 6);
    until::holds("an answer of a node", BOUND, || async {
        let nodes = tern(world, &["nodes"]).await;
        anyhow::ensure!(nodes[0]["answer"]["map_version"] == map.map_version, "{nodes}");
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(tern(world, &["queues"]).await["inbox_rows"], 1);
}

async fn commands_show_her(world: &World, alice: &User, device: &Device) {
    let user = tern(world, &["users", "show", &alice.external_id]).await;
    assert_eq!(user["user"]["user_id"], *alice.id.to_string());
    assert_eq!(
        tern(world, &["devices", &alice.external_id]).await[0]["state"],
        "active"
    );
    let sessions = tern(world, &["sessions", &alice.id.to_string()]).await;
    assert_eq!(sessions[0]["device_id"], *device.id.to_string());
}

/// The app's own ids may be UUIDs, as user ids are.
async fn commands_find_who_has_a_uuid_of_the_app(world: &World) {
    let request = v1::CreateUserRequest {
        external_id: RequestId::random().to_string(),
        display_name: "carol".to_owned(),
    };
    let api = world.back_end().await;
    let made = patiently("a user", || {
        let (api, request) = (api.clone(), request.clone());
        async move { api.users().create_user(request).await }
    })
    .await;
    let found = tern(world, &["users", "show", &request.external_id]).await;
    assert_eq!(found["user"]["user_id"], *made.user.unwrap().user_id);
}

async fn commands_print_for_people(world: &World, chat: ChatId, alice: &User) {
    let id = chat.to_string();
    for (args, wanted) in [
        (vec!["map"], "chat-1"),
        (vec!["nodes"], "METRICS"),
        (vec!["queues"], "inbox      1 rows, oldest"),
        (vec!["chat", &id], "1 devices owe"),
        (vec!["sessions", &alice.external_id], "GATEWAY"),
        (vec!["users", "list"], &alice.external_id),
    ] {
        let text = prints(world, &args).await;
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
}

/// Freezes a node, and checks that it is shown without an answer. Once its lease has ended it is not shown at all.
async fn a_dead_node_is_shown_without_an_answer(world: &World, operator: &Operator) {
    let victim = "presence-0";
    world.platform.freeze(victim).unwrap();
    // A moment passes until the last of its threads has stopped.
    let shown = until::some("a map with a frozen node", BOUND, || async {
        let request = v1::GetClusterMapRequest {};
        let map = operator.clone().get_cluster_map(request).await?.into_inner();
        let mut frozen = map.nodes.iter().filter(|node| node.name == victim);
        anyhow::ensure!(frozen.all(|node| node.answer.is_none()), "{map:?}");
        Ok(())
    });
    shown.await.unwrap();
    world.platform.thaw(victim).unwrap();
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
    // After its lease the node is gone, and it was the only one of its role.
    let said = ["! presence-0 does not answer", "! there is no presence node"];
    until::some("the frozen node is missed", BOUND, || async {
        let (well, text) = top(&world).await;
        anyhow::ensure!(!well && said.iter().any(|said| text.contains(said)), "{text}");
        Ok(())
    })
    .await
    .unwrap();
    world.platform.thaw("presence-0").unwrap();
    world.end().await;
}
