//! Tests of the decisions about pushes: tables of cases, and properties of all of them.

use proptest::prelude::*;
use tern_types::{Seq, UserId};
use uuid::Uuid;

use super::*;
use crate::quiet::QuietHours;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn ago(seconds: u64) -> Timestamp {
    NOW - Duration::from_secs(seconds)
}

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn row(notified: bool) -> Row {
    Row { since: NOW, notified }
}

fn announced(seq: u64, reason: Reason) -> Announced {
    Announced {
        seq: Seq(seq),
        sender: UserId(Uuid::from_u128(7)),
        reason,
        sent_at: NOW,
        blocked: false,
    }
}

fn blocked(seq: u64, reason: Reason) -> Announced {
    Announced {
        blocked: true,
        ..announced(seq, reason)
    }
}

/// The facts of a device that is away, and lacks these entries.
fn facts(announced: &[Announced]) -> Facts {
    Facts {
        recipient: Recipient {
            active: true,
            suspended: false,
            has_token: true,
        },
        waiting: Some(Waiting {
            is_member: true,
            unread: true,
            announced: announced.to_vec(),
        }),
        settings: Some(Settings::default()),
        quiet: None,
        presence: Presence::Offline,
        pushed_lately: 0,
    }
}

fn message() -> Facts {
    facts(&[announced(5, Reason::Message)])
}

fn send(class: Class, announced: Option<Announced>) -> Decision {
    Decision::Send(Send { class, announced })
}

#[test]
fn the_newest_entry_that_is_worth_it_is_announced() {
    let (message, mention) = (announced(5, Reason::Message), announced(4, Reason::Mention));
    let silent = announced(6, Reason::Silent);
    let alert = |announced| send(Class::Alert, Some(announced));
    let cases: [(&[Announced], bool, Decision); 12] = [
        (&[], false, Decision::End(Why::Nothing)),
        (&[message], false, alert(message)),
        (&[mention, message], false, alert(message)),
        (&[message, mention], false, alert(message)),
        (&[message, silent], false, alert(message)),
        (&[silent], false, send(Class::Silent, None)),
        (&[message], true, send(Class::Badge, Some(message))),
        // The device shows a notification of something that waits no more: it is withdrawn.
        (&[], true, send(Class::Withdraw, None)),
        (&[silent], true, send(Class::Withdraw, None)),
        // Nothing of a blocked person is announced, also if they wrote last.
        (&[blocked(9, Reason::Mention)], false, Decision::End(Why::Blocked)),
        (&[blocked(9, Reason::Silent)], false, Decision::End(Why::Blocked)),
        (&[blocked(9, Reason::Mention), mention], false, alert(mention)),
    ];
    for (announced, notified, decision) in cases {
        assert_eq!(
            decide(NOW, row(notified), &facts(announced)),
            decision,
            "{announced:?}, {notified}"
        );
    }
}

#[test]
fn with_mentions_only_nothing_else_is_announced() {
    let mentions_only = |announced: &[Announced]| Facts {
        settings: Some(Settings {
            mentions_only: true,
            ..Settings::default()
        }),
        ..facts(announced)
    };
    let mention = announced(4, Reason::Mention);
    for reason in Reason::ALL {
        let other = announced(5, reason);
        let decided = decide(NOW, row(false), &mentions_only(&[other]));
        let expected = match reason {
            Reason::Mention => send(Class::Alert, Some(other)),
            Reason::Silent => send(Class::Silent, None),
            Reason::Message | Reason::Reaction | Reason::Added | Reason::OwnLog => {
                Decision::End(Why::MentionsOnly)
            }
        };
        assert_eq!(decided, expected, "{reason:?}");
    }
    let both = mentions_only(&[announced(5, Reason::Message), mention]);
    assert_eq!(decide(NOW, row(false), &both), send(Class::Alert, Some(mention)));
}

