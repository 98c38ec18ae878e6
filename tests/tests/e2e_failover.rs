//! Nodes die, hang, come back and disagree. No message is lost, doubled or out of order.

#![allow(clippy::expect_used, reason = "tests")]

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};
use tern_local::{Builder, Role, until};
use tern_proto::v1::{SendErrorCode, send_result::Outcome, server_event::Event};
use tern_tests::conversation::{Conversation, PACE};
use tern_tests::phone::agree;
use tern_tests::wire::{self, Wire};
use tern_tests::world::{BOUND, FAILOVER_GRACE};
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId, Slot};
use tokio::time::{Instant, sleep};

fn patient(builder: Builder) -> Builder {
    builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)
}

#[tokio::test]
async fn a_conversation_goes_on_when_its_owner_is_killed() {
    let mut world = World::with(patient).await;
    let mut conversation = Conversation::begin(&world).await;
    for _ in 0..2 {
        let owner = world.owner_of(conversation.chat).await;
        conversation.write(20).await;
        world.platform.kill(&owner).await.unwrap();
        conversation.write(50).await;
        conversation.end().await;
        world.platform.restart(&owner).await.unwrap();
    }
    conversation.write(20).await;
    conversation.end().await;
    world.end().await;
}

#[tokio::test]
async fn a_conversation_goes_on_when_a_gateway_is_killed() {
    let mut world = World::with(patient).await;
    let mut conversation = Conversation::begin(&world).await;
    for gateway in ["gateway-0", "gateway-1"] {
        conversation.write(10).await;
        world.platform.kill(gateway).await.unwrap();
        conversation.write(40).await;
        conversation.end().await;
        world.platform.restart(gateway).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_conversation_goes_on_when_presence_is_killed() {
    let mut world = World::with(|builder| patient(builder).presences(2)).await;
    let mut conversation = Conversation::begin(&world).await;
    for presence in ["presence-0", "presence-1"] {
        conversation.write(10).await;
        world.platform.kill(presence).await.unwrap();
        conversation.write(60).await;
        conversation.end().await;
        world.platform.restart(presence).await.unwrap();
        conversation.write(20).await;
        conversation.end().await;
    }
    world.end().await;
}

#[tokio::test]
async fn the_only_presence_node_forgets_everything_and_nothing_is_lost() {
    let mut world = World::with(patient).await;
    let mut conversation = Conversation::begin(&world).await;
    conversation.write(10).await;
    world.platform.kill("presence-0").await.unwrap();
    conversation.write(20).await;
    world.platform.restart("presence-0").await.unwrap();
    conversation.write(20).await;
    conversation.end().await;
    world.end().await;
}

/// Nobody writes in the chat again, so only the search for what a dead owner left finds the message.
#[tokio::test]
async fn what_a_killed_owner_had_not_settled_is_settled_by_the_next() {
    let world = World::with(patient).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, device) = (world.phone(&alice).await, world.device(&bob).await);
    let forgetful = world.phone_of(&device).await;
    forgetful.acknowledge(false).await;
    let sent = hers.say(bob.id, "the last word").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    forgetful.has(chat, sent.seq).await;
    // The settle waits for half a second.
    world.platform.kill(&world.owner_of(chat).await).await.unwrap();
    forgetful.disconnect().await;
    let his = world.phone_of(&device).await;
    his.has(chat, sent.seq).await;
    hers.receipt(chat, bob.id, sent.seq, 0).await;
    world.end().await;
}

/// A stale owner hangs until its lease is over and another node has taken its chats. When it wakes up, it still has
/// commands, acknowledgements and settles to do.
#[tokio::test]
async fn an_owner_that_hangs_and_wakes_up_too_late_changes_nothing() {
    let world = World::with(patient).await;
    let mut conversation = Conversation::begin(&world).await;
    for _ in 0..2 {
        let owner = world.owner_of(conversation.chat).await;
        // Some messages are on their way into it when it stops.
        conversation.write(10).await;
        world.platform.freeze(&owner).unwrap();
        conversation.write(10).await;
        world.platform.out_of_map(&owner).await.unwrap();
        conversation.write(20).await;
        world.platform.thaw(&owner).unwrap();
        conversation.write(20).await;
        conversation.end().await;
        let slot = Slot::of_chat(conversation.chat);
        // A node that was unwell before takes its chats back after up to a minute.
        until::holds("it owns its chats again", 2 * BOUND, || async {
            Ok(world.platform.owner(Role::Chat, slot).await? == owner)
        })
        .await
        .unwrap();
    }
    conversation.end().await;
    world.end().await;
}

/// This is rule 2. Two platforms on one database do not know of each other, so each chat has two owners. Each of them
/// is sure that it is the only one, and learns of the other's commits only by the compare-and-set.
#[tokio::test]
async fn two_owners_of_one_chat_at_once_keep_one_log() {
    let world = World::with(patient).await;
    let other = world.beside().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.device(&alice).await, world.device(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    let phones = [world.phone_of(&hers).await, other.phone_of(&his).await];
    phones[0].say(bob.id, "first").await;
    let mut texts = vec!["first".to_owned()];
    let mut requests = Vec::new();
    for number in 0..300 {
        for (phone, name) in phones.iter().zip(["alice", "bob"]) {
            let text = format!("{number} of {name}");
            requests.push((phone, phone.send(chat, text.as_bytes()).await));
            texts.push(text);
        }
        if number % 10 == 9 {
            // Neither phone gets far ahead of the other.
            for (phone, request) in &requests[requests.len() - 2..] {
                phone.sent(*request).await;
            }
        }
    }
    let mut head = 0;
    for (phone, request) in &requests {
        head = head.max(phone.sent(*request).await.seq);
    }
    assert_eq!(head, 601, "every message has a place, and there are no others");
    // Live delivery does not cross between the platforms; reconnecting does.
    for phone in &phones {
        phone.disconnect().await;
        phone.connect().await;
    }
    agree(&[&phones[0], &phones[1]], chat, head, &texts).await;
    drop(phones);
    other.end_swept().await;
    world.end_swept().await;
}

/// This is the first half of rule 9.
#[tokio::test]
async fn rule_9_messages_flow_on_while_etcd_is_away() {
    let mut world = World::with_own_servers(patient).await;
    let mut conversation = Conversation::begin(&world).await;
    let freeze = |world: &mut World, signal| {
        let (_, etcd) = world.platform.private_servers().unwrap();
        etcd.process().signal(signal).unwrap();
    };
    freeze(&mut world, nix::sys::signal::Signal::SIGSTOP);
    // This takes longer than every lease.
    conversation.write(500).await;
    conversation.end().await;
    // Messages also flow for people who come only now.
    world.still_works().await;
    freeze(&mut world, nix::sys::signal::Signal::SIGCONT);
    conversation.write(100).await;
    conversation.end().await;
    // Membership works again too.
    let owner = world.owner_of(conversation.chat).await;
    world.platform.kill(&owner).await.unwrap();
    conversation.write(20).await;
    conversation.end().await;
    world.end().await;
}

/// An etcd that has lost all its data counts its revisions from 1 again, far below those that the nodes know.
#[tokio::test]
async fn rule_9_nodes_fill_an_etcd_that_has_lost_everything() {
    let mut world = World::with_own_servers(|builder| patient(builder).presences(2)).await;
    let mut conversation = Conversation::begin(&world).await;
    let (_, etcd) = world.platform.private_servers().unwrap();
    etcd.age(500).await.unwrap();
    // A node that starts again brings every map to such a revision.
    world.platform.kill("presence-1").await.unwrap();
    world.platform.restart("presence-1").await.unwrap();
    conversation.write(20).await;
    let (_, etcd) = world.platform.private_servers().unwrap();
    etcd.lose_all().await.unwrap();
    // This takes longer than every lease, and than nodes believe each other that etcd is away.
    conversation.write(500).await;
    conversation.end().await;
    for node in world.platform.nodes() {
        let what = format!("{} holds its place", node.name);
        until::holds(&what, BOUND, || async {
            let held = [("of", "held")];
            Ok(world
                .platform
                .metric(&node.name, "tern_node_place", &held)
                .await?
                == 1.0)
        })
        .await
        .unwrap();
    }
    // Gateways admit new phones, also one that links to the presence nodes only now.
    world.still_works().await;
    world.platform.kill("gateway-1").await.unwrap();
    world.platform.restart("gateway-1").await.unwrap();
    world.platform.linked().await.unwrap();
    world.still_works().await;
    an_offline_device_gets_what_was_settled_without_it(&world).await;
    // Membership works again too.
    let owner = world.owner_of(conversation.chat).await;
    world.platform.kill(&owner).await.unwrap();
    conversation.write(20).await;
    conversation.end().await;
    world.end().await;
}

/// A message for a device that is offline is settled as soon as look-ups are sure that it is.
async fn an_offline_device_gets_what_was_settled_without_it(world: &World) {
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.device(&bob).await);
    let sent = hers.say(bob.id, "for later").await;
    let chat: ChatId = sent.chat_id.parse().expect("an id");
    let store = world.store().await;
    until::holds("it is settled", BOUND, || async {
        let open: i64 = sqlx::query_scalar("SELECT count(*) FROM unsettled")
            .fetch_one(&store)
            .await?;
        Ok(open == 0)
    })
    .await
    .expect("it is settled");
    store.close().await;
    let his = world.phone_of(&his).await;
    his.has(chat, sent.seq).await;
    hers.receipt(chat, bob.id, sent.seq, 0).await;
}

/// This is rule 1, and the second half of rule 9.
#[tokio::test]
async fn rule_9_while_postgres_is_away_sends_are_unavailable_and_nothing_acknowledged_is_lost() {
    let mut world = World::with_own_servers(patient).await;
    let mut conversation = Conversation::begin(&world).await;
    let sender = world.user("carol").await;
    let device = world.device(&sender).await;
    let (mut wire, _) = Wire::open(world.new_channel(0), &device).await.unwrap();
    for _ in 0..2 {
        conversation.write(20).await;
        world.platform.private_servers().unwrap().0.crash().await.unwrap();
        // A send in the meantime is answered with the request to come back.
        wire.say(wire::message_to(
            RequestId::random(),
            conversation.phones[0].user(),
            "now?",
        ))
        .await;
        let error = wire
            .until(|event| match event {
                Event::SendResult(result) => match result.outcome? {
                    Outcome::Error(error) => Some(error),
                    Outcome::Sent(sent) => panic!("sent without a store: {sent:?}"),
                },
                _ => None,
            })
            .await;
        assert_eq!(error.code(), SendErrorCode::Unavailable);
        assert!(error.retry_after_ms > 0);
        conversation.write(20).await;
        world
            .platform
            .private_servers()
            .unwrap()
            .0
            .restart()
            .await
            .unwrap();
        conversation.end().await;
    }
    world.end().await;
}

/// This is rule 3: a session and a delivery race, and the one that comes second sees the other.
#[tokio::test]
async fn a_thousand_reconnects_racing_deliveries_lose_nothing() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let user = world.user("reader").await;
        readers.push((user.clone(), world.phone(&user).await));
    }
    let group = {
        let mut members = vec![&alice];
        members.extend(readers.iter().map(|(user, _)| user));
        world.group(&members).await
    };
    // Each reader leaves and comes back a hundred times while messages arrive.
    let stop = tokio::sync::watch::channel(false);
    let write = async {
        let mut texts = Vec::new();
        let mut last = None;
        while !*stop.1.borrow() {
            let text = format!("message {}", texts.len());
            last = Some(hers.say(group, text.as_bytes()).await);
            texts.push(text);
        }
        (texts, last.unwrap().seq)
    };
    let reconnect = async {
        futures::future::join_all(readers.iter().map(|(_, phone)| async move {
            for round in 0..100 {
                phone.disconnect().await;
                phone.connect_at(round % 2).await;
            }
        }))
        .await;
        stop.0.send_replace(true);
    };
    let ((texts, head), ()) = tokio::join!(write, reconnect);
    let mut all: Vec<&Phone> = readers.iter().map(|(_, phone)| phone).collect();
    all.push(&hers);
    agree(&all, group, head, &texts).await;
    assert!(texts.len() > 100, "only {} messages raced", texts.len());
    world.end().await;
}

