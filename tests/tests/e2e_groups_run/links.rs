//! Invite links lead in those who have them, and tell others nothing.

use tern_proto::error::reason_of;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, GroupPolicy, Role};
use tern_tests::acts::content;
use tern_tests::groups::{
    describe, freeze, fresh, invite, invites, join, leave, link, look_up, revoke, set_policy, why,
};
use tern_tests::{Api, World};
use tern_types::{ChatId, RequestId};
use tonic::Code;

#[tokio::test]
async fn who_has_the_link_is_told_where_it_leads_and_joins() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&carol]).await;
    describe(&hers.api(), group, "for chess").await.unwrap();
    let ask = link(group);
    let made = invite(&hers.api(), ask.clone()).await.unwrap();
    assert_eq!(invite(&hers.api(), ask).await.unwrap(), made, "the same link");
    assert_eq!(made.token.len(), 43);
    assert_eq!(made.created_by_user_id, alice.id.to_string());
    let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(made.token.chars().all(url_safe), "{made:?}");

    let leads = look_up(&his.api(), group, &made.token).await.unwrap();
    let expected = v1::LookUpInviteResponse {
        title: "a group".to_owned(),
        description: "for chess".to_owned(),
        member_count: 2,
        needs_approval: false,
        is_member: false,
    };
    assert_eq!(leads, expected);
    let request = v1::JoinByInviteRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        token: made.token.clone(),
        ..Default::default()
    };
    let mut groups = his.api().groups();
    let joined = groups.join_by_invite(request.clone()).await.unwrap().into_inner();
    let again = groups.join_by_invite(request).await.unwrap().into_inner();
    assert_eq!(joined, again);
    assert!(joined.seq > 0 && !joined.requested, "{joined:?}");
    for phone in [&hers, &his] {
        let log = phone.has(group, joined.seq).await;
        let entry = &log.entries[&joined.seq];
        assert_eq!(entry.sender_user_id, bob.id.to_string());
        assert!(
            matches!(content(entry), Content::MembersAdded(added) if added.user_ids == [bob.id.to_string()])
        );
    }
    // A member stays one, and the link is not used.
    let member = join(&his.api(), group, &made.token).await.unwrap();
    assert_eq!((member.seq, member.requested), (0, false));
    let leads = look_up(&his.api(), group, &made.token).await.unwrap();
    assert_eq!((leads.member_count, leads.is_member), (3, true));
    let listed = invites(&hers.api(), group).await.unwrap();
    assert_eq!((listed.len(), listed[0].uses), (1, 1), "{listed:?}");
    let sent = his.say(group, "hello").await;
    hers.has(group, sent.seq).await;
    world.end().await;
}

/// Returns the token with another character at its end, and so with other bits.
fn forged(token: &str) -> String {
    let last = if token.ends_with('A') { 'Q' } else { 'A' };
    format!("{}{last}", &token[..token.len() - 1])
}

/// Checks that looking up and joining are answered as if there were no such link. Returns what the answers say.
async fn leads_nowhere(api: &Api, group: ChatId, token: &str) -> Vec<(Code, String)> {
    let looked_up = look_up(api, group, token).await.map(drop);
    let joined = join(api, group, token).await.map(drop);
    let refused = [looked_up, joined].map(|result| result.expect_err("it leads nowhere"));
    for status in &refused {
        assert_eq!(reason_of(status), Some(ErrorReason::InviteNotFound), "{status:?}");
    }
    refused
        .iter()
        .map(|status| (status.code(), status.message().to_owned()))
        .collect()
}

