//! The settings of a chat are the same on all devices of a user, and no other person is told of them.

use tern_local::until;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ChatSettings, ErrorReason};
use tern_tests::groups::{leave, view, why};
use tern_tests::own::{contents, keep, settings, told_settings};
use tern_tests::world::BOUND;
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId};

/// The most chats that a user may pin.
const MOST_PINNED: usize = 32;
/// The most bytes of a draft.
const LONGEST_DRAFT: usize = 8_192;

/// Returns the settings that a caller sees at a chat; those that it never changed are the defaults.
async fn shown(api: &Api, chat: ChatId) -> ChatSettings {
    let chat = view(api, chat).await.unwrap();
    chat.settings.unwrap_or_default()
}

#[tokio::test]
async fn what_one_device_sets_the_others_have_also_one_that_was_away_and_a_new_one() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, tablet, laptop) = (
        world.phone(&alice).await,
        world.phone(&alice).await,
        world.phone(&alice).await,
    );
    let his = world.phone(&bob).await;
    let group = hers.create_group(&[&bob]).await;
    laptop.disconnect().await;
    let change = v1::SetChatSettingsRequest {
        muted_until_ms: Some(i64::MAX),
        archived: Some(true),
        pinned: Some(true),
        draft: Some("Dear Bob".into()),
        mentions_only: Some(true),
        ..settings(group)
    };
    let done = keep(&hers.api(), change.clone()).await.unwrap();
    let now = done.settings.clone().unwrap();
    assert!(done.own_seq > 0 && now.pinned_at_ms > 0, "{now:?}");
    let expected = ChatSettings {
        muted_until_ms: i64::MAX,
        archived: true,
        pinned_at_ms: now.pinned_at_ms,
        marked_unread: false,
        draft: "Dear Bob".into(),
        mentions_only: true,
    };
    assert_eq!(now, expected);
    for phone in [&hers, &tablet] {
        told_settings(phone, group, &expected).await;
    }
    laptop.connect().await;
    told_settings(&laptop, group, &expected).await;
    let new = world.phone(&alice).await;
    for phone in [&hers, &new] {
        is_shown(&phone.api(), group, &expected).await;
    }
    // Again is the first result, and the same settings once more are no change.
    assert_eq!(keep(&hers.api(), change.clone()).await.unwrap(), done);
    let same = v1::SetChatSettingsRequest {
        request_id: RequestId::random().to_string(),
        pinned: None,
        ..change
    };
    assert_eq!(keep(&tablet.api(), same).await.unwrap().own_seq, 0);

    // Nobody else is told.
    let sent = hers.say(group, "hello").await;
    his.has(group, sent.seq).await;
    assert_eq!(shown(&his.api(), group).await, ChatSettings::default());
    let told = contents(&his);
    let of_settings = |content: &Content| matches!(content, Content::ChatSettingsChanged(_));
    assert!(!told.iter().any(of_settings), "{told:?}");
    world.end().await;
}

/// Checks that the only chat of this user has these settings.
async fn is_shown(api: &Api, group: ChatId, expected: &ChatSettings) {
    assert_eq!(shown(api, group).await, *expected);
    let list = v1::ListChatsRequest::default();
    let chats = api.chats().list_chats(list).await.unwrap().into_inner().chats;
    let chats = chats.into_iter().map(|chat| (chat.chat_id, chat.settings));
    let chats: Vec<_> = chats.collect();
    assert_eq!(
        chats,
        [(group.to_string(), Some(expected.clone()))],
        "and no own log"
    );
}

#[tokio::test]
async fn what_is_not_set_stays_and_each_setting_ends_by_itself() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, tablet) = (world.phone(&alice).await, world.phone(&alice).await);
    let group = hers.create_group(&[&bob]).await;
    /// A change, and the settings after it.
    type Step = (fn(&mut v1::SetChatSettingsRequest), ChatSettings);
    let steps: [Step; 4] = [
        (
            |change| change.muted_until_ms = Some(5_000),
            ChatSettings {
                muted_until_ms: 5_000,
                ..Default::default()
            },
        ),
        (
            |change| change.archived = Some(true),
            ChatSettings {
                muted_until_ms: 5_000,
                archived: true,
                ..Default::default()
            },
        ),
        (
            |change| change.muted_until_ms = Some(0),
            ChatSettings {
                archived: true,
                ..Default::default()
            },
        ),
        (|change| change.archived = Some(false), ChatSettings::default()),
    ];
    for (phone, (set, expected)) in [&hers, &tablet].into_iter().cycle().zip(steps) {
        let mut change = settings(group);
        set(&mut change);
        let now = keep(&phone.api(), change).await.unwrap().settings;
        assert_eq!(now.unwrap_or_default(), expected);
        told_settings(&hers, group, &expected).await;
        told_settings(&tablet, group, &expected).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_chat_marked_unread_is_so_until_it_is_read() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let tablet = world.phone(&alice).await;
    let group = hers.create_group(&[&bob]).await;
    let first = his.say(group, "hello").await.seq;
    hers.has(group, first).await;
    hers.read(group, first).await;
    hers.receipt(group, alice.id, 0, first).await;
    let change = v1::SetChatSettingsRequest {
        marked_unread: Some(true),
        ..settings(group)
    };
    let marked = ChatSettings {
        marked_unread: true,
        ..Default::default()
    };
    assert_eq!(
        keep(&hers.api(), change).await.unwrap().settings,
        Some(marked.clone())
    );
    told_settings(&tablet, group, &marked).await;
    // A message does not end it, and reading it does.
    let second = his.say(group, "are you there?").await.seq;
    tablet.has(group, second).await;
    assert_eq!(shown(&tablet.api(), group).await, marked);
    tablet.read(group, second).await;
    hers.receipt(group, alice.id, 0, second).await;
    until::some("it is marked no more", BOUND, || async {
        let now = shown(&hers.api(), group).await;
        anyhow::ensure!(!now.marked_unread, "{now:?}");
        Ok(())
    })
    .await
    .unwrap();
    world.end().await;
}