/// The number of people to whom the sender writes. Their chats are spread over all shards of all nodes, several in
/// each.
const CROWD: usize = 12;

/// Sends a message to each of these chats in one frame, and returns their outcomes.
async fn answers(wire: &mut Wire, sends: &[(RequestId, ChatId)]) -> Vec<Outcome> {
    let items = sends
        .iter()
        .map(|(request, chat)| wire::message(*request, *chat, "x"));
    wire.frame(items.collect()).await;
    let mut found = HashMap::new();
    while found.len() < sends.len() {
        let result = wire.until(|event| match event {
            Event::SendResult(result) => Some(result),
            _ => None,
        });
        let result = result.await;
        found.insert(result.request_id, result.outcome.expect("an outcome"));
    }
    let of = |(request, _): &(RequestId, ChatId)| found.remove(&request.to_string()).expect("its result");
    sends.iter().map(of).collect()
}

/// Opens a connection that is not the platform's, and may hold its locks as long as it likes.
async fn somebody_else(world: &World) -> PgConnection {
    PgConnection::connect(world.platform.database_url())
        .await
        .expect("the store")
}

/// An operator's statement, a migration or a backup holds a row for longer than any send may wait.
#[tokio::test]
async fn a_chat_that_is_locked_in_the_store_holds_up_no_other() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let device = world.device(&alice).await;
    let (mut wire, _) = Wire::open(world.new_channel(0), &device).await.unwrap();
    let mut chats = Vec::new();
    for _ in 0..CROWD {
        let peer = world.user("peer").await.id;
        wire.send(wire::message_to(RequestId::random(), peer, "first"))
            .await;
        chats.push(ChatId::direct(alice.id, peer));
    }
    let mut other = somebody_else(&world).await;
    let mut tx = other.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM chat_heads WHERE chat_id = $1 FOR UPDATE")
        .bind(chats[0].0)
        .execute(&mut *tx)
        .await
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let sends: Vec<_> = chats.iter().map(|chat| (RequestId::random(), *chat)).collect();
        let outcomes = answers_until(&mut wire, &sends, |chat| chat != chats[0]).await;
        for ((request, chat), outcome) in sends.iter().zip(outcomes) {
            match outcome {
                Outcome::Sent(_) if *chat != chats[0] => {}
                Outcome::Error(error) if *chat == chats[0] => {
                    assert_eq!(error.code(), SendErrorCode::Unavailable);
                    assert!(error.retry_after_ms > 0);
                    held.push((*request, *chat));
                }
                outcome => panic!("{outcome:?}, held: {}", *chat == chats[0]),
            }
        }
    }
    tx.rollback().await.unwrap();
    for _ in 0..2 {
        let seqs = answers_until(&mut wire, &held, |_| true).await;
        let seqs = seqs.iter().map(|outcome| match outcome {
            Outcome::Sent(sent) => sent.seq,
            Outcome::Error(error) => panic!("{error:?}"),
        });
        assert_eq!(seqs.collect::<Vec<_>>(), [2, 3], "each has its place once");
    }
    world.end_swept().await;
}

