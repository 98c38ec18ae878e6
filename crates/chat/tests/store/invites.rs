//! Tests invite links: how many there are, when they end, and who joins by them.

use std::time::Duration;

use tern_chat::store::change::{self, Changed};
use tern_chat::store::invites::{self, Invite, KEPT_ENDED, MAX_INVITES, Made, NewInvite, Way};
use tern_chat::store::{doors, listing};
use tern_chat_core::change::Action;
use tern_chat_core::{ChangeRefusal, Outcome, Place, Refusal, Role};
use tern_store::postgres;
use tern_types::{ChatId, Clock, InviteId, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

use crate::harness::{Store, new_entry};
use crate::owner::Owner;

const MINUTE: Duration = Duration::from_secs(60);

/// Returns a new link that does not end.
pub fn new_link(chat: ChatId, maker: UserId) -> NewInvite {
    NewInvite {
        chat,
        id: InviteId::of(maker, chat, RequestId::random()),
        created_by: maker,
        expires_after: Duration::ZERO,
        max_uses: 0,
        needs_approval: false,
    }
}

/// Makes the link.
pub async fn make(store: &Store, new: &NewInvite, now: Timestamp) -> Invite {
    match invites::make(&store.pools, new, now).await.unwrap() {
        Made::There(invite) => invite,
        other => panic!("{other:?}"),
    }
}

/// Lets the user join by the link, with a new request.
async fn join(owner: &mut Owner<'_>, chat: ChatId, user: UserId, invite: InviteId) -> Outcome {
    let action = Action::Join { invite, user };
    owner.change(chat, user, RequestId::random(), action).await
}

/// Returns the answer to somebody whose joining became this entry, with its time left out.
fn seq(outcome: &Outcome) -> Option<Seq> {
    match outcome {
        Outcome::Changed(Ok(Some(Place { seq, .. }))) => Some(*seq),
        _ => None,
    }
}

fn not_found() -> Outcome {
    Outcome::Changed(Err(ChangeRefusal::InviteNotFound))
}

impl Store {
    async fn uses(&self, chat: ChatId, invite: InviteId) -> i32 {
        sqlx::query_scalar("SELECT uses FROM invites WHERE chat_id = $1 AND invite_id = $2")
            .bind(chat.0)
            .bind(invite.0)
            .fetch_one(self.pools.of(chat))
            .await
            .unwrap()
    }

    async fn way(&self, chat: ChatId, invite: InviteId, user: UserId) -> Way {
        let way = invites::way(&self.pools, chat, invite, user, Clock::wall());
        way.await.unwrap()
    }
}

#[tokio::test]
async fn a_request_makes_one_link_and_no_other() {
    let store = Store::new().await;
    let owner = store.user().await;
    let chat = store.group(owner, &[]).await.id;
    let new = NewInvite {
        expires_after: MINUTE,
        max_uses: 3,
        ..new_link(chat, owner)
    };
    let now = Clock::wall();
    assert_eq!(invites::before(store.pools.of(chat), &new).await.unwrap(), None);
    let first = make(&store, &new, now).await;
    let expected = Invite {
        id: new.id,
        created_by: owner,
        created_at: now,
        expires_at: Some(now + MINUTE),
        max_uses: 3,
        uses: 0,
        needs_approval: false,
    };
    assert_eq!(first, expected);
    assert_eq!(make(&store, &new, now + MINUTE).await, expected, "later");
    let others = [
        NewInvite { max_uses: 4, ..new },
        NewInvite {
            needs_approval: true,
            ..new
        },
        NewInvite {
            expires_after: Duration::ZERO,
            ..new
        },
    ];
    for other in others {
        let made = invites::make(&store.pools, &other, now).await.unwrap();
        assert_eq!(made, Made::RequestIdReused, "{other:?}");
    }
}

#[tokio::test]
async fn a_group_has_64_links_in_force_and_forgets_old_ones() {
    let store = Store::new().await;
    let owner = store.user().await;
    let chat = store.group(owner, &[]).await.id;
    let mut now = Clock::wall();
    let mut links = Vec::new();
    for _ in 0..MAX_INVITES {
        now = now + MINUTE;
        links.push(make(&store, &new_link(chat, owner), now).await);
    }
    let one_more = new_link(chat, owner);
    let full = invites::make(&store.pools, &one_more, now).await.unwrap();
    assert_eq!(full, Made::Full);
    // The same request as before still gets its link.
    let again = NewInvite {
        id: links[0].id,
        ..one_more
    };
    assert_eq!(make(&store, &again, now).await, links[0]);

    for _ in 0..2 * KEPT_ENDED {
        now = now + MINUTE;
        let last = links.pop().unwrap().id;
        invites::revoke(&store.pools, chat, last, now).await.unwrap();
        links.push(make(&store, &new_link(chat, owner), now).await);
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM invites WHERE chat_id = $1")
        .bind(chat.0)
        .fetch_one(store.pools.of(chat))
        .await
        .unwrap();
    assert_eq!(rows, MAX_INVITES + KEPT_ENDED);
    let listed = invites::list(&store.pools, chat, None, now).await.unwrap();
    links.reverse();
    assert_eq!(listed, links, "the newest first");
}

#[tokio::test]
async fn of_a_groups_links_a_member_is_shown_their_own() {
    let store = Store::new().await;
    let (owner, member) = (store.user().await, store.user().await);
    let chat = store.group(owner, &[member]).await.id;
    let now = Clock::wall();
    let [hers, his] = [owner, member].map(|maker| new_link(chat, maker));
    let (hers, his) = (
        make(&store, &hers, now).await,
        make(&store, &his, now + MINUTE).await,
    );
    let listed = async |by| invites::list(&store.pools, chat, by, now + MINUTE).await.unwrap();
    assert_eq!(listed(None).await, [his.clone(), hers.clone()]);
    assert_eq!(listed(Some(member)).await, [his]);
    assert_eq!(listed(Some(owner)).await, [hers]);
}

#[tokio::test]
async fn a_link_ends_by_time_and_when_it_is_revoked() {
    let store = Store::new().await;
    let owner = store.user().await;
    let chat = store.group(owner, &[]).await.id;
    let now = Clock::wall();
    let short = NewInvite {
        expires_after: MINUTE,
        ..new_link(chat, owner)
    };
    make(&store, &short, now).await;
    let offer = async |id, at| {
        let offered = invites::offer(store.pools.of(chat), chat, id, at).await;
        offered.unwrap()
    };
    let just_before = now + MINUTE - Duration::from_millis(1);
    assert_eq!(offer(short.id, just_before).await, Some((owner, false)));
    assert_eq!(offer(short.id, now + MINUTE).await, None);

    let long = new_link(chat, owner);
    make(&store, &long, now).await;
    assert_eq!(
        offer(long.id, now + MINUTE * 1_000_000).await,
        Some((owner, false))
    );
    let elsewhere = ChatId::group(owner, RequestId::random());
    invites::revoke(&store.pools, elsewhere, long.id, now)
        .await
        .unwrap();
    assert!(offer(long.id, now).await.is_some(), "a link of another chat");
    invites::revoke(&store.pools, chat, long.id, now).await.unwrap();
    assert_eq!(offer(long.id, now).await, None);
    assert_eq!(store.way(chat, long.id, store.user().await).await, Way::Closed);
}

#[tokio::test]
async fn a_link_lets_as_many_in_as_it_says_and_members_do_not_use_it() {
    let store = Store::new().await;
    let host = store.user().await;
    let chat = store.group(host, &[]).await.id;
    let link = NewInvite {
        max_uses: 2,
        ..new_link(chat, host)
    };
    make(&store, &link, Clock::wall()).await;
    let mut owner = Owner::new(&store);
    let [one, other, late] = [store.user().await, store.user().await, store.user().await];
    let device = store.device(one).await;
    let joined = join(&mut owner, chat, one, link.id).await;
    assert_eq!(seq(&joined), Some(Seq(2)));
    assert!(listing::is_member(&store.pools, chat, one).await.unwrap());
    for member in [one, host] {
        let again = join(&mut owner, chat, member, link.id).await;
        assert_eq!(again, Outcome::Changed(Ok(None)));
    }
    assert_eq!(store.uses(chat, link.id).await, 1);
    assert_eq!(seq(&join(&mut owner, chat, other, link.id).await), Some(Seq(3)));
    assert_eq!(join(&mut owner, chat, late, link.id).await, not_found());
    assert_eq!(store.uses(chat, link.id).await, 2);
    assert!(!listing::is_member(&store.pools, chat, late).await.unwrap());
    let members = "SELECT devices, joined_seq FROM members WHERE chat_id = $1 AND user_id = $2";
    let row: (Vec<Uuid>, i64) = sqlx::query_as(members)
        .bind(chat.0)
        .bind(one.0)
        .fetch_one(store.pools.of(chat))
        .await
        .unwrap();
    assert_eq!(
        row,
        (vec![device.0], 2),
        "their device is owed what comes from then on"
    );
}

#[tokio::test]
async fn rule_5_who_joined_gets_the_same_place_again_when_the_link_has_ended() {
    let store = Store::new().await;
    let (host, user) = (store.user().await, store.user().await);
    let chat = store.group(host, &[]).await.id;
    let link = NewInvite {
        max_uses: 1,
        ..new_link(chat, host)
    };
    make(&store, &link, Clock::wall()).await;
    let (request, invite) = (RequestId::random(), link.id);
    let join = Action::Join { invite, user };
    let mut warm = Owner::new(&store);
    let first = warm.change(chat, user, request, join.clone()).await;
    assert_eq!(seq(&first), Some(Seq(2)));
    let mut cold = Owner::new(&store);
    for owner in [&mut warm, &mut cold] {
        assert_eq!(owner.change(chat, user, request, join.clone()).await, first);
    }
}

/// Another node, which still believes to own the chat, lets somebody in by the same link.
#[tokio::test]
async fn the_last_use_of_a_link_is_had_by_one_of_two_transactions() {
    let store = Store::new().await;
    let (host, user) = (store.user().await, store.user().await);
    let chat = store.group(host, &[]).await;
    let link = NewInvite {
        max_uses: 1,
        ..new_link(chat.id, host)
    };
    make(&store, &link, Clock::wall()).await;
    let mut other = postgres::begin(store.pools.of(chat.id)).await.unwrap();
    sqlx::query(invites::USE)
        .bind(chat.id.0)
        .bind(link.id.0)
        .execute(&mut *other)
        .await
        .unwrap();
    let invite = link.id;
    let action = Action::Join { invite, user };
    let mut batch = chat.batch(vec![new_entry(user, action.kind(), b"join")]);
    batch.change = Some(action);
    let mut db = store.shard().await;
    let commits = async {
        store.somebody_waits().await;
        other.commit().await.unwrap();
    };
    let (changed, ()) = tokio::join!(change::change(&mut db, &batch, None), commits);
    assert_eq!(changed.unwrap(), Changed::Refused(ChangeRefusal::InviteNotFound));
    assert_eq!(store.log(chat.id).await, [1]);
}

#[tokio::test]
async fn a_block_between_the_user_and_a_host_closes_the_way() {
    let store = Store::new().await;
    let [host, maker, member] = [store.user().await, store.user().await, store.user().await];
    let user = store.user().await;
    let chat = store.group(host, &[maker, member]).await.id;
    let link = new_link(chat, maker);
    make(&store, &link, Clock::wall()).await;
    let mut owner = Owner::new(&store);
    for (blocker, blocked) in [(host, user), (user, host), (maker, user), (user, maker)] {
        store.block(blocker, blocked).await;
        assert_eq!(store.way(chat, link.id, user).await, Way::Closed);
        assert_eq!(join(&mut owner, chat, user, link.id).await, not_found());
        store.unblock_all().await;
    }
    // A block between two who only meet in the group is no reason.
    store.block(member, user).await;
    assert_eq!(store.way(chat, link.id, user).await, Way::Open);
    assert_eq!(seq(&join(&mut owner, chat, user, link.id).await), Some(Seq(2)));
}

#[tokio::test]
async fn who_left_may_come_back_and_who_was_removed_has_to_ask() {
    let store = Store::new().await;
    let [host, left, removed] = [store.user().await, store.user().await, store.user().await];
    let chat = store.group(host, &[left, removed]).await.id;
    let (open, approved) = (
        new_link(chat, host),
        NewInvite {
            needs_approval: true,
            ..new_link(chat, host)
        },
    );
    for link in [&open, &approved] {
        make(&store, link, Clock::wall()).await;
    }
    let mut owner = Owner::new(&store);
    for (actor, user) in [(left, left), (host, removed)] {
        let request = RequestId::random();
        let outcome = owner.change(chat, actor, request, Action::Remove(user)).await;
        assert!(seq(&outcome).is_some(), "{outcome:?}");
    }
    let nobody = store.user().await;
    for (user, way) in [(nobody, Way::Open), (left, Way::Open), (removed, Way::Asks)] {
        assert_eq!(store.way(chat, open.id, user).await, way);
        assert_eq!(store.way(chat, approved.id, user).await, Way::Asks);
    }
    // The transaction looks again: each of them may have been a member when the call came.
    for (user, link) in [(removed, open.id), (nobody, approved.id)] {
        let refused = join(&mut owner, chat, user, link).await;
        let meanwhile = matches!(
            refused,
            Outcome::Changed(Err(ChangeRefusal::Common(Refusal::Unavailable { .. })))
        );
        assert!(meanwhile, "{refused:?}");
        assert_eq!(store.uses(chat, link).await, 0);
    }
    // Once the entries that tell the two apart were trimmed, both have to ask.
    sqlx::query("DELETE FROM messages WHERE chat_id = $1")
        .bind(chat.0)
        .execute(store.pools.of(chat))
        .await
        .unwrap();
    for (user, way) in [(nobody, Way::Open), (left, Way::Asks), (removed, Way::Asks)] {
        assert_eq!(store.way(chat, open.id, user).await, way);
    }
}

#[tokio::test]
async fn a_stranger_meets_a_group_as_members_do_but_has_no_role() {
    let store = Store::new().await;
    let [host, member, stranger] = [store.user().await, store.user().await, store.user().await];
    let group = store.group(host, &[member]).await;
    let direct = store.direct(host, member).await.id;
    let door = async |chat, user| {
        let door = doors::door(&store.pools, &store.master, chat, user).await;
        door.unwrap()
    };
    let roles = [
        (host, Some(Role::Owner)),
        (member, Some(Role::Member)),
        (stranger, None),
        (UserId::SYSTEM, None),
    ];
    for (user, role) in roles {
        let door = door(group.id, user).await.unwrap();
        assert_eq!((door.is_group, door.role, door.member_count), (true, role, 2));
        assert_eq!((door.title.as_str(), door.add_role), ("group", Role::Admin));
        assert!(!door.frozen && door.description.is_empty() && door.key == group.key);
    }
    assert!(!door(direct, host).await.unwrap().is_group);
    let nowhere = ChatId::group(host, RequestId::random());
    assert!(door(nowhere, host).await.is_none());
}