#[tokio::test]
async fn a_link_that_leads_nowhere_does_not_say_why() {
    let world = World::start().await;
    let [alice, bob, carol, dave] = world.users(["alice", "bob", "carol", "dave"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let (carols, daves) = (world.phone(&carol).await, world.phone(&dave).await);
    let group = hers.create_group(&[]).await;
    let other = hers.create_group(&[]).await;
    let made = invite(&hers.api(), link(group)).await.unwrap();
    let elsewhere = invite(&hers.api(), link(other)).await.unwrap();
    let nowhere: ChatId = RequestId::random().to_string().parse().unwrap();
    let direct: ChatId = hers.say(dave.id, "hello").await.chat_id.parse().unwrap();

    let api = his.api();
    let unknown = leads_nowhere(&api, group, &forged(&made.token)).await;
    for (chat, token) in [
        (group, elsewhere.token.clone()),
        (group, forged(&elsewhere.token)),
        (nowhere, made.token.clone()),
        (direct, made.token.clone()),
        (ChatId::own(alice.id), made.token.clone()),
    ] {
        assert_eq!(leads_nowhere(&api, chat, &token).await, unknown, "{chat}");
    }
    // She blocked the one, and the other blocked her.
    let block = |blocked: &str| v1::BlockRequest {
        user_id: String::new(),
        blocked_user_id: blocked.to_owned(),
    };
    let to_carol = block(&carol.id.to_string());
    hers.api().users().block(to_carol).await.unwrap();
    let to_her = block(&alice.id.to_string());
    daves.api().users().block(to_her).await.unwrap();
    for phone in [&carols, &daves] {
        let answers = leads_nowhere(&phone.api(), group, &made.token).await;
        assert_eq!(answers, unknown);
    }
    revoke(&hers.api(), group, &made).await.unwrap();
    assert_eq!(leads_nowhere(&api, group, &made.token).await, unknown);
    let back_end = world.back_end().await;
    freeze(back_end, other, true).await.unwrap();
    assert_eq!(leads_nowhere(&api, other, &elsewhere.token).await, unknown);
    freeze(back_end, other, false).await.unwrap();
    assert!(join(&api, other, &elsewhere.token).await.unwrap().seq > 0);
    world.end().await;
}

#[tokio::test]
async fn whoever_may_add_members_makes_links_and_sees_and_ends_their_own() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let stranger = world.phone(&carol).await;
    let group = hers.create_group(&[&bob]).await;
    assert_eq!(
        why(invite(&his.api(), link(group)).await),
        ErrorReason::RoleTooLow
    );
    let by_stranger = invite(&stranger.api(), link(group)).await;
    assert_eq!(why(by_stranger), ErrorReason::ChatNotFound);
    assert_eq!(
        why(invites(&stranger.api(), group).await),
        ErrorReason::ChatNotFound
    );
    let open = GroupPolicy {
        add_role: Role::Member.into(),
        ..Default::default()
    };
    set_policy(&hers.api(), group, open).await.unwrap();
    let back_end = world.back_end().await;
    let [of_her, of_him, of_nobody] = [
        invite(&hers.api(), link(group)).await.unwrap(),
        invite(&his.api(), link(group)).await.unwrap(),
        invite(back_end, link(group)).await.unwrap(),
    ];
    assert_eq!(of_nobody.created_by_user_id, "");
    let ids =
        |links: Vec<v1::Invite>| -> Vec<String> { links.into_iter().map(|link| link.invite_id).collect() };
    let all = [&of_nobody, &of_him, &of_her].map(|link| link.invite_id.clone());
    assert_eq!(
        ids(invites(&hers.api(), group).await.unwrap()),
        all,
        "the newest first"
    );
    assert_eq!(ids(invites(back_end, group).await.unwrap()), all);
    let his_own = [of_him.invite_id.clone()];
    assert_eq!(ids(invites(&his.api(), group).await.unwrap()), his_own);

    let refused = revoke(&his.api(), group, &of_her).await;
    assert_eq!(why(refused), ErrorReason::RoleTooLow);
    for (api, link) in [
        (&his.api(), &of_him),
        (&hers.api(), &of_nobody),
        (&hers.api(), &of_her),
    ] {
        revoke(api, group, link).await.unwrap();
        revoke(api, group, link).await.unwrap();
    }
    assert_eq!(invites(&hers.api(), group).await.unwrap(), []);
    world.end().await;
}

#[tokio::test]
async fn who_left_comes_back_by_a_link_and_a_back_end_joins_for_somebody() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let made = invite(&hers.api(), link(group)).await.unwrap();
    let left = leave(&his.api(), group).await.unwrap();
    his.has(group, left).await;
    let back = join(&his.api(), group, &made.token).await.unwrap();
    assert_eq!((back.seq, back.requested), (left + 1, false));
    his.has(group, back.seq).await;

    let back_end = world.back_end().await;
    let for_nobody = join(back_end, group, &made.token).await;
    assert_eq!(why(for_nobody), ErrorReason::InvalidField);
    let for_carol = v1::JoinByInviteRequest {
        chat_id: group.to_string(),
        request_id: fresh(),
        token: made.token.clone(),
        acting_user_id: carol.id.to_string(),
    };
    let joined = back_end.groups().join_by_invite(for_carol.clone()).await;
    let joined = joined.unwrap().into_inner().seq;
    let log = hers.has(group, joined).await;
    assert_eq!(log.entries[&joined].sender_user_id, carol.id.to_string());
    let by_device = his.api().groups().join_by_invite(for_carol).await;
    assert_eq!(why(by_device), ErrorReason::NotForDevices);
    world.end().await;
}
