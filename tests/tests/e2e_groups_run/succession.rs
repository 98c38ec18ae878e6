//! A group with members has an owner, whoever leaves, is removed or hands it over.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, Role};
use tern_tests::acts::content;
use tern_tests::groups::{
    add, give_role, hand_over, invite, join, leave, link, look_up, remove, rename, roles, set_role, view, why,
};
use tern_tests::{Phone, User, World};
use tern_types::{ChatId, UserId};

/// Returns the `MemberRemoved` at this seq, as the phone has it.
async fn removal(phone: &Phone, group: ChatId, seq: u64) -> v1::MemberRemoved {
    let log = phone.has(group, seq).await;
    match content(&log.entries[&seq]) {
        Content::MemberRemoved(removal) => removal,
        other => panic!("{other:?}"),
    }
}

fn gone(user: &User, left: bool, new_owner: Option<UserId>) -> v1::MemberRemoved {
    v1::MemberRemoved {
        user_id: user.id.to_string(),
        left,
        new_owner_user_id: new_owner.map(|user| user.to_string()).unwrap_or_default(),
    }
}

/// Checks that these are the owners of the group.
async fn owners_are(phone: &Phone, group: ChatId, owners: &[UserId]) {
    let found = roles(&phone.api(), group).await.unwrap();
    let found = found.into_iter().filter(|(_, role)| *role == Role::Owner);
    let found: Vec<UserId> = found.map(|(user, _)| user).collect();
    assert_eq!(found, owners);
}

#[tokio::test]
async fn an_owner_hands_the_group_over_and_is_an_admin_then() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let refused = hand_over(&his.api(), group, alice.id).await;
    assert_eq!(why(refused), ErrorReason::RoleTooLow);
    let as_admin = give_role(&hers.api(), group, bob.id, Role::Admin, true).await;
    assert_eq!(why(as_admin), ErrorReason::InvalidField);
    let by_nobody = hand_over(world.back_end().await, group, bob.id).await;
    assert!(by_nobody.is_err(), "nobody becomes an admin: {by_nobody:?}");
    owners_are(&hers, group, &[alice.id]).await;

    let seq = hand_over(&hers.api(), group, bob.id).await.unwrap();
    let log = his.has(group, seq).await;
    let expected = v1::RoleChanged {
        user_id: bob.id.to_string(),
        role: Role::Owner.into(),
        handed_over: true,
    };
    match content(&log.entries[&seq]) {
        Content::RoleChanged(change) => assert_eq!(change, expected),
        other => panic!("{other:?}"),
    }
    owners_are(&his, group, &[bob.id]).await;
    for (phone, role) in [(&hers, Role::Admin), (&his, Role::Owner)] {
        assert_eq!(view(&phone.api(), group).await.unwrap().role(), role);
    }
    // She still may what admins may, and no more.
    assert!(rename(&hers.api(), group, "his").await.unwrap() > seq);
    let refused = set_role(&hers.api(), group, bob.id, Role::Member).await;
    assert_eq!(why(refused), ErrorReason::RoleTooLow);
    let refused = set_role(&his.api(), group, bob.id, Role::Admin).await;
    assert_eq!(why(refused), ErrorReason::LastOwner);
    world.end().await;
}

#[tokio::test]
async fn after_the_last_owner_comes_the_oldest_admin_then_the_oldest_member() {
    let world = World::start().await;
    let [alice, bob, carol, dave, erin] = world.users(["alice", "bob", "carol", "dave", "erin"]).await;
    let hers = world.phone(&alice).await;
    let last = world.phone(&erin).await;
    let group = hers.create_group(&[&bob]).await;
    for user in [&carol, &dave, &erin] {
        add(&hers.api(), group, user.id).await.unwrap();
    }
    // Carol becomes the owner: she is the admin who has been a member for the longest time. Bob has been a member for
    // longer still, but he is no admin.
    for user in [&dave, &carol] {
        set_role(&hers.api(), group, user.id, Role::Admin).await.unwrap();
    }
    let left = leave(&hers.api(), group).await.unwrap();
    let entry = removal(&last, group, left).await;
    assert_eq!(entry, gone(&alice, true, Some(carol.id)));
    owners_are(&last, group, &[carol.id]).await;

    // An admin is left, then none.
    let carols = world.phone(&carol).await;
    let left = leave(&carols.api(), group).await.unwrap();
    let entry = removal(&last, group, left).await;
    assert_eq!(entry, gone(&carol, true, Some(dave.id)));
    let (daves, bobs) = (world.phone(&dave).await, world.phone(&bob).await);
    let left = leave(&daves.api(), group).await.unwrap();
    let entry = removal(&last, group, left).await;
    assert_eq!(entry, gone(&dave, true, Some(bob.id)));

    // An owner beside whom there is another has no successor, and neither has a group's last member.
    let seq = set_role(&bobs.api(), group, erin.id, Role::Owner).await.unwrap();
    last.has(group, seq).await;
    let left = leave(&bobs.api(), group).await.unwrap();
    assert_eq!(removal(&last, group, left).await, gone(&bob, true, None));
    let made = invite(&last.api(), link(group)).await.unwrap();
    let left = leave(&last.api(), group).await.unwrap();
    assert_eq!(removal(&last, group, left).await, gone(&erin, true, None));
    // Nobody comes into a group without an owner, by whatever link they still have.
    for refused in [
        look_up(&last.api(), group, &made.token).await.map(drop),
        join(&last.api(), group, &made.token).await.map(drop),
    ] {
        assert_eq!(why(refused), ErrorReason::InviteNotFound);
    }
    world.end().await;
}

#[tokio::test]
async fn of_those_who_joined_together_the_lowest_id_succeeds() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let hers = world.phone(&alice).await;
    let (low, high) = if bob.id < carol.id {
        (&bob, &carol)
    } else {
        (&carol, &bob)
    };
    let group = hers.create_group(&[high, low]).await;
    let stays = world.phone(high).await;
    let left = leave(&hers.api(), group).await.unwrap();
    let entry = removal(&stays, group, left).await;
    assert_eq!(entry, gone(&alice, true, Some(low.id)));
    world.end().await;
}

#[tokio::test]
async fn the_back_end_removes_the_last_owner_and_the_group_has_another() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let removed = remove(world.back_end().await, group, alice.id).await.unwrap();
    for phone in [&hers, &his] {
        let entry = removal(phone, group, removed).await;
        assert_eq!(entry, gone(&alice, false, Some(bob.id)));
    }
    owners_are(&his, group, &[bob.id]).await;
    assert_eq!(view(&his.api(), group).await.unwrap().role(), Role::Owner);
    // The next owner of the chat knows it from the store.
    let owner = world.owner_of(group).await;
    world.platform.drain(&owner).unwrap();
    world.platform.drained(&owner).await.unwrap();
    assert!(rename(&his.api(), group, "his").await.unwrap() > removed);
    assert!(set_role(&his.api(), group, bob.id, Role::Admin).await.is_err());
    world.end().await;
}
