//! Tests pushes whose look-up fails, and receipts that are lost on a full queue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tern_chat::fanout::{Outgoing, Pushes};
use tern_chat::gateways::{Kind, LiveLink};
use tern_chat_core::Missing;
use tern_cluster::links::NodeIdentity;
use tern_proto::internal::{LiveSession, Push};
use tern_types::{IdSet, NoticeKind, Seq, SessionId, UserId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::{Chat, PATIENCE, here, missing, online};
use crate::nodes::{Mood, PresenceNode};

#[tokio::test]
async fn a_receipt_whose_look_up_failed_is_told_later_and_an_entry_is_not() {
    let presence = PresenceNode::start("p0").await;
    let chat = Chat::linked(&[&presence]).await;
    let device = missing(chat.user_of(&presence));
    let peer = NodeIdentity {
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
    let peer = NodeIdentity {
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

/// A chat node that follows the user of a device with one session, and the gateway's end of what is pushed.
struct Following {
    presence: PresenceNode,
    chat: Chat,
    device: Missing,
    events: Pushes,
    pushes: mpsc::Receiver<Push>,
    _live: LiveLink,
}

impl Following {
    async fn start() -> Self {
        let presence = PresenceNode::start("p0").await;
        let chat = Chat::linked(&[&presence]).await;
        let device = missing(chat.user_of(&presence));
        let peer = NodeIdentity {
            name: "g0".to_owned(),
            incarnation: 1,
        };
        let (_live, pushes) = chat.gateways.open_live(peer);
        presence.is(Mood::Knows(vec![online(&device, "g0", 10)]));
        let mut following = Self {
            events: chat.fanout.spawn(chat.gateways.clone()),
            presence,
            chat,
            device,
            pushes,
            _live,
        };
        // The news of the session may end that the user is followed, once.
        let mut asked = usize::MAX;
        while following.asked() != asked {
            asked = following.asked();
            while following.push(Kind::Entry(Seq(1))).await != [10] {}
        }
        following
    }

    /// Returns the number of look-ups that reached the presence node.
    fn asked(&self) -> usize {
        self.presence.asked.load(Ordering::Relaxed)
    }

    /// Pushes an event to the device's user. Returns the sessions that it goes to.
    async fn push(&mut self, kind: Kind) -> Vec<u64> {
        self.events.push(Outgoing {
            chat: self.chat.chat,
            kind,
            users: [self.device.user].into(),
            except: Vec::new(),
            event: Bytes::from_static(b"event"),
            span: None,
        });
        timeout(PATIENCE, self.pushes.recv())
            .await
            .unwrap()
            .unwrap()
            .sessions
    }

    /// Returns the device's session and another one.
    fn both(&self) -> Vec<LiveSession> {
        vec![online(&self.device, "g0", 10), online(&self.device, "g0", 11)]
    }
}

#[tokio::test]
async fn a_followed_user_is_not_looked_up_until_the_sessions_change() {
    let mut following = Following::start().await;
    let asked = following.asked();
    for seq in 2..10 {
        assert_eq!(following.push(Kind::Entry(Seq(seq))).await, [10]);
    }
    assert_eq!(following.asked(), asked, "the answer is known");
    following.presence.is(Mood::Knows(following.both()));
    let heard = async { while following.push(Kind::Entry(Seq(10))).await != [10, 11] {} };
    timeout(PATIENCE, heard).await.unwrap();
}

#[tokio::test]
async fn a_session_that_nobody_told_of_yet_hears_that_it_missed_a_receipt() {
    let mut following = Following::start().await;
    following.presence.is(Mood::KnowsUntold(following.both()));
    let to = following.push(Kind::Receipt).await;
    assert_eq!(to, [10], "nobody has told of the other");
    let missed = async {
        loop {
            let missed = following.chat.gateways.take_missed("g0").sessions;
            if !missed.is_empty() {
                return missed;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, missed).await.unwrap(), IdSet::from_iter([11]));
}
