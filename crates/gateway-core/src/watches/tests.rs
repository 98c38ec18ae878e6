//! These tests hold which sessions are told which state of a user, when, and in answer to what.

use super::*;

const START: Timestamp = Timestamp(1_000_000);
const ONE: SessionId = SessionId(1);
const OTHER: SessionId = SessionId(2);

fn at(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

fn visible(users: &[UserId]) -> Seen {
    Seen {
        visible: users.to_vec(),
        answers: 1,
        ..Seen::default()
    }
}

fn told(user: UserId, state: State, sessions: &[SessionId]) -> Effect {
    let sessions = sessions.to_vec();
    Effect::Tell {
        user,
        state,
        sessions,
    }
}

fn complete(session: SessionId) -> Effect {
    let limited = Limited::default();
    Effect::Complete {
        session,
        limited,
        answers: 1,
    }
}

fn offline(seconds: i64) -> State {
    State::Offline(Timestamp(seconds))
}

/// Lets the sessions be told at once. Returns the effects, with the answers that follow.
fn at_once(table: &mut Table, effects: Vec<Effect>) -> Vec<Effect> {
    let mut all = effects.clone();
    for effect in effects {
        if let Effect::Tell { user, sessions, .. } = effect {
            all.extend(sessions.into_iter().flat_map(|session| table.came(session, user)));
        }
    }
    all
}

/// Lets the user's presence node say a state, of which the watchers are told at once unless there is a pause.
fn says(table: &mut Table, user: UserId, state: State, now: Timestamp) -> Vec<Effect> {
    let effects = table.says(user, state, None, now);
    at_once(table, effects)
}

#[test]
fn a_person_is_watched_once_and_the_screen_is_complete_when_all_have_come() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    assert_eq!(table.set(ONE, me, visible(&[user]), START), [Effect::Watch(user)]);
    assert_eq!(
        says(&mut table, user, State::Online, START),
        [told(user, State::Online, &[ONE]), complete(ONE)]
    );
    // A second session is told the known state at once.
    assert_eq!(
        table.set(OTHER, me, visible(&[user]), START),
        [told(user, State::Online, &[OTHER]), complete(OTHER)]
    );
    assert_eq!(table.remove(ONE), []);
    assert_eq!(table.remove(OTHER), [Effect::Unwatch(user)]);
    assert_eq!(says(&mut table, user, State::Online, START), []);
    assert!(table.next_tick().is_none());
}

#[test]
fn who_is_not_found_in_time_does_not_hold_up_the_screen() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    assert_eq!(table.next_tick(), Some(START + COMPLETE_WITHIN));
    assert_eq!(table.tick(None, START + COMPLETE_WITHIN), [complete(ONE)]);
    let late = at(9_000);
    assert_eq!(
        says(&mut table, user, offline(1), late),
        [told(user, offline(1), &[ONE])]
    );
}

#[test]
fn of_many_changes_the_last_is_told_after_a_pause_and_the_same_not_twice() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    says(&mut table, user, State::Online, START);
    for millis in 1..50 {
        let state = if millis % 2 == 0 {
            State::Online
        } else {
            offline(7)
        };
        assert_eq!(says(&mut table, user, state, at(millis)), []);
    }
    assert_eq!(table.next_tick(), Some(START + PAUSE));
    assert_eq!(table.tick(None, at(100)), [told(user, offline(7), &[ONE])]);
    // A state that came and went within the pause is not told.
    says(&mut table, user, State::Online, at(110));
    says(&mut table, user, offline(7), at(120));
    assert_eq!(table.tick(None, at(200)), []);
}

#[test]
fn the_pause_grows_with_the_watchers_and_under_load() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    for session in 0..100_000 {
        table.set(SessionId(session), me, visible(&[user]), START);
    }
    says(&mut table, user, State::Online, START);
    says(&mut table, user, offline(1), at(1));
    assert_eq!(table.next_tick(), Some(at(5_000)), "100,000 x 50 us");
    let slow = Some(Duration::from_secs(10));
    table.tick(slow, at(5_000));
    table.says(user, State::Online, slow, at(5_001));
    assert_eq!(table.next_tick(), Some(at(15_000)));
}

