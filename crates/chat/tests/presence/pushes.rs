//! Tests pushes whose look-up fails, and receipts that are lost on a full queue.

use std::time::Duration;

use bytes::Bytes;
use tern_chat::fanout::Outgoing;
use tern_chat::gateways::Kind;
use tern_cluster::links::Peer;
use tern_proto::internal::Push;
use tern_types::{NoticeKind, Seq, SessionId, UserId};
use tokio::time::timeout;

use crate::harness::{Chat, PATIENCE, here, missing, online};
use crate::nodes::{Mood, PresenceNode};

#[tokio::test]
async fn a_receipt_whose_look_up_failed_is_told_later_and_an_entry_is_not() {
    let presence = PresenceNode::start("p0").await;
    let chat = Chat::linked(&[&presence]).await;
    let device = missing(chat.user_of(&presence));
    let peer = Peer {
        name: "g0".to_owned(),
        incarnation: 1,
    };
    let (_live, mut pushes) = chat.gateways.open_live(peer);
    let events = chat.fanout.spawn(chat.gateways.clone());
    let event = |kind, what: &'static str| Outgoing {
        chat: chat.chat,
        kind,
        users: [device.user].into(),
        except: Vec::<SessionId>::new(),
        event: Bytes::from_static(what.as_bytes()),
        span: None,
    };
    presence.is(Mood::NotOwner);
    for (kind, what) in [
        (Kind::Receipt, "receipt 1"),
        (Kind::Entry(Seq(7)), "entry"),
        (Kind::Notice(NoticeKind::Typing), "typing"),
        (Kind::Receipt, "receipt 2"),
    ] {
        events.push(event(kind, what));
    }
    let early = timeout(Duration::from_millis(300), pushes.recv()).await;
    assert!(early.is_err(), "{early:?}");
    presence.is(Mood::Knows(vec![online(&device, "g0", 10)]));
    let mut next = async || -> Push { timeout(PATIENCE, pushes.recv()).await.unwrap().unwrap() };
    for what in ["receipt 1", "receipt 2"] {
        let push = next().await;
        assert_eq!((push.event.as_ref(), push.sessions), (what.as_bytes(), vec![10]));
    }
    events.push(event(Kind::Entry(Seq(8)), "entry 8"));
    assert_eq!(next().await.event, "entry 8", "once each");
}

#[tokio::test(start_paused = true)]
async fn users_who_missed_receipts_are_told_although_events_never_stop() {
    let chat = Chat::with_gateways([], &["g0"]);
    let device = missing(UserId::random());
    let _g0 = chat.gateway("g0").answers(&chat, vec![here(&device, 10)]);
    let peer = Peer {
        name: "g0".to_owned(),
        incarnation: 1,
    };
    let (_live, _pushes) = chat.gateways.open_live(peer);
    let events = chat.fanout.spawn(chat.gateways.clone());
    let event = |kind| Outgoing {
        chat: chat.chat,
        kind,
        users: [device.user].into(),
        except: Vec::<SessionId>::new(),
        event: Bytes::from_static(b"event"),
        span: None,
    };
    events.push(event(Kind::Entry(Seq(1))));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The task does not run meanwhile, so the queue has no room for the last receipts.
    for _ in 0..4096 {
        events.push(event(Kind::Receipt));
    }
    let mut told = Vec::new();
    for seq in 2..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        events.push(event(Kind::Entry(Seq(seq))));
        told.extend(chat.gateways.take_missed("g0").sessions);
    }
    assert_eq!(told, [10], "once");
}
