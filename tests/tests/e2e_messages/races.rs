//! Nothing is done to a message after its deletion, however the two meet.

use std::collections::BTreeSet;

use tern_proto::error::reason_of;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, Entry, ErrorReason, MessageKind, SendErrorCode, Sent};
use tern_tests::acts::{Act, call, content, delete, edit, erased, has_no_gap, react, say};
use tern_tests::world::FAILOVER_GRACE;
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId};
use tonic::Status;

/// How often the edit of a message, a reaction to it and its deletion meet.
const ROUNDS: usize = 60;

/// Checks that nothing was done to a message after its deletion. Returns the number of deletions.
fn deletions<'a>(log: impl IntoIterator<Item = &'a Entry>) -> usize {
    let mut deleted = BTreeSet::new();
    for entry in log {
        let (kind, target) = match content(entry) {
            Content::Message(message) => {
                let envelope = message.envelope.unwrap_or_default();
                (envelope.kind(), envelope.target_seq)
            }
            Content::Erased(_) => erased(entry),
            _ => continue,
        };
        assert!(
            !deleted.contains(&target),
            "{kind:?} of {target} at {}",
            entry.seq
        );
        if kind == MessageKind::Delete {
            deleted.insert(target);
        }
    }
    deleted.len()
}

/// Carries an act out on the phone's stream. It may be refused because the message is gone.
async fn tried(phone: &Phone, chat: ChatId, act: &Act) -> Option<Sent> {
    let id = RequestId::random();
    let (envelope, body) = (act.envelope.clone(), act.body.as_bytes());
    phone.send_with(id, chat, envelope, body).await;
    let state = phone
        .until("a SendResult", |state| state.results.contains_key(&id))
        .await;
    match &state.results[&id] {
        Ok(sent) => Some(sent.clone()),
        Err(error) => {
            assert_eq!(error.code(), SendErrorCode::TargetNotFound, "{act:?}: {error:?}");
            None
        }
    }
}

#[tokio::test]
async fn two_devices_edit_and_delete_at_once_also_while_the_chat_moves() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = Phone::new(&world, &world.device(&alice).await);
    let tablet = Phone::new(&world, &world.device(&alice).await);
    hers.connect_at(0).await;
    tablet.connect_at(1).await;
    let his = world.phone(&bob).await;
    let group = hers.create_group(&[&bob]).await;
    let owner = world.owner_of(group).await;
    for round in 0..ROUNDS {
        let message = hers.say(group, format!("message {round}")).await.seq;
        if round == ROUNDS / 2 {
            world.platform.drain(&owner).unwrap();
        }
        // On a quiet machine the first that is sent is the first in the log, so they take turns.
        let (one, two) = if round % 2 == 0 {
            (&hers, &tablet)
        } else {
            (&tablet, &hers)
        };
        let (edit, deletion, reaction) = (edit(message, "edited"), delete(message), react(message, "+"));
        let (edited, deleted, reacted) = tokio::join!(
            tried(one, group, &edit),
            tried(two, group, &deletion),
            tried(&his, group, &reaction),
        );
        let deleted = deleted.expect("nobody else deletes it").seq;
        for before in [edited, reacted].into_iter().flatten() {
            assert!(
                before.seq < deleted,
                "{before:?} of {message}, deleted by {deleted}"
            );
        }
    }
    let head = hers.say(group, "after all that").await.seq;
    world.platform.drained(&owner).await.unwrap();
    for phone in [&hers, &tablet, &his] {
        let log = phone.has(group, head).await;
        has_no_gap(&log);
        assert_eq!(deletions(log.entries.values()), ROUNDS);
    }
    world.end().await;
}

/// Two platforms on one database do not know of each other, so each chat has two owners, as it may have for a moment
/// while its slot moves. Each learns of the other's commits only by the compare-and-set.
#[tokio::test]
async fn two_owners_of_one_chat_let_nothing_follow_a_deletion_and_find_old_messages() {
    let world = World::with(|builder| builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await;
    let other = world.beside().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&alice).await;
    let group = world.group(&[&alice, &bob]).await;
    let apis = [&world, &other].map(|world| Api::new(world.channel(0), &device.access_token));
    let mut messages = Vec::new();
    for round in 0..ROUNDS {
        let sent = did(&apis[round % 2], group, say(&format!("message {round}"))).await;
        messages.push(sent.unwrap().seq);
    }
    // An owner has the newest 256 entries in memory. What is older it looks up.
    for _ in 0..6 {
        let fillers = (0..50).map(|_| did(&apis[0], group, say("later")));
        for sent in futures::future::join_all(fillers).await {
            sent.unwrap();
        }
    }
    for (round, message) in messages.into_iter().enumerate() {
        let (one, two) = (&apis[round % 2], &apis[(round + 1) % 2]);
        let (plus, minus) = tokio::join!(
            did(one, group, react(message, "+")),
            did(two, group, react(message, "-")),
        );
        assert!(
            plus.is_ok() && minus.is_ok(),
            "{message} is there: {plus:?}, {minus:?}"
        );
        let (edited, deleted, reacted) = tokio::join!(
            did(one, group, edit(message, "edited")),
            did(two, group, delete(message)),
            did(one, group, react(message, "late")),
        );
        let deleted = deleted.unwrap().seq;
        for before in [edited, reacted].into_iter().filter_map(unless_gone) {
            assert!(
                before.seq < deleted,
                "{before:?} of {message}, deleted by {deleted}"
            );
        }
    }
    let log = whole_log(&apis[1], group).await;
    let seqs: Vec<u64> = log.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>());
    assert_eq!(deletions(&log), ROUNDS);
    other.end_swept().await;
    world.end_swept().await;
}

async fn did(api: &Api, chat: ChatId, act: Act) -> Result<Sent, Status> {
    call(api, chat, RequestId::random(), &act).await
}

/// Returns the place; `None` if it was refused because the message is gone.
fn unless_gone(result: Result<Sent, Status>) -> Option<Sent> {
    let refused = match result {
        Ok(sent) => return Some(sent),
        Err(refused) => refused,
    };
    let reason = reason_of(&refused);
    assert_eq!(reason, Some(ErrorReason::TargetNotFound), "{refused:?}");
    None
}

async fn whole_log(api: &Api, chat: ChatId) -> Vec<Entry> {
    let mut page = v1::ListEntriesRequest {
        chat_id: chat.to_string(),
        from_seq: 1,
        page_size: 256,
        ..Default::default()
    };
    let mut log = Vec::new();
    loop {
        let reply = api.chats().list_entries(page.clone()).await.unwrap().into_inner();
        log.extend(reply.entries);
        if reply.next_from_seq == 0 {
            return log;
        }
        page.from_seq = reply.next_from_seq;
    }
}
