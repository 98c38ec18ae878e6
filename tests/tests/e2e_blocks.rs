//! Blocks: no direct messages pass between the two, groups are not affected, and a block survives the loss of nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::{self, ErrorReason, SendErrorCode, Sent, send_result::Outcome};
use tern_tests::wire::{self, Wire};
use tern_tests::world::FAILOVER_GRACE;
use tern_tests::{Phone, User, World};
use tern_types::{ChatId, RequestId, UserId};
use tonic::Code;

/// Two people with a phone each, and their direct chat.
struct Two {
    users: [User; 2],
    phones: [Phone; 2],
    chat: ChatId,
}

impl Two {
    async fn new(world: &World) -> Self {
        let users = world.users(["alice", "bob"]).await;
        let phones = [world.phone(&users[0]).await, world.phone(&users[1]).await];
        let chat = ChatId::direct(users[0].id, users[1].id);
        Self { users, phones, chat }
    }

    /// Makes the first person block the second.
    async fn block(&self) {
        self.try_block().await.expect("a block");
    }

    async fn try_block(&self) -> Result<(), tonic::Status> {
        let request = v1::BlockRequest {
            user_id: String::new(),
            blocked_user_id: self.users[1].id.to_string(),
        };
        self.phones[0].api().users().block(request).await.map(drop)
    }

    async fn unblock(&self) {
        let request = v1::UnblockRequest {
            user_id: String::new(),
            blocked_user_id: self.users[1].id.to_string(),
        };
        let unblocked = self.phones[0].api().users().unblock(request).await;
        unblocked.expect("the opposite of a block");
    }

    /// Checks that neither can send the other a message: on the stream to the chat or to the person, or by a call.
    async fn refused(&self) {
        for (phone, peer) in [
            (&self.phones[0], &self.users[1]),
            (&self.phones[1], &self.users[0]),
        ] {
            let requests = [phone.send(self.chat, "no").await, phone.send(peer.id, "no").await];
            for request in requests {
                let error = phone.refused(request).await;
                assert_eq!(error.code(), SendErrorCode::NotAccepted, "{error:?}");
                assert_eq!(error.retry_after_ms, 0, "it is final: {error:?}");
            }
            let by_call = call(phone, RequestId::random(), peer.id, "no").await;
            assert_eq!(by_call, Err(ErrorReason::NotAccepted));
        }
    }

    /// Checks that each can send the other a message.
    async fn talk(&self, text: &str) {
        for (phone, other) in [(0, 1), (1, 0)] {
            let text = format!("{text} of {phone}");
            let sent = self.phones[phone]
                .say(self.users[other].id, text.as_bytes())
                .await;
            self.phones[other].has(self.chat, sent.seq).await;
        }
    }

    /// Checks that both have exactly these messages.
    async fn log_is(&self, texts: &[&str]) {
        for phone in &self.phones {
            let log = phone.has(self.chat, texts.len() as u64).await;
            assert_eq!(log.texts(), texts);
        }
    }
}

/// Sends by a unary `Chats/SendMessage`.
async fn call(phone: &Phone, request: RequestId, peer: UserId, text: &str) -> Result<Sent, ErrorReason> {
    let request = v1::SendMessageRequest {
        request_id: request.to_string(),
        peer_user_id: peer.to_string(),
        envelope: v1::Envelope::default().encoded(),
        body: text.as_bytes().to_vec().into(),
        ..Default::default()
    };
    let answer = phone.api().chats().send_message(request).await;
    let answer = answer.map_err(|status| reason_of(&status).unwrap_or_default())?;
    Ok(answer.into_inner().sent.expect("a place in the log"))
}

