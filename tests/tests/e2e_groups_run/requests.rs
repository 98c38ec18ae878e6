//! A person who needs approval to join waits for it, and those who may answer are told.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, GroupPolicy, Role};
use tern_tests::acts::{content, promote};
use tern_tests::groups::{
    add, answer, fresh, invite, invites, join, leave, link, remove, requests, set_policy, view, why, withdraw,
};
use tern_tests::own::{contents, told};
use tern_tests::{Phone, User, World};
use tern_types::ChatId;

/// Makes a link by which those who come have to be approved.
async fn approved_link(admin: &Phone, group: ChatId) -> v1::Invite {
    let ask = v1::CreateInviteRequest {
        needs_approval: true,
        ..link(group)
    };
    invite(&admin.api(), ask).await.unwrap()
}

/// Asks to join, and checks that the request waits.
async fn asks(phone: &Phone, group: ChatId, token: &str) {
    let asked = join(&phone.api(), group, token).await.unwrap();
    assert_eq!((asked.seq, asked.requested), (0, true));
}

/// Waits until a device was told that this user asks to join.
async fn is_told(phone: &Phone, group: ChatId, user: &User) {
    let wanted = v1::JoinRequested {
        chat_id: group.to_string(),
        user_id: user.id.to_string(),
    };
    told(phone, "a request to join", |content| {
        (content == Content::JoinRequested(wanted.clone())).then_some(())
    })
    .await;
}

/// Returns the ids of those who ask to join, as this member sees them.
async fn asking(phone: &Phone, group: ChatId) -> Vec<String> {
    let requests = requests(&phone.api(), group).await.unwrap();
    requests.into_iter().map(|request| request.user_id).collect()
}

#[tokio::test]
async fn who_asks_is_shown_to_those_who_may_answer_and_comes_in_when_accepted() {
    let world = World::start().await;
    let [alice, bob, carol, dave] = world.users(["alice", "bob", "carol", "dave"]).await;
    let (hers, tablet) = (world.phone(&alice).await, world.phone(&alice).await);
    let (his, carols) = (world.phone(&bob).await, world.phone(&carol).await);
    let daves = world.phone(&dave).await;
    let group = hers.create_group(&[&carol, &dave]).await;
    promote(&hers, group, &carol).await;
    tablet.disconnect().await;
    let made = approved_link(&hers, group).await;
    asks(&his, group, &made.token).await;
    asks(&his, group, &made.token).await;
    is_told(&hers, group, &bob).await;
    is_told(&carols, group, &bob).await;
    tablet.connect().await;
    is_told(&tablet, group, &bob).await;

    let listed = requests(&carols.api(), group).await.unwrap();
    assert_eq!(listed.len(), 1, "he asked twice, and waits once: {listed:?}");
    assert_eq!(
        (&listed[0].user_id, &listed[0].invite_id),
        (&bob.id.to_string(), &made.invite_id)
    );
    for (phone, count) in [(&hers, 1), (&carols, 1), (&daves, 0)] {
        let shown = view(&phone.api(), group).await.unwrap();
        assert_eq!(shown.join_request_count, count, "{shown:?}");
    }
    only_who_may_add_answers(&daves, &his, group, &bob).await;

    let request = v1::AnswerJoinRequestRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        user_id: bob.id.to_string(),
        accept: true,
        ..Default::default()
    };
    let mut groups = carols.api().groups();
    let accepted = groups.answer_join_request(request.clone()).await;
    let accepted = accepted.unwrap().into_inner();
    let again = groups.answer_join_request(request.clone()).await.unwrap();
    assert_eq!(again.into_inner(), accepted);
    let log = his.has(group, accepted.seq).await;
    let entry = &log.entries[&accepted.seq];
    assert_eq!(entry.sender_user_id, carol.id.to_string(), "who let him in");
    assert!(matches!(content(entry), Content::MembersAdded(added) if added.user_ids == [bob.id.to_string()]));
    assert_eq!(asking(&hers, group).await, [] as [String; 0]);
    assert_eq!(view(&hers.api(), group).await.unwrap().join_request_count, 0);
    // Dave, who may not answer, was told nothing by then.
    let sent = his.say(group, "hello").await;
    daves.has(group, sent.seq).await;
    let of_dave = contents(&daves);
    let told = of_dave
        .iter()
        .any(|content| matches!(content, Content::JoinRequested(_)));
    assert!(!told, "{of_dave:?}");
    // The answer is repeated also to who may no longer answer.
    leave(&carols.api(), group).await.unwrap();
    let again = groups.answer_join_request(request).await.unwrap();
    assert_eq!(again.into_inner(), accepted);
    world.end().await;
}

