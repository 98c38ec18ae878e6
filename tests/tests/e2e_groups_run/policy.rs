//! The description of a group, and which role may do what in it.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, GroupPolicy, JoinerHistory, Role};
use tern_tests::acts::{
    By, NOT_ALLOWED, ROLE_TOO_LOW, content, delete, done, edit, is_refused, pin, promote, react, say,
};
use tern_tests::groups::{
    add, describe, fresh, invite, link, rename, set_policy, set_retention, set_role, view, why,
};
use tern_tests::{Api, World};
use tern_types::ChatId;

/// Returns the policy that a group begins with, with every field set.
fn defaults() -> GroupPolicy {
    GroupPolicy {
        send_role: Role::Member.into(),
        add_role: Role::Admin.into(),
        edit_role: Role::Admin.into(),
        slow_mode_s: 0,
        joiner_history: JoinerHistory::None.into(),
        joiner_history_entries: 0,
    }
}

/// Fills in the defaults: a field that is not set and one that has its default are the same policy.
fn explicit(policy: &GroupPolicy) -> GroupPolicy {
    let or = |value: i32, default: i32| if value == 0 { default } else { value };
    let by_default = defaults();
    GroupPolicy {
        send_role: or(policy.send_role, by_default.send_role),
        add_role: or(policy.add_role, by_default.add_role),
        edit_role: or(policy.edit_role, by_default.edit_role),
        joiner_history: or(policy.joiner_history, by_default.joiner_history),
        ..*policy
    }
}

#[tokio::test]
async fn where_only_admins_send_others_react_and_delete() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    promote(&hers, group, &carol).await;
    let own = his.say(group, "before").await.seq;
    let policy = GroupPolicy {
        send_role: Role::Admin.into(),
        ..defaults()
    };
    let changed = set_policy(&carols.api(), group, policy).await.unwrap();
    let log = his.has(group, changed).await;
    match content(&log.entries[&changed]) {
        Content::GroupPolicyChanged(change) => {
            assert_eq!(explicit(&change.policy.unwrap()), policy, "the whole policy");
        }
        other => panic!("{other:?}"),
    }
    let shown = view(&his.api(), group).await.unwrap().policy.unwrap();
    assert_eq!(explicit(&shown), policy);

    for act in [say("may I?"), edit(own, "before that")] {
        is_refused(&his, group, &act, ROLE_TOO_LOW).await;
    }
    let news = done(&carols, By::Call, group, &say("news")).await.seq;
    done(&hers, By::Stream, group, &say("more news")).await;
    done(&his, By::Stream, group, &react(news, "+")).await;
    done(&his, By::Call, group, &delete(own)).await;

    let owners = GroupPolicy {
        send_role: Role::Owner.into(),
        ..defaults()
    };
    set_policy(&hers.api(), group, owners).await.unwrap();
    is_refused(&carols, group, &say("news"), ROLE_TOO_LOW).await;
    set_policy(&hers.api(), group, GroupPolicy::default())
        .await
        .unwrap();
    let last = done(&his, By::Stream, group, &say("I may")).await;
    carols.has(group, last.seq).await;
    world.end().await;
}

