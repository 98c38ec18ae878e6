//! Tests requests to join a group: how many there are, how long they last, and what becomes of them.

use std::time::Duration;

use tern_chat::store::join_requests::{
    self, Asked, MAX_REFUSALS, MAX_REQUESTS, REFUSED_FOR, REQUEST_FOR, Request,
};
use tern_chat::store::{joining, listing};
use tern_chat_core::change::Action;
use tern_chat_core::{Outcome, Role};
use tern_types::{ChatId, Clock, InviteId, RequestId, Timestamp, UserId};
use uuid::Uuid;

use crate::harness::Store;
use crate::invites::{make, new_link};
use crate::owner::Owner;

const INVITE: InviteId = InviteId(Uuid::from_u128(7));
const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

impl Store {
    async fn ask(&self, chat: ChatId, user: UserId, now: Timestamp) -> Asked {
        let asked = join_requests::ask(&self.pools, chat, user, INVITE, now).await;
        asked.unwrap()
    }

    async fn refuse(&self, chat: ChatId, user: UserId, now: Timestamp) -> bool {
        let refused = join_requests::refuse(&self.pools, chat, user, now).await;
        refused.unwrap()
    }

    /// Returns who asks to join, the oldest request first.
    async fn asking(&self, chat: ChatId, now: Timestamp) -> Vec<UserId> {
        let waiting = join_requests::waiting(&self.pools, chat, now).await;
        waiting.unwrap().iter().map(|request| request.user).collect()
    }

    async fn request_rows(&self, chat: ChatId) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM join_requests WHERE chat_id = $1")
            .bind(chat.0)
            .fetch_one(self.pools.of(chat))
            .await
            .unwrap()
    }

    /// Makes requests of strangers at this time, each of which was refused a second after the one before.
    async fn many_requests(&self, chat: ChatId, count: i64, at: Timestamp, refused: bool) {
        let insert = "
            INSERT INTO join_requests (chat_id, user_id, invite_id, requested_at, refused_at)
            SELECT $1::uuid, gen_random_uuid(), $2::uuid, to_timestamp($3::int8 / 1000.0),
                   CASE WHEN $4::boolean THEN to_timestamp($3::int8 / 1000.0 + n) END
            FROM generate_series(1, $5::int8) AS n";
        sqlx::query(insert)
            .bind(chat.0)
            .bind(INVITE.0)
            .bind(at.0)
            .bind(refused)
            .bind(count)
            .execute(self.pools.of(chat))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_request_waits_until_it_is_withdrawn_or_a_month_has_passed() {
    let store = Store::new().await;
    let [host, one, other] = [store.user().await, store.user().await, store.user().await];
    let chat = store.group(host, &[]).await.id;
    let now = Clock::wall();
    let later = now + HOUR;
    assert_eq!(store.ask(chat, one, now).await, Asked::Waits(now));
    assert_eq!(store.ask(chat, other, later).await, Asked::Waits(later));
    assert_eq!(store.ask(chat, one, later).await, Asked::Waits(now), "again");
    let waiting = join_requests::waiting(&store.pools, chat, later).await.unwrap();
    let request = |user, requested_at| Request {
        user,
        requested_at,
        invite: INVITE,
    };
    assert_eq!(waiting, [request(one, now), request(other, later)]);

    assert!(join_requests::withdraw(&store.pools, chat, other).await.unwrap());
    assert!(!join_requests::withdraw(&store.pools, chat, other).await.unwrap());
    let end = now + REQUEST_FOR;
    let is_waiting = async |at| {
        let waits = join_requests::is_waiting(&store.pools, chat, one, at).await;
        waits.unwrap()
    };
    let before = Timestamp(end.0 - 1);
    assert_eq!(store.asking(chat, before).await, [one]);
    assert!(is_waiting(before).await && !is_waiting(end).await);
    assert_eq!(store.asking(chat, end).await, []);
    assert!(!store.refuse(chat, one, end).await, "it has ended");
    assert_eq!(store.ask(chat, one, end).await, Asked::Waits(end));
}

#[tokio::test]
async fn who_was_refused_may_ask_again_a_day_later() {
    let store = Store::new().await;
    let (host, user) = (store.user().await, store.user().await);
    let chat = store.group(host, &[]).await.id;
    let now = Clock::wall();
    assert!(!store.refuse(chat, user, now).await, "nobody has asked");
    store.ask(chat, user, now).await;
    assert!(store.refuse(chat, user, now).await);
    assert!(store.refuse(chat, user, now + HOUR).await, "a repetition");
    assert_eq!(store.asking(chat, now).await, []);
    let until = now + REFUSED_FOR;
    for at in [now, Timestamp(until.0 - 1)] {
        assert_eq!(store.ask(chat, user, at).await, Asked::Refused);
        // They cannot shorten it by taking the request back.
        assert!(!join_requests::withdraw(&store.pools, chat, user).await.unwrap());
    }
    assert_eq!(store.ask(chat, user, until).await, Asked::Waits(until));
    assert_eq!(store.asking(chat, until).await, [user]);
}

#[tokio::test]
async fn a_group_has_256_requests_and_forgets_those_that_have_ended() {
    let store = Store::new().await;
    let (host, user) = (store.user().await, store.user().await);
    let chat = store.group(host, &[]).await.id;
    let now = Clock::wall();
    store.many_requests(chat, MAX_REQUESTS - 1, now, false).await;
    assert_eq!(
        store.ask(chat, host, now).await,
        Asked::Waits(now),
        "the last one"
    );
    assert_eq!(store.ask(chat, user, now + HOUR).await, Asked::Full);
    assert_eq!(store.request_rows(chat).await, MAX_REQUESTS);
    let waiting = join_requests::waiting(&store.pools, chat, now).await.unwrap();
    assert_eq!(waiting.len() as i64, MAX_REQUESTS);
    // A refusal makes room for somebody.
    assert!(store.refuse(chat, host, now).await);
    assert_eq!(store.ask(chat, user, now + HOUR).await, Asked::Waits(now + HOUR));
    let end = now + REQUEST_FOR;
    assert_eq!(store.ask(chat, host, end).await, Asked::Waits(end));
    assert_eq!(store.request_rows(chat).await, 2, "the two latest");
}

#[tokio::test]
async fn of_many_refusals_the_newest_are_remembered() {
    let store = Store::new().await;
    let (host, user) = (store.user().await, store.user().await);
    let chat = store.group(host, &[]).await.id;
    let now = Clock::wall();
    store.many_requests(chat, MAX_REFUSALS + 10, now, true).await;
    assert_eq!(
        store.ask(chat, user, now + MOMENT).await,
        Asked::Waits(now + MOMENT)
    );
    assert_eq!(store.request_rows(chat).await, MAX_REFUSALS + 1);
    let oldest: i64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(refused_at) - to_timestamp($2::int8 / 1000.0))::int8
         FROM join_requests WHERE chat_id = $1",
    )
    .bind(chat.0)
    .bind(now.0)
    .fetch_one(store.pools.of(chat))
    .await
    .unwrap();
    assert_eq!(oldest, 11, "the first ten are forgotten");
}

