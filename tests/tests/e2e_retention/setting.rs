//! Tests of who may set how long a chat is kept, of the ranges, and of what others are told.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, GroupPolicy, Retention, RetentionMode, Role};
use tern_tests::acts::{content, promote};
use tern_tests::groups::{fresh, set_policy, set_retention, view, why};
use tern_tests::{Phone, World};
use tern_types::ChatId;

/// Checks that a phone was told of this retention, and that the chat shows it.
async fn is_told(phone: &Phone, chat: ChatId, seq: u64, retention: Retention) {
    let log = phone.has(chat, seq).await;
    match content(&log.entries[&seq]) {
        Content::RetentionChanged(changed) => assert_eq!(changed.retention, Some(retention)),
        other => panic!("{other:?}"),
    }
    let shown = view(&phone.api(), chat).await.unwrap();
    assert_eq!(shown.retention, Some(retention), "{shown:?}");
}

fn disappear(after_s: u32) -> Retention {
    Retention {
        disappear_after_s: after_s,
        ..Default::default()
    }
}

fn keep(seconds: u32) -> Retention {
    Retention {
        mode: RetentionMode::ForTime.into(),
        keep_s: seconds,
        ..Default::default()
    }
}

#[tokio::test]
async fn in_a_direct_chat_both_set_it_and_both_are_told() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    his.has(chat, 1).await;
    let until_delivered = Retention {
        mode: RetentionMode::UntilDelivered.into(),
        ..disappear(31_536_000)
    };
    for (phone, retention) in [
        (&hers, disappear(5)),
        (&his, keep(3_600)),
        (&hers, keep(315_360_000)),
        (&his, until_delivered),
    ] {
        let set = v1::SetRetentionRequest {
            chat_id: chat.to_string(),
            request_id: fresh(),
            retention: Some(retention),
            ..Default::default()
        };
        let mut chats = phone.api().chats();
        let first = chats.set_retention(set.clone()).await.unwrap().into_inner();
        let again = chats.set_retention(set).await.unwrap().into_inner();
        assert_eq!(first, again);
        is_told(&hers, chat, first.seq, retention).await;
        is_told(&his, chat, first.seq, retention).await;
        let same = set_retention(&phone.api(), chat, retention).await;
        assert_eq!(same.unwrap(), 0, "it is so already");
    }
    for wrong in [
        disappear(4),
        disappear(31_536_001),
        keep(0),
        keep(3_599),
        keep(315_360_001),
        Retention {
            mode: 99,
            ..Default::default()
        },
    ] {
        let refused = set_retention(&his.api(), chat, wrong).await;
        assert_eq!(why(refused), ErrorReason::InvalidField, "{wrong:?}");
    }
    let stranger = world.phone(&carol).await;
    let refused = set_retention(&stranger.api(), chat, disappear(5)).await;
    assert_eq!(why(refused), ErrorReason::ChatNotFound);
    world.end().await;
}

#[tokio::test]
async fn in_a_group_the_policy_says_who_sets_it_and_a_back_end_may() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    promote(&hers, group, &carol).await;
    let refused = set_retention(&his.api(), group, disappear(60)).await;
    assert_eq!(why(refused), ErrorReason::RoleTooLow);
    let seq = set_retention(&carols.api(), group, disappear(60)).await.unwrap();
    is_told(&his, group, seq, disappear(60)).await;
    let open = GroupPolicy {
        edit_role: Role::Member.into(),
        ..Default::default()
    };
    set_policy(&hers.api(), group, open).await.unwrap();
    let seq = set_retention(&his.api(), group, disappear(61)).await.unwrap();
    is_told(&carols, group, seq, disappear(61)).await;
    let back_end = world.back_end().await;
    let seq = set_retention(back_end, group, keep(7_200)).await.unwrap();
    is_told(&his, group, seq, keep(7_200)).await;
    let log = his.has(group, seq).await;
    assert_eq!(log.entries[&seq].sender_user_id, "");
    world.end().await;
}
