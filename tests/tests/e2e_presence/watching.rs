//! What watchers are told of people who come and go.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::{self, Heartbeat, MarkRead, SetActive, WatchErrorCode};
use tern_tests::{Api, Shown, World, wire};
use tern_types::{ChatId, RequestId, UserId};

use crate::cast::{Around, background, foreground, person, seen_by};

#[tokio::test]
async fn a_watcher_sees_who_is_there_who_comes_and_who_leaves() {
    let world = World::with(|builder| builder.presences(2)).await;
    let [alice, scout] = [person(&world, "alice").await, person(&world, "scout").await];
    let [bob, carol] = [
        seen_by(&world, "bob", &[&alice, &scout]).await,
        seen_by(&world, "carol", &[&alice]).await,
    ];
    let his = foreground(&world, 1, &bob).await;
    let scouts = background(&world, 1, &scout).await;
    scouts.watch(&[bob.id()]).await;
    // From here on it is known to all.
    scouts.sees_online(bob.id()).await;
    let hers = background(&world, 0, &alice).await;
    let result = hers.watch(&[bob.id(), carol.id()]).await;
    assert_eq!(result, v1::WatchResult::default());
    let said = hers.said();
    assert_eq!(
        said.presences.len(),
        2,
        "one state for each, before the result: {said:?}"
    );
    hers.sees_online(bob.id()).await;
    assert_eq!(hers.sees_offline(carol.id()).await, 0, "never seen");

    let carols = background(&world, 1, &carol).await;
    carols.settled(1).await;
    carols.active(true).await;
    hers.sees_online(carol.id()).await;
    let left = Around::the(async {
        carols.active(false).await;
        carols.settled(2).await;
    })
    .await;
    let seen = hers.sees_offline(carol.id()).await;
    assert!(left.holds(seen, Duration::ZERO), "{seen}");

    // A stream that breaks ends it as well; the last sign is what counts.
    let sign = Around::the(async {
        carols.active(true).await;
        carols.settled(3).await;
    })
    .await;
    hers.sees_online(carol.id()).await;
    drop(carols);
    let seen = hers.sees_offline(carol.id()).await;
    assert!(sign.holds(seen, Duration::ZERO), "{seen}");
    let said = hers.said();
    assert_eq!(said.all_of(bob.id()), [Shown::Online], "{said:?}");
    drop(his);
    assert_eq!(said.all_of(carol.id()).len(), 5, "each change once: {said:?}");
    world.end().await;
}

/// Connections, heartbeats, acknowledgements, marks, calls: whatever an app does by itself.
#[tokio::test]
async fn an_app_may_do_as_much_as_it_likes_and_moves_nothing() {
    let world = World::start().await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let marker = seen_by(&world, "marker", &[&alice]).await;
    let his = foreground(&world, 0, &bob).await;
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id(), marker.id()]).await;
    hers.sees_online(bob.id()).await;
    his.active(false).await;
    let seen = hers.sees_offline(bob.id()).await;
    let before = hers.said().all_of(bob.id());

    let chat = ChatId::direct(alice.id(), bob.id());
    hers.say(wire::message_to(RequestId::random(), bob.id(), "hello"))
        .await;
    let api = Api::new(world.channel(0), &bob.device.access_token);
    for round in 1..4 {
        his.say(Item::Heartbeat(Heartbeat { token: 1 })).await;
        his.say(wire::ack(chat, 1)).await;
        his.say(Item::MarkRead(MarkRead {
            chat_id: chat.to_string(),
            seq: 1,
        }))
        .await;
        his.say(Item::SetActive(SetActive { active: false })).await;
        his.say(wire::message(
            RequestId::random(),
            chat,
            "from a job in the background",
        ))
        .await;
        api.inbox()
            .fetch(v1::FetchRequest::default())
            .await
            .expect("an inbox");
        api.chats()
            .list_chats(v1::ListChatsRequest::default())
            .await
            .expect("chats");
        his.settled(100 + round).await;
    }
    drop(his);
    let again = background(&world, 1, &bob).await;
    again.settled(1).await;
    // Had any of it moved something, it would have been told before this.
    let markers = foreground(&world, 0, &marker).await;
    hers.sees_online(marker.id()).await;
    assert_eq!(hers.said().all_of(bob.id()), before);
    // Nor is it only that nobody was told.
    hers.watch(&[bob.id()]).await;
    assert_eq!(hers.sees_offline(bob.id()).await, seen);
    drop((again, markers));
    world.end().await;
}

