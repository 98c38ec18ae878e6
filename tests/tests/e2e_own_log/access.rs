//! Nobody else reads or writes an own log, its user neither by messages, and it survives the loss of its node.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ChatKind, ChatSettings, ErrorReason, SendErrorCode};
use tern_tests::acts::{call, content, say};
use tern_tests::groups::{add, fresh, rename, view, why};
use tern_tests::own::{keep, settings, told_settings};
use tern_tests::world::FAILOVER_GRACE;
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId};

/// Reads a chat's log from its first entry on.
async fn entries(api: &Api, chat: ChatId) -> Result<Vec<v1::Entry>, tonic::Status> {
    let list = v1::ListEntriesRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    Ok(api.chats().list_entries(list).await?.into_inner().entries)
}

/// Mutes a chat or ends that, and checks that these devices are told.
async fn mutes(by: &Phone, chat: ChatId, until_ms: i64, devices: &[&Phone]) {
    let change = v1::SetChatSettingsRequest {
        muted_until_ms: Some(until_ms),
        ..settings(chat)
    };
    keep(&by.api(), change).await.unwrap();
    let expected = ChatSettings {
        muted_until_ms: until_ms,
        ..Default::default()
    };
    for phone in devices {
        told_settings(phone, chat, &expected).await;
    }
}

#[tokio::test]
async fn an_own_log_is_read_by_its_user_and_written_by_nobody() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    mutes(&hers, group, 7, &[&hers]).await;
    let own = ChatId::own(alice.id);

    let mine = view(&hers.api(), own).await.unwrap();
    assert_eq!((mine.kind(), mine.member_count), (ChatKind::Self_, 1), "{mine:?}");
    let log = entries(&hers.api(), own).await.unwrap();
    let last = log.last().unwrap();
    assert_eq!((last.seq, last.seq), (mine.head_seq, log.len() as u64));
    assert!(
        matches!(content(last), Content::ChatSettingsChanged(_)),
        "{last:?}"
    );

    assert_eq!(why(view(&his.api(), own).await), ErrorReason::ChatNotFound);
    assert_eq!(why(entries(&his.api(), own).await), ErrorReason::ChatNotFound);
    let request = his.send(own, "psst").await;
    assert_eq!(his.refused(request).await.code(), SendErrorCode::NotAMember);
    let refused = call(&his.api(), own, RequestId::random(), &say("psst")).await;
    assert_eq!(why(refused), ErrorReason::ChatNotFound);

    // She and a back end, which may see it, write no messages there, and change nothing.
    let request = hers.send(own, "a note to myself").await;
    hers.refused(request).await;
    for api in [&hers.api(), world.back_end().await] {
        let sent = call(api, own, RequestId::random(), &say("a note")).await;
        assert!(sent.is_err(), "{sent:?}");
        assert!(rename(api, own, "notes").await.is_err());
        assert!(add(api, own, bob.id).await.is_err());
    }
    let in_her_name = v1::SendMessageRequest {
        chat_id: own.to_string(),
        request_id: fresh(),
        body: "a note".into(),
        acting_user_id: alice.id.to_string(),
        ..Default::default()
    };
    let sent = world.back_end().await.chats().send_message(in_her_name).await;
    assert!(sent.is_err(), "{sent:?}");
    assert_eq!(view(&hers.api(), own).await.unwrap().head_seq, mine.head_seq);
    world.end().await;
}

#[tokio::test]
async fn an_own_log_goes_on_when_its_owner_is_killed() {
    let mut world = World::with(|builder| builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, tablet) = (world.phone(&alice).await, world.phone(&alice).await);
    let group = hers.create_group(&[&bob]).await;
    let own = ChatId::own(alice.id);
    mutes(&hers, group, 1, &[&hers, &tablet]).await;
    for round in [2, 4] {
        let owner = world.owner_of(own).await;
        tablet.disconnect().await;
        mutes(&hers, group, round, &[&hers]).await;
        world.platform.kill(&owner).await.unwrap();
        mutes(&hers, group, round + 1, &[&hers]).await;
        tablet.connect().await;
        for until_ms in [round, round + 1] {
            let expected = ChatSettings {
                muted_until_ms: until_ms,
                ..Default::default()
            };
            told_settings(&tablet, group, &expected).await;
        }
        world.platform.restart(&owner).await.unwrap();
    }
    // Both have the whole log, in one order and without a gap.
    let head = view(&hers.api(), own).await.unwrap().head_seq;
    let (one, other) = (hers.has(own, head).await, tablet.has(own, head).await);
    let told = |log: &tern_tests::phone::Log| -> Vec<(u64, Content)> {
        let from = other.base.max(one.base);
        let since = log.entries.range(from + 1..);
        since.map(|(seq, entry)| (*seq, content(entry))).collect()
    };
    assert_eq!(told(&one), told(&other));
    assert_eq!(told(&one).len() as u64, head - one.base.max(other.base));
    world.end().await;
}
