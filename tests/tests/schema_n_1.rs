//! The previous version runs on the present schema, alone and beside this version. An upgrade goes through both:
//! first the migration, then node by node. `scripts/check-schema-n-1` builds that version and runs this test.

#![allow(clippy::expect_used, reason = "test code")]

use std::path::PathBuf;

use tern_local::Role;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{MessageKind, SendErrorCode};
use tern_tests::acts::{content, delete, edit};
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId};

/// Returns the program of the previous version, which the script has built.
fn before() -> PathBuf {
    let path = std::env::var_os("TERN_N_1").expect("TERN_N_1 names the program of the version before");
    PathBuf::from(path)
}

/// Sends and receives messages in a direct chat and in a group, also with a person who was away.
async fn carries_messages(world: World) {
    world.still_works().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = world.group(&[&alice, &bob]).await;
    let sent = hers.say(group, "to the group").await;
    his.has(group, sent.seq).await;
    his.disconnect().await;
    let sent = hers.say(group, "while you were out").await;
    world.settled().await;
    his.connect().await;
    his.has(group, sent.seq).await;
    hers.receipt(group, bob.id, sent.seq, 0).await;
    edits_and_deletes(&hers, &his, group).await;
    world.end().await;
}

/// Edits and deletes a message. A chat node of a version that knows neither refuses both. Whichever it is, the log goes
/// on, and the other person has what was taken.
async fn edits_and_deletes(phone: &Phone, other: &Phone, group: ChatId) {
    let message = phone.say(group, "helo").await.seq;
    let mut taken = Vec::new();
    for act in [edit(message, "hello"), delete(message)] {
        let request = RequestId::random();
        let (envelope, body) = (act.envelope.clone(), act.body.as_bytes());
        phone.send_with(request, group, envelope, body).await;
        let state = phone.until("a result", |state| state.results.contains_key(&request));
        match &state.await.results[&request] {
            Ok(sent) => taken.push(sent.seq),
            Err(error) => assert_eq!(error.code(), SendErrorCode::Invalid, "{act:?}: {error:?}"),
        }
    }
    assert!(
        taken.is_empty() || taken == [message + 1, message + 2],
        "{taken:?}"
    );
    let last = phone.say(group, "after that").await.seq;
    assert_eq!(last, message + 1 + taken.len() as u64);
    let log = other.has(group, last).await;
    for (seq, kind) in taken.into_iter().zip([MessageKind::Edit, MessageKind::Delete]) {
        let found = match content(&log.entries[&seq]) {
            Content::Message(message) => {
                let envelope = message.envelope.unwrap_or_default();
                (envelope.kind(), envelope.target_seq)
            }
            Content::Erased(erased) => (erased.kind(), erased.target_seq),
            other => panic!("no message: {other:?}"),
        };
        assert_eq!(found, (kind, message));
    }
}

#[tokio::test]
#[ignore = "scripts/check-schema-n-1 runs it"]
async fn the_version_before_works_on_the_schema_of_now() {
    let old = before();
    let world = World::with(|builder| {
        let roles = [Role::Gateway, Role::Chat, Role::Presence, Role::Accounts];
        roles
            .into_iter()
            .fold(builder, |builder, role| builder.program(role, &old))
    });
    Box::pin(carries_messages(world.await)).await;
}

#[tokio::test]
#[ignore = "scripts/check-schema-n-1 runs it"]
async fn nodes_of_both_versions_work_together() {
    let old = before();
    for role in [Role::Chat, Role::Gateway] {
        let world = World::with(|builder| builder.program(role, &old));
        Box::pin(carries_messages(world.await)).await;
    }
}
