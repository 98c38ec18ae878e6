//! Watchers are told when people come and go.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::{self, Heartbeat, MarkRead, SetActive, WatchErrorCode, WatchPresence};
use tern_tests::world::BOUND;
use tern_tests::{Api, Screen, Shown, WallClock, World, wire};
use tern_types::{ChatId, RequestId, UserId};
use tokio::time::{Instant, timeout};

use crate::cast::{Around, background, foreground, person, seen_by, seen_by_on};

/// The time after which a WatchPresence is answered although the states of some people are not known yet. It is 3 s,
/// less the error of rounding.
const ANSWERED_AFTER: Duration = Duration::from_millis(2990);

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
    // From here on all nodes know that he is online.
    scouts.sees_online(bob.id()).await;
    let hers = background(&world, 0, &alice).await;
    let asked = Instant::now();
    let result = hers.watch(&[bob.id(), carol.id()]).await;
    assert_eq!(result, v1::WatchResult::default());
    let said = hers.said();
    assert!(
        said.presences.len() == 2 || asked.elapsed() > ANSWERED_AFTER,
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

    // A stream that breaks ends the presence too. The last sign counts.
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

/// An app makes connections, heartbeats, acknowledgements, read marks and calls by itself, so they are no activity of
/// the person.
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
    // If any of this had changed his presence, she would have been told before this.
    let markers = foreground(&world, 0, &marker).await;
    hers.sees_online(marker.id()).await;
    assert_eq!(hers.said().all_of(bob.id()), before);
    // His state itself has not changed either.
    hers.watch(&[bob.id()]).await;
    assert_eq!(hers.sees_offline(bob.id()).await, seen);
    drop((again, markers));
    world.end().await;
}

#[tokio::test]
async fn of_several_devices_the_newest_counts() {
    let world = World::with(|builder| builder.presences(2)).await;
    let alice = person(&world, "alice").await;
    let [bob, marker] = [
        seen_by_on(&world, "presence-1", &[&alice]).await,
        seen_by_on(&world, "presence-1", &[&alice]).await,
    ];
    let tablet = world.device(&bob.user).await;
    let phone = foreground(&world, 0, &bob).await;
    let tablet = Screen::open(world.new_channel(1), &tablet, false).await;
    let markers = background(&world, 1, &marker).await;
    let hers = background(&world, 1, &alice).await;
    hers.watch(&[bob.id(), marker.id()]).await;
    hers.sees_online(bob.id()).await;
    let before = hers.said().all_of(bob.id());
    tablet.active(true).await;
    tablet.settled(1).await;
    // This comes from the same gateway, so it reaches presence after his change.
    markers.active(true).await;
    hers.sees_online(marker.id()).await;
    phone.active(false).await;
    phone.settled(1).await;
    let left = Around::the(async {
        tablet.active(false).await;
        tablet.settled(2).await;
    })
    .await;
    let seen = hers.sees_offline(bob.id()).await;
    assert!(left.holds(seen, Duration::ZERO), "{seen}");
    let said = hers.said().all_of(bob.id());
    assert_eq!(said[before.len()..], [Shown::LastSeen(seen)]);
    world.end().await;
}

const THRESHOLD: Duration = Duration::from_secs(3);