#[tokio::test]
async fn add_role_and_edit_role_open_and_close_what_they_name() {
    let world = World::start().await;
    let [alice, bob, carol, dave] = world.users(["alice", "bob", "carol", "dave"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    promote(&hers, group, &carol).await;
    let (member, admin) = (his.api(), carols.api());
    let message = hers.say(group, "hello").await.seq;
    edits_are_refused(&member, group).await;
    is_refused(&his, group, &pin(message), NOT_ALLOWED).await;
    let refused = add(&member, group, dave.id).await;
    assert_eq!(why(refused), ErrorReason::RoleTooLow);
    assert_eq!(why(invite(&member, link(group)).await), ErrorReason::RoleTooLow);

    let open = GroupPolicy {
        add_role: Role::Member.into(),
        edit_role: Role::Member.into(),
        ..defaults()
    };
    set_policy(&hers.api(), group, open).await.unwrap();
    assert!(add(&member, group, dave.id).await.unwrap() > 0);
    invite(&member, link(group)).await.unwrap();
    assert!(rename(&member, group, "ours").await.unwrap() > 0);
    assert!(describe(&member, group, "for all").await.unwrap() > 0);
    let kept = set_retention(&member, group, forever()).await.unwrap();
    assert!(kept > 0);
    done(&his, By::Stream, group, &pin(message)).await;
    // The policy and roles stay with those who run the group.
    assert_eq!(
        why(set_policy(&member, group, defaults()).await),
        ErrorReason::RoleTooLow
    );
    let refused = set_role(&member, group, dave.id, Role::Admin).await;
    assert_eq!(why(refused), ErrorReason::RoleTooLow);

    let closed = GroupPolicy {
        add_role: Role::Owner.into(),
        edit_role: Role::Owner.into(),
        ..defaults()
    };
    let seq = set_policy(&admin, group, closed).await.unwrap();
    carols.has(group, seq).await;
    edits_are_refused(&admin, group).await;
    is_refused(&carols, group, &pin(message), NOT_ALLOWED).await;
    assert_eq!(why(invite(&admin, link(group)).await), ErrorReason::RoleTooLow);
    assert!(rename(&hers.api(), group, "hers").await.unwrap() > 0);
    world.end().await;
}

fn forever() -> v1::Retention {
    v1::Retention {
        mode: v1::RetentionMode::Forever.into(),
        ..Default::default()
    }
}

/// Checks that this member may change neither title nor description nor retention.
async fn edits_are_refused(member: &Api, group: ChatId) {
    for refused in [
        rename(member, group, "mine").await,
        describe(member, group, "mine").await,
        set_retention(member, group, forever()).await,
    ] {
        assert_eq!(why(refused), ErrorReason::RoleTooLow);
    }
}

#[tokio::test]
async fn a_policy_is_set_once_and_whole_or_refused() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let api = hers.api();
    let slow = GroupPolicy {
        slow_mode_s: 3_600,
        joiner_history: JoinerHistory::Last.into(),
        joiner_history_entries: 10_000,
        ..defaults()
    };
    let set = v1::SetPolicyRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        policy: Some(slow),
        ..Default::default()
    };
    let first = api.groups().set_policy(set.clone()).await.unwrap().into_inner();
    let again = api.groups().set_policy(set.clone()).await.unwrap().into_inner();
    assert_eq!((first.seq, again.seq), (2, 2));
    assert_eq!(
        set_policy(&api, group, slow).await.unwrap(),
        0,
        "it is so already"
    );
    let other = v1::SetPolicyRequest {
        policy: Some(defaults()),
        ..set
    };
    let reused = api.groups().set_policy(other).await;
    assert_eq!(why(reused), ErrorReason::RequestIdReused);

    for wrong in [
        GroupPolicy {
            slow_mode_s: 3_601,
            ..slow
        },
        GroupPolicy {
            joiner_history_entries: 0,
            ..slow
        },
        GroupPolicy {
            joiner_history_entries: 10_001,
            ..slow
        },
        GroupPolicy {
            send_role: 99,
            ..slow
        },
        GroupPolicy {
            joiner_history: 99,
            ..slow
        },
    ] {
        let refused = set_policy(&api, group, wrong).await;
        assert_eq!(why(refused), ErrorReason::InvalidField, "{wrong:?}");
    }
    let shown = view(&his.api(), group).await.unwrap().policy.unwrap();
    assert_eq!(explicit(&shown), slow);

    let direct: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    for refused in [
        set_policy(&api, direct, slow).await,
        describe(&api, direct, "us").await,
    ] {
        assert_eq!(why(refused), ErrorReason::NotAGroup);
    }
    world.end().await;
}

#[tokio::test]
async fn a_description_has_lines_and_is_seen_by_all_members_and_by_nobody_else() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let stranger = world.phone(&carol).await;
    let group = hers.create_group(&[&bob]).await;
    let api = hers.api();
    let text = "We play on Mondays.\nBring shoes.";
    let seq = describe(&api, group, text).await.unwrap();
    let log = his.has(group, seq).await;
    assert!(
        matches!(content(&log.entries[&seq]), Content::ChatDescriptionChanged(changed) if changed.description == text)
    );
    assert_eq!(view(&his.api(), group).await.unwrap().description, text);
    assert_eq!(describe(&api, group, text).await.unwrap(), 0, "it is so already");

    describe(&api, group, &"x".repeat(2_048)).await.unwrap();
    for wrong in ["x".repeat(2_049), "a\u{7}b".to_owned(), "a\0b".to_owned()] {
        let refused = describe(&api, group, &wrong).await;
        assert_eq!(why(refused), ErrorReason::InvalidField, "{wrong:?}");
    }
    let last = describe(&api, group, "").await.unwrap();
    his.has(group, last).await;
    assert_eq!(view(&his.api(), group).await.unwrap().description, "");
    let refused = describe(&stranger.api(), group, "I was here").await;
    assert_eq!(why(refused), ErrorReason::ChatNotFound);
    world.end().await;
}
