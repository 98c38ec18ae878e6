//! The other members who are online see that somebody is typing, and nothing of it is stored.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::pin::pin;
use std::time::Duration;

use tern_client::{Client, ClientConfig, Credentials, Event, EventStream, StoreLocation, Tls};
use tern_local::until;
use tern_proto::v1;
use tern_tests::world::BOUND;
use tern_tests::{Device, Phone, User, World};
use tern_types::{ChatId, Clock, RequestId};
use tokio::time::{Instant, timeout};

/// The time between repetitions of a typing notice. Its effect comes within milliseconds, or never.
const PAUSE: Duration = Duration::from_millis(500);

/// Lets everybody see these users' presence, and so their typing.
async fn show_to_all(world: &World, users: &[&User]) {
    for user in users {
        let privacy = v1::PrivacySettings {
            presence_audience: v1::Audience::Everyone.into(),
            ..Default::default()
        };
        let request = v1::SetPrivacyRequest {
            user_id: user.id.to_string(),
            privacy: Some(privacy),
        };
        world.back_end().await.users().set_privacy(request).await.unwrap();
    }
}

/// Repeats the typing notice until the other phone has seen `times` of them. A notice is passed on once in 3 s, and is
/// dropped on a machine that has too much to do.
async fn typing_until(from: &Phone, chat: ChatId, to: &Phone, times: usize) {
    until::holds("typing", BOUND, || async {
        from.typing(chat, false).await;
        Ok(to.state().typing.len() >= times)
    })
    .await
    .unwrap();
}

/// Returns the typing notices that came. `true` says that the person has stopped.
fn typing(phone: &Phone) -> Vec<bool> {
    phone.state().typing.iter().map(|typing| typing.stopped).collect()
}

#[tokio::test]
async fn the_other_members_who_are_online_see_it_once_in_three_seconds() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let [hers, tablet, his] = [
        world.phone(&alice).await,
        world.phone(&alice).await,
        world.phone(&bob).await,
    ];
    let carols = Phone::new(&world, &world.device(&carol).await);
    show_to_all(&world, &[&alice]).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    hers.say(group, "hello").await;

    let began = Instant::now();
    typing_until(&hers, group, &his, 1).await;
    stopped_typing(&hers, group, &his).await;
    let state = his.state();
    let first = &state.typing[0];
    assert_eq!(
        (
            first.chat_id.as_str(),
            first.user_id.as_str(),
            first.expires_in_ms
        ),
        (group.to_string().as_str(), alice.id.to_string().as_str(), 6000)
    );
    // A notice of her other device comes within the same 3 s. A message of that device follows it on the same way, so
    // when the message has arrived the notice would have too.
    tablet.typing(group, false).await;
    tablet.say(group, "a mark").await;
    hers.say(group, "and another").await;
    for mark in ["a mark", "and another"] {
        his.has_text(group, mark).await;
    }
    hers.has_text(group, "a mark").await;
    came_once_in_three_seconds(&typing(&his), began.elapsed());
    assert_eq!(
        (typing(&hers), typing(&tablet)),
        (vec![], vec![]),
        "not to her own"
    );

    carols.connect().await;
    carols.has_text(group, "a mark").await;
    let after = hers.say(group, "a third mark").await;
    carols.has(group, after.seq).await;
    assert_eq!(typing(&carols), [] as [bool; 0], "it is not kept for her");
    the_log_has_the_messages_alone(&world, group, after.seq).await;
    assert_eq!(after.seq, 5);
    world.end().await;
}

/// Lets the person begin and stop, again and again, until the other phone has seen that they stopped.
async fn stopped_typing(from: &Phone, chat: ChatId, to: &Phone) {
    until::holds("that she stopped", BOUND, || async {
        for stopped in [false, false, true, true, false] {
            from.typing(chat, stopped).await;
        }
        let stopped = to.until("that she stopped", |state| {
            state.typing.iter().any(|typing| typing.stopped)
        });
        Ok(timeout(PAUSE, stopped).await.is_ok())
    })
    .await
    .unwrap();
}

/// Checks that no more notices came than one in 3 s, and the same for stops, in the time `took`, which on a slow
/// machine is longer than 3 s. One in 2 s is counted as allowed, since the chat's owner allows notices that come a
/// second early.
fn came_once_in_three_seconds(seen: &[bool], took: Duration) {
    let times = 1 + took.as_secs() as usize / 2;
    let stops = seen.iter().filter(|stopped| **stopped).count();
    let starts = seen.len() - stops;
    assert!(
        !seen[0] && starts <= times && stops <= times,
        "{seen:?} in {took:?}"
    );
}

