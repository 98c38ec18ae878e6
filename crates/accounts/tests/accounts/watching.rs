//! Tests of whose presence somebody may see.

use std::collections::BTreeSet;

use futures::future::join_all;
use tern_proto::internal::MayWatchRequest;
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_proto::v1::{self, Audience, ErrorReason};
use tern_types::{Clock, UserId};

use crate::HOUR;
use crate::world::{NEW_STRANGERS, World, admin, reason};

impl World {
    async fn shares_with(&self, user: UserId, audience: Audience) {
        let settings = v1::PrivacySettings {
            presence_audience: audience.into(),
            read_receipts_off: false,
        };
        self.set_privacy(&admin(), &user.to_string(), Some(settings))
            .await
            .unwrap();
    }

    async fn seen(&self, watcher: UserId, people: &[UserId]) -> BTreeSet<UserId> {
        let watchable = self
            .accounts
            .may_watch(watcher, people, Clock::wall())
            .await
            .unwrap();
        assert_eq!(watchable.limited, []);
        watchable.visible.into_iter().collect()
    }
}

fn set<const N: usize>(users: [UserId; N]) -> BTreeSet<UserId> {
    users.into()
}

#[tokio::test]
async fn who_may_be_watched_follows_from_settings_contacts_writing_and_blocks() {
    let world = World::start().await;
    let people = world.crowd(6).await;
    let [watcher, open, contact, writer, hidden, stranger]: [UserId; 6] = people[..].try_into().unwrap();
    world.shares_with(open, Audience::Everyone).await;
    world.shares_with(hidden, Audience::Nobody).await;
    for user in [contact, hidden] {
        world.set_contacts(user, &[watcher], &[], false).await.unwrap();
    }
    world.chat.writes(writer, watcher);
    // The watcher gets no right by writing to somebody, or by having somebody as a contact.
    world.chat.writes(watcher, stranger);
    world
        .set_contacts(watcher, &[stranger], &[], false)
        .await
        .unwrap();
    let asked = [&people[..], &people[..], &[UserId::random()]].concat();
    assert_eq!(
        world.seen(watcher, &asked).await,
        set([watcher, open, contact, writer])
    );
    assert_eq!(world.seen(watcher, &[]).await, set([]));
    assert_eq!(
        world.seen(UserId::random(), &asked).await,
        set([]),
        "no such watcher"
    );

    let text = |user: UserId| user.to_string();
    world
        .block(&admin(), &text(watcher), &text(contact))
        .await
        .unwrap();
    world.block(&admin(), &text(open), &text(watcher)).await.unwrap();
    assert_eq!(world.seen(watcher, &people).await, set([watcher, writer]));
    assert_eq!(
        world.seen(contact, &[watcher]).await,
        set([]),
        "nor the other way"
    );

    world.shares_with(watcher, Audience::Nobody).await;
    assert_eq!(
        world.seen(watcher, &people).await,
        set([watcher]),
        "who hides sees nobody else"
    );
}

#[tokio::test]
async fn a_chat_node_is_asked_only_where_writing_decides() {
    let world = World::start().await;
    let people = world.crowd(4).await;
    let [watcher, contact, other, stranger]: [UserId; 4] = people[..].try_into().unwrap();
    world.set_contacts(contact, &[watcher], &[], false).await.unwrap();
    world.shares_with(stranger, Audience::Everyone).await;
    let asked = [contact, stranger];
    assert_eq!(world.seen(watcher, &asked).await, set(asked));
    world.chat.fail(usize::MAX);
    assert_eq!(
        world.seen(watcher, &asked).await,
        set(asked),
        "a stranger of the day is known"
    );
    let refused = world
        .accounts
        .may_watch(watcher, &[contact, other], Clock::wall())
        .await;
    assert_eq!(refused.unwrap_err().reason, ErrorReason::Unavailable);
}

