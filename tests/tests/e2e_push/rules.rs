//! Tests of what is announced to whom.

use tern_proto::v1::{self, Envelope, NotificationReason, PushClass, PushHint};
use tern_tests::acts::{self, Act, By, done};
use tern_tests::{Phone, own};
use tern_types::{ChatId, Clock};

use crate::scene::{Away, Due, Scene};
use crate::services::Service;

/// Returns a message with this hint.
fn hinted(text: &str, hint: PushHint) -> Act {
    Act {
        envelope: Envelope {
            push_hint: hint.into(),
            ..Envelope::default()
        },
        body: text.to_owned(),
    }
}

#[tokio::test]
async fn muted_chats_and_blocked_people_are_not_announced() {
    let scene = Scene::start().await;
    let [alice, bob, carol] = scene.world.users(["alice", "bob", "carol"]).await;
    let (hers, carols) = (scene.world.phone(&alice).await, scene.world.phone(&carol).await);
    let muted = scene.world.group(&[&alice, &bob]).await;
    let mentions = scene.world.group(&[&alice, &bob]).await;
    let with_carol = scene.world.group(&[&alice, &bob, &carol]).await;
    // A device that is linked after that is not told that he was added.
    scene.world.settled().await;
    let his = scene.away(&bob, Service::Apns).await;
    let api = scene.api(&his);
    let mute = v1::SetChatSettingsRequest {
        muted_until_ms: Some(i64::MAX),
        ..own::settings(muted)
    };
    own::keep(&api, mute).await.unwrap();
    let only = v1::SetChatSettingsRequest {
        mentions_only: Some(true),
        ..own::settings(mentions)
    };
    own::keep(&api, only).await.unwrap();
    let block = v1::BlockRequest {
        blocked_user_id: carol.id.to_string(),
        ..Default::default()
    };
    api.users().block(block).await.unwrap();
    // He knows already that Alice has made these groups with him.
    for chat in [muted, mentions, with_carol] {
        let chat_id = chat.to_string();
        api.inbox().ack(v1::AckRequest { chat_id, seq: 1 }).await.unwrap();
    }

    hers.say(muted, "you do not hear this").await;
    hers.say(mentions, "nor this").await;
    carols.say(with_carol, "nor me").await;
    scene.world.settled().await;
    for chat in [muted, mentions, with_carol] {
        scene.decided(&his, chat).await;
    }
    let taken = scene.taken(&his);
    assert!(taken.is_empty(), "{taken:?}");

    // Other people who write there are announced, and so is a message that names him.
    scene.a_minute_later(&his, with_carol).await;
    hers.say(with_carol, "but me").await;
    let (_, says) = scene.alert(&his, 1).await;
    assert_eq!(says.sender_user_id, alice.id.to_string());
    assert_eq!((says.group, &*says.chat_title), (true, "a group"));
    scene.a_minute_later(&his, mentions).await;
    let mut mention = acts::say("bob!");
    mention.envelope.mentioned_user_ids = vec![bob.id.to_string()];
    let mentioned = done(&hers, By::Stream, mentions, &mention).await;
    let (_, says) = scene.alert(&his, 2).await;
    assert_eq!(says.reason(), NotificationReason::Mention);
    assert_eq!((says.chat_id, says.seq), (mentions.to_string(), mentioned.seq));
    scene.end().await;
}

/// Asia/Kolkata is 5 hours and 30 minutes ahead of UTC in all of the year.
const KOLKATA_AHEAD_MIN: i64 = 330;

/// Returns the hours from `from` to `to` minutes after the present time of Kolkata.
fn hours_around_now(from: i64, to: i64) -> v1::NotificationSettings {
    let now_min = Clock::wall().0 / 60_000 + KOLKATA_AHEAD_MIN;
    let minute = |offset: i64| u32::try_from((now_min + offset).rem_euclid(1_440)).unwrap();
    let quiet_hours = v1::QuietHours {
        from_minute: minute(from),
        to_minute: minute(to),
        time_zone: "Asia/Kolkata".to_owned(),
    };
    v1::NotificationSettings {
        quiet_hours: Some(quiet_hours),
    }
}

