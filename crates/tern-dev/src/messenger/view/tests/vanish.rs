//! Tests that what has disappeared is not shown any more.

use std::time::Duration;

use tern_client::Hit;

use super::*;

/// Returns a message of Bob that was sent just now and disappears after this many seconds.
fn fleeting(seq: u64, expires_after_s: u32) -> Entry {
    let mut entry = said(seq, user(2), "the nest is there");
    entry.sent_at = Clock::wall();
    entry.content.expires_after_s = expires_after_s;
    entry
}

fn texts(view: &View) -> Vec<String> {
    view.lines(CHAT).into_iter().map(|line| line.text).collect()
}

#[test]
fn a_message_is_shown_until_its_time_is_over_and_leaves_nothing() {
    let mut view = view(3);
    view.open = Some(CHAT);
    view.add(said(1, user(2), "stays"));
    let entry = fleeting(2, 3600);
    let sent_at = entry.sent_at;
    view.add(entry);
    view.add(entry_about(3, 2));
    view.found = vec![Hit {
        message: view.message(CHAT, Seq(2)).unwrap(),
        text: "the nest is there".to_owned(),
        places: Vec::new(),
    }];
    assert!(!view.expire(sent_at + Duration::from_secs(3599)));
    assert_eq!(texts(&view), ["stays", "the nest is there"]);
    assert!(view.expire(sent_at + Duration::from_secs(3600)));
    assert_eq!(texts(&view), ["stays"]);
    assert!(!format!("{view:?}").contains("nest"), "{view:?}");
    assert!(!view.expire(sent_at + Duration::from_secs(3601)), "it is gone");
    assert_eq!(
        (view.oldest(CHAT), view.newest(CHAT)),
        (Some(Seq(1)), Some(Seq(3))),
        "the places in the log stay"
    );
}

/// Returns Carol's reaction to a message.
fn entry_about(seq: u64, target: u64) -> Entry {
    entry(seq, user(3), MessageKind::Reaction, target, "👍")
}

#[test]
fn what_comes_too_late_or_without_its_content_is_not_shown_at_all() {
    let mut view = view(3);
    let late = Entry {
        sent_at: NOW,
        ..fleeting(1, 5)
    };
    let mut expired = said(2, user(2), "");
    expired.content.content = Some(Content::Erased(v1::Erased {
        kind: MessageKind::Message.into(),
        target_seq: 0,
        expired: true,
    }));
    view.add(late);
    view.add(expired);
    assert_eq!(texts(&view), [""; 0]);
}

#[test]
fn what_the_user_deleted_for_themselves_is_gone_from_the_chat_and_from_what_was_found() {
    let mut view = view(3);
    view.open = Some(CHAT);
    view.add(said(1, user(2), "secret"));
    view.add(said(2, user(2), "known"));
    view.add(entry(3, user(2), MessageKind::Edit, 1, "secret too"));
    view.found = vec![Hit {
        message: view.message(CHAT, Seq(1)).unwrap(),
        text: "secret too".to_owned(),
        places: Vec::new(),
    }];
    view.hide(CHAT, &[Seq(1), Seq(99)]);
    assert_eq!(texts(&view), ["known"]);
    assert!(!format!("{view:?}").contains("secret"), "{view:?}");
    assert!(view.found_lines(NOW)[0].ends_with("This message is gone"));
    assert_eq!(view.target(Some(1), false), None);
}