#[test]
fn what_becomes_hidden_or_visible_is_told_and_what_stays_is_not() {
    let (mut table, me) = (Table::default(), UserId::random());
    let (stays, hides, shows) = (UserId::random(), UserId::random(), UserId::random());
    let first = Seen {
        hidden: vec![shows],
        ..visible(&[stays, hides])
    };
    table.set(ONE, me, first, START);
    says(&mut table, stays, State::Online, START);
    says(&mut table, hides, State::Online, START);
    let again = Seen {
        visible: vec![stays, shows],
        hidden: vec![hides],
        ..Seen::default()
    };
    let effects = table.set(ONE, me, again, at(1));
    assert_eq!(effects.len(), 3, "{effects:?}");
    for effect in [
        Effect::Unwatch(hides),
        told(hides, State::Hidden, &[ONE]),
        Effect::Watch(shows),
    ] {
        assert!(effects.contains(&effect), "{effect:?}");
    }
    assert_eq!(
        says(&mut table, shows, offline(3), at(2)),
        [told(shows, offline(3), &[ONE])]
    );
}

#[test]
fn a_change_of_privacy_concerns_those_who_see_and_those_who_are_seen() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    table.set(OTHER, user, visible(&[]), START);
    assert_eq!(table.concerned(&[me].into()), [ONE]);
    let mut both = table.concerned(&[user].into());
    both.sort();
    assert_eq!(both, [ONE, OTHER]);
    assert!(table.concerned(&[UserId::random()].into()).is_empty());
    assert!(matches!(table.asked_for(ONE), Some((of, people, _)) if of == me && people == [user]));
}

/// A device that scrolls replaces each set before all states have come.
#[test]
fn a_set_that_is_replaced_before_it_is_complete_is_answered_when_it_is_replaced() {
    let (mut table, me) = (Table::default(), UserId::random());
    let [first, second] = [UserId::random(), UserId::random()];
    table.set(ONE, me, visible(&[first]), START);
    assert_eq!(
        table.set(ONE, me, visible(&[second]), at(1)),
        [complete(ONE), Effect::Unwatch(first), Effect::Watch(second)]
    );
    assert_eq!(table.next_tick(), Some(at(1) + COMPLETE_WITHIN));
    assert_eq!(
        table.set(ONE, me, visible(&[]), at(2)),
        [complete(ONE), Effect::Unwatch(second), complete(ONE)]
    );
}

#[test]
fn a_check_of_a_set_gives_no_answer_before_the_states_and_none_later_than_without_it() {
    let (mut table, me) = (Table::default(), UserId::random());
    let [stays, hides] = [UserId::random(), UserId::random()];
    table.set(ONE, me, visible(&[stays, hides]), START);
    let check = |visible: &[UserId], hidden: &[UserId]| Seen {
        visible: visible.to_vec(),
        hidden: hidden.to_vec(),
        asked: Asked::Again(0),
        ..Seen::default()
    };
    assert_eq!(table.set(ONE, me, check(&[stays, hides], &[]), at(1_000)), []);
    assert_eq!(table.next_tick(), Some(START + COMPLETE_WITHIN));
    assert_eq!(
        table.set(ONE, me, check(&[stays], &[hides]), at(2_000)),
        [Effect::Unwatch(hides), told(hides, State::Hidden, &[ONE])],
        "the other one's state is awaited still"
    );
    assert_eq!(
        says(&mut table, stays, State::Online, at(2_000)),
        [told(stays, State::Online, &[ONE]), complete(ONE)]
    );
}

#[test]
fn an_empty_set_ends_all_and_is_answered() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    says(&mut table, user, State::Online, START);
    assert_eq!(
        table.set(ONE, me, visible(&[]), START),
        [Effect::Unwatch(user), complete(ONE)]
    );
    assert_eq!(table.watches(), 0);
    assert!(table.next_tick().is_none());
}