#[tokio::test]
async fn who_asks_to_join_can_be_added_also_after_they_left_or_blocked_somebody() {
    let store = Store::new().await;
    let [host, left, blocker] = [store.user().await, store.user().await, store.user().await];
    let chat = store.group(host, &[left]).await.id;
    let mut owner = Owner::new(&store);
    let leaves = Action::Remove(left);
    owner.change(chat, left, RequestId::random(), leaves).await;
    store.block(blocker, host).await;
    let asked = [left, blocker];
    let addable = async || {
        let mut db = store.pools.of(chat).acquire().await.unwrap();
        let found = joining::addable(&mut db, chat, host, &asked).await.unwrap();
        found.into_iter().map(|(user, _)| user).collect::<Vec<_>>()
    };
    assert_eq!(addable().await, []);
    let now = Clock::wall();
    for user in asked {
        store.ask(chat, user, now).await;
    }
    let mut found = addable().await;
    found.sort_unstable();
    let mut both = asked;
    both.sort_unstable();
    assert_eq!(found, both);
    assert!(store.refuse(chat, blocker, now).await);
    assert_eq!(addable().await, [left], "who was refused does not ask");

    let add = Action::Add(vec![left]);
    let added = owner.change(chat, host, RequestId::random(), add).await;
    assert!(matches!(added, Outcome::Changed(Ok(Some(_)))), "{added:?}");
    assert_eq!(store.asking(chat, now).await, []);
    assert_eq!(store.request_rows(chat).await, 1, "that of who was refused");
}

#[tokio::test]
async fn who_joins_by_a_link_asks_no_more() {
    let store = Store::new().await;
    let (host, user) = (store.user().await, store.user().await);
    let chat = store.group(host, &[]).await.id;
    let now = Clock::wall();
    let link = make(&store, &new_link(chat, host), now).await;
    store.ask(chat, user, now).await;
    let mut owner = Owner::new(&store);
    let invite = link.id;
    let join = Action::Join { invite, user };
    let joined = owner.change(chat, user, RequestId::random(), join).await;
    assert!(matches!(joined, Outcome::Changed(Ok(Some(_)))), "{joined:?}");
    assert_eq!(store.request_rows(chat).await, 0);
}

#[tokio::test]
async fn those_who_may_answer_are_found_and_are_shown_how_many_ask() {
    let store = Store::new().await;
    let [host, admin, member] = [store.user().await, store.user().await, store.user().await];
    let chat = store.group(host, &[admin, member]).await.id;
    let mut owner = Owner::new(&store);
    let promote = Action::SetRole(admin, Role::Admin);
    owner.change(chat, host, RequestId::random(), promote).await;
    let (now, user) = (Clock::wall(), store.user().await);
    store.ask(chat, user, now).await;
    store.many_requests(chat, 1, now, true).await;
    let long_ago = Timestamp(now.0 - REQUEST_FOR.as_millis() as i64 - 1000);
    store.many_requests(chat, 1, long_ago, false).await;

    let mut expected = vec![host, admin];
    expected.sort_unstable();
    assert_eq!(
        join_requests::answerers(&store.pools, chat).await.unwrap(),
        expected
    );
    for (reader, shown) in [(host, 1), (admin, 1), (member, 0)] {
        let view = listing::chat(&store.pools, &store.master, reader, None, chat).await;
        assert_eq!(view.unwrap().unwrap().join_requests, shown);
    }
}