/// Checks that neither a plain member nor the one who asks may see or answer requests.
async fn only_who_may_add_answers(member: &Phone, asker: &Phone, group: ChatId, user: &User) {
    for (phone, reason) in [
        (member, ErrorReason::RoleTooLow),
        (asker, ErrorReason::ChatNotFound),
    ] {
        let api = phone.api();
        assert_eq!(why(requests(&api, group).await), reason);
        assert_eq!(why(answer(&api, group, user.id, true).await), reason);
    }
}

#[tokio::test]
async fn who_is_refused_is_told_nothing_and_asks_again_in_vain_on_that_day() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[]).await;
    let made = approved_link(&hers, group).await;
    asks(&his, group, &made.token).await;
    assert_eq!(asking(&hers, group).await, [bob.id.to_string()]);
    assert_eq!(answer(&hers.api(), group, bob.id, false).await.unwrap(), 0);
    assert_eq!(asking(&hers, group).await, [] as [String; 0]);
    // Bob is not told that he was refused: he gets the same answer as before.
    asks(&his, group, &made.token).await;
    assert_eq!(asking(&hers, group).await, [] as [String; 0]);
    assert_eq!(why(view(&his.api(), group).await), ErrorReason::ChatNotFound);
    let refused = answer(&hers.api(), group, bob.id, true).await;
    assert_eq!(why(refused), ErrorReason::UserNotFound);
    // A member may still add him.
    let added = add(&hers.api(), group, bob.id).await.unwrap();
    his.has(group, added).await;
    world.end().await;
}

#[tokio::test]
async fn a_request_is_taken_back_and_made_again() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[]).await;
    let made = approved_link(&hers, group).await;
    withdraw(&his.api(), group).await.unwrap();
    asks(&his, group, &made.token).await;
    withdraw(&his.api(), group).await.unwrap();
    withdraw(&his.api(), group).await.unwrap();
    assert_eq!(asking(&hers, group).await, [] as [String; 0]);
    let refused = answer(&hers.api(), group, bob.id, true).await;
    assert_eq!(why(refused), ErrorReason::UserNotFound);
    asks(&his, group, &made.token).await;
    let seq = answer(&hers.api(), group, bob.id, true).await.unwrap();
    his.has(group, seq).await;
    // The link counts those who joined, and nobody who only asked.
    let listed = invites(&hers.api(), group).await.unwrap();
    assert_eq!(listed[0].uses, 1, "{listed:?}");
    world.end().await;
}

#[tokio::test]
async fn who_was_removed_needs_approval_by_any_link() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    let made = invite(&hers.api(), link(group)).await.unwrap();
    let removed = remove(&hers.api(), group, bob.id).await.unwrap();
    his.has(group, removed).await;
    asks(&his, group, &made.token).await;
    is_told(&hers, group, &bob).await;
    // A member may answer requests as soon as the policy lets members add others.
    let open = GroupPolicy {
        add_role: Role::Member.into(),
        ..Default::default()
    };
    set_policy(&hers.api(), group, open).await.unwrap();
    assert_eq!(asking(&carols, group).await, [bob.id.to_string()]);
    let back = answer(&carols.api(), group, bob.id, true).await.unwrap();
    let log = his.has(group, back).await;
    assert_eq!(log.entries[&back].sender_user_id, carol.id.to_string());
    let sent = his.say(group, "I am back").await;
    hers.has(group, sent.seq).await;
    world.end().await;
}