#[test]
fn who_joins_within_the_pause_is_not_left_with_what_is_over_when_it_ends() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    says(&mut table, user, offline(1), START);
    says(&mut table, user, State::Online, at(10));
    assert_eq!(
        table.set(OTHER, me, visible(&[user]), at(20)),
        [told(user, State::Online, &[OTHER]), complete(OTHER)]
    );
    says(&mut table, user, offline(1), at(30));
    let effects = table.tick(None, at(100));
    let [Effect::Tell { state, sessions, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert!(*state == offline(1) && sessions.contains(&OTHER), "{effects:?}");
}

#[test]
fn an_answer_that_a_newer_one_has_overtaken_changes_nothing_and_is_given_all_the_same() {
    let (mut table, me) = (Table::default(), UserId::random());
    let (older, newer) = (UserId::random(), UserId::random());
    let answer = |user, asked| Seen {
        asked,
        ..visible(&[user])
    };
    table.set(ONE, me, answer(newer, Asked::Device(2)), START);
    assert_eq!(
        table.set(ONE, me, answer(older, Asked::Device(1)), START),
        [complete(ONE)]
    );
    // The check of the older set ends when the newer set is in place already.
    let again = Seen {
        answers: 0,
        ..answer(older, Asked::Again(1))
    };
    assert_eq!(table.set(ONE, me, again.clone(), START), []);
    assert!(table.is_watched(newer) && !table.is_watched(older));
    // The session has ended, so nothing is checked for it any more.
    table.remove(ONE);
    assert_eq!(table.set(ONE, me, again, START), []);
}

#[test]
fn last_seen_never_goes_back() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    says(&mut table, user, offline(5), START);
    for earlier in [offline(0), offline(4)] {
        assert_eq!(says(&mut table, user, earlier, at(1000)), []);
    }
    assert_eq!(
        says(&mut table, user, offline(6), at(1000)),
        [told(user, offline(6), &[ONE])]
    );
}

#[test]
fn what_found_no_room_is_told_later_also_where_an_older_telling_is_due() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    table.set(ONE, me, visible(&[user]), START);
    says(&mut table, user, State::Online, START);
    // The next telling is due after the pause. A newer state comes after that time and before the tick.
    assert_eq!(says(&mut table, user, offline(1), at(1)), []);
    let late = at(1_000);
    assert_eq!(says(&mut table, user, State::Online, late), [], "as it was told");
    let gone = told(user, offline(2), &[ONE]);
    assert_eq!(
        says(&mut table, user, offline(2), late),
        std::slice::from_ref(&gone)
    );
    table.again(user, late);
    assert_eq!(table.tick(None, late), [gone]);
}

#[test]
fn a_telling_that_has_waited_shows_nobody_who_is_hidden_by_then_and_keeps_the_order_of_states() {
    let (mut table, me, user) = (Table::default(), UserId::random(), UserId::random());
    for session in [ONE, OTHER] {
        table.set(session, me, visible(&[user]), START);
    }
    says(&mut table, user, State::Online, START);
    let hidden = Seen {
        hidden: vec![user],
        ..Seen::default()
    };
    assert_eq!(
        table.set(ONE, me, hidden, START),
        [told(user, State::Hidden, &[ONE])]
    );
    assert_eq!(table.to_tell(ONE, user, State::Online), None);
    assert_eq!(table.to_tell(OTHER, user, State::Online), Some(State::Online));
    // The session watches the user again within the pause, and is told the newest state before the others.
    says(&mut table, user, offline(7), at(1));
    assert_eq!(
        table.set(ONE, me, visible(&[user]), at(2))[0],
        told(user, offline(7), &[ONE])
    );
    assert_eq!(table.to_tell(ONE, user, State::Online), Some(offline(7)));
    assert!(matches!(table.tick(None, at(100))[..], [Effect::Tell { .. }]));
    assert_eq!(
        table.to_tell(OTHER, user, State::Online),
        None,
        "a newer one waits"
    );
    assert_eq!(table.to_tell(OTHER, user, offline(7)), Some(offline(7)));
}

#[test]
fn the_answer_comes_after_the_states_however_long_they_wait() {
    let (mut table, me) = (Table::default(), UserId::random());
    let (one, other) = (UserId::random(), UserId::random());
    for session in [ONE, OTHER] {
        table.set(session, me, visible(&[one, other]), START);
    }
    for user in [one, other] {
        let effects = table.says(user, State::Online, None, START);
        assert!(matches!(effects[..], [Effect::Tell { .. }]), "{effects:?}");
    }
    assert_eq!(table.came(ONE, other), []);
    assert_eq!(table.came(ONE, one), [complete(ONE)]);
    assert_eq!(table.came(ONE, one), []);
    assert_eq!(
        table.next_tick(),
        Some(START + COMPLETE_WITHIN),
        "of the other session"
    );
}

#[test]
fn all_sessions_are_gone_through_a_portion_at_a_time() {
    let (mut table, me) = (Table::default(), UserId::random());
    for session in 1..=5 {
        table.set(SessionId(session), me, visible(&[]), START);
    }
    let portion = |after| table.sessions_after(after, 2);
    assert_eq!(portion(None), [1, 2].map(SessionId));
    assert_eq!(portion(Some(SessionId(2))), [3, 4].map(SessionId));
    assert_eq!(portion(Some(SessionId(4))), [5].map(SessionId));
    assert!(portion(Some(SessionId(5))).is_empty());
}