async fn the_log_has_the_messages_alone(world: &World, chat: ChatId, head: u64) {
    let store = world.store().await;
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM messages WHERE chat_id = $1")
        .bind(chat.0)
        .fetch_one(&store)
        .await
        .unwrap();
    store.close().await;
    assert_eq!(entries as u64, head, "the log has the messages alone: {entries}");
}

#[tokio::test]
async fn nobody_sees_it_in_a_group_of_more_than_64() {
    let world = World::start().await;
    let people: Vec<User> = futures::future::join_all((0..64).map(|_| world.user("member"))).await;
    show_to_all(&world, &[&people[0], &people[1]]).await;
    let (hers, his) = (world.phone(&people[0]).await, world.phone(&people[1]).await);
    let group = world.group(&people.iter().collect::<Vec<_>>()).await;
    hers.say(group, "hello").await;
    typing_until(&hers, group, &his, 1).await;

    let addition = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![world.user("one more").await.id.to_string()],
        ..Default::default()
    };
    hers.api().chats().add_members(addition).await.unwrap();
    // This is his first notice here, so the limit of one in 3 s does not drop it.
    his.typing(group, false).await;
    his.say(group, "a mark").await;
    hers.has_text(group, "a mark").await;
    assert_eq!(typing(&hers), [] as [bool; 0]);
    world.end().await;
}

#[tokio::test]
async fn it_reaches_only_who_may_see_the_writers_presence() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let [hers, his, carols] = [
        world.phone(&alice).await,
        world.phone(&bob).await,
        world.phone(&carol).await,
    ];
    show_to_all(&world, &[&alice, &bob]).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    hers.say(group, "hello").await;
    for phone in [&his, &carols] {
        phone.has_text(group, "hello").await;
    }
    for phone in [&his, &carols] {
        typing_until(&hers, group, phone, 1).await;
    }

    let block = v1::BlockRequest {
        user_id: String::new(),
        blocked_user_id: alice.id.to_string(),
    };
    // If his gateway did not answer in time, it was not told of the block, so the block is repeated. Notices from
    // before the block may still be on their way.
    until::holds("a block counts in groups, too", BOUND, || async {
        his.api().users().block(block.clone()).await?;
        let before = his.state().typing.len();
        typing_until(&hers, group, &carols, carols.state().typing.len() + 1).await;
        let mark = RequestId::random().to_string();
        hers.say(group, mark.clone()).await;
        his.has_text(group, &mark).await;
        Ok(his.state().typing.len() == before)
    })
    .await
    .unwrap();
    // Her phone does not see his notices either.
    typing_until(&his, group, &carols, carols.state().typing.len() + 1).await;
    his.say(group, "another mark").await;
    hers.has_text(group, "another mark").await;
    assert_eq!(typing(&hers), [] as [bool; 0]);

    // Carol shares with her contacts only, and has none here.
    carols.typing(group, false).await;
    carols.say(group, "a third mark").await;
    for phone in [&hers, &his] {
        phone.has_text(group, "a third mark").await;
        let carols = |typing: &v1::UserTyping| typing.user_id == carol.id.to_string();
        assert!(!phone.state().typing.iter().any(carols));
    }
    world.end().await;
}

async fn start(world: &World, device: &Device) -> (Client, EventStream) {
    let credentials = Credentials {
        user: device.user,
        device: device.id,
        access_token: device.access_token.clone(),
        access_expires_at: Clock::wall() + Duration::from_secs(3000),
        refresh_token: device.refresh_token.clone(),
    };
    let config = ClientConfig::new(world.platform.gateway_urls(), StoreLocation::Memory)
        .tls(Tls::Roots(world.platform.ca_pem().unwrap()))
        .credentials(credentials);
    Client::start(config).await.unwrap()
}

/// Waits for the next typing event. Returns whether somebody is typing.
async fn next_typing(events: &mut EventStream) -> bool {
    let next = async {
        loop {
            if let Event::Typing { typing, .. } = events.next().await.expect("the client goes on") {
                return typing;
            }
        }
    };
    timeout(BOUND, next).await.expect("nothing of it")
}

#[tokio::test]
async fn an_app_is_told_when_it_begins_and_when_it_expires() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let (_client, mut events) = start(&world, &world.device(&bob).await).await;
    let chat = ChatId::direct(alice.id, bob.id);
    let sent = hers.say(bob.id, "hello").await;
    hers.receipt(chat, bob.id, sent.seq, 0).await;
    let began = Instant::now();
    let begins = {
        let mut next = pin!(next_typing(&mut events));
        loop {
            hers.typing(chat, false).await;
            if let Ok(begins) = timeout(PAUSE, next.as_mut()).await {
                break begins;
            }
        }
    };
    assert!(begins);
    assert!(!next_typing(&mut events).await);
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    world.end().await;
}
