//! Tests that devices are woken: a failed look-up does not mean "offline", and a wake that is not confirmed
//! is not delivered.

use tern_chat_core::shard::Woken;
use tern_cluster::Node;
use tern_cluster::standing::Standing;

use crate::harness::{Chat, missing, online};
use crate::nodes::{Mood, PresenceNode};

#[tokio::test]
async fn fine_print_5_a_failed_look_up_is_not_offline() {
    let (first, second) = (PresenceNode::start("p0").await, PresenceNode::start("p1").await);
    let chat = Chat::linked(&[&first, &second]).await;
    let both = [missing(chat.user_of(&first)), missing(chat.user_of(&second))];
    assert!(chat.wakes(&both).await, "both are offline: nobody is to be woken");

    for mood in [Mood::Hangs, Mood::NotOwner, Mood::Fails] {
        second.is(mood.clone());
        assert!(!chat.wakes(&both).await, "one node {mood:?}");
        let found = chat.fanout.lookup.sessions(vec![both[1].user]).await;
        assert!(found.failed && found.sessions.is_empty(), "{mood:?}");
        assert!(chat.wakes(&both[..1]).await, "the other node's users: {mood:?}");
        second.is(Mood::Knows(Vec::new()));
        chat.until_linked(&[&second]).await;
        assert!(chat.wakes(&both).await, "after {mood:?}");
    }

    let gone = Node {
        // Nothing listens at this address.
        address: "127.0.0.1:1".to_owned(),
        ..second.node.clone()
    };
    assert!(
        !Chat::of([gone]).wakes(&both).await,
        "a node that is gone and still in the map"
    );
    assert!(!Chat::of([]).wakes(&both).await, "no presence node at all");
}

/// A presence node that may have lost its slots without knowing it can say who is online, but not that nobody is. This
/// holds for a node that is unsure of its slots, and for one whose map is older than the asker's.
#[tokio::test]
async fn nobody_counts_only_from_an_owner_that_is_certain_of_it() {
    let presence = PresenceNode::start("p0").await;
    let chat = Chat::linked(&[&presence]).await;
    let device = missing(chat.user_of(&presence));
    for (mood, woken) in [
        (Mood::Unsure(Vec::new()), Woken::Unsure),
        (Mood::Behind, Woken::Unsure),
        (Mood::Knows(Vec::new()), Woken::All),
        // There is no link to the session's gateway, which is to be tried again soon.
        (Mood::Unsure(vec![online(&device, "g0", 10)]), Woken::NotAll),
    ] {
        presence.is(mood.clone());
        assert_eq!(chat.woken(&[device]).await, woken, "{mood:?}");
    }
    // The gateway is linked, but is not in the map, so it does not answer for all gateways.
    let _g0 = chat.gateway("g0").answers(&chat, Vec::new());
    let woken = chat.woken(&[device]).await;
    assert_eq!(woken, Woken::Unsure, "who was found is woken all the same");
}

/// It may ask by a map that others no longer use.
#[tokio::test]
async fn a_chat_node_that_has_lost_its_place_concludes_from_nothing_that_nobody_is_online() {
    let presence = PresenceNode::start("p0").await;
    // A node that is not registered has no place.
    let chat = Chat::placed([presence.node.clone()], &[], Standing::new);
    chat.until_linked(&[&presence]).await;
    let device = missing(chat.user_of(&presence));
    assert_eq!(chat.woken(&[device]).await, Woken::Unsure);
}

#[tokio::test]
async fn fine_print_5_an_unconfirmed_push_is_not_delivered() {
    let presence = PresenceNode::start("p0").await;
    let chat = Chat::linked(&[&presence]).await;
    let user = chat.user_of(&presence);
    let devices = [missing(user), missing(user)];
    let (one, other) = (online(&devices[0], "g0", 10), online(&devices[1], "g1", 11));
    presence.is(Mood::Knows(vec![one.clone()]));
    assert!(!chat.wakes(&devices).await, "no link to its gateway");

    let mut g0 = chat.gateway("g0");
    let confirmed = async {
        let (wake, sessions, from) = g0.woken().await;
        assert_eq!((sessions, from), (vec![10], 3));
        chat.gateways.wake_done(wake);
    };
    assert!(tokio::join!(chat.wakes(&devices), confirmed).0);

    assert!(!chat.wakes(&devices).await, "a gateway that says nothing");
    g0.woken().await;
    let breaks = async {
        g0.woken().await;
        drop(g0);
    };
    assert!(!tokio::join!(chat.wakes(&devices), breaks).0, "its link broke");

    presence.is(Mood::Knows(vec![one, other]));
    let (mut g0, mut g1) = (chat.gateway("g0"), chat.gateway("g1"));
    let half = async {
        g1.woken().await;
        chat.gateways.wake_done(g0.woken().await.0);
    };
    assert!(
        !tokio::join!(chat.wakes(&devices), half).0,
        "one of two confirmed"
    );
    let whole = async {
        chat.gateways.wake_done(g1.woken().await.0);
        chat.gateways.wake_done(g0.woken().await.0);
    };
    assert!(tokio::join!(chat.wakes(&devices), whole).0);
}
