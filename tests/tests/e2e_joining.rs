//! The rules of who may be added to a group, and of how many strangers a user may write to or add in a day.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, SendErrorCode};
use tern_tests::{Phone, User, World};
use tern_types::{ChatId, RequestId};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A user who has left comes back only by their own decision. So other members cannot add them again, but the app's
/// back end can, which knows the decision.
#[tokio::test]
async fn who_left_is_added_again_by_nobody_but_the_back_end() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob, &carol]).await;
    his.has(group, 1).await;
    let left = leave(&his, group).await;
    his.has(group, left).await;
    let add = |users: &[&User], acting: &str| v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: users.iter().map(|user| user.id.to_string()).collect(),
        acting_user_id: acting.to_owned(),
    };
    let back_end = world.back_end().await;
    let by_her = hers.api().chats().add_members(add(&[&bob, &carol], "")).await;
    assert_eq!(by_her.unwrap().into_inner().seq, 0, "she is not told why");
    let in_her_name = back_end
        .chats()
        .add_members(add(&[&bob], &alice.id.to_string()))
        .await;
    assert_eq!(in_her_name.unwrap().into_inner().seq, 0);
    let for_nobody = back_end.chats().add_members(add(&[&bob], "")).await;
    let back = for_nobody.unwrap().into_inner().seq;
    assert_eq!(back, left + 1);
    his.has(group, back).await;

    // A member who was removed may be added again by anybody who may add members.
    let removed = hers.api().chats().remove_member(removal(group, &bob)).await;
    let removed = removed.unwrap().into_inner().seq;
    let again = hers.api().chats().add_members(add(&[&bob], "")).await;
    assert_eq!(again.unwrap().into_inner().seq, removed + 1);
    his.has(group, removed + 1).await;

    // A plain member can remove nobody, not even somebody who is no member.
    let stranger = world.user("stranger").await;
    for user in [&stranger, &carol] {
        let refused = his.api().chats().remove_member(removal(group, user)).await;
        let refused = refused.unwrap_err();
        assert_eq!(reason_of(&refused), Some(ErrorReason::RoleTooLow), "{refused:?}");
    }
    world.end().await;
}

async fn leave(phone: &Phone, group: ChatId) -> u64 {
    let leave = v1::LeaveChatRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        ..Default::default()
    };
    phone
        .api()
        .chats()
        .leave_chat(leave)
        .await
        .unwrap()
        .into_inner()
        .seq
}

fn removal(group: ChatId, user: &User) -> v1::RemoveMemberRequest {
    v1::RemoveMemberRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_id: user.id.to_string(),
        ..Default::default()
    }
}

#[tokio::test]
async fn new_strangers_written_to_or_added_a_day_are_limited() {
    let world = World::with(|builder| builder.env("TERN_CHAT_NEW_STRANGERS_A_DAY", "3")).await;
    let [alice, a, b, c, d] = world.users(["alice", "a", "b", "c", "d"]).await;
    let (hers, tablet) = (world.phone(&alice).await, world.phone(&alice).await);
    let his = world.phone(&c).await;
    hers.say(a.id, "hello").await;
    let group = tablet.create_group(&[&a, &b]).await;
    // He writes first, so he is no stranger.
    let chat: ChatId = his.say(alice.id, "hello").await.chat_id.parse().unwrap();
    hers.has(chat, 1).await;
    hers.say(c.id, "hello, c").await;
    hers.say(d.id, "the third").await;

    let stranger = world.user("stranger").await;
    let request = tablet.send(stranger.id, "one too many").await;
    let error = tablet.refused(request).await;
    assert_eq!(error.code(), SendErrorCode::StrangersLimited, "{error:?}");
    assert!(error.retry_after_ms > 3_600_000, "{error:?}");
    let [known, stranger_id] = [&a, &stranger].map(|user| user.id.to_string());
    let create = v1::CreateGroupRequest {
        request_id: RequestId::random().to_string(),
        member_user_ids: vec![known, stranger_id.clone()],
        ..Default::default()
    };
    let add = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![stranger_id.clone()],
        ..Default::default()
    };
    let send = v1::SendMessageRequest {
        peer_user_id: stranger_id,
        request_id: RequestId::random().to_string(),
        body: "one too many".into(),
        ..Default::default()
    };
    let mut chats = hers.api().chats();
    for refused in [
        chats.create_group(create).await.unwrap_err(),
        chats.add_members(add.clone()).await.unwrap_err(),
        chats.send_message(send.clone()).await.unwrap_err(),
    ] {
        is_limited_for_hours(&refused);
    }
    // Existing chats go on, and back ends are not limited.
    hers.say(group, "to the group").await;
    hers.say(a.id, "to somebody known").await;
    a_back_end_is_not_limited(&world, &alice, add, send).await;
    hers.say(stranger.id, "the chat is there now").await;
    world.end().await;
}

/// The limit for strangers would tell people outside a group who is in it, since members count for nothing.
#[tokio::test]
async fn who_is_no_member_is_not_told_whom_a_member_might_add() {
    let world = World::with(|builder| builder.env("TERN_CHAT_NEW_STRANGERS_A_DAY", "1")).await;
    let [alice, bob, carol, dave, erin] = world.users(["alice", "bob", "carol", "dave", "erin"]).await;
    let his = world.phone(&bob).await;
    let group = world.group(&[&alice, &carol]).await;
    for asked in [[&alice, &carol], [&dave, &erin]] {
        let add = v1::AddMembersRequest {
            chat_id: group.to_string(),
            request_id: RequestId::random().to_string(),
            user_ids: asked.map(|user| user.id.to_string()).to_vec(),
            ..Default::default()
        };
        let refused = his.api().chats().add_members(add).await.unwrap_err();
        assert_eq!(
            reason_of(&refused),
            Some(ErrorReason::ChatNotFound),
            "{refused:?}"
        );
    }
    world.end().await;
}

fn is_limited_for_hours(refused: &Status) {
    assert_eq!(
        (refused.code(), reason_of(refused)),
        (Code::ResourceExhausted, Some(ErrorReason::StrangersLimited))
    );
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait > Some(Duration::from_secs(3600)), "{refused:?}");
}

/// Checks that a back end may make the same requests in the user's name.
async fn a_back_end_is_not_limited(
    world: &World,
    user: &User,
    add: v1::AddMembersRequest,
    send: v1::SendMessageRequest,
) {
    let acting = user.id.to_string();
    let add = v1::AddMembersRequest {
        acting_user_id: acting.clone(),
        ..add
    };
    let send = v1::SendMessageRequest {
        acting_user_id: acting,
        ..send
    };
    let mut back_end = world.back_end().await.chats();
    assert!(back_end.add_members(add).await.unwrap().into_inner().seq > 0);
    assert!(
        back_end
            .send_message(send)
            .await
            .unwrap()
            .into_inner()
            .sent
            .is_some()
    );
}
