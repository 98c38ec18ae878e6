//! These tests hold which items count as activity of the user, and how many users the device may watch.

use std::time::Duration;

use tern_proto::v1::{WatchErrorCode, server_event::Event as Kind};
use tern_types::UserId;

use super::{Talk, ack, live, talk};
use crate::session::{Effect, Event, Item, Mail};

fn active(active: bool) -> Item {
    Item::SetActive { active }
}

/// Returns the signs of activity that presence is told: whether the user is active, and the seconds since the start.
fn signs(talk: &Talk) -> Vec<(bool, u64)> {
    let signs = talk.wants.iter().filter_map(|effect| match effect {
        Effect::Sign {
            active,
            at,
            tell: true,
        } => Some((*active, at.since(super::START).as_secs())),
        _ => None,
    });
    signs.collect()
}

#[test]
fn activity_is_told_at_once_when_it_changes_and_not_more_often_than_it_matters() {
    let mut talk = talk().opened().item(active(true));
    for _ in 0..30 {
        talk = talk.wait(Duration::from_secs(1)).item(active(true));
    }
    talk = talk.item(active(false)).item(active(false));
    assert_eq!(
        signs(&talk),
        [(true, 0), (true, 10), (true, 20), (true, 30), (false, 30)]
    );
    let answers = talk
        .said
        .iter()
        .filter(|kind| matches!(kind, Kind::HeartbeatAck(_)));
    assert_eq!(answers.count(), 2, "changes are answered, repetitions are not");
}

#[test]
fn each_sign_is_kept_for_the_sessions_end_and_the_first_waits_for_the_devices_inbox() {
    let token = Ok(talk().identity);
    let open = Item::Open {
        token,
        client_version: String::new(),
        active: true,
    };
    let mut talk = talk().item(open);
    let kept = |talk: &Talk| {
        let signs = talk.wants.iter().filter_map(|effect| match effect {
            Effect::Sign { at, .. } => Some(at.since(super::START).as_secs()),
            _ => None,
        });
        signs.collect::<Vec<u64>>()
    };
    assert!(kept(&talk).is_empty(), "the device may have been revoked");
    talk = talk
        .tell(Event::Announced)
        .tell(Event::Mail(Mail::Inbox(super::inbox())));
    for _ in 0..3 {
        talk = talk.wait(Duration::from_secs(1)).item(active(true));
    }
    assert_eq!((kept(&talk), signs(&talk)), (vec![0, 1, 2, 3], vec![(true, 0)]));
}

#[test]
fn sends_of_an_active_device_are_signs_and_nothing_else_is() {
    let chat = tern_types::ChatId::own(UserId::random());
    let app = |talk: Talk| {
        talk.wait(Duration::from_secs(15))
            .tell(Event::Frame)
            .item(Item::Heartbeat { token: 1 })
            .tell(live(chat, 1))
            .item(ack(chat, 1))
            .tell(Event::Redrain)
    };
    let background = app(talk().opened()).send(|_| {});
    assert_eq!(signs(&background), [], "the app may do what it likes");
    let talk = app(app(talk().opened().item(active(true)))).send(|_| {});
    assert_eq!(signs(&talk), [(true, 0), (true, 30)]);
}

#[test]
fn a_screen_of_up_to_256_people_is_watched_each_once_and_anything_else_changes_nothing() {
    let users: Vec<UserId> = (0..256).map(|_| UserId::random()).collect();
    let mut named: Vec<String> = users.iter().map(ToString::to_string).collect();
    named[1] = named[0].to_uppercase();
    let talk = talk().opened().item(Item::WatchPresence(named.clone()));
    let watched = talk.wants.iter().find_map(|effect| match effect {
        Effect::Watch(users) => Some(users.len()),
        _ => None,
    });
    assert_eq!((watched, talk.said.len()), (Some(255), 0));
    let mut many = named.clone();
    many.push(UserId::random().to_string());
    for bad in [many, vec!["not an id".to_owned()]] {
        let talk = super::talk().opened().item(Item::WatchPresence(bad));
        let Some(Kind::WatchResult(result)) = talk.said.last() else {
            panic!("{:?}", talk.said)
        };
        assert_eq!(result.error(), WatchErrorCode::Invalid);
        assert!(talk.wants.is_empty(), "{:?}", talk.wants);
    }
}

#[test]
fn who_changes_the_screen_without_end_is_told_to_wait() {
    let mut talk = talk().opened();
    for _ in 0..10 {
        talk = talk.item(Item::WatchPresence(Vec::new()));
    }
    assert!(talk.said.is_empty());
    talk = talk.item(Item::WatchPresence(Vec::new()));
    let Some(Kind::WatchResult(result)) = talk.said.last() else {
        panic!("{:?}", talk.said)
    };
    let wait = u64::from(result.retry_after_ms);
    assert_eq!(result.error(), WatchErrorCode::RateLimited);
    assert!((1..=1000).contains(&wait), "{wait}");
    let talk = talk
        .wait(Duration::from_millis(wait))
        .item(Item::WatchPresence(Vec::new()));
    assert_eq!(talk.said.len(), 1, "then it is taken again");
}
