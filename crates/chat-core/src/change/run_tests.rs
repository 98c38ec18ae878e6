//! Tests of how a group is run: description, policy, frost, and who owns it.

use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{DeviceId, RequestId, Seq, UserId};
use uuid::Uuid;

use super::tests::{asked, chat, media, user};
use super::{Action, Change, Permitted};
use crate::entry::Sending;
use crate::group::{ChatKind, Group, Member, Role};
use crate::policy::{JoinerHistory, Policy};
use crate::{ChangeRefusal, Refusal};

const TOO_LOW: Result<(), ChangeRefusal> = Err(ChangeRefusal::RoleTooLow);

/// Returns the content of the entry at seq 20 that the action becomes.
fn content(group: &Group, actor: UserId, action: &Action) -> Content {
    let change = Change {
        actor,
        device: DeviceId::BACK_END,
        request: RequestId(Uuid::nil()),
        fingerprint: [0; 16],
        action: action.clone(),
        sending: Sending::default(),
    };
    let entry = v1::Entry {
        content: change.entry(action, group, Seq(20)).content,
        ..v1::Entry::default()
    };
    entry.decoded_content().unwrap().content.unwrap()
}

/// Returns the action that the asked one becomes.
fn permitted(group: &Group, actor: UserId, action: Action) -> Action {
    match asked(group, actor, action) {
        Ok(Permitted::Entry(action)) => action,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_policy_says_which_role_may_do_what() {
    let description = || Action::SetDescription("new".into());
    let policy = || {
        Action::SetPolicy(Policy {
            slow_mode: 9,
            ..Policy::default()
        })
    };
    let changes = || {
        [
            description(),
            Action::SetTitle("new".into()),
            Action::SetPicture(Some(media(2))),
        ]
    };
    let add = || Action::Add(vec![user(9)]);
    // The role that is needed, and for the owner, an admin and a member whether they may do it.
    let cases = [
        (Role::Member, [Ok(()), Ok(()), Ok(())]),
        (Role::Admin, [Ok(()), Ok(()), TOO_LOW]),
        (Role::Owner, [Ok(()), TOO_LOW, TOO_LOW]),
    ];
    for (role, expected) in cases {
        let mut group = chat(ChatKind::Group);
        group.policy.edit_role = role;
        let asked = |group: &Group, actor, action| asked(group, user(actor), action).map(drop);
        for (actor, expected) in (1..).zip(&expected) {
            for action in changes() {
                let actual = asked(&group, actor, action.clone());
                assert_eq!(&actual, expected, "{actor}: {action:?}, {role:?} needed");
            }
            // The other roles of the policy do not matter.
            let may_add = asked(&group, actor, add()).is_ok();
            assert_eq!(may_add, actor < 3, "{actor}");
        }
        assert_eq!(asked(&group, 0, description()), Ok(()), "the system may do all");
        let mut group = chat(ChatKind::Group);
        group.policy.add_role = role;
        for (actor, expected) in (1..).zip(&expected) {
            assert_eq!(&asked(&group, actor, add()), expected, "{actor}, {role:?} needed");
        }
        // Whatever the policy says, admins may change it.
        group.policy.edit_role = role;
        for (actor, expected) in [(1, Ok(())), (2, Ok(())), (3, TOO_LOW), (0, Ok(()))] {
            assert_eq!(asked(&group, actor, policy()), expected, "{actor}");
        }
    }
}

#[test]
fn what_is_so_already_becomes_no_entry() {
    let mut group = chat(ChatKind::Group);
    group.description = "old".into();
    for action in [
        Action::SetDescription("old".into()),
        Action::SetPolicy(Policy::default()),
        Action::Freeze(false),
    ] {
        let actual = asked(&group, user(0), action.clone());
        assert_eq!(actual, Ok(Permitted::Nothing), "{action:?}");
    }
}

#[test]
fn what_is_changed_is_so_afterwards_and_is_told() {
    let mut group = chat(ChatKind::Group);
    let policy = Policy {
        send_role: Role::Admin,
        ..Policy::default()
    };
    let actions = [
        Action::SetDescription("new".into()),
        Action::SetPolicy(policy),
        Action::Freeze(true),
    ];
    let contents = actions.map(|action| {
        let content = content(&group, user(1), &action);
        action.apply(&mut group, Seq(20));
        content
    });
    assert_eq!(
        (&*group.description, group.policy, group.frozen),
        ("new", policy, true)
    );
    let [description, told, frozen] = contents;
    let expected = v1::ChatDescriptionChanged {
        description: "new".into(),
    };
    assert_eq!(description, Content::ChatDescriptionChanged(expected));
    let expected = v1::GroupPolicyChanged {
        policy: Some(policy.to_wire()),
    };
    assert_eq!(told, Content::GroupPolicyChanged(expected));
    assert_eq!(frozen, Content::ChatFrozen(v1::ChatFrozen { frozen: true }));
}

#[test]
fn only_the_system_freezes_a_chat_of_any_kind() {
    for kind in [ChatKind::Direct, ChatKind::Group] {
        let chat = chat(kind);
        assert!(asked(&chat, user(0), Action::Freeze(true)).is_ok());
        let refused = asked(&chat, user(1), Action::Freeze(true));
        assert_eq!(refused.map(drop), TOO_LOW, "{kind:?}");
    }
}

#[test]
fn people_may_only_leave_a_frozen_group() {
    let mut group = chat(ChatKind::Group);
    group.frozen = true;
    let frozen = Err(ChangeRefusal::Common(Refusal::Frozen));
    let hand_over = Action::HandOver {
        from: user(1),
        to: user(2),
    };
    let cases = [
        (1, Action::SetTitle("new".into()), frozen.clone()),
        (1, Action::SetDescription("new".into()), frozen.clone()),
        (1, Action::Add(vec![user(9)]), frozen.clone()),
        (1, Action::SetRole(user(3), Role::Admin), frozen.clone()),
        (1, Action::Remove(user(3)), frozen.clone()),
        (1, hand_over, frozen.clone()),
        (1, Action::Freeze(false), frozen),
        (3, Action::Remove(user(3)), Ok(())),
        (1, Action::Remove(user(1)), Ok(())),
        (0, Action::Remove(user(3)), Ok(())),
        (0, Action::SetTitle("new".into()), Ok(())),
        (0, Action::Freeze(false), Ok(())),
    ];
    for (actor, action, expected) in cases {
        let actual = asked(&group, user(actor), action.clone());
        assert_eq!(actual.map(drop), expected, "{actor}: {action:?}");
    }
    let not_a_member = Err(ChangeRefusal::Common(Refusal::NotAMember));
    let title = Action::SetTitle("new".into());
    assert_eq!(
        asked(&group, user(9), title),
        not_a_member,
        "others learn nothing"
    );
}

#[test]
fn an_owner_hands_the_group_over() {
    let group = chat(ChatKind::Group);
    let hand_over = |from, to| Action::HandOver {
        from: user(from),
        to: user(to),
    };
    let not_a_member = Err(ChangeRefusal::Common(Refusal::NotAMember));
    let cases = [
        (1, hand_over(1, 3), Ok(Permitted::Entry(hand_over(1, 3)))),
        (1, hand_over(1, 1), Ok(Permitted::Nothing)),
        (1, hand_over(1, 9), Err(ChangeRefusal::UserNotFound(user(9)))),
        (2, hand_over(2, 3), Err(ChangeRefusal::RoleTooLow)),
        (2, hand_over(1, 2), not_a_member.clone()),
        (0, hand_over(0, 3), not_a_member),
    ];
    for (actor, action, expected) in cases {
        assert_eq!(
            asked(&group, user(actor), action.clone()),
            expected,
            "{actor}: {action:?}"
        );
    }
    let (mut group, action) = (group, hand_over(1, 3));
    let told = v1::RoleChanged {
        user_id: user(3).to_string(),
        role: v1::Role::Owner.into(),
        handed_over: true,
    };
    assert_eq!(content(&group, user(1), &action), Content::RoleChanged(told));
    action.apply(&mut group, Seq(20));
    let roles = [1, 2, 3, 4].map(|n| group.member(user(n)).unwrap().role);
    assert_eq!(roles, [Role::Admin, Role::Admin, Role::Owner, Role::Member]);
}

#[test]
fn the_last_owner_is_followed_by_who_was_an_admin_or_a_member_first() {
    // Each member has a number, a role, and the seq of the entry that they joined by. User 5 is the owner.
    let member = |(n, role, joined): (u128, Role, u64)| {
        let joined = Member::joined_at(Seq(joined));
        (user(n), Member { role, ..joined })
    };
    use Role::{Admin, Member as Plain, Owner};
    /// The members, each with their role and the seq at which they joined, and the heir.
    type Case<'a> = (&'a [(u128, Role, u64)], Option<u128>);
    let cases: [Case<'_>; 7] = [
        (&[], None),
        (&[(7, Plain, 3)], Some(7)),
        (&[(7, Plain, 3), (2, Plain, 4)], Some(7)),
        (&[(7, Plain, 3), (2, Plain, 3)], Some(2)),
        (&[(7, Plain, 1), (2, Admin, 9)], Some(2)),
        (&[(7, Admin, 8), (2, Admin, 9), (1, Plain, 1)], Some(7)),
        // He is not the last owner.
        (&[(7, Owner, 9), (2, Admin, 2)], None),
    ];
    let owner = user(5);
    for (others, heir) in cases {
        let all = others.iter().copied().chain([(5, Owner, 1)]);
        let mut group = Group {
            members: all.map(member).collect(),
            ..Group::default()
        };
        let expected = match heir {
            Some(heir) => Action::Succeed {
                owner,
                heir: user(heir),
            },
            None => Action::Remove(owner),
        };
        for actor in [owner, UserId::SYSTEM] {
            let action = permitted(&group, actor, Action::Remove(owner));
            assert_eq!(action, expected, "{others:?} by {actor}");
            let told = v1::MemberRemoved {
                user_id: owner.to_string(),
                left: actor == owner,
                new_owner_user_id: heir.map_or(String::new(), |heir| user(heir).to_string()),
            };
            assert_eq!(content(&group, actor, &action), Content::MemberRemoved(told));
            assert!(action.removes());
        }
        expected.apply(&mut group, Seq(20));
        assert_eq!(group.member(owner), None, "{others:?}");
        if let Some(heir) = heir {
            assert_eq!(group.member(user(heir)).unwrap().role, Owner, "{others:?}");
        }
    }
}

/// The fingerprint of a request is made of what the request says, so that it is the same at a later seq and under another
/// policy.
#[test]
fn those_who_join_are_told_what_they_may_read() {
    let cases = [
        (JoinerHistory::None, 0, 20),
        (JoinerHistory::Last(5), 15, 15),
        (JoinerHistory::Last(100), 1, 1),
        (JoinerHistory::All, 1, 1),
    ];
    let add = Action::Add(vec![user(9)]);
    let asked_for = add.content(user(1));
    for (history, told, first) in cases {
        let mut group = chat(ChatKind::Group);
        group.policy.joiner_history = history;
        let expected = v1::MembersAdded {
            user_ids: vec![user(9).to_string()],
            history_from_seq: told,
        };
        assert_eq!(content(&group, user(1), &add), Content::MembersAdded(expected));
        assert_eq!(add.content(user(1)), asked_for);
        add.apply(&mut group, Seq(20));
        let member = group.member(user(9)).unwrap();
        assert_eq!(
            (member.joined, member.history),
            (Seq(20), Seq(first)),
            "{history:?}"
        );
    }
}