#[test]
fn a_push_ends_where_nobody_is_to_hear_it() {
    let waiting = message().waiting.unwrap();
    let to = |change: &dyn Fn(&mut Recipient)| {
        let mut facts = message();
        change(&mut facts.recipient);
        facts
    };
    let ends = [
        (
            Facts {
                waiting: None,
                ..message()
            },
            Why::Acknowledged,
        ),
        (to(&|recipient| recipient.active = false), Why::Revoked),
        (to(&|recipient| recipient.suspended = true), Why::Suspended),
        (to(&|recipient| recipient.has_token = false), Why::NoToken),
        (
            Facts {
                waiting: Some(Waiting {
                    is_member: false,
                    ..waiting
                }),
                ..message()
            },
            Why::NotMember,
        ),
        (
            Facts {
                waiting: Some(Waiting {
                    unread: false,
                    is_member: true,
                    announced: vec![],
                }),
                ..message()
            },
            Why::Read,
        ),
        (
            Facts {
                settings: Some(Settings {
                    muted_until: later(1),
                    mentions_only: false,
                }),
                ..message()
            },
            Why::Muted,
        ),
    ];
    for (facts, why) in ends {
        assert_eq!(decide(NOW, row(false), &facts), Decision::End(why), "{facts:?}");
    }
    let was_muted = Facts {
        settings: Some(Settings {
            muted_until: NOW,
            mentions_only: false,
        }),
        ..message()
    };
    assert!(matches!(decide(NOW, row(false), &was_muted), Decision::Send(_)));
}

#[test]
fn what_is_due_for_a_day_is_pointless_unless_it_announces_something_newer() {
    let (day, message) = (24 * 3600, announced(5, Reason::Message));
    let sent = |seconds| Announced {
        sent_at: ago(seconds),
        ..message
    };
    let cases = [
        (day, vec![sent(day)], true),
        (day + 1, vec![sent(day + 1)], false),
        (day + 1, vec![sent(day)], true),
        (day + 1, vec![sent(day + 1), sent(60)], true),
        (day + 1, vec![], false),
    ];
    for (due, announced, is_sent) in cases {
        for notified in [false, true] {
            let row = Row {
                since: ago(due),
                notified,
            };
            let decided = decide(NOW, row, &facts(&announced));
            assert_eq!(
                matches!(decided, Decision::Send(_)),
                is_sent,
                "{due}: {announced:?}"
            );
            assert_eq!(
                decided == Decision::End(Why::Pointless),
                !is_sent,
                "{due}: {announced:?}"
            );
        }
    }
}

#[test]
fn a_device_with_a_stream_is_given_time() {
    let held = |until, hold| Some(Decision::Wait { until, hold });
    let cases = [
        (Presence::Offline, 0, None),
        (Presence::Live, 0, held(later(5), Hold::Live)),
        (Presence::Live, 2, held(later(3), Hold::Live)),
        (Presence::Live, 5, None),
        (Presence::Unsure, 4, held(later(1), Hold::Live)),
        (Presence::Unsure, 5, None),
        (Presence::Active, 0, held(later(5), Hold::Active)),
        (Presence::Active, 5, held(later(5), Hold::Active)),
        (Presence::Active, 20, held(later(20), Hold::Active)),
        (Presence::Active, 3600, held(later(60), Hold::Active)),
    ];
    for (presence, waited, expected) in cases {
        let row = Row {
            since: ago(waited),
            notified: false,
        };
        let decided = decide(
            NOW,
            row,
            &Facts {
                presence,
                ..message()
            },
        );
        let expected = expected.unwrap_or(send(Class::Alert, Some(announced(5, Reason::Message))));
        assert_eq!(decided, expected, "{presence:?} for {waited} s");
    }
}

#[test]
fn in_quiet_hours_what_people_see_waits() {
    // NOW is 08:00 in UTC.
    let quiet = Some(QuietHours {
        from_minute: 7 * 60,
        to_minute: 9 * 60,
        time_zone: "UTC".to_owned(),
    });
    let held = Decision::Wait {
        until: later(3600),
        hold: Hold::QuietHours,
    };
    let cases = [
        (announced(5, Reason::Message), false, Some(held)),
        (announced(5, Reason::Message), true, Some(held)),
        (announced(5, Reason::Silent), false, None),
        (announced(5, Reason::Silent), true, None),
    ];
    for (announced, notified, expected) in cases {
        let facts = Facts {
            quiet: quiet.clone(),
            ..facts(&[announced])
        };
        let decided = decide(NOW, row(notified), &facts);
        assert_eq!(
            matches!(decided, Decision::Wait { .. }).then_some(decided),
            expected,
            "{announced:?}"
        );
    }
}

