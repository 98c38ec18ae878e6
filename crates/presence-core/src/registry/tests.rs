mod gateways;

use std::collections::BTreeSet;

use proptest::prelude::*;
use tern_types::DeviceId;
use uuid::Uuid;

use super::*;

const NONE: [u64; 0] = [];
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn gateway(name: &str, incarnation: u64) -> Gateway {
    Gateway {
        name: name.into(),
        incarnation,
    }
}

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn device(number: u128) -> DeviceId {
    DeviceId(Uuid::from_u128(number))
}

fn announcement(session: u64, number: u64) -> Announcement {
    Announcement {
        user: user(1),
        device: device(1),
        session: SessionId(session),
        since: NOW,
        number: NonZeroU64::new(number),
        sign: Sign::default(),
    }
}

/// A registry that owns all slots, with the gateways g1 and g2 in the map, g1 on link 1 and g2 on link 2.
struct Fixture {
    registry: Registry,
    now: Timestamp,
}

impl Fixture {
    fn new() -> Self {
        let mut this = Self {
            registry: Registry::default(),
            now: NOW,
        };
        this.map(SlotSet::all(), &["g1", "g2"]);
        this.link("g1", 1);
        this.link("g2", 2);
        this
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.registry.apply(event, self.now);
        effects.retain(|effect| !matches!(effect, Effect::Signs(_) | Effect::Sessions(_)));
        effects
    }

    fn map(&mut self, owned: SlotSet, gateways: &[&str]) -> Vec<Effect> {
        let gateways = gateways.iter().map(|name| gateway(name, 1)).collect();
        self.apply(Event::MapChanged {
            map_version: 7,
            owned,
            gateways,
        })
    }

    /// The gateway has announced all its sessions of all slots, by its map of this version.
    fn say(&mut self, name: &str, link: u64, map_version: i64) {
        let effects = self.apply(Event::Said {
            gateway: gateway(name, 1),
            link: LinkId(link),
            slots: SlotSet::all(),
            map_version,
        });
        assert_eq!(effects, []);
    }

    fn is_sure(&self) -> bool {
        self.registry.is_sure(&[user(1)])
    }

    fn link(&mut self, name: &str, link: u64) -> Vec<Effect> {
        self.apply(Event::Linked {
            gateway: gateway(name, 1),
            link: LinkId(link),
        })
    }

    fn announce_on(&mut self, name: &str, link: u64, session: u64, number: u64) -> Vec<Effect> {
        let announcement = announcement(session, number);
        self.apply(Event::Announced {
            gateway: gateway(name, 1),
            link: LinkId(link),
            announcement,
        })
    }

    /// Announces a session of user 1's device 1 on g1 or g2, whose stream has this number. The number 0 means that
    /// the stream is not open yet.
    fn announce(&mut self, name: &str, session: u64, number: u64) -> Vec<Effect> {
        self.announce_on(name, if name == "g1" { 1 } else { 2 }, session, number)
    }

    /// Says that the session's stream is open now.
    fn open(&mut self, name: &str, session: u64, number: u64) -> Vec<Effect> {
        let link = LinkId(if name == "g1" { 1 } else { 2 });
        self.apply(Event::Opened {
            gateway: gateway(name, 1),
            link,
            user: user(1),
            session: SessionId(session),
            number: NonZeroU64::new(number).unwrap(),
        })
    }

    fn end(&mut self, name: &str, session: u64) -> Vec<Effect> {
        let link = LinkId(if name == "g1" { 1 } else { 2 });
        self.apply(Event::Ended {
            gateway: gateway(name, 1),
            link,
            user: user(1),
            session: SessionId(session),
        })
    }

    /// Returns the ids of user 1's sessions, ascending.
    fn found(&self) -> Vec<u64> {
        let users = [user(1)];
        let mut found: Vec<u64> = self
            .registry
            .look_up(&users)
            .unwrap()
            .map(|session| session.session.0)
            .collect();
        found.sort_unstable();
        assert_eq!(found.len(), self.registry.sessions());
        found
    }
}