#[tokio::test]
async fn pins_and_drafts_are_bounded_and_chats_of_others_have_no_settings() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let pin = |chat| v1::SetChatSettingsRequest {
        pinned: Some(true),
        ..settings(chat)
    };
    let mut groups = Vec::new();
    for _ in 0..MOST_PINNED {
        let group = hers.create_group(&[]).await;
        keep(&hers.api(), pin(group)).await.unwrap();
        groups.push(group);
    }
    let more = hers.create_group(&[]).await;
    assert_eq!(why(keep(&hers.api(), pin(more)).await), ErrorReason::ListFull);
    let unpin = v1::SetChatSettingsRequest {
        pinned: Some(false),
        ..settings(groups[3])
    };
    keep(&hers.api(), unpin).await.unwrap();
    assert!(keep(&hers.api(), pin(more)).await.unwrap().own_seq > 0);

    let draft = |bytes: usize| v1::SetChatSettingsRequest {
        draft: Some(vec![b'x'; bytes].into()),
        ..settings(more)
    };
    keep(&hers.api(), draft(LONGEST_DRAFT)).await.unwrap();
    let refused = keep(&hers.api(), draft(LONGEST_DRAFT + 1)).await;
    let reason = why(refused);
    assert!(
        matches!(reason, ErrorReason::InvalidField | ErrorReason::TooLarge),
        "{reason:?}"
    );
    assert_eq!(shown(&hers.api(), more).await.draft.len(), LONGEST_DRAFT);
    assert_eq!(why(keep(&his.api(), pin(more)).await), ErrorReason::ChatNotFound);
    let nowhere: ChatId = RequestId::random().to_string().parse().unwrap();
    assert_eq!(
        why(keep(&hers.api(), pin(nowhere)).await),
        ErrorReason::ChatNotFound
    );
    world.end().await;
}

/// A pin would otherwise count among the 32 for ever.
#[tokio::test]
async fn who_has_left_a_chat_still_unpins_it() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = his.create_group(&[&alice]).await;
    let pin = |pinned| v1::SetChatSettingsRequest {
        pinned: Some(pinned),
        ..settings(group)
    };
    let pinned = pin(true);
    let first = keep(&hers.api(), pinned.clone()).await.unwrap();
    leave(&hers.api(), group).await.unwrap();
    assert_eq!(keep(&hers.api(), pinned).await.unwrap(), first, "it is repeated");
    let now = keep(&hers.api(), pin(false)).await.unwrap();
    assert_eq!(now.settings, Some(ChatSettings::default()));
    assert!(now.own_seq > first.own_seq);
    world.end().await;
}

#[tokio::test]
async fn a_back_end_keeps_chats_for_a_user_whom_it_names() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let direct: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    let mute = |user_id: String| v1::SetChatSettingsRequest {
        user_id,
        muted_until_ms: Some(i64::MAX),
        ..settings(direct)
    };
    let back_end = world.back_end().await;
    keep(back_end, mute(alice.id.to_string())).await.unwrap();
    let muted = ChatSettings {
        muted_until_ms: i64::MAX,
        ..Default::default()
    };
    told_settings(&hers, direct, &muted).await;
    assert_eq!(
        why(keep(back_end, mute(String::new())).await),
        ErrorReason::InvalidField
    );
    let for_bob = keep(&hers.api(), mute(bob.id.to_string())).await;
    assert_eq!(why(for_bob), ErrorReason::NotForDevices);
    has_defaults(&world.phone(&bob).await, direct).await;
    world.end().await;
}

async fn has_defaults(phone: &Phone, chat: ChatId) {
    assert_eq!(shown(&phone.api(), chat).await, ChatSettings::default());
}