#[tokio::test]
async fn no_direct_messages_pass_between_two_of_whom_one_has_blocked_the_other() {
    let world = World::start().await;
    let two = Two::new(&world).await;
    let [alice, bob] = &two.users;
    let group = two.phones[0].create_group(&[bob]).await;
    two.talk("before").await;
    let request = RequestId::random();
    let placed = call(&two.phones[1], request, alice.id, "by a call")
        .await
        .expect("a place");
    two.phones[1].receipt(two.chat, alice.id, placed.seq, 1).await;

    two.block().await;
    two.refused().await;
    let again = call(&two.phones[1], request, alice.id, "by a call").await;
    assert_eq!(again, Ok(placed), "rule 5: what has its place keeps it");
    let other = call(&two.phones[1], request, alice.id, "something else").await;
    assert_eq!(other, Err(ErrorReason::RequestIdReused));
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = two.phones[from].say(group, "in the group").await;
        two.phones[to].has(group, sent.seq).await;
    }
    // The blocked person learns nothing. They are not told that their earlier messages were read, and cannot ask for
    // it.
    let before = two.phones[1].state().receipts[&(two.chat, alice.id)];
    two.phones[0].read(two.chat, 3).await;
    two.phones[0].receipt(two.chat, alice.id, 0, 3).await;
    let mark = v1::GetReceiptsRequest {
        chat_id: two.chat.to_string(),
        ..Default::default()
    };
    let asked = two.phones[1].api().chats().get_receipts(mark).await.unwrap();
    let hers = asked
        .into_inner()
        .receipts
        .into_iter()
        .find(|receipt| receipt.user_id == alice.id.to_string());
    assert_eq!(
        hers.map_or((0, 0), |hers| (hers.delivered_seq, hers.read_seq)),
        (0, 0)
    );
    let reached = v1::GetMessageReceiptsRequest {
        chat_id: two.chat.to_string(),
        seq: 3,
        ..Default::default()
    };
    let reached = two.phones[1]
        .api()
        .chats()
        .get_message_receipts(reached)
        .await
        .unwrap();
    assert_eq!(reached.into_inner().delivered_count, 0);
    assert_eq!(two.phones[1].state().receipts[&(two.chat, alice.id)], before);

    // After the unblock the mark is told without asking.
    two.unblock().await;
    two.phones[1].receipt(two.chat, alice.id, 3, 3).await;
    two.talk("after").await;
    two.log_is(&[
        "before of 0",
        "before of 1",
        "by a call",
        "after of 0",
        "after of 1",
    ])
    .await;
    world.end().await;
}

#[tokio::test]
async fn the_first_message_to_somebody_who_blocked_makes_no_chat() {
    let world = World::start().await;
    let two = Two::new(&world).await;
    two.block().await;
    two.refused().await;
    for phone in &two.phones {
        let request = v1::GetChatRequest {
            chat_id: two.chat.to_string(),
            ..Default::default()
        };
        let missing = phone.api().chats().get_chat(request).await.unwrap_err();
        assert_eq!(reason_of(&missing), Some(ErrorReason::ChatNotFound));
        let listed = phone
            .api()
            .chats()
            .list_chats(v1::ListChatsRequest::default())
            .await;
        assert_eq!(listed.unwrap().into_inner().chats, []);
    }
    two.unblock().await;
    two.talk("hello").await;
    world.end().await;
}