fn replaced(name: &str, session: u64) -> Effect {
    Effect::Replaced {
        gateway: gateway(name, 1),
        session: SessionId(session),
    }
}

#[test]
fn announcing_again_changes_nothing() {
    let mut it = Fixture::new();
    assert_eq!(it.announce("g1", 10, 1), []);
    assert_eq!(it.announce("g1", 10, 1), []);
    assert_eq!(it.found(), [10]);
}

#[test]
fn fine_print_8_a_newer_session_replaces_the_older_which_is_found_until_it_is_unregistered() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    assert_eq!(it.announce("g2", 20, 5), [replaced("g1", 10)]);
    assert_eq!(it.found(), [10, 20]);
    it.end("g1", 10);
    assert_eq!(it.found(), [20]);
}

#[test]
fn an_older_session_that_is_announced_late_is_the_one_replaced() {
    let mut it = Fixture::new();
    it.announce("g2", 20, 5);
    assert_eq!(it.announce("g1", 10, 1), [replaced("g1", 10)]);
    assert_eq!(it.found(), [10, 20]);
}

/// A gateway's clock may be ahead or behind. Clocks do not decide the order.
#[test]
fn which_stream_is_newer_is_said_by_no_clock() {
    for ahead_ms in [-10_000, 0, 10_000, 3_600_000] {
        let mut it = Fixture::new();
        let mut announce = |name: &str, announcement| {
            it.apply(Event::Announced {
                gateway: gateway(name, 1),
                link: LinkId(if name == "g1" { 1 } else { 2 }),
                announcement,
            })
        };
        let ahead = Announcement {
            since: Timestamp(NOW.0 + ahead_ms),
            ..announcement(10, 1)
        };
        assert_eq!(announce("g1", ahead), []);
        assert_eq!(
            announce("g2", announcement(20, 2)),
            [replaced("g1", 10)],
            "{ahead_ms}"
        );
        // Announcing both again, in the other order, changes nothing.
        assert_eq!(announce("g1", ahead), [replaced("g1", 10)], "{ahead_ms}");
        assert_eq!(
            announce("g2", announcement(20, 2)),
            [replaced("g1", 10)],
            "{ahead_ms}"
        );
    }
}

#[test]
fn a_stream_that_is_not_open_yet_replaces_none_and_is_not_replaced() {
    let mut it = Fixture::new();
    assert_eq!(it.announce("g1", 10, 1), []);
    assert_eq!(it.announce("g2", 20, 0), []);
    assert_eq!(it.announce("g1", 10, 1), []);
    assert_eq!(it.found(), [10, 20], "both are told of messages meanwhile");
    assert_eq!(it.open("g2", 20, 2), [replaced("g1", 10)]);
    it.end("g1", 10);
    assert_eq!(it.announce("g1", 11, 0), []);
    it.end("g1", 11);
    assert_eq!(it.found(), [20], "it was refused, and nobody was cut off for it");
    assert_eq!(
        it.open("g1", 12, 3),
        [],
        "not known here: its announcement says it"
    );
    assert_eq!(it.announce("g1", 12, 3), [replaced("g2", 20)]);
}

/// A node that has just started, or has just got the slot, may hear of the sessions in any order.
#[test]
fn after_all_was_announced_anew_the_newest_stays_whoever_comes_first() {
    for order in [[10, 20, 30], [30, 20, 10], [20, 30, 10]] {
        let mut it = Fixture::new();
        let mut told = BTreeSet::new();
        for session in order {
            let name = if session == 20 { "g2" } else { "g1" };
            for effect in it.announce(name, session, session / 10) {
                let Effect::Replaced { session, .. } = effect else {
                    panic!("{effect:?}")
                };
                told.insert(session.0);
            }
        }
        assert_eq!(told, BTreeSet::from([10, 20]), "{order:?}");
    }
}

