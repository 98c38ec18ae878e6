//! Members of groups come and go, and each gets exactly the entries of the time of their membership.

#![allow(clippy::unwrap_used, reason = "test code")]

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, SendErrorCode, SkipReason, entry_content::Content};
use tern_tests::phone::{Log, agree};
use tern_tests::world::BOUND;
use tern_tests::{Phone, User, World};
use tern_types::{ChatId, RequestId};
use tonic::Code;

#[tokio::test]
async fn in_a_group_each_sees_who_received_and_who_read() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his, carols) = (
        world.phone(&alice).await,
        world.phone(&bob).await,
        Phone::new(&world, &world.device(&carol).await),
    );
    let group = hers.create_group(&[&bob, &carol]).await;
    let sent = hers.say(group, "hello all").await;

    hers.receipt(group, bob.id, sent.seq, 0).await;
    let so_far = hers
        .state()
        .receipts
        .get(&(group, carol.id))
        .copied()
        .unwrap_or_default();
    assert!(so_far.0 < sent.seq, "carol is offline: {so_far:?}");
    carols.connect().await;
    hers.receipt(group, carol.id, sent.seq, 0).await;
    his.read(group, sent.seq).await;
    hers.receipt(group, bob.id, sent.seq, sent.seq).await;

    until::holds("the receipts as they are", BOUND, || async {
        let request = v1::GetReceiptsRequest {
            chat_id: group.to_string(),
            ..Default::default()
        };
        let receipts = hers
            .api()
            .chats()
            .get_receipts(request)
            .await?
            .into_inner()
            .receipts;
        let of = |user: &User| {
            receipts
                .iter()
                .find(|receipt| receipt.user_id == user.id.to_string())
        };
        let state = |user| of(user).map(|receipt| (receipt.delivered_seq, receipt.read_seq >= sent.seq));
        anyhow::ensure!(receipts.len() == 3, "{receipts:?}");
        Ok(state(&bob) == Some((sent.seq, true)) && state(&carol) == Some((sent.seq, false)))
    })
    .await
    .unwrap();
    world.end().await;
}

/// This is rule 7.
#[tokio::test]
async fn who_is_removed_gets_that_entry_and_nothing_after() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his, carols) = (
        world.phone(&alice).await,
        world.phone(&bob).await,
        world.phone(&carol).await,
    );
    let group = hers.create_group(&[&bob, &carol]).await;
    hers.say(group, "before").await;
    let removed = remove(&hers, group, &bob).await;
    let after = hers.say(group, "after").await;
    carols.has(group, after.seq).await;

    let log = his.has(group, removed).await;
    let last = content(&log, removed);
    assert!(
        matches!(&last, Content::MemberRemoved(gone) if gone.user_id == bob.id.to_string() && !gone.left),
        "{last:?}"
    );

    // He gets nothing more, neither by sending nor by asking.
    let request = his.send(group, "may I?").await;
    assert_eq!(his.refused(request).await.code(), SendErrorCode::NotAMember);
    let peek = v1::ListEntriesRequest {
        chat_id: group.to_string(),
        from_seq: 1,
        ..Default::default()
    };
    if let Ok(reply) = his.api().chats().list_entries(peek).await {
        assert!(
            reply
                .into_inner()
                .entries
                .iter()
                .all(|entry| entry.seq <= removed)
        );
    }
    // On a new stream nothing comes either. A message in another chat marks the time.
    his.disconnect().await;
    his.connect().await;
    let mark: ChatId = hers.say(bob.id, "mark").await.chat_id.parse().unwrap();
    his.has_text(mark, "mark").await;
    assert_eq!(his.state().cursor(group), removed);

    // When he is added again, he is told that he does not get the entries in between.
    let added = hers.api().chats().add_members(addition(group, &bob)).await;
    let added = added.unwrap().into_inner().seq;
    let again = hers.say(group, "welcome back").await;
    let log = his.has(group, again.seq).await;
    assert_eq!(log.texts(), ["before", "welcome back"]);
    assert!(log.entries.contains_key(&added));
    let skipped = &log.skipped[0];
    assert_eq!(
        (skipped.reason(), skipped.to_seq),
        (SkipReason::NotAMember, added - 1)
    );
    world.end().await;
}