#[tokio::test]
async fn new_strangers_a_day_are_limited_and_those_of_the_day_are_free() {
    let world = World::start().await;
    let watcher = world.user("watcher").await;
    let crowd = world.crowd(NEW_STRANGERS as i32 + 10).await;
    let open = "UPDATE users SET presence_audience = 1 WHERE display_name = ''";
    sqlx::query(open).execute(&world.pool).await.unwrap();
    let start = Clock::wall();
    let watch = async |people: &[UserId], now| world.accounts.may_watch(watcher, people, now).await.unwrap();

    let first = watch(&crowd[..5], start).await;
    assert_eq!((first.visible.len(), first.limited.len()), (5, 0));
    let later = start + 6 * HOUR;
    let second = watch(&crowd[3..], later).await;
    let fit = &crowd[..NEW_STRANGERS];
    assert_eq!(
        second.limited,
        crowd[NEW_STRANGERS..],
        "the first have precedence"
    );
    assert_eq!(second.visible.len(), NEW_STRANGERS - 3);
    assert_eq!(second.retry_after, 18 * HOUR);
    let again = watch(fit, later + HOUR).await;
    assert_eq!((again.visible.len(), again.limited.len()), (NEW_STRANGERS, 0));
    // A person who has the watcher among their contacts is not a stranger.
    world
        .set_contacts(crowd[NEW_STRANGERS], &[watcher], &[], false)
        .await
        .unwrap();
    world.chat.writes(crowd[NEW_STRANGERS + 1], watcher);
    let known = watch(&crowd[NEW_STRANGERS..NEW_STRANGERS + 2], later).await;
    assert_eq!(known.visible.len(), 2);

    let next_day = watch(&crowd[NEW_STRANGERS + 2..], start + 24 * HOUR).await;
    assert_eq!(
        (next_day.visible.len(), next_day.limited.len()),
        (5, 3),
        "as many as a day ago"
    );
}

#[tokio::test]
async fn the_limit_holds_for_however_many_screens_at_once() {
    let world = World::start().await;
    let watcher = world.user("watcher").await;
    let crowd = world.crowd(4 * NEW_STRANGERS as i32).await;
    let open = "UPDATE users SET presence_audience = 1 WHERE display_name = ''";
    sqlx::query(open).execute(&world.pool).await.unwrap();
    let screens = crowd
        .chunks(NEW_STRANGERS / 2)
        .map(|people| world.accounts.may_watch(watcher, people, Clock::wall()));
    let seen: usize = join_all(screens)
        .await
        .into_iter()
        .map(|watchable| watchable.unwrap().visible.len())
        .sum();
    assert_eq!(seen, NEW_STRANGERS);
}

#[tokio::test]
async fn a_question_of_a_gateway_is_checked() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let mut node = AccountsNodeClient::new(world.channel.clone());
    let id = || bytes(alice);
    let question = |watcher: Vec<u8>, people: Vec<Vec<u8>>| MayWatchRequest {
        watcher_id: watcher.into(),
        user_ids: people.into_iter().map(Into::into).collect(),
    };
    let answer = node
        .may_watch(question(id(), vec![id()]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.visible, [id()]);
    for bad in [
        question(vec![1], vec![]),
        question(id(), vec![vec![]]),
        question(id(), vec![id(); 257]),
    ] {
        let refused = node.may_watch(bad).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::InvalidField);
    }
}

fn bytes(user: UserId) -> Vec<u8> {
    user.to_vec()
}

#[tokio::test]
async fn who_may_see_somebody_is_the_same_rule_from_the_other_side() {
    let world = World::start().await;
    let people = world.crowd(6).await;
    let [person, contact, written_to, hidden, blocked, stranger]: [UserId; 6] =
        people[..].try_into().unwrap();
    world
        .set_contacts(person, &[contact, hidden, blocked], &[], false)
        .await
        .unwrap();
    world.shares_with(hidden, Audience::Nobody).await;
    world.chat.writes(person, written_to);
    // The watchers get no right by writing to the person.
    world.chat.writes(stranger, person);
    let text = |user: UserId| user.to_string();
    world
        .block(&admin(), &text(blocked), &text(person))
        .await
        .unwrap();
    let seeing = async || {
        let asked = [&people[..], &[UserId::random()]].concat();
        let seeing = world.accounts.may_see(person, &asked).await.unwrap();
        let seeing: BTreeSet<UserId> = seeing.into_iter().collect();
        // Exactly the watchers who may watch the person may see them, among those who are not counted as strangers.
        for watcher in people.iter().filter(|watcher| **watcher != stranger) {
            assert_eq!(
                seeing.contains(watcher),
                world.seen(*watcher, &[person]).await.contains(&person)
            );
        }
        seeing
    };
    assert_eq!(seeing().await, set([person, contact, written_to]));
    world.shares_with(person, Audience::Everyone).await;
    assert_eq!(seeing().await, set([person, contact, written_to, stranger]));
    world.shares_with(person, Audience::Nobody).await;
    assert_eq!(seeing().await, set([person]));
    let nobody = world.accounts.may_see(UserId::random(), &people).await.unwrap();
    assert_eq!(nobody, []);
}
