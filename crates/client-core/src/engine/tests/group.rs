//! These tests hold what entries change of a group besides its title and its members.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, Role};
use tern_types::Seq;

use super::{chat, connected, feed};
use crate::engine::{Call, Input};
use crate::model::{Chat, Event, ListedChat};
use crate::testing::{NOW, entry, user, wire};

/// Returns the group after these changes by user 2, as the app is told of it. User 1, whose device it is, is its owner.
fn after(changes: impl IntoIterator<Item = Content>) -> Chat {
    let mut engine = connected();
    let mut told = None;
    let created = Content::ChatCreated(v1::ChatCreated::default());
    let others = changes.into_iter().map(|change| (user(2), change));
    for (seq, (sender, content)) in (1..).zip([(user(1), created)].into_iter().chain(others)) {
        let mut change = entry(chat(1), seq);
        change.sender = Some(sender);
        change.content.content = Some(content);
        for event in feed(&mut engine, Wire::Entry(wire(&change))).events {
            if let Event::Chat(chat) = event {
                told = Some(chat);
            }
        }
    }
    told.expect("the chat is told")
}

#[test]
fn entries_change_description_policy_retention_and_freeze() {
    let policy = v1::GroupPolicy {
        send_role: Role::Admin.into(),
        slow_mode_s: 30,
        ..Default::default()
    };
    let retention = v1::Retention {
        disappear_after_s: 60,
        ..Default::default()
    };
    let group = after([
        Content::ChatDescriptionChanged(v1::ChatDescriptionChanged {
            description: "about fish".into(),
        }),
        Content::GroupPolicyChanged(v1::GroupPolicyChanged { policy: Some(policy) }),
        Content::RetentionChanged(v1::RetentionChanged {
            retention: Some(retention),
        }),
        Content::ChatFrozen(v1::ChatFrozen { frozen: true }),
    ]);
    assert_eq!(group.description, "about fish");
    assert_eq!(
        (group.policy, group.retention, group.frozen),
        (policy, retention, true)
    );
    let thawed = after([
        Content::ChatFrozen(v1::ChatFrozen { frozen: true }),
        Content::ChatFrozen(v1::ChatFrozen { frozen: false }),
    ]);
    assert!(!thawed.frozen);
}

#[test]
fn roles_follow_who_is_handed_the_group_and_who_succeeds_its_last_owner() {
    let role = |user_id: String, role: Role, handed_over| {
        Content::RoleChanged(v1::RoleChanged {
            user_id,
            role: role.into(),
            handed_over,
        })
    };
    let (me, other) = (user(1).to_string(), user(3).to_string());
    let left = |new_owner: &str| {
        Content::MemberRemoved(v1::MemberRemoved {
            user_id: user(2).to_string(),
            left: true,
            new_owner_user_id: new_owner.to_owned(),
        })
    };
    let to_member = || role(me.clone(), Role::Member, false);
    for (what, changes, expected) in [
        ("a role", vec![to_member()], Role::Member),
        (
            "another hands over",
            vec![role(other.clone(), Role::Owner, true)],
            Role::Owner,
        ),
        ("succeeds", vec![to_member(), left(&me)], Role::Owner),
        ("another succeeds", vec![to_member(), left(&other)], Role::Member),
    ] {
        assert_eq!(after(changes).role, expected, "{what}");
    }
}

#[test]
fn who_hands_the_group_over_is_an_admin() {
    let mut engine = connected();
    let mut role = None;
    let created = Content::ChatCreated(v1::ChatCreated::default());
    let handed = Content::RoleChanged(v1::RoleChanged {
        user_id: user(2).to_string(),
        role: Role::Owner.into(),
        handed_over: true,
    });
    for (seq, content) in [(1, created), (2, handed)] {
        let mut change = entry(chat(1), seq);
        change.sender = Some(user(1));
        change.content.content = Some(content);
        for event in feed(&mut engine, Wire::Entry(wire(&change))).events {
            if let Event::Chat(chat) = event {
                role = Some(chat.role);
            }
        }
    }
    assert_eq!(role, Some(Role::Admin));
}

#[test]
fn who_joins_knows_where_their_history_begins() {
    let me = user(1).to_string();
    for (history_from_seq, expected) in [(0, Seq(2)), (1, Seq(1))] {
        let added = v1::MembersAdded {
            user_ids: vec![me.clone()],
            history_from_seq,
        };
        let group = after([Content::MembersAdded(added)]);
        assert_eq!(group.history_from_seq, expected);
    }
}

/// Another admin may have taken somebody who asked.
#[test]
fn requests_to_join_are_counted_anew_when_somebody_was_added() {
    let mut engine = connected();
    feed(&mut engine, Wire::Entry(wire(&entry(chat(1), 1))));
    let listed = v1::Chat {
        chat_id: chat(1).to_string(),
        kind: v1::ChatKind::Group.into(),
        head_seq: 1,
        join_request_count: 2,
        ..Default::default()
    };
    let answer = Input::LookedUp {
        chat: chat(1),
        result: Ok(ListedChat::try_from(listed).unwrap()),
    };
    engine.apply([answer], NOW);
    let mut added = entry(chat(1), 2);
    added.content.content = Some(Content::MembersAdded(v1::MembersAdded {
        user_ids: vec![user(3).to_string()],
        ..Default::default()
    }));
    let effects = feed(&mut engine, Wire::Entry(wire(&added)));
    assert_eq!(effects.calls, [Call::GetChat(chat(1))]);
}