#[tokio::test]
async fn in_quiet_hours_a_push_waits_for_their_end() {
    let scene = Scene::start().await;
    let [alice, bob, carol] = scene.world.users(["alice", "bob", "carol"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    let carols = scene.away(&carol, Service::Apns).await;
    // The hours end at least two hours, and at most three, after this line.
    for (away, settings) in [
        (&his, hours_around_now(-60, 180)),
        (&carols, hours_around_now(120, 180)),
    ] {
        let set = v1::SetNotificationSettingsRequest {
            user_id: String::new(),
            settings: Some(settings.clone()),
        };
        let mut users = scene.api(away).users();
        let answer = users.set_notification_settings(set).await.unwrap().into_inner();
        assert_eq!(answer.settings.as_ref(), Some(&settings));
        let get = v1::GetNotificationSettingsRequest::default();
        let read = users.get_notification_settings(get).await.unwrap().into_inner();
        assert_eq!(read.settings, Some(settings));
    }
    let chat: ChatId = hers.say(bob.id, "asleep?").await.chat_id.parse().unwrap();
    let until_the_end = |due: Due| due.in_s.is_some_and(|in_s| (7_200.0..=10_860.0).contains(&in_s));
    scene
        .until_due(
            &his,
            chat,
            "the push waits for the end of the hours",
            until_the_end,
        )
        .await;
    hers.say(carol.id, "you are not").await;
    scene.alert(&carols, 1).await;
    assert_eq!(scene.taken(&his).len(), 0);
    scene.end().await;
}

#[tokio::test]
async fn a_push_hint_decides_what_a_message_does_on_the_device() {
    let scene = Scene::start().await;
    let [alice, bob, carol] = scene.world.users(["alice", "bob", "carol"]).await;
    let (hers, carols) = (scene.world.phone(&alice).await, scene.world.phone(&carol).await);
    let his = scene.away(&bob, Service::Apns).await;
    let (by_alice, by_carol) = (ChatId::direct(alice.id, bob.id), ChatId::direct(carol.id, bob.id));
    // The chats begin with messages that he has.
    for phone in [&hers, &carols] {
        phone.say(bob.id, "hello").await;
    }
    let taken = scene.pushes(&his, 2).await.len();
    let his_phone = scene.world.phone_of(&his.device).await;
    for (phone, chat) in [(&hers, by_alice), (&carols, by_carol)] {
        let log = his_phone.has_text(chat, "hello").await;
        phone.receipt(chat, bob.id, log.cursor, 0).await;
    }
    his_phone.disconnect().await;
    drop(his_phone);

    done(&carols, By::Stream, by_carol, &hinted("nothing", PushHint::None)).await;
    scene.world.settled().await;
    scene.decided(&his, by_carol).await;
    done(&hers, By::Stream, by_alice, &hinted("wake up", PushHint::Silent)).await;
    let pushes = scene.pushes(&his, taken + 1).await;
    let silent = pushes.last().unwrap();
    assert_eq!((silent.class, &silent.sealed), (PushClass::Silent, &None));
    assert_eq!(silent.header("apns-push-type"), "background");
    // The silent push has shown nothing, so the next one is an alert.
    scene.a_minute_later(&his, by_alice).await;
    done(&hers, By::Call, by_alice, &hinted("look", PushHint::Alert)).await;
    scene.alert(&his, taken + 2).await;
    scene.end().await;
}

/// A group of three in which everybody has everything, and Bob is then away.
struct Group {
    chat: ChatId,
    hers: Phone,
    carols: Phone,
    his: Away,
    /// The seqs of a message of Alice and of one of Bob.
    by_alice: u64,
    by_bob: u64,
}

impl Group {
    async fn begin(scene: &Scene) -> Self {
        let [alice, bob, carol] = scene.world.users(["alice", "bob", "carol"]).await;
        let (hers, carols) = (scene.world.phone(&alice).await, scene.world.phone(&carol).await);
        let chat = scene.world.group(&[&alice, &bob, &carol]).await;
        let his = scene.world.phone(&bob).await;
        let by_alice = hers.say(chat, "by alice").await.seq;
        let by_bob = his.say(chat, "by bob").await.seq;
        his.has(chat, by_bob).await;
        carols.has(chat, by_bob).await;
        hers.receipt(chat, bob.id, by_bob, 0).await;
        his.disconnect().await;
        let his = scene.away_as(his.device().clone(), Service::Apns).await;
        Self {
            chat,
            hers,
            carols,
            his,
            by_alice,
            by_bob,
        }
    }
}

#[tokio::test]
async fn what_is_done_to_a_message_is_announced_to_nobody_but_a_reaction_to_its_author() {
    let scene = Scene::start().await;
    let group = Group::begin(&scene).await;
    let Group { chat, hers, his, .. } = &group;
    let stranger = scene.world.user("dave").await;
    for act in [
        acts::edit(group.by_alice, "by alice, again"),
        acts::pin(group.by_alice),
        acts::react(group.by_alice, "by herself"),
        acts::take_back(acts::react(group.by_bob, "never was")),
        acts::delete(group.by_alice),
    ] {
        done(hers, By::Stream, *chat, &act).await;
    }
    acts::add(hers, *chat, &stranger).await;
    scene.world.settled().await;
    scene.decided(his, *chat).await;
    assert_eq!(scene.taken(his).len(), 0);

    scene.a_minute_later(his, *chat).await;
    let reaction = done(&group.carols, By::Stream, *chat, &acts::react(group.by_bob, "+1")).await;
    let (_, says) = scene.alert(his, 1).await;
    assert_eq!(
        (says.reason(), says.seq),
        (NotificationReason::Reaction, reaction.seq)
    );
    assert_eq!(says.sender_name, "carol");
    scene.end().await;
}

#[tokio::test]
async fn who_is_added_to_a_group_is_told_and_so_is_whose_account_gets_a_device() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    let group = hers.create_group(&[&bob]).await;
    let (_, says) = scene.alert(&his, 1).await;
    assert_eq!(says.reason(), NotificationReason::Added);
    assert_eq!((says.chat_id, says.group), (group.to_string(), true));
    assert_eq!(says.sender_user_id, alice.id.to_string());

    scene.world.try_device(&bob).await.unwrap();
    let (push, says) = scene.alert(&his, 2).await;
    assert_eq!(says.reason(), NotificationReason::OwnLog);
    assert_eq!(says.chat_id, ChatId::own(bob.id).to_string());
    assert_eq!(
        push.tag,
        tern_local::push::tag(his.device.id, ChatId::own(bob.id))
    );
    // Settings are written into his own log too, and nobody has to know at once.
    scene.a_minute_later(&his, ChatId::own(bob.id)).await;
    let archive = v1::SetChatSettingsRequest {
        archived: Some(true),
        ..own::settings(group)
    };
    own::keep(&scene.api(&his), archive).await.unwrap();
    scene.world.settled().await;
    scene.decided(&his, ChatId::own(bob.id)).await;
    let alerts = scene.taken(&his);
    let alerts = alerts
        .iter()
        .filter(|push| push.class == PushClass::Alert)
        .count();
    assert_eq!(alerts, 2);
    scene.end().await;
}