/// Removes a member, and returns the seq of the entry that says so.
async fn remove(admin: &Phone, group: ChatId, user: &User) -> u64 {
    let removal = v1::RemoveMemberRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_id: user.id.to_string(),
        ..Default::default()
    };
    let removed = admin.api().chats().remove_member(removal).await;
    removed.unwrap().into_inner().seq
}

fn addition(group: ChatId, user: &User) -> v1::AddMembersRequest {
    v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![user.id.to_string()],
        ..Default::default()
    }
}

/// Returns the content of the entry at this seq.
fn content(log: &Log, seq: u64) -> Content {
    log.entries[&seq].decoded_content().unwrap().content.unwrap()
}

#[tokio::test]
async fn who_was_removed_while_offline_still_gets_that_entry() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let before = hers.say(group, "before").await;
    his.has(group, before.seq).await;
    his.disconnect().await;
    hers.say(group, "missed").await;
    let removed = remove(&hers, group, &bob).await;
    hers.say(group, "after").await;
    his.connect().await;
    let log = his.has(group, removed).await;
    assert_eq!(log.texts(), ["before", "missed"]);
    assert_eq!(his.state().cursor(group), removed);
    world.end().await;
}

#[tokio::test]
async fn roles_allow_what_they_say() {
    let world = World::start().await;
    let [alice, bob, carol, dave] = world.users(["alice", "bob", "carol", "dave"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob, &carol]).await;
    a_member_changes_nothing(&his, &bob, &dave, group).await;
    let mut owner = hers.api().chats();
    owner.set_role(role(group, &bob, v1::Role::Admin)).await.unwrap();
    an_admin_changes_members_and_the_title(&his, &bob, &dave, group).await;
    the_last_owner_keeps_the_role(&hers, &his, &bob, group).await;

    let get = v1::GetChatRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    let chat = his
        .api()
        .chats()
        .get_chat(get)
        .await
        .unwrap()
        .into_inner()
        .chat
        .unwrap();
    assert_eq!(
        (chat.title.as_str(), chat.member_count, chat.role()),
        ("ours", 3, v1::Role::Owner)
    );
    // A direct chat has no title.
    let direct: ChatId = his.say(carol.id, "hello").await.chat_id.parse().unwrap();
    let direct = title(direct, "x");
    let status = his.api().chats().update_chat(direct).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::NotAGroup));
    world.end().await;
}

fn title(chat: ChatId, title: &str) -> v1::UpdateChatRequest {
    v1::UpdateChatRequest {
        chat_id: chat.to_string(),
        request_id: RequestId::random().to_string(),
        title: title.to_owned(),
        ..Default::default()
    }
}

fn role(group: ChatId, user: &User, role: v1::Role) -> v1::SetRoleRequest {
    v1::SetRoleRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_id: user.id.to_string(),
        role: role.into(),
        ..Default::default()
    }
}

async fn a_member_changes_nothing(member: &Phone, member_user: &User, stranger: &User, group: ChatId) {
    let mut chats = member.api().chats();
    let admin = role(group, member_user, v1::Role::Admin);
    for status in [
        chats.update_chat(title(group, "mine")).await.unwrap_err(),
        chats.add_members(addition(group, stranger)).await.unwrap_err(),
        chats.set_role(admin).await.unwrap_err(),
    ] {
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::PermissionDenied, Some(ErrorReason::RoleTooLow))
        );
    }
}

