//! A client that follows rules 4 and 5 of messaging.proto literally, and drops each entry above its cursor + 1. It
//! still gets everything that is its own, at once and in order, also when its user is removed and added again while
//! it is online.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashMap;

use tern_proto::v1::{self, send_result::Outcome, server_event::Event};
use tern_tests::wire::{ack, again_after, message};
use tern_tests::{Device, User, Wire, World};
use tern_types::{ChatId, RequestId};

/// The history of one chat on the client.
#[derive(Debug, Default)]
struct Log {
    cursor: u64,
    /// The seqs of stored entries, and `skip n` for each Skipped that raised the cursor.
    stored: Vec<String>,
    /// The seqs of entries that came above the cursor + 1.
    dropped: Vec<u64>,
}

struct Client {
    wire: Wire,
    log: Log,
    chat: ChatId,
}

impl Client {
    /// Opens a stream with the chat's first `cursor` entries stored, and waits until it is caught up.
    async fn open(world: &World, device: &Device, chat: ChatId, cursor: u64) -> Self {
        let (wire, _) = Wire::open(world.channel(0), device).await.unwrap();
        let log = Log {
            cursor,
            ..Log::default()
        };
        let mut client = Self { wire, log, chat };
        while !matches!(client.next().await, Event::CaughtUp(_)) {}
        client
    }

    /// Waits for the next event, applies it to the log, and returns it.
    async fn next(&mut self) -> Event {
        let event = self.wire.next().await.unwrap().expect("an event");
        let chat = self.chat.to_string();
        match &event {
            Event::Entry(entry) if entry.chat_id == chat => self.entry(entry.seq),
            Event::SendResult(result) => match &result.outcome {
                Some(Outcome::Sent(sent)) if sent.chat_id == chat => self.entry(sent.seq),
                _ => {}
            },
            Event::Skipped(skipped) if skipped.chat_id == chat && skipped.to_seq > self.log.cursor => {
                self.log.cursor = skipped.to_seq;
                self.log.stored.push(format!("skip {}", skipped.to_seq));
            }
            _ => {}
        }
        event
    }

    fn entry(&mut self, seq: u64) {
        let log = &mut self.log;
        if seq == log.cursor + 1 {
            log.cursor = seq;
            log.stored.push(seq.to_string());
        } else if seq > log.cursor {
            log.dropped.push(seq);
        }
    }

    /// Opens a client that has stored and acknowledged the group's first entry.
    async fn joined(world: &World, device: &Device, group: ChatId) -> Self {
        let mut client = Self::open(world, device, group, 0).await;
        client.reaches(1).await;
        client.acknowledge().await;
        client
    }

    async fn reaches(&mut self, cursor: u64) {
        while self.log.cursor < cursor {
            self.next().await;
        }
    }

    async fn acknowledge(&self) {
        self.wire.say(ack(self.chat, self.log.cursor)).await;
    }
}

/// A group of two, in which a back end acts in the owner's name.
struct Group<'a> {
    world: &'a World,
    id: ChatId,
    owner: User,
    member: User,
}

impl<'a> Group<'a> {
    async fn of(world: &'a World, owner: &User, member: &User) -> Self {
        Self {
            world,
            id: world.group(&[owner, member]).await,
            owner: owner.clone(),
            member: member.clone(),
        }
    }

    async fn say(&self) {
        let request = v1::SendMessageRequest {
            chat_id: self.id.to_string(),
            request_id: RequestId::random().to_string(),
            envelope: tern_tests::wire::plain().encoded(),
            body: b"a message".to_vec().into(),
            acting_user_id: self.owner.id.to_string(),
            ..Default::default()
        };
        let back_end = self.world.back_end().await;
        back_end.chats().send_message(request).await.unwrap();
    }

    async fn remove(&self) {
        let request = v1::RemoveMemberRequest {
            chat_id: self.id.to_string(),
            request_id: RequestId::random().to_string(),
            user_id: self.member.id.to_string(),
            acting_user_id: self.owner.id.to_string(),
        };
        let back_end = self.world.back_end().await;
        back_end.chats().remove_member(request).await.unwrap();
    }

    async fn add(&self) {
        let request = v1::AddMembersRequest {
            chat_id: self.id.to_string(),
            request_id: RequestId::random().to_string(),
            user_ids: vec![self.member.id.to_string()],
            acting_user_id: self.owner.id.to_string(),
        };
        let back_end = self.world.back_end().await;
        back_end.chats().add_members(request).await.unwrap();
    }

    /// Makes entries 2 to 11: the member is removed, misses one entry, is added again and gets three, is removed,
    /// misses one, is added again and gets one.
    async fn comes_and_goes(&self) {
        for times in [3, 1] {
            self.remove().await;
            self.say().await;
            self.add().await;
            for _ in 0..times {
                self.say().await;
            }
        }
    }
}

const COMES_AND_GOES: [&str; 10] = ["2", "skip 3", "4", "5", "6", "7", "8", "skip 9", "10", "11"];

#[tokio::test]
async fn who_is_removed_and_added_again_while_online_is_told_what_is_skipped_before_what_comes_after() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&bob).await;
    let group = Group::of(&world, &alice, &bob).await;

    // This happens first on a stream that knows where the device stands, then on one that knows nothing of the chat
    // yet.
    let mut client = Client::joined(&world, &device, group.id).await;
    group.comes_and_goes().await;
    client.reaches(11).await;
    assert_eq!(client.log.stored[1..], COMES_AND_GOES);
    assert_eq!(
        client.log.dropped, [0; 0],
        "nothing came out of its turn: {:?}",
        client.log
    );
    client.acknowledge().await;
    drop(client);

    let other = Group::of(&world, &alice, &bob).await;
    let client = Client::joined(&world, &device, other.id).await;
    // This acknowledgement is stored before the next stream begins.
    let inbox = v1::AckRequest {
        chat_id: other.id.to_string(),
        seq: 1,
    };
    let hers = tern_tests::Api::new(world.channel(0), &device.access_token);
    hers.inbox().ack(inbox).await.unwrap();
    drop(client);
    let mut client = Client::open(&world, &device, other.id, 1).await;
    other.comes_and_goes().await;
    client.reaches(11).await;
    assert_eq!(client.log.stored, COMES_AND_GOES);
    world.end().await;
}

/// Results of own sends overtake entries of others. The client drops those results, and gets the entries later.
#[tokio::test]
async fn who_drops_what_comes_early_gets_it_again() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&bob).await;
    let group = Group::of(&world, &alice, &bob).await;
    let mut client = Client::joined(&world, &device, group.id).await;
    let each = 40;
    let mut mine = HashMap::new();
    for number in 0..each {
        let request = RequestId::random();
        let own = message(request, group.id, format!("mine {number}"));
        mine.insert(request.to_string(), own.clone());
        tokio::join!(client.wire.say(own), group.say());
    }
    let head = 1 + 2 * each;
    while client.log.cursor < head {
        let before = client.log.cursor;
        if let Event::SendResult(result) = client.next().await
            && let Some(outcome @ Outcome::Error(_)) = &result.outcome
        {
            let wait = again_after(outcome).unwrap_or_else(|| panic!("{outcome:?}"));
            tokio::time::sleep(wait).await;
            client.wire.say(mine[&result.request_id].clone()).await;
        }
        if client.log.cursor > before {
            client.acknowledge().await;
        }
    }
    let whole: Vec<String> = (1..=head).map(|seq| seq.to_string()).collect();
    assert_eq!(client.log.stored, whole);
    world.end().await;
}