#[test]
fn what_is_too_much_or_unknown_waits() {
    let crowded = |pushed_lately| {
        decide(
            NOW,
            row(false),
            &Facts {
                pushed_lately,
                ..message()
            },
        )
    };
    assert!(matches!(crowded(MAX_PUSHES_A_MINUTE - 1), Decision::Send(_)));
    let held = |seconds, hold| Decision::Wait {
        until: later(seconds),
        hold,
    };
    assert_eq!(crowded(MAX_PUSHES_A_MINUTE), held(60, Hold::Crowded));
    let unknown = Facts {
        settings: None,
        ..message()
    };
    assert_eq!(decide(NOW, row(false), &unknown), held(5, Hold::Unknown));
}

#[test]
fn names_of_reasons_are_labels_each_of_its_own() {
    for (n, why) in Why::ALL.into_iter().enumerate() {
        assert!(
            why.as_str()
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        );
        assert!(Why::ALL[..n].iter().all(|other| other.as_str() != why.as_str()));
    }
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason.number()), Some(reason));
    }
    assert_eq!(Reason::from_number(6), None);
}

prop_compose! {
    fn any_announced()(
        seq in 1_u64..9,
        reason in prop::sample::select(Reason::ALL.to_vec()),
        blocked in any::<bool>(),
    ) -> Announced {
        Announced { blocked, ..announced(seq, reason) }
    }
}

prop_compose! {
    fn any_waiting()(
        is_member in any::<bool>(),
        unread in any::<bool>(),
        announced in prop::collection::vec(any_announced(), 0..4),
    ) -> Waiting {
        Waiting { is_member, unread, announced }
    }
}

prop_compose! {
    fn any_facts()(
        (active, suspended, has_token) in any::<(bool, bool, bool)>(),
        waiting in prop::option::of(any_waiting()),
        settings in prop::option::of((0_i64..2, any::<bool>())),
        quiet in prop::option::of((0_u16..1440, 0_u16..1440)),
        presence in prop::sample::select(vec![Presence::Offline, Presence::Live, Presence::Active, Presence::Unsure]),
        pushed_lately in 0_u32..25,
    ) -> Facts {
        Facts {
            recipient: Recipient { active, suspended, has_token },
            waiting,
            settings: settings.map(|(muted, mentions_only)| Settings {
                muted_until: Timestamp(muted * i64::MAX),
                mentions_only,
            }),
            quiet: quiet.map(|(from_minute, to_minute)| QuietHours {
                from_minute, to_minute, time_zone: "Europe/Berlin".to_owned(),
            }),
            presence,
            pushed_lately,
        }
    }
}

proptest! {
    #[test]
    fn a_wait_is_to_come_and_bounded(facts in any_facts(), waited in 0_u64..200_000, notified: bool) {
        let row = Row { since: ago(waited), notified };
        if let Decision::Wait { until, .. } = decide(NOW, row, &facts) {
            prop_assert!(until > NOW && until.since(NOW) <= Duration::from_secs(25 * 3600 + 60));
        }
    }

    #[test]
    fn nothing_is_shown_that_the_user_does_not_want(facts in any_facts(), waited in 0_u64..200_000, notified: bool) {
        let row = Row { since: ago(waited), notified };
        let Decision::Send(sent) = decide(NOW, row, &facts) else { return Ok(()) };
        prop_assert!(facts.recipient.active && !facts.recipient.suspended && facts.recipient.has_token);
        prop_assert!(facts.presence != Presence::Active && facts.pushed_lately < MAX_PUSHES_A_MINUTE);
        if let Class::Alert | Class::Badge = sent.class {
            let (announced, settings) = (sent.announced.unwrap(), facts.settings.unwrap());
            prop_assert!(settings.muted_until <= NOW && !announced.blocked && announced.reason != Reason::Silent);
            prop_assert!(!settings.mentions_only || announced.reason == Reason::Mention);
            prop_assert!(facts.quiet.as_ref().is_none_or(|quiet| quiet.end(NOW).is_none()));
        }
    }

    /// Whatever comes, the device is shown a notification once until it acknowledges or what is shown is withdrawn.
    #[test]
    fn there_are_never_two_alerts_in_a_row(all in prop::collection::vec(any_facts(), 1..30)) {
        let mut shown = false;
        for facts in all {
            let row = Row { since: NOW, notified: shown };
            let Decision::Send(sent) = decide(NOW, row, &facts) else { continue };
            match sent.class {
                Class::Alert => {
                    prop_assert!(!shown);
                    shown = true;
                }
                Class::Badge => prop_assert!(shown),
                Class::Withdraw => {
                    prop_assert!(shown);
                    shown = false;
                }
                Class::Silent => prop_assert!(!shown),
            }
        }
    }
}
