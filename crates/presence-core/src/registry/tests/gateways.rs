//! Tests of what gateways and the map do to sessions.

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

/// The node was out of its own map for a moment. The gateways may not have noticed.
#[test]
fn a_node_that_comes_back_into_its_map_has_everything_announced_again() {
    let mut this = Fixture::new();
    this.announce("g1", 1, 1);
    assert_eq!(this.map(SlotSet::empty(), &["g1", "g2"]), []);
    let mut ended = this.map(SlotSet::all(), &["g1", "g2"]);
    ended.sort_by_key(|effect| format!("{effect:?}"));
    let end = |name, link| Effect::EndLink {
        gateway: gateway(name, 1),
        link: LinkId(link),
    };
    assert_eq!(ended, [end("g1", 1), end("g2", 2)]);
    assert_eq!(this.map(SlotSet::all(), &["g1", "g2"]), [], "once");
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
        owned: SlotSet::all(),
        gateways,
    });
    assert_eq!(it.found(), NONE);
}
