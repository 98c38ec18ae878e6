use tern_types::{DeviceId, SessionId};

use super::*;
use crate::activity::Sign;
use crate::registry::{Announcement, Gateway, LinkId};

const THRESHOLD: Duration = Duration::from_secs(30);
const HOLD_OFFLINE: Duration = Duration::from_secs(2);
const START: Timestamp = Timestamp(1_000_000);
const LINK: WatchLink = WatchLink(1);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn gateway() -> Gateway {
    Gateway {
        name: "g1".into(),
        incarnation: 1,
    }
}

/// A node with one gateway, which announces its sessions and watches on [`LINK`].
struct Node(People);

impl Node {
    /// Starts a node that got all slots at the start.
    fn new() -> Self {
        let mut people = People::new(THRESHOLD, HOLD_OFFLINE);
        people.open_watch(LINK);
        let mut node = Self(people);
        node.map(SlotSet::all(), 0);
        let (gateway, link) = (gateway(), LinkId(1));
        node.0.apply(Event::Linked { gateway, link }, START);
        node
    }

    fn map(&mut self, owned: SlotSet, now: u64) -> Vec<Effect> {
        let gateways = [gateway()].into();
        let map_version = 1;
        let event = Event::MapChanged {
            map_version,
            owned,
            gateways,
        };
        self.0.apply(event, at(now))
    }

    fn announce(&mut self, user: UserId, active: bool, now: u64) -> Vec<Effect> {
        let announcement = Announcement {
            user,
            device: DeviceId(user.0),
            session: SessionId(7),
            since: START,
            number: None,
            sign: Sign {
                active,
                at: at(now),
                heard: at(now),
                said: at(now),
            },
        };
        let event = Event::Announced {
            gateway: gateway(),
            link: LinkId(1),
            announcement,
        };
        self.0.apply(event, at(now))
    }

    fn watch(&mut self, user: UserId) {
        for user in self.0.watch(LINK, &[user]) {
            self.0.stored(&[user], &HashMap::new());
        }
    }

    fn news(&mut self, now: u64) -> Vec<Presence> {
        let news = self.0.take(LINK, 99, at(now));
        news.states.into_iter().map(|(_, presence)| presence).collect()
    }
}

#[test]
fn a_watcher_gets_the_state_and_each_change() {
    let (mut node, user) = (Node::new(), UserId::random());
    node.watch(user);
    assert_eq!(node.news(10), [Presence::LastSeen(Timestamp(0))]);
    assert_eq!(node.announce(user, true, 11), [Effect::Tell(LINK)]);
    assert_eq!(node.news(11), [Presence::Online]);
    assert_eq!(node.announce(user, true, 12), [], "nothing that shows");
    assert_eq!(node.0.tick(at(42)), [Effect::Tell(LINK)]);
    assert_eq!(node.news(42), [Presence::LastSeen(at(12))]);
}

#[test]
fn a_person_is_at_a_device_while_its_newest_sign_counts() {
    let (mut node, users) = (Node::new(), [UserId::random()]);
    let active = |node: &Node, now: u64| -> Option<Vec<bool>> {
        let sessions = node.0.active_sessions(&users, at(now)).ok()?;
        Some(sessions.map(|(_, active)| active).collect())
    };
    assert_eq!(active(&node, 9), Some(Vec::new()));
    node.announce(users[0], true, 10);
    for (now, expected) in [(10, true), (39, true), (40, false)] {
        assert_eq!(active(&node, now), Some(vec![expected]), "at {now}");
    }
    node.announce(users[0], true, 50);
    node.announce(users[0], false, 51);
    assert_eq!(active(&node, 52), Some(vec![false]), "the person has left it");
    node.map(SlotSet::empty(), 53);
    assert_eq!(active(&node, 54), None, "another node knows");
}

#[test]
fn whoever_has_just_got_a_slot_calls_nobody_offline_before_the_gateways_had_their_say() {
    let (mut node, comes, gone) = (Node::new(), UserId::random(), UserId::random());
    node.watch(comes);
    node.watch(gone);
    assert_eq!(node.news(1), []);
    assert_eq!(node.announce(comes, true, 1), [Effect::Tell(LINK)]);
    assert_eq!(node.news(1), [Presence::Online]);
    assert_eq!(node.0.next_tick(), Some(at(2)));
    assert!(node.0.unsettled_for(&[gone], at(1)) == Duration::from_secs(1));
    node.0.tick(at(2));
    let news = node.news(2);
    assert!(news.contains(&Presence::LastSeen(Timestamp(0))), "{news:?}");
    assert_eq!(node.0.unsettled_for(&[gone], at(2)), Duration::ZERO);
}

