//! These tests hold what gateways and the map do to sessions.

use super::*;

#[test]
fn the_sessions_of_a_gateway_go_when_it_leaves_the_map() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    it.announce("g2", 20, 5);
    let ended = Effect::EndLink {
        gateway: gateway("g1", 1),
        link: LinkId(1),
    };
    assert_eq!(it.map(SlotSet::all(), &["g2"]), [ended]);
    assert_eq!(it.found(), [20]);
}

#[test]
fn a_look_up_is_sure_once_every_gateway_in_the_map_has_said_the_slot() {
    let mut it = Fixture::new();
    assert!(!it.is_sure());
    it.say("g1", 1, 7);
    assert!(!it.is_sure(), "g2 may have a session");
    it.say("g2", 2, 7);
    assert!(it.is_sure());
    // A gateway that joins or whose stream breaks may have sessions that are not known here.
    it.map(SlotSet::all(), &["g1", "g2", "g3"]);
    assert!(!it.is_sure());
    it.map(SlotSet::all(), &["g1", "g2"]);
    assert!(it.is_sure());
    it.link("g2", 3);
    assert!(!it.is_sure());
    it.say("g2", 2, 7);
    assert!(!it.is_sure(), "the older stream counts no more");
    it.say("g2", 3, 7);
    assert!(it.is_sure());
    it.apply(Event::Unlinked {
        gateway: gateway("g2", 1),
        link: LinkId(3),
    });
    assert!(!it.is_sure());
}

/// The node was without its slots for a moment, by its own map. The gateways may not have noticed.
#[test]
fn what_was_forgotten_with_its_slot_is_asked_for_again() {
    let mut it = Fixture::new();
    for (name, link) in [("g1", 1), ("g2", 2)] {
        it.say(name, link, 7);
    }
    it.announce("g1", 10, 1);
    assert_eq!(it.map(SlotSet::empty(), &["g1", "g2"]), []);
    assert_eq!(it.map(SlotSet::all(), &["g1", "g2"]), []);
    assert_eq!((it.found(), it.is_sure()), (vec![], false));
    // The first says it by itself. What it says by a map of before does not count.
    it.say("g1", 1, 6);
    it.say("g2", 2, 7);
    assert_eq!(it.registry.next_tick(), Some(NOW + AGAIN_AFTER));
    it.now = it.now + AGAIN_AFTER - Duration::from_millis(1);
    assert_eq!(it.apply(Event::Tick), []);
    it.now = it.now + Duration::from_millis(1);
    let ended = Effect::EndLink {
        gateway: gateway("g1", 1),
        link: LinkId(1),
    };
    assert_eq!(it.apply(Event::Tick), [ended]);
    assert_eq!(it.apply(Event::Tick), [], "once");
    assert_eq!(it.registry.next_tick(), Some(NOW + STALE_AFTER));
    it.link("g1", 4);
    it.announce_on("g1", 4, 10, 1);
    it.say("g1", 4, 7);
    assert_eq!((it.found(), it.is_sure()), (vec![10], true));
}

#[test]
fn the_sessions_of_a_gateway_stay_when_its_link_breaks_and_it_is_in_the_map() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    it.apply(Event::Unlinked {
        gateway: gateway("g1", 1),
        link: LinkId(1),
    });
    assert_eq!(it.found(), [10]);
    it.map(SlotSet::all(), &["g2"]);
    assert_eq!(it.found(), NONE);
}

#[test]
fn a_gateway_that_is_not_in_the_map_yet_is_known_as_long_as_its_link_lives() {
    let mut it = Fixture::new();
    it.link("g3", 3);
    it.announce_on("g3", 3, 30, 1);
    assert_eq!(it.map(SlotSet::all(), &["g1", "g2"]), []);
    assert_eq!(it.found(), [30]);
    it.apply(Event::Unlinked {
        gateway: gateway("g3", 1),
        link: LinkId(3),
    });
    assert_eq!(it.found(), NONE);
}

#[test]
fn a_new_incarnation_of_a_gateway_takes_the_sessions_of_the_old_one_away() {
    let mut it = Fixture::new();
    it.announce("g1", 10, 1);
    let gateways = HashSet::from([gateway("g1", 2), gateway("g2", 1)]);
    it.apply(Event::MapChanged {
        map_version: 7,
        owned: SlotSet::all(),
        gateways,
    });
    assert_eq!(it.found(), NONE);
}
