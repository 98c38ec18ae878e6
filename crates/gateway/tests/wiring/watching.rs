//! Presence watches: who may watch whom, what the presence node is asked, and what devices are told.

use tern_proto::internal::gateway_node_client::GatewayNodeClient;
use tern_proto::internal::{PrivacyChangedRequest, UserPrivacy};
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{Presence, PresenceState, SetActive, WatchErrorCode, WatchPresence};
use tern_types::{DeviceId, UserId};

use crate::support::items::people;
use crate::support::{Phone, World};

async fn watch(phone: &Phone, users: &[UserId]) {
    let user_ids = users.iter().map(ToString::to_string).collect();
    phone.say(Item::WatchPresence(WatchPresence { user_ids })).await;
}

async fn presence(phone: &mut Phone) -> (String, PresenceState, i64) {
    match phone.event().await {
        Event::Presence(presence) => state(presence),
        other => panic!("{other:?}"),
    }
}

fn state(presence: Presence) -> (String, PresenceState, i64) {
    let state = presence.state();
    (presence.user_id, state, presence.last_seen_ms)
}

async fn complete(phone: &mut Phone) {
    let event = phone.event().await;
    assert!(
        matches!(&event, Event::WatchResult(result) if result.error() == WatchErrorCode::Unspecified),
        "{event:?}"
    );
}

async fn online(world: &mut World) -> Phone {
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    phone
}

#[tokio::test]
async fn a_screen_gets_each_persons_state_then_the_result_and_then_each_change() {
    let mut world = World::start(&[]).await;
    let (seen, hidden) = (UserId::random(), UserId::random());
    *world.chat.visible.lock().unwrap() = vec![seen];
    let mut phone = online(&mut world).await;
    watch(&phone, &[seen, hidden]).await;
    let requests = world.watched().await;
    assert_eq!(
        requests.watch,
        [seen.to_vec()],
        "the hidden one is nobody's business"
    );
    assert_eq!(
        presence(&mut phone).await,
        (hidden.to_string(), PresenceState::Hidden, 0)
    );
    world.shows(seen, false, 77).await;
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Offline, 77)
    );
    complete(&mut phone).await;
    world.shows(seen, true, 0).await;
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Online, 0)
    );
    // A second device that watches the same user costs the presence node nothing.
    let mut other = online(&mut world).await;
    watch(&other, &[seen]).await;
    assert_eq!(
        presence(&mut other).await,
        (seen.to_string(), PresenceState::Online, 0)
    );
    complete(&mut other).await;
    watch(&phone, &[]).await;
    complete(&mut phone).await;
    watch(&other, &[]).await;
    complete(&mut other).await;
    assert_eq!(world.watched().await.unwatch, [seen.to_vec()]);
}

#[tokio::test]
async fn of_several_devices_that_wait_for_a_persons_state_each_gets_it_before_the_result() {
    let mut world = World::start(&[]).await;
    let seen = UserId::random();
    *world.chat.visible.lock().unwrap() = vec![seen];
    let mut phones = [online(&mut world).await, online(&mut world).await];
    let mut asked = world.chat.asks_who_may_watch.subscribe();
    for phone in &phones {
        watch(phone, &[seen]).await;
    }
    asked.wait_for(|asked| *asked == 2).await.unwrap();
    world.watched().await;
    world.shows(seen, true, 0).await;
    for phone in &mut phones {
        assert_eq!(
            presence(phone).await,
            (seen.to_string(), PresenceState::Online, 0)
        );
        complete(phone).await;
    }
}

#[tokio::test]
async fn watches_end_with_their_stream() {
    let mut world = World::start(&[]).await;
    let seen = UserId::random();
    *world.chat.visible.lock().unwrap() = vec![seen];
    let phone = online(&mut world).await;
    watch(&phone, &[seen]).await;
    world.watched().await;
    drop(phone);
    assert_eq!(world.watched().await.unwatch, [seen.to_vec()]);
}

#[tokio::test]
async fn a_change_of_privacy_is_told_to_those_whom_it_concerns() {
    let mut world = World::start(&[]).await;
    let seen = UserId::random();
    let mut phone = online(&mut world).await;
    watch(&phone, &[seen]).await;
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Hidden, 0)
    );
    complete(&mut phone).await;
    *world.chat.visible.lock().unwrap() = vec![seen];
    let mut node = GatewayNodeClient::connect(world.internal.clone()).await.unwrap();
    let users = vec![UserPrivacy {
        user_id: seen.to_vec().into(),
        read_receipts_off: false,
    }];
    node.privacy_changed(PrivacyChangedRequest { users: users.clone() })
        .await
        .unwrap();
    assert_eq!(world.watched().await.watch, [seen.to_vec()]);
    world.shows(seen, true, 0).await;
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Online, 0)
    );
    world.chat.visible.lock().unwrap().clear();
    node.privacy_changed(PrivacyChangedRequest { users })
        .await
        .unwrap();
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Hidden, 0)
    );
    assert_eq!(world.watched().await.unwatch, [seen.to_vec()]);
}

#[tokio::test]
async fn an_answer_from_before_a_change_of_privacy_shows_nobody() {
    let mut world = World::start(&[]).await;
    let seen = UserId::random();
    *world.chat.visible.lock().unwrap() = vec![seen];
    let mut phone = online(&mut world).await;
    world.chat.answers_who_may_watch.send_replace(false);
    watch(&phone, &[seen]).await;
    let mut asked = world.chat.asks_who_may_watch.subscribe();
    asked.wait_for(|asked| *asked == 1).await.unwrap();
    world.chat.visible.lock().unwrap().clear();
    let mut node = GatewayNodeClient::connect(world.internal.clone()).await.unwrap();
    let users = vec![UserPrivacy {
        user_id: seen.to_vec().into(),
        read_receipts_off: false,
    }];
    node.privacy_changed(PrivacyChangedRequest { users })
        .await
        .unwrap();
    world.chat.answers_who_may_watch.send_replace(true);
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Hidden, 0)
    );
    complete(&mut phone).await;
}

#[tokio::test]
async fn a_link_that_is_made_again_names_everybody_anew_and_nobody_seems_to_change() {
    let mut world = World::start(&[]).await;
    let seen = UserId::random();
    *world.chat.visible.lock().unwrap() = vec![seen];
    let mut phone = online(&mut world).await;
    watch(&phone, &[seen]).await;
    world.watched().await;
    world.shows(seen, true, 0).await;
    presence(&mut phone).await;
    complete(&mut phone).await;
    world.chat.shown.end();
    assert_eq!(world.watched().await.watch, [seen.to_vec()]);
    world.shows(seen, true, 0).await;
    world.shows(seen, false, 5).await;
    assert_eq!(
        presence(&mut phone).await,
        (seen.to_string(), PresenceState::Offline, 5),
        "the same state is not told again"
    );
}

#[tokio::test]
async fn presence_is_told_of_the_person_with_the_session_and_whenever_it_is_announced_again() {
    let mut world = World::start(&[]).await;
    let (user, device) = (UserId::random(), DeviceId::random());
    let mut phone = world.open(user, device).await;
    assert!(matches!(phone.event().await, Event::CaughtUp(_)));
    phone.say(Item::SetActive(SetActive { active: true })).await;
    assert!(matches!(phone.event().await, Event::HeartbeatAck(_)));
    world.presence(2, &[("presence-1", false)]);
    loop {
        let announced = world.announced().await;
        assert_eq!(announced.device_id, device.to_vec());
        if announced.active {
            assert!(announced.active_at_ms > 0 && announced.active_said_ms > 0);
            break;
        }
    }
}