/// Checks that an admin can change members and the title, but no roles.
async fn an_admin_changes_members_and_the_title(admin: &Phone, user: &User, stranger: &User, group: ChatId) {
    let mut chats = admin.api().chats();
    chats.update_chat(title(group, "ours")).await.unwrap();
    let first = chats.add_members(addition(group, stranger)).await;
    assert!(first.unwrap().into_inner().seq > 0);
    let second = chats.add_members(addition(group, stranger)).await;
    assert_eq!(second.unwrap().into_inner().seq, 0, "a member already");
    let owner = role(group, user, v1::Role::Owner);
    let status = chats.set_role(owner).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::RoleTooLow));
}

/// Checks that the last owner stays one. `owner` leaves after `user`, whose phone is `other`, has become an owner too.
async fn the_last_owner_keeps_the_role(owner: &Phone, other: &Phone, user: &User, group: ChatId) {
    let mut chats = owner.api().chats();
    let leave = || v1::LeaveChatRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        ..Default::default()
    };
    let me = User {
        id: owner.user(),
        external_id: String::new(),
    };
    let status = chats.set_role(role(group, &me, v1::Role::Member)).await;
    let status = status.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::FailedPrecondition, Some(ErrorReason::LastOwner))
    );
    chats.set_role(role(group, user, v1::Role::Owner)).await.unwrap();
    let left = chats.leave_chat(leave()).await.unwrap().into_inner().seq;
    let log = other.has(group, left).await;
    let last = content(&log, left);
    assert!(
        matches!(&last, Content::MemberRemoved(gone) if gone.user_id == owner.user().to_string() && gone.left),
        "{last:?}"
    );
}

#[tokio::test]
async fn making_a_group_again_gives_the_same_group() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let request = v1::CreateGroupRequest {
        request_id: RequestId::random().to_string(),
        title: "us".to_owned(),
        member_user_ids: vec![bob.id.to_string()],
        ..Default::default()
    };
    let first = hers
        .api()
        .chats()
        .create_group(request.clone())
        .await
        .unwrap()
        .into_inner()
        .chat
        .unwrap();
    let second = hers
        .api()
        .chats()
        .create_group(request)
        .await
        .unwrap()
        .into_inner()
        .chat
        .unwrap();
    assert_eq!(first.chat_id, second.chat_id);
    let chats = hers
        .api()
        .chats()
        .list_chats(v1::ListChatsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .chats;
    assert_eq!(chats.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_group_of_1024_gets_every_message() {
    let world = World::start().await;
    let owner = world.user("owner").await;
    let mut members = vec![owner];
    while members.len() < 1024 {
        let more = (members.len()..1024.min(members.len() + 50)).map(|_| world.user("member"));
        members.extend(futures::future::join_all(more).await);
    }
    let group = world.group(&members.iter().collect::<Vec<_>>()).await;
    // One more member does not fit.
    let extra = world.user("extra").await;
    let addition = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![extra.id.to_string()],
        acting_user_id: members[0].id.to_string(),
    };
    let status = world
        .back_end()
        .await
        .chats()
        .add_members(addition)
        .await
        .unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::GroupFull));

    // 40 members are online, 40 come later, and the others have no device yet.
    let online: Vec<Phone> =
        futures::future::join_all(members[..40].iter().map(|user| world.phone(user))).await;
    let late = futures::future::join_all(members[40..80].iter().map(|user| world.device(user))).await;
    let mut texts = Vec::new();
    let mut head = 0;
    for number in 0..20 {
        let text = format!("message {number}");
        head = online[number % online.len()]
            .say(group, text.as_bytes())
            .await
            .seq;
        texts.push(text);
    }
    agree(&online.iter().collect::<Vec<_>>(), group, head, &texts).await;
    let late = futures::future::join_all(late.iter().map(|device| world.phone_of(device))).await;
    agree(&late.iter().collect::<Vec<_>>(), group, head, &texts).await;
    // A member who had no device finds everything on the first one.
    let newcomer = world.phone(&members[1000]).await;
    agree(&[&newcomer], group, head, &texts).await;
    world.end().await;
}