#[tokio::test]
async fn of_several_devices_the_newest_counts() {
    let world = World::with(|builder| builder.presences(2)).await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let tablet = world.device(&bob.user).await;
    let phone = foreground(&world, 0, &bob).await;
    let tablet = tern_tests::Screen::open(world.new_channel(1), &tablet, false).await;
    let hers = background(&world, 1, &alice).await;
    hers.watch(&[bob.id()]).await;
    hers.sees_online(bob.id()).await;
    tablet.active(true).await;
    tablet.settled(1).await;
    phone.active(false).await;
    phone.settled(1).await;
    let left = Around::the(async {
        tablet.active(false).await;
        tablet.settled(2).await;
    })
    .await;
    let seen = hers.sees_offline(bob.id()).await;
    assert!(left.holds(seen, Duration::ZERO), "{seen}");
    assert_eq!(
        hers.said().all_of(bob.id()),
        [Shown::Online, Shown::LastSeen(seen)]
    );
    world.end().await;
}

/// Somebody online goes offline only after this, however slow the machine is: so nothing below has to happen in time.
const THRESHOLD: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_person_who_says_nothing_more_is_offline_after_the_threshold_and_online_again_when_they_write() {
    let threshold = THRESHOLD.as_secs().to_string();
    let world = World::with(|builder| builder.env("TERN_ONLINE_THRESHOLD", &threshold)).await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let hers = background(&world, 1, &alice).await;
    hers.watch(&[bob.id()]).await;
    hers.sees_offline(bob.id()).await;

    let his = background(&world, 0, &bob).await;
    assert_eq!(his.activity_interval, THRESHOLD / 2);
    let opened = Around::the(async {
        // Once: a screen that is active says so again and again.
        his.say(Item::SetActive(SetActive { active: true })).await;
        his.settled(1).await;
    })
    .await;
    hers.sees_online(bob.id()).await;
    // His app goes on, with heartbeats only.
    let seen = hers.sees_offline(bob.id()).await;
    assert!(opened.holds(seen, Duration::ZERO), "{seen}");
    his.settled(2).await;

    let wrote = Around::the(async {
        his.say(wire::message_to(RequestId::random(), alice.id(), "still here"))
            .await;
        his.settled(3).await;
    })
    .await;
    hers.sees_online(bob.id()).await;
    let seen = hers.sees_offline(bob.id()).await;
    assert!(wrote.holds(seen, Duration::ZERO), "{seen}");
    world.end().await;
}

#[tokio::test]
async fn a_set_is_checked_limited_and_replaced_by_the_next() {
    let world = World::start().await;
    let alice = person(&world, "alice").await;
    let [bob, carol] = [
        seen_by(&world, "bob", &[&alice]).await,
        seen_by(&world, "carol", &[&alice]).await,
    ];
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id()]).await;
    hers.sees_offline(bob.id()).await;

    let many = std::iter::repeat_with(|| UserId::random().to_string());
    let result = hers.watch_ids(many.take(257).collect()).await;
    assert_eq!(result.error(), WatchErrorCode::Invalid, "{result:?}");
    let result = hers.watch_ids(vec!["bob".to_owned()]).await;
    assert_eq!(result.error(), WatchErrorCode::Invalid, "{result:?}");
    // Nothing has changed by these.
    let his = foreground(&world, 1, &bob).await;
    hers.sees_online(bob.id()).await;

    // The most that there may be.
    let mut full: Vec<UserId> = std::iter::repeat_with(UserId::random).take(255).collect();
    full.push(carol.id());
    assert_eq!(hers.watch(&full).await, v1::WatchResult::default());
    let said = hers.said();
    assert!(
        full[..255]
            .iter()
            .all(|stranger| said.of(*stranger) == Some(Shown::Hidden))
    );
    // Bob is watched no more: what he does now is told before what carol does afterwards, if at all.
    let before = said.all_of(bob.id());
    his.active(false).await;
    his.settled(1).await;
    let carols = foreground(&world, 1, &carol).await;
    hers.sees_online(carol.id()).await;
    assert_eq!(hers.said().all_of(bob.id()), before);

    let mut result = v1::WatchResult::default();
    for _ in 0..50 {
        result = hers.watch(&[bob.id()]).await;
        if result.error() == WatchErrorCode::RateLimited {
            break;
        }
    }
    assert_eq!(result.error(), WatchErrorCode::RateLimited, "{result:?}");
    // After the time that it names, it takes one again; an empty one ends it.
    tokio::time::sleep(Duration::from_millis(u64::from(result.retry_after_ms) + 1)).await;
    assert_eq!(hers.watch(&[]).await, v1::WatchResult::default());
    let before = hers.said().presences.len();
    // Of the same gateway's sessions all are told at once: hers would have been by the time that this one was.
    let tablet = world.device(&alice.user).await;
    let tablet = tern_tests::Screen::open(world.new_channel(0), &tablet, false).await;
    tablet.watch(&[bob.id()]).await;
    his.active(true).await;
    tablet.sees_online(bob.id()).await;
    hers.settled(1).await;
    assert_eq!(hers.said().presences.len(), before);
    drop((his, carols));
    world.end().await;
}
