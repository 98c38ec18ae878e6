//! Tests look-ups that the gateways answer because presence does not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tern_chat::lookup::Sessions;
use tern_chat_core::shard::Woken;
use tern_types::UserId;
use tokio::time::{Instant, timeout};

use crate::harness::{Chat, PATIENCE, here, missing, online};
use crate::nodes::{Mood, PresenceNode};

/// Returns the ids of the sessions that were found, ascending.
fn found(sessions: &Sessions) -> Vec<u64> {
    let mut found: Vec<_> = sessions.sessions.iter().map(|found| found.session.0).collect();
    found.sort_unstable();
    found
}

/// Rule 3 ("write, then look up") also holds with the gateways' registries in place of presence.
#[tokio::test]
async fn where_presence_cannot_be_asked_all_gateways_together_are_and_each_has_to_answer() {
    let presence = PresenceNode::start("p0").await;
    let devices = [missing(UserId::random()), missing(UserId::random())];
    for mood in [Mood::Hangs, Mood::NotOwner, Mood::Fails] {
        presence.is(mood.clone());
        let chat = Chat::with_gateways([presence.node.clone()], &["g0", "g1"]);
        let users = || devices.iter().map(|device| device.user).collect::<Vec<_>>();
        let sessions = || chat.fanout.lookup.sessions(users());
        let _g0 = chat.gateway("g0").answers(&chat, vec![here(&devices[0], 10)]);
        // The gateway g2 is linked but not in this node's map yet.
        let _new = chat.gateway("g2").answers(&chat, vec![here(&devices[1], 12)]);
        let half = sessions().await;
        assert_eq!(
            (half.failed, found(&half)),
            (true, vec![10, 12]),
            "g1 is not linked: {mood:?}"
        );
        assert!(!chat.wakes(&devices).await, "{mood:?}");

        let g1 = chat.gateway("g1");
        let silent = sessions().await;
        assert!(silent.failed, "g1 says nothing: {mood:?}");
        let _g1 = g1.answers(&chat, vec![here(&devices[1], 11)]);
        // The gateway counts as silent until it has answered a probe.
        let whole = async {
            loop {
                let whole = sessions().await;
                if !whole.failed {
                    break whole;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let whole = timeout(PATIENCE, whole).await.expect("g1 is asked again");
        assert_eq!(found(&whole), [10, 11, 12], "{mood:?}");
        assert!(chat.wakes(&devices).await, "{mood:?}");
    }
    let chat = Chat::with_gateways([], &["g0"]);
    let _g0 = chat.gateway("g0").answers(&chat, vec![here(&devices[0], 10)]);
    let found = chat.fanout.lookup.sessions(vec![devices[0].user]).await;
    assert_eq!(
        (found.failed, found.sessions.len()),
        (false, 1),
        "no presence node at all"
    );
}

/// A presence node is never sure while a gateway that is in the map does not reach it. The devices that connect to that
/// gateway are known to the gateway alone.
#[tokio::test]
async fn what_an_unsure_presence_node_does_not_know_a_settle_learns_from_the_gateways() {
    let presence = PresenceNode::start("p0").await;
    let chat = Chat::with_gateways([presence.node.clone()], &["g0", "g1"]);
    chat.until_linked(&[&presence]).await;
    let device = missing(UserId::random());
    let sessions = || chat.fanout.lookup.sessions(vec![device.user]);
    presence.is(Mood::Unsure(vec![online(&device, "g0", 10)]));
    let _g0 = chat.gateway("g0").answers(&chat, vec![here(&device, 10)]);
    let half = sessions().await;
    assert_eq!(
        (half.failed, half.unsure, found(&half)),
        (false, true, vec![10]),
        "g1 is not linked"
    );
    assert_eq!(chat.woken(&[device]).await, Woken::Unsure);

    let _g1 = chat.gateway("g1").answers(&chat, vec![here(&device, 11)]);
    let whole = sessions().await;
    assert_eq!((whole.unsure, found(&whole)), (false, vec![10, 11]));
    assert_eq!(chat.woken(&[device]).await, Woken::All);
    let live = chat.fanout.lookup.live(vec![device.user]).await;
    assert_eq!(live.sessions.len(), 1, "a push does not wait for the gateways");

    presence.is(Mood::Behind);
    assert_eq!(chat.woken(&[device]).await, Woken::All);
    // Its map may have a gateway of which this node has not heard yet.
    presence.is(Mood::UnsureAndAhead);
    assert_eq!(chat.woken(&[device]).await, Woken::Unsure);
}

#[tokio::test]
async fn a_silent_presence_node_is_only_probed_until_it_answers_again() {
    let presence = PresenceNode::start("p0").await;
    let chat = Chat::with_gateways([presence.node.clone()], &["g0"]);
    let device = missing(UserId::random());
    let _g0 = chat.gateway("g0").answers(&chat, vec![here(&device, 10)]);
    let session = async || {
        let found = chat.fanout.lookup.sessions(vec![device.user]).await;
        assert!(!found.failed);
        found.sessions.first().map(|found| found.session.0)
    };
    let until = async |expected: Option<u64>| {
        let comes = async {
            while session().await != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, comes).await.expect("what it knows now");
    };
    // Presence knows no session, so a session that is found is the gateway's.
    until(None).await;
    presence.is(Mood::Hangs);
    let (asked, began) = (presence.asked.load(Ordering::Relaxed), Instant::now());
    for _ in 0..200 {
        assert_eq!(session().await, Some(10));
    }
    let asked = presence.asked.load(Ordering::Relaxed) - asked;
    assert!(
        asked as u64 <= 2 + began.elapsed().as_secs(),
        "{asked} in {:?}",
        began.elapsed()
    );
    presence.is(Mood::Knows(Vec::new()));
    until(None).await;
}
