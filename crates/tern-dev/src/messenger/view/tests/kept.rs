//! Tests the order of the list of chats, and what is said of how they are kept.

use std::time::Duration;

use super::*;

fn id(number: u128) -> ChatId {
    ChatId(Uuid::from_u128(number))
}

/// Returns a view with six groups. The higher a number, the more recently the group was active. 2 was pinned before 1, 5
/// is in the archive, and 6 too, although it is pinned.
fn six() -> View {
    let mut view = View::new(user(1), DeviceId(Uuid::from_u128(11)));
    for number in 1..=6 {
        let mut group = chat(id(number), ChatKind::Group);
        group.active_at = NOW + Duration::from_secs(u64::try_from(number).unwrap());
        group.settings.pinned_at_ms = match number {
            1 => 20,
            2 => 10,
            6 => 30,
            _ => 0,
        };
        group.settings.archived = number >= 5;
        view.set_chat(group);
    }
    view
}

fn numbers(chats: &[&Chat]) -> Vec<u128> {
    chats.iter().map(|chat| chat.id.0.as_u128()).collect()
}

#[test]
fn pinned_chats_come_first_and_archived_ones_last_and_folded() {
    let mut view = six();
    assert_eq!(numbers(&view.chats()), [1, 2, 4, 3, 6, 5]);
    let shown = |view: &View| {
        let listed = view.listed();
        (numbers(&listed.chats), listed.archived, listed.folded)
    };
    assert_eq!(shown(&view), (vec![1, 2, 4, 3], 2, true));
    view.archive_open = true;
    assert_eq!(shown(&view), (vec![1, 2, 4, 3, 6, 5], 2, false));
    view.archive_open = false;
    view.open = Some(id(5));
    assert_eq!(shown(&view), (vec![1, 2, 4, 3, 6, 5], 2, false));
    view.open = Some(id(4));
    assert!(shown(&view).2);
    assert_eq!(
        view.chat_named("6"),
        Some(id(5)),
        "a number finds the archived too"
    );
}

#[test]
fn what_is_said_of_a_chat_is_what_matters_now() {
    let view = six();
    let mut group = chat(id(1), ChatKind::Group);
    assert_eq!(view.kept(&group, NOW), "");
    group.settings.marked_unread = true;
    assert_eq!(view.kept(&group, NOW), "marked as unread");
    (group.unread, group.unread_mention_count) = (7, 2);
    group.settings.muted_until_ms = NOW.0 + 1;
    group.settings.pinned_at_ms = 1;
    group.settings.archived = true;
    assert_eq!(
        view.kept(&group, NOW),
        "7 new, 2 for you, muted, pinned, archived"
    );
    let later = NOW + Duration::from_millis(1);
    assert!(!view.kept(&group, later).contains("muted"));
}

#[test]
fn a_draft_of_this_device_counts_until_the_server_has_it() {
    let mut view = view(2);
    let told = |view: &mut View, draft: &str| {
        let mut chat = view.rooms[&CHAT].chat.clone().unwrap();
        chat.settings.draft = draft.to_owned().into_bytes().into();
        view.apply(&Event::Chat(chat), NOW);
    };
    told(&mut view, "of the laptop");
    assert_eq!(view.draft(CHAT), "of the laptop");
    view.room(CHAT).draft = Some("of this device".to_owned());
    told(&mut view, "of the laptop");
    assert_eq!(view.draft(CHAT), "of this device");
    view.draft_kept(CHAT, "an earlier one");
    assert_eq!(view.draft(CHAT), "of this device");
    view.draft_kept(CHAT, "of this device");
    assert_eq!(view.draft(CHAT), "of this device");
    told(&mut view, "of the laptop again");
    assert_eq!(view.draft(CHAT), "of the laptop again");
}

#[test]
fn who_may_not_write_is_told_why_and_may_still_react_unless_all_is_closed() {
    let frozen = Some("the operator froze this chat");
    let cases = [
        (v1::Role::Unspecified, v1::Role::Member, false, None, None),
        (
            v1::Role::Admin,
            v1::Role::Member,
            false,
            None,
            Some("only admins write here"),
        ),
        (v1::Role::Admin, v1::Role::Admin, false, None, None),
        (
            v1::Role::Owner,
            v1::Role::Admin,
            false,
            None,
            Some("only owners write here"),
        ),
        (v1::Role::Admin, v1::Role::Member, true, frozen, frozen),
    ];
    for (send, mine, is_frozen, closed, silent) in cases {
        let mut view = view(3);
        let mut group = chat(CHAT, ChatKind::Group);
        group.policy.send_role = send.into();
        (group.role, group.frozen) = (mine, is_frozen);
        view.set_chat(group);
        assert_eq!(
            (view.closed(CHAT), view.silent(CHAT)),
            (closed, silent),
            "{send:?}"
        );
    }
}