#[test]
fn a_gateway_that_dies_takes_its_people_offline_as_last_seen_at_their_last_sign() {
    let (mut node, user) = (Node::new(), UserId::random());
    node.announce(user, true, 5);
    node.watch(user);
    assert_eq!(node.news(10), [Presence::Online]);
    let owned = SlotSet::all();
    let effects = node.0.apply(
        Event::MapChanged {
            map_version: 1,
            owned,
            gateways: HashSet::new(),
        },
        at(11),
    );
    assert!(effects.contains(&Effect::Tell(LINK)));
    assert_eq!(node.news(11), [Presence::LastSeen(at(5))]);
}

#[test]
fn people_of_slots_that_left_are_given_back_and_their_last_seen_is_written() {
    let (mut node, user) = (Node::new(), UserId::random());
    node.announce(user, true, 5);
    node.watch(user);
    node.news(10);
    assert_eq!(node.map(SlotSet::empty(), 11), [Effect::Tell(LINK)]);
    let news = node.0.take(LINK, 99, at(11));
    assert_eq!((news.states, news.foreign), (vec![], vec![user]));
    assert_eq!(node.0.activity().take_writes(9), [(user, at(5))]);
    assert!(node.0.activity().is_empty());
    assert_eq!(node.0.watch(LINK, &[user]), []);
    assert_eq!(node.0.take(LINK, 99, at(11)).foreign, [user]);
    assert_eq!(node.0.presences(&[user]), Err(NotOwner));
}

#[test]
fn people_of_whom_nothing_can_be_told_yet_hold_up_nobody_behind_them() {
    let mut node = Node::new();
    let [unwatched, unknown, held, known] = [(); 4].map(|()| UserId::random());
    node.watch(unwatched);
    node.0.watch(LINK, &[unknown]);
    node.watch(held);
    node.announce(known, true, 1);
    node.watch(known);
    node.0.unwatch(LINK, &[unwatched]);
    let news = node.0.take(LINK, 1, at(1));
    assert_eq!(news.states, [(known, Presence::Online)]);
    assert!(node.0.take(LINK, 1, at(1)).is_empty());
}

#[test]
fn while_the_store_is_away_it_is_asked_again_about_those_who_are_watched_and_nobody_else() {
    let (mut node, stays, leaves) = (Node::new(), UserId::random(), UserId::random());
    node.announce(leaves, true, 5);
    assert_eq!(node.0.watch(LINK, &[stays, leaves]), [stays, leaves]);
    let effects = node.0.store_was_away(&[stays, leaves]);
    assert_eq!(effects, [Effect::Tell(LINK), Effect::Tell(LINK)]);
    assert_eq!(node.news(5), [Presence::LastSeen(Timestamp(0)), Presence::Online]);
    assert_eq!(node.0.to_read_again(9).len(), 2);
    node.0.unwatch(LINK, &[leaves]);
    assert_eq!(node.0.to_read_again(9), [stays]);
    assert_eq!(
        node.0.watch(LINK, &[stays, leaves]),
        [leaves],
        "the store is asked anew"
    );

    let found = HashMap::from([(stays, at(3))]);
    assert_eq!(node.0.stored(&[stays], &found), [Effect::Tell(LINK)]);
    assert!(node.news(6).contains(&Presence::LastSeen(at(3))));
    assert_eq!(node.0.store_was_away(&[stays, leaves]), [Effect::Tell(LINK)]);
    assert_eq!(
        node.0.to_read_again(9),
        [leaves],
        "of the other the store has told"
    );
    node.0.close_watch(LINK);
    assert!(node.0.to_read_again(9).is_empty());
}

#[test]
fn nothing_is_kept_of_people_whom_nobody_watches_and_who_are_away() {
    let (mut node, user) = (Node::new(), UserId::random());
    node.watch(user);
    assert_eq!(node.0.activity().len(), 1);
    node.0.unwatch(LINK, &[user]);
    assert!(node.0.activity().is_empty());
    node.watch(user);
    node.0.close_watch(LINK);
    assert!(node.0.activity().is_empty() && node.0.watches() == 0);
}
