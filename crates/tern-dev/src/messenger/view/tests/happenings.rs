//! Tests how it is told what happened in a chat.

use super::*;

/// Returns what is told of this content, which Bob has caused.
fn told(content: Content) -> Option<String> {
    let mut view = view(3);
    view.add(Entry {
        content: v1::EntryContent {
            content: Some(content),
            ..Default::default()
        },
        ..said(1, user(2), "")
    });
    view.lines(CHAT).pop().map(|line| line.text)
}

fn id(number: u128) -> String {
    user(number).to_string()
}

fn gone(number: u128, left: bool, new_owner_user_id: String) -> Content {
    Content::MemberRemoved(v1::MemberRemoved {
        user_id: id(number),
        left,
        new_owner_user_id,
    })
}

fn added(user_ids: Vec<String>) -> Content {
    Content::MembersAdded(v1::MembersAdded {
        user_ids,
        ..Default::default()
    })
}

#[test]
fn who_came_and_went_is_told_by_name() {
    let role = |number, role: v1::Role, handed_over| {
        Content::RoleChanged(v1::RoleChanged {
            user_id: id(number),
            role: role.into(),
            handed_over,
        })
    };
    let (none, admin, owner) = (String::new, v1::Role::Admin, v1::Role::Owner);
    for (content, text) in [
        (
            added(vec![id(3), id(1), "garbage".into()]),
            "Bob added Carol, you, …",
        ),
        (added(vec![id(3)]), "Bob added Carol"),
        (added(vec![id(2)]), "Bob joined by a link"),
        (gone(2, true, none()), "Bob left"),
        (gone(2, true, id(3)), "Bob left: Carol is the owner now"),
        (gone(2, true, id(1)), "Bob left: you are the owner now"),
        (gone(3, false, none()), "Bob removed Carol"),
        (role(3, admin, false), "Bob made Carol admin"),
        (
            role(3, owner, true),
            "Bob handed the group over: Carol is the owner now",
        ),
        (
            role(1, owner, true),
            "Bob handed the group over: you are the owner now",
        ),
    ] {
        assert_eq!(told(content).as_deref(), Some(text));
    }
}

#[test]
fn what_was_changed_is_told_in_full() {
    let description = |text: &str| {
        Content::ChatDescriptionChanged(v1::ChatDescriptionChanged {
            description: text.to_owned(),
        })
    };
    let frozen = |frozen| Content::ChatFrozen(v1::ChatFrozen { frozen });
    let policy = v1::GroupPolicy {
        send_role: v1::Role::Admin.into(),
        ..Default::default()
    };
    let retention = v1::Retention {
        disappear_after_s: 3600,
        ..Default::default()
    };
    for (content, text) in [
        (
            description("we\u{1b}[31m eat"),
            "Bob changed the description: we[31m eat",
        ),
        (description(""), "Bob removed the description"),
        (frozen(true), "The operator froze this chat"),
        (frozen(false), "The operator froze this chat no more"),
        (
            Content::GroupPolicyChanged(v1::GroupPolicyChanged { policy: Some(policy) }),
            "Bob changed the rules: admins may write, admins may add members, admins may edit; new members read nothing \
             of what was before",
        ),
        (
            Content::RetentionChanged(v1::RetentionChanged {
                retention: Some(retention),
            }),
            "Bob changed how long messages stay: they disappear after 1 h",
        ),
    ] {
        assert_eq!(told(content).as_deref(), Some(text));
    }
    let hidden = Content::MessagesHidden(v1::MessagesHidden::default());
    assert_eq!(told(hidden), None, "that is for the user's devices");
}