#[test]
fn of_streams_that_one_query_numbered_the_one_that_began_later_is_newer() {
    let mut it = Fixture::new();
    it.announce("g1", 11, 7);
    assert_eq!(it.announce("g1", 10, 7), [replaced("g1", 10)]);
}

#[test]
fn fine_print_8_the_end_of_an_old_session_never_removes_a_newer_one() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    it.announce("g1", 11, 5);
    it.announce("g2", 10, 9);
    it.end("g1", 10);
    assert_eq!(it.found(), [10, 11]);
    it.end("g1", 10);
    assert_eq!(it.found(), [10, 11], "g2 has a session of that number too");
}

#[test]
fn two_devices_do_not_replace_each_other() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    let other = Announcement {
        device: device(2),
        ..announcement(20, 5)
    };
    let event = Event::Announced {
        gateway: gateway("g2", 1),
        link: LinkId(2),
        announcement: other,
    };
    assert_eq!(it.apply(event), []);
    assert_eq!(it.found(), [10, 20]);
}

#[test]
fn users_of_a_slot_that_moved_away_are_forgotten() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    let mut others: SlotSet = SlotSet::all();
    others = Slot::all()
        .filter(|slot| *slot != Slot::of_user(user(1)) && others.contains(*slot))
        .collect();
    it.map(others, &["g1", "g2"]);
    assert_eq!(it.registry.sessions(), 0);
    let both = [user(1), user(2)];
    assert_ne!(Slot::of_user(both[0]), Slot::of_user(both[1]));
    assert!(it.registry.look_up(&both[1..]).is_ok());
    assert!(it.registry.look_up(&both).is_err(), "a look-up fails as a whole");
    assert_eq!(it.announce("g1", 10, 1), [Effect::NotOwner]);
    assert_eq!(it.end("g1", 10), [Effect::NotOwner]);

    it.map(SlotSet::all(), &["g1", "g2"]);
    assert_eq!(it.found(), NONE, "it comes back empty and is announced to again");
}

#[test]
fn what_a_superseded_link_still_says_is_ignored() {
    let mut it = Fixture::new();
    assert_eq!(
        it.link("g1", 7),
        [Effect::EndLink {
            gateway: gateway("g1", 1),
            link: LinkId(1)
        }]
    );
    it.announce_on("g1", 1, 10, 1);
    assert_eq!(it.found(), NONE);
    it.announce_on("g1", 7, 11, 1);
    it.end("g1", 11);
    assert_eq!(it.found(), [11]);
    it.apply(Event::Unlinked {
        gateway: gateway("g1", 1),
        link: LinkId(1),
    });
    it.announce_on("g1", 7, 12, 1);
    assert_eq!(it.found(), [11, 12]);
}

#[test]
fn what_is_not_announced_again_on_a_new_link_ended_while_the_old_one_was_broken() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    it.announce("g1", 11, 5);
    it.announce("g2", 20, 9);
    it.link("g1", 7);
    it.announce_on("g1", 7, 11, 5);
    it.apply(Event::Tick);
    assert_eq!(it.found(), [10, 11, 20]);
    it.now = it.now + STALE_AFTER;
    it.apply(Event::Tick);
    assert_eq!(it.found(), [11, 20]);
}

#[test]
fn the_sessions_of_one_user_are_bounded() {
    let mut it = Fixture::new();
    for session in 0..MAX_SESSIONS_PER_USER as u64 {
        it.announce("g1", session, session + 1);
    }
    let effects = it.announce("g1", 999, 10_000);
    assert!(effects.contains(&replaced("g1", 0)));
    assert_eq!(it.found().len(), MAX_SESSIONS_PER_USER);
    assert!(!it.found().contains(&0));
}