/// There are two accounts nodes, so that different nodes may answer the calls.
#[tokio::test]
async fn a_send_after_a_block_returned_is_refused_and_after_its_end_it_passes() {
    let world = World::with(|builder| builder.accounts(2)).await;
    let two = Two::new(&world).await;
    let mut texts = Vec::new();
    for round in 0..12 {
        // This message is on its way while the block begins. It may be sent or refused; the log has to agree.
        let text = format!("{round} meanwhile");
        let meanwhile = two.phones[1].send(two.users[0].id, text.as_bytes()).await;
        two.block().await;
        let late = two.phones[1].send(two.chat, "late").await;
        let answer = two.phones[1]
            .until("both results", |state| {
                state.results.contains_key(&meanwhile) && state.results.contains_key(&late)
            })
            .await;
        match &answer.results[&meanwhile] {
            Ok(_) => texts.push(text),
            Err(error) => assert_eq!(error.code(), SendErrorCode::NotAccepted, "round {round}"),
        }
        let error = answer.results[&late]
            .as_ref()
            .expect_err("it came after the block");
        assert_eq!(error.code(), SendErrorCode::NotAccepted, "round {round}");
        two.unblock().await;
        let text = format!("{round} afterwards");
        two.phones[1].say(two.chat, text.as_bytes()).await;
        texts.push(text);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    two.log_is(&texts).await;
    world.end().await;
}

#[tokio::test]
async fn a_block_outlives_the_chats_owner_and_the_chats_move() {
    let mut world = World::with(|builder| builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await;
    let two = Two::new(&world).await;
    two.talk("before").await;
    two.block().await;
    let owner = world.owner_of(two.chat).await;
    world.platform.kill(&owner).await.unwrap();
    two_are_refused_by_the_next_owner(&two).await;
    world.platform.restart(&owner).await.unwrap();

    let owner = world.owner_of(two.chat).await;
    world.platform.drain(&owner).unwrap();
    world.platform.drained(&owner).await.unwrap();
    assert_ne!(world.owner_of(two.chat).await, owner);
    two.refused().await;

    // While the chat's owner is dead and still has its lease, nobody can guarantee that a block has begun or ended.
    world.platform.restart(&owner).await.unwrap();
    two.unblock().await;
    two.talk("after").await;
    let owner = world.owner_of(two.chat).await;
    world.platform.kill(&owner).await.unwrap();
    until::holds("the block", Duration::from_secs(60), || async {
        match two.try_block().await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::Unavailable => Ok(false),
            Err(status) => anyhow::bail!("{status:?}"),
        }
    })
    .await
    .unwrap();
    two_are_refused_by_the_next_owner(&two).await;
    two.unblock().await;
    two.talk("at last").await;
    two.log_is(&[
        "before of 0",
        "before of 1",
        "after of 0",
        "after of 1",
        "at last of 0",
        "at last of 1",
    ])
    .await;
    world.end().await;
}

/// Checks that the next owner refuses messages. A message on the stream waits until the map names the next owner, and
/// after that the calls no longer fail either.
async fn two_are_refused_by_the_next_owner(two: &Two) {
    let request = two.phones[1].send(two.chat, "no").await;
    let error = two.phones[1].refused(request).await;
    assert_eq!(error.code(), SendErrorCode::NotAccepted, "{error:?}");
    two.refused().await;
}

/// The case is that a device loses its stream before it gets the result of a send.
#[tokio::test]
async fn what_was_placed_before_the_block_has_its_result_on_the_next_stream_too() {
    let world = World::start().await;
    let two = Two::new(&world).await;
    let tablet = world.device(&two.users[1]).await;
    let (mut first, _) = Wire::open(world.new_channel(0), &tablet).await.unwrap();
    let request = RequestId::random();
    let message = || wire::message_to(request, two.users[0].id, "placed");
    let placed = result_of(&mut first, message()).await.expect("a place");
    drop(first);
    two.block().await;
    let (mut second, _) = Wire::open(world.new_channel(1), &tablet).await.unwrap();
    assert_eq!(result_of(&mut second, message()).await, Ok(placed));
    let late = wire::message_to(RequestId::random(), two.users[0].id, "late");
    assert_eq!(
        result_of(&mut second, late).await,
        Err(SendErrorCode::NotAccepted)
    );
    drop(second);
    world.revoke(&tablet).await;
    world.end().await;
}

async fn result_of(wire: &mut Wire, message: Item) -> Result<Sent, SendErrorCode> {
    match wire.outcome(message).await {
        Outcome::Sent(sent) => Ok(sent),
        Outcome::Error(error) => Err(error.code()),
    }
}

/// A block keeps people out of groups, and the answer does not tell who was left out.
#[tokio::test]
async fn who_has_blocked_somebody_is_added_to_no_group_by_them() {
    let world = World::start().await;
    let [eve, alice, bob] = world.users(["eve", "alice", "bob"]).await;
    let (evil, hers) = (world.phone(&eve).await, world.phone(&alice).await);
    let block = v1::BlockRequest {
        user_id: String::new(),
        blocked_user_id: eve.id.to_string(),
    };
    hers.api().users().block(block).await.unwrap();

    let everybody = [&alice, &bob].map(|user| user.id.to_string());
    let create = v1::CreateGroupRequest {
        request_id: RequestId::random().to_string(),
        title: "come in".to_owned(),
        member_user_ids: everybody.to_vec(),
        ..Default::default()
    };
    let mut chats = evil.api().chats();
    let made = chats.create_group(create.clone()).await.unwrap().into_inner();
    let made = made.chat.unwrap();
    assert_eq!(made.member_count, 2, "eve and bob: {made:?}");
    let group: ChatId = made.chat_id.parse().unwrap();
    let log = evil.has(group, 1).await;
    let said = log.entries[&1].decoded_content().unwrap();
    assert!(!format!("{said:?}").contains(&everybody[0]));

    let add = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: everybody.to_vec(),
        ..Default::default()
    };
    let added = chats.add_members(add.clone()).await.unwrap().into_inner();
    assert_eq!(added.seq, 0, "nobody was added");
    // In her name, a back end may do no more than she may.
    let in_her_name = v1::AddMembersRequest {
        request_id: RequestId::random().to_string(),
        acting_user_id: eve.id.to_string(),
        ..add.clone()
    };
    let added = world.back_end().await.chats().add_members(in_her_name).await;
    assert_eq!(added.unwrap().into_inner().seq, 0);
    evil.say(group, "hello?").await;

    // Repeated after the unblock, the same request still returns the same group.
    let unblock = v1::UnblockRequest {
        user_id: String::new(),
        blocked_user_id: eve.id.to_string(),
    };
    hers.api().users().unblock(unblock).await.unwrap();
    let again = chats
        .create_group(create)
        .await
        .unwrap()
        .into_inner()
        .chat
        .unwrap();
    assert_eq!((again.chat_id, again.member_count), (made.chat_id, 2));
    let later = v1::AddMembersRequest {
        request_id: RequestId::random().to_string(),
        ..add
    };
    let seq = chats.add_members(later).await.unwrap().into_inner().seq;
    let log = hers.has(group, seq).await;
    assert!(
        log.entries.keys().all(|known| *known >= seq),
        "nothing from before"
    );
    world.end().await;
}
