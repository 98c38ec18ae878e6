//! A frozen chat takes nothing but what the operator says.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, GroupPolicy, Role};
use tern_tests::acts::{By, CHAT_FROZEN, call, content, delete, done, is_refused, read, say, text};
use tern_tests::groups::{
    add, describe, freeze, fresh, invite, leave, link, remove, rename, set_policy, set_retention, set_role,
    view, why,
};
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId, UserId};

/// Checks that a phone was told whether the chat is frozen, and that the chat shows it.
async fn is_told(phone: &Phone, chat: ChatId, seq: u64, frozen: bool) {
    let log = phone.has(chat, seq).await;
    let entry = &log.entries[&seq];
    assert_eq!(entry.sender_user_id, "", "the operator's back end has no name");
    assert!(
        matches!(content(entry), Content::ChatFrozen(change) if change.frozen == frozen),
        "{entry:?}"
    );
    let shown = view(&phone.api(), chat).await.unwrap();
    assert_eq!(shown.frozen, frozen, "{shown:?}");
}

#[tokio::test]
async fn in_a_frozen_group_members_read_and_leave_and_do_nothing_else() {
    let world = World::start().await;
    let [alice, bob, carol, dave] = world.users(["alice", "bob", "carol", "dave"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob, &carol]).await;
    let message = his.say(group, "before").await.seq;
    let back_end = world.back_end().await;
    for phone in [&hers, &his] {
        let refused = freeze(&phone.api(), group, true).await;
        assert_eq!(why(refused), ErrorReason::NotForDevices);
    }
    let frozen = freeze(back_end, group, true).await.unwrap();
    is_told(&hers, group, frozen, true).await;
    is_told(&his, group, frozen, true).await;
    assert_eq!(
        freeze(back_end, group, true).await.unwrap(),
        0,
        "it is so already"
    );

    is_refused(&hers, group, &say("hello?"), CHAT_FROZEN).await;
    is_refused(&his, group, &delete(message), CHAT_FROZEN).await;
    changes_are_refused(&hers.api(), group, [&bob, &dave].map(|user| user.id)).await;
    in_her_name_it_is_refused_too(back_end, group, &alice.id.to_string()).await;

    // They read, mark and leave it.
    let mark = v1::MarkChatReadRequest {
        chat_id: group.to_string(),
        seq: frozen,
        ..Default::default()
    };
    hers.api().chats().mark_chat_read(mark).await.unwrap();
    assert_eq!(view(&hers.api(), group).await.unwrap().read_seq, frozen);
    let now = read(&hers.api(), group, message).await.unwrap();
    assert_eq!(text(&now).as_deref(), Some("before"));
    let left = leave(&his.api(), group).await.unwrap();
    hers.has(group, left).await;
    // A message of the system is taken although the group is frozen.
    let notice = call(back_end, group, RequestId::random(), &say("we look into it")).await;
    hers.has(group, notice.unwrap().seq).await;
    assert!(hers.texts(group).contains(&"we look into it".to_owned()));

    let thawed = freeze(back_end, group, false).await.unwrap();
    is_told(&hers, group, thawed, false).await;
    done(&hers, By::Stream, group, &say("it goes on")).await;
    world.end().await;
}

/// Checks that the owner changes nothing of the group. `others` are a member and a stranger.
async fn changes_are_refused(owner: &Api, group: ChatId, others: [UserId; 2]) {
    let [member, stranger] = others;
    let retention = v1::Retention {
        mode: v1::RetentionMode::Forever.into(),
        ..Default::default()
    };
    let policy = GroupPolicy {
        slow_mode_s: 1,
        ..Default::default()
    };
    for (what, refused) in [
        ("title", rename(owner, group, "new").await),
        ("description", describe(owner, group, "new").await),
        ("policy", set_policy(owner, group, policy).await),
        ("role", set_role(owner, group, member, Role::Admin).await),
        ("addition", add(owner, group, stranger).await),
        ("removal", remove(owner, group, member).await),
        ("retention", set_retention(owner, group, retention).await),
    ] {
        assert_eq!(why(refused), ErrorReason::ChatFrozen, "{what}");
    }
    let refused = invite(owner, link(group)).await;
    assert_eq!(why(refused), ErrorReason::ChatFrozen);
}

async fn in_her_name_it_is_refused_too(back_end: &Api, group: ChatId, acting: &str) {
    let send = v1::SendMessageRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        body: "for her".into(),
        acting_user_id: acting.to_owned(),
        ..Default::default()
    };
    let refused = back_end.chats().send_message(send).await;
    assert_eq!(why(refused), ErrorReason::ChatFrozen);
    let title = v1::UpdateChatRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        title: "hers".to_owned(),
        acting_user_id: acting.to_owned(),
    };
    let refused = back_end.chats().update_chat(title).await;
    assert_eq!(why(refused), ErrorReason::ChatFrozen);
}

#[tokio::test]
async fn a_direct_chat_is_frozen_for_both_also_by_the_other_persons_id() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    his.has(chat, 1).await;
    let back_end = world.back_end().await;
    let frozen = freeze(back_end, chat, true).await.unwrap();
    is_told(&hers, chat, frozen, true).await;
    is_told(&his, chat, frozen, true).await;
    for (phone, peer) in [(&hers, &bob), (&his, &alice)] {
        is_refused(phone, chat, &say("psst"), CHAT_FROZEN).await;
        let request = phone.send(peer.id, "psst").await;
        let error = phone.refused(request).await;
        assert_eq!(error.code(), v1::SendErrorCode::ChatFrozen, "{error:?}");
    }
    // Another owner of the chat knows it too.
    let owner = world.owner_of(chat).await;
    world.platform.drain(&owner).unwrap();
    world.platform.drained(&owner).await.unwrap();
    is_refused(&his, chat, &say("psst"), CHAT_FROZEN).await;
    let thawed = freeze(back_end, chat, false).await.unwrap();
    is_told(&his, chat, thawed, false).await;
    his.say(alice.id, "hello again").await;
    world.end().await;
}

#[tokio::test]
async fn freezing_again_gives_the_first_result() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let group = world.group(&[&alice]).await;
    let request = v1::FreezeRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        frozen: true,
    };
    let mut groups = world.back_end().await.groups();
    let first = groups.freeze(request.clone()).await.unwrap().into_inner();
    let again = groups.freeze(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = v1::FreezeRequest {
        frozen: false,
        ..request
    };
    assert_eq!(why(groups.freeze(other).await), ErrorReason::RequestIdReused);
    let nowhere = v1::FreezeRequest {
        chat_id: RequestId::random().to_string(),
        request_id: fresh(),
        frozen: true,
    };
    assert_eq!(why(groups.freeze(nowhere).await), ErrorReason::ChatNotFound);
    world.end().await;
}