/// One step of a random history: few users with few devices, on two gateways.
#[derive(Clone, Debug)]
enum Step {
    Announce {
        gateway: usize,
        user: u128,
        device: u128,
        session: u64,
        number: u64,
    },
    End {
        gateway: usize,
        user: u128,
        session: u64,
    },
    Leave {
        gateway: usize,
    },
    Move {
        user: u128,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 1..4u128, 0..2u128, 0..6u64, 0..100u64).prop_map(
            |(gateway, user, device, session, number)| Step::Announce {
                gateway, user, device: user * 10 + device, session: session + user as u64 * 100, number
            }
        ),
        3 => (0..2usize, 1..4u128, 0..6u64)
            .prop_map(|(gateway, user, session)| Step::End { gateway, user, session: session + user as u64 * 100 }),
        1 => (0..2usize).prop_map(|gateway| Step::Leave { gateway }),
        1 => (1..4u128).prop_map(|user| Step::Move { user }),
    ]
}

proptest! {
    #[test]
    fn any_history_is_found_as_a_plain_list_has_it(steps in proptest::collection::vec(step(), 0..60)) {
        let names = ["g1", "g2"];
        let mut it = Fixture::new();
        let mut links = [1, 2];
        let mut next_link = 3;
        // The model has (gateway, user, session), which is all that look-ups depend on.
        let mut model: BTreeSet<(usize, u128, u64)> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Announce { gateway: g, user: u, device: d, session, number } => {
                    let announcement = Announcement {
                        user: user(u), device: device(d), ..announcement(session, number)
                    };
                    let event = Event::Announced { gateway: gateway(names[g], 1), link: LinkId(links[g]), announcement };
                    let known = model.contains(&(g, u, session));
                    let effects = it.apply(event);
                    model.insert((g, u, session));
                    for effect in &effects {
                        let Effect::Replaced { gateway, session } = effect else { panic!("{effect:?}") };
                        let at = names.iter().position(|name| **name == *gateway.name).unwrap();
                        prop_assert!(model.contains(&(at, u, session.0)), "only a live session is replaced");
                    }
                    let own = Effect::Replaced { gateway: gateway(names[g], 1), session: SessionId(session) };
                    prop_assert!(known || !effects.contains(&own) || effects.len() == 1,
                        "one session does not replace others and is itself replaced");
                }
                Step::End { gateway: g, user: u, session } => {
                    it.apply(Event::Ended {
                        gateway: gateway(names[g], 1), link: LinkId(links[g]), user: user(u), session: SessionId(session),
                    });
                    model.remove(&(g, u, session));
                }
                Step::Leave { gateway: g } => {
                    it.map(SlotSet::all(), &[names[1 - g]]);
                    it.map(SlotSet::all(), &names);
                    it.link(names[g], next_link);
                    links[g] = next_link;
                    next_link += 1;
                    model.retain(|(at, _, _)| *at != g);
                }
                Step::Move { user: u } => {
                    let slot = Slot::of_user(user(u));
                    it.map(Slot::all().filter(|other| *other != slot).collect(), &names);
                    it.map(SlotSet::all(), &names);
                    model.retain(|(_, other, _)| Slot::of_user(user(*other)) != slot);
                }
            }
            let users = [user(1), user(2), user(3)];
            let found: BTreeSet<_> = it.registry.look_up(&users).unwrap().map(|session| {
                let at = names.iter().position(|name| **name == *session.gateway.name).unwrap();
                (at, session.user.0.as_u128(), session.session.0)
            }).collect();
            prop_assert_eq!(&found, &model);
            prop_assert_eq!(it.registry.sessions(), model.len());
        }
    }

    #[test]
    fn of_a_devices_sessions_exactly_the_newest_is_never_replaced(order in Just((0..6u64).collect::<Vec<_>>()).prop_shuffle()) {
        let mut it = Fixture::new();
        let mut told = BTreeSet::new();
        for session in order {
            for effect in it.announce("g1", session, session + 1) {
                let Effect::Replaced { session, .. } = effect else { panic!("{effect:?}") };
                told.insert(session.0);
            }
        }
        prop_assert_eq!(told, (0..5).collect::<BTreeSet<_>>());
        prop_assert_eq!(it.found().len(), 6, "look-ups are not filtered");
    }
}