/// Makes him send the item until she sees him online, and returns when he sent it last. One item may not be enough: if
/// the machine stands still for as long as the threshold, he is offline again before she is told.
async fn until_online(his: &Screen, item: impl Fn() -> Item, hers: &Screen) -> Around {
    let until = async {
        loop {
            let token = his.said().heartbeats.len() as u64 + 1;
            let said = Around::the(async {
                his.say(item()).await;
                his.settled(token).await;
            })
            .await;
            // By then he is offline again, so the next item is a new sign.
            if timeout(THRESHOLD, hers.sees_online(his.user)).await.is_ok() {
                return said;
            }
        }
    };
    timeout(BOUND, until).await.expect("she sees him online")
}

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
    let last_seen = |said: &Around, shown| match shown {
        Shown::LastSeen(at) => said.holds(at, Duration::ZERO),
        _ => false,
    };
    // The item is sent once here, since a screen that is active repeats the sign.
    let active = || Item::SetActive(SetActive { active: true });
    let opened = until_online(&his, active, &hers).await;
    // His app goes on, but sends only heartbeats.
    his.settled(u64::MAX).await;
    hers.sees(bob.id(), |shown| last_seen(&opened, shown)).await;

    let message = || wire::message_to(RequestId::random(), alice.id(), "still here");
    let wrote = until_online(&his, message, &hers).await;
    hers.sees(bob.id(), |shown| last_seen(&wrote, shown)).await;
    world.end().await;
}

#[tokio::test]
async fn a_wall_clock_of_a_presence_node_that_is_set_back_by_an_hour_keeps_nobody_online() {
    let (clock, threshold) = (WallClock::new(), THRESHOLD.as_secs().to_string());
    let world = World::with(|builder| {
        let builder = builder.presences(1).env("TERN_ONLINE_THRESHOLD", &threshold);
        clock.of(builder, &["presence-0"])
    })
    .await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let hers = background(&world, 1, &alice).await;
    hers.watch(&[bob.id()]).await;
    hers.sees_offline(bob.id()).await;
    let his = background(&world, 0, &bob).await;
    // The item is sent once here, since a screen that is active repeats the sign.
    let active = || Item::SetActive(SetActive { active: true });
    until_online(&his, active, &hers).await;
    clock.set(-3600);
    hers.sees_offline(bob.id()).await;
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
    // These changed nothing.
    let his = foreground(&world, 1, &bob).await;
    hers.sees_online(bob.id()).await;

    // This is the largest allowed set.
    let mut full: Vec<UserId> = std::iter::repeat_with(UserId::random).take(255).collect();
    full.push(carol.id());
    assert_eq!(hers.watch(&full).await, v1::WatchResult::default());
    let said = hers.said();
    assert!(
        full[..255]
            .iter()
            .all(|stranger| said.of(*stranger) == Some(Shown::Hidden))
    );
    // Bob is not watched any more. His change would be told before Carol's later one, if at all.
    let before = said.all_of(bob.id());
    his.active(false).await;
    his.settled(1).await;
    let carols = foreground(&world, 1, &carol).await;
    hers.sees_online(carol.id()).await;
    assert_eq!(hers.said().all_of(bob.id()), before);

    // These are sent at once, while one per second is allowed.
    const MANY: usize = 200;
    let answered = hers.said().results.len();
    for _ in 0..MANY {
        let user_ids = vec![bob.id().to_string()];
        hers.say(Item::WatchPresence(WatchPresence { user_ids })).await;
    }
    let said = hers
        .until("all answers", |said| said.results.len() >= answered + MANY)
        .await;
    let mut results = said.results[answered..].iter().rev();
    let result = results.find(|result| result.error() == WatchErrorCode::RateLimited);
    let result = result.unwrap_or_else(|| panic!("none was too many: {said:?}"));
    // After the time in the answer, another set is accepted. An empty set ends the watch.
    tokio::time::sleep(Duration::from_millis(u64::from(result.retry_after_ms) + 1)).await;
    assert_eq!(hers.watch(&[]).await, v1::WatchResult::default());
    let before = hers.said().presences.len();
    // All sessions of a gateway are told at once: if hers were told, it would be before this one is.
    let tablet = world.device(&alice.user).await;
    let tablet = Screen::open(world.new_channel(0), &tablet, false).await;
    tablet.watch(&[bob.id()]).await;
    his.active(true).await;
    tablet.sees_online(bob.id()).await;
    hers.settled(1).await;
    assert_eq!(hers.said().presences.len(), before);
    drop((his, carols));
    world.end().await;
}