/// Sends these messages, and again until all are sent whose chats `which` names. A busy machine may answer one of them
/// late, but not each time.
async fn answers_until(
    wire: &mut Wire,
    sends: &[(RequestId, ChatId)],
    which: impl Fn(ChatId) -> bool,
) -> Vec<Outcome> {
    let end = Instant::now() + BOUND;
    loop {
        let outcomes = answers(wire, sends).await;
        let mut pairs = sends.iter().zip(&outcomes);
        let sent = pairs.all(|((_, chat), outcome)| !which(*chat) || matches!(outcome, Outcome::Sent(_)));
        if sent || Instant::now() >= end {
            return outcomes;
        }
        sleep(PACE).await;
    }
}

/// Only statements that write the inbox wait for the lock. Deliveries and sends do not.
#[tokio::test]
async fn a_lock_on_the_inbox_holds_up_no_message() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.device(&bob).await);
    let first = hers.say(bob.id, "first").await;
    let chat: ChatId = first.chat_id.parse().unwrap();
    let mut other = somebody_else(&world).await;
    let mut tx = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE inbox").execute(&mut *tx).await.unwrap();
    let sends = async {
        for number in 0..50 {
            hers.say(chat, format!("{number}")).await;
        }
    };
    // If sends waited for settles, each message would wait for seconds, until the settle gives up.
    tokio::time::timeout(BOUND, sends)
        .await
        .expect("messages wait for the inbox");
    tx.rollback().await.unwrap();
    let his = world.phone_of(&his).await;
    his.has(chat, 51).await;
    hers.receipt(chat, bob.id, 51, 0).await;
    world.end_swept().await;
}
