use proptest::prelude::*;

use super::*;

const THRESHOLD: Duration = Duration::from_secs(30);
const START: Timestamp = Timestamp(1_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn sign(active: bool, seconds: u64) -> Sign {
    arrival(seconds).sign(active, at(seconds), at(seconds))
}

/// Returns an arrival at which all clocks are right.
fn arrival(seconds: u64) -> Arrival {
    let now = at(seconds);
    Arrival {
        gateway: now,
        now,
        wall: now,
    }
}

/// Returns whether one of these signs is active and younger than the threshold.
fn online_at(signs: &[Sign], now: u64) -> bool {
    let mut active = signs.iter().filter(|sign| sign.active);
    active.any(|sign| sign.heard + THRESHOLD > at(now))
}

/// One person. The store has been asked about them and has nothing.
struct One {
    activity: Activity,
    user: UserId,
}

impl One {
    fn new() -> Self {
        let (mut activity, user) = (Activity::new(THRESHOLD), UserId::random());
        activity.stored(user, None);
        Self { activity, user }
    }

    fn signs(&mut self, signs: &[Sign], now: u64) -> bool {
        self.activity.signs(self.user, signs.iter().copied(), at(now))
    }

    fn presence(&self) -> Option<Presence> {
        self.activity.presence(self.user)
    }

    fn writes(&mut self) -> Vec<Timestamp> {
        let writes = self.activity.take_writes(10);
        writes.into_iter().map(|(_, at)| at).collect()
    }
}

#[test]
fn a_person_is_online_for_the_threshold_after_each_sign_and_last_seen_at_the_newest() {
    let mut one = One::new();
    assert!(one.signs(&[sign(true, 0)], 0));
    assert_eq!(one.presence(), Some(Presence::Online));
    assert!(!one.signs(&[sign(true, 20)], 20), "nothing else is shown");
    assert!(one.activity.expire(at(31)).is_empty());
    assert_eq!(one.activity.expire(at(50)), [one.user]);
    assert_eq!(one.presence(), Some(Presence::LastSeen(at(20))));
    assert!(one.activity.expire(at(99)).is_empty());
}

#[test]
fn who_leaves_is_offline_at_once_unless_another_device_is_active() {
    let mut one = One::new();
    one.signs(&[sign(true, 0), sign(true, 5)], 5);
    assert!(!one.signs(&[sign(true, 0), sign(false, 9)], 9));
    assert!(one.signs(&[sign(false, 10), sign(false, 9)], 10));
    assert_eq!(one.presence(), Some(Presence::LastSeen(at(10))));
    assert!(!one.signs(&[], 11), "sessions that end move nothing");
    assert_eq!(one.presence(), Some(Presence::LastSeen(at(10))));
}

#[test]
fn who_was_forgotten_and_comes_back_is_online_for_the_whole_threshold() {
    let mut one = One::new();
    one.signs(&[sign(true, 0)], 0);
    one.signs(&[], 5);
    one.activity.release(one.user);
    one.signs(&[sign(true, 20)], 20);
    assert!(one.activity.expire(at(30)).is_empty());
    assert_eq!(one.activity.expire(at(50)), [one.user]);
}

#[test]
fn who_leaves_the_newest_device_is_online_until_the_sign_of_the_other_is_too_old() {
    let mut one = One::new();
    one.signs(&[sign(true, 10), sign(true, 20)], 20);
    assert!(!one.signs(&[sign(true, 10), sign(false, 25)], 25));
    assert_eq!(one.activity.next_expiry(), Some(at(40)));
    assert_eq!(one.activity.expire(at(40)), [one.user]);
}

/// Announces a sign of second 10 again 5 s later, from a gateway whose wall clock may be wrong.
#[test]
fn whatever_a_gateways_clock_shows_people_are_online_for_the_threshold() {
    for (gateway_wall, last_seen) in [
        (at(10), at(10)),
        (at(500), at(10)),
        (START - THRESHOLD * 9, START - THRESHOLD * 9),
    ] {
        let mut one = One::new();
        // The gateway's monotonic clock has begun at another time, and this node's wall clock is right.
        let own = |seconds| Timestamp(7_000) + Duration::from_secs(seconds);
        let announced = |now| Arrival {
            gateway: own(now),
            ..arrival(now)
        };
        let first = announced(10).sign(true, gateway_wall, own(10));
        assert!(one.signs(&[first], 10));
        let again = announced(15).sign(true, first.at, own(10));
        assert_eq!(
            again.heard, first.heard,
            "the time on the way counts, nothing else"
        );
        one.signs(&[again], 15);
        assert!(one.activity.expire(at(39)).is_empty());
        assert_eq!(one.activity.expire(at(40)), [one.user]);
        assert_eq!(one.presence(), Some(Presence::LastSeen(last_seen)));
    }
}

#[test]
fn a_wall_clock_that_is_set_back_here_keeps_nobody_online() {
    let mut one = One::new();
    let set_back = Arrival {
        wall: START - THRESHOLD * 9,
        ..arrival(5)
    };
    assert!(one.signs(&[set_back.sign(true, at(5), at(5))], 5));
    assert_eq!(one.activity.expire(at(35)), [one.user]);
}

#[test]
fn last_seen_is_written_on_leaving_and_every_five_minutes_and_not_on_coming() {
    let mut one = One::new();
    for second in (0..1000).step_by(10) {
        one.signs(&[sign(true, second)], second);
        let expected = if second > 0 && second % 300 == 0 {
            vec![at(second)]
        } else {
            Vec::new()
        };
        assert_eq!(one.writes(), expected, "after {second} s");
    }
    one.signs(&[sign(false, 995)], 995);
    assert_eq!(one.writes(), [at(995)]);
    one.signs(&[], 996);
    one.activity.release(one.user);
    assert!(one.writes().is_empty(), "it is written already");
}

#[test]
fn what_is_not_written_is_when_the_node_stops_or_loses_the_slot_and_again_when_it_failed() {
    let mut one = One::new();
    one.signs(&[sign(true, 7)], 7);
    one.activity.write_all();
    let writes = one.activity.take_writes(10);
    assert_eq!(writes, [(one.user, at(7))]);
    one.activity.put_back(writes);
    one.signs(&[sign(true, 8)], 8);
    one.activity.keep(|_| false);
    assert!(one.activity.is_empty());
    assert_eq!(one.writes(), [at(8)], "the newest only");
}

#[test]
fn before_the_store_was_asked_only_online_is_known() {
    let (mut activity, user) = (Activity::new(THRESHOLD), UserId::random());
    assert_eq!(activity.presence(user), None);
    activity.signs(user, [sign(true, 1)].into_iter(), at(1));
    assert_eq!(activity.presence(user), Some(Presence::Online));
    activity.signs(user, [sign(false, 2)].into_iter(), at(2));
    assert_eq!(activity.presence(user), None, "the store may know of later");
    assert!(activity.stored(user, Some(at(3))));
    assert_eq!(activity.presence(user), Some(Presence::LastSeen(at(3))));
    assert!(!activity.stored(user, Some(at(1))));
}

proptest! {
    /// Compares with the definition: a person is online if and only if a session is active whose sign is younger
    /// than the threshold. A person without sessions is forgotten, and read from the store again.
    #[test]
    fn whatever_happens_the_newest_sign_over_all_devices_counts(
        steps in prop::collection::vec((0usize..3, any::<bool>(), 0u64..20, any::<bool>()), 1..80),
    ) {
        let mut one = One::new();
        let (mut sessions, mut now, mut newest) = ([Sign::default(); 3], 0, Timestamp(0));
        for (device, active, pause, ends) in steps {
            now += pause;
            let was_online = one.presence() == Some(Presence::Online);
            let gone = one.activity.expire(at(now));
            let online = online_at(&sessions, now);
            prop_assert_eq!(one.presence() == Some(Presence::Online), online);
            prop_assert_eq!(gone.len(), usize::from(was_online && !online));
            sessions[device] = if ends { Sign::default() } else { sign(active, now) };
            newest = newest.max(sessions[device].at);
            one.signs(&sessions, now);
            if sessions == [Sign::default(); 3] {
                one.activity.release(one.user);
                one.activity.stored(one.user, Some(newest));
            }
            let online = online_at(&sessions, now);
            let expected = if online { Presence::Online } else { Presence::LastSeen(newest) };
            prop_assert_eq!(one.presence(), Some(expected));
            prop_assert_eq!(one.activity.next_expiry().is_some(), online, "who is online is looked at");
        }
    }
}
