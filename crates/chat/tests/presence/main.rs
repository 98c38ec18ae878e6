//! Tests of looking devices up and waking them, against presence nodes and gateways that fail. Fine print 5: a failed
//! look-up is not "offline", an unconfirmed push is not delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tern_chat::fanout::{Fanout, Outgoing};
use tern_chat::gateways::Kind;
use tern_chat::gateways::{ControlLink, Gateways};
use tern_chat::lookup::{Lookup, Patience, Sessions};
use tern_chat::wake::wake;
use tern_chat_core::Missing;
use tern_chat_core::shard::Woken;
use tern_cluster::links::Peer;
use tern_cluster::{ClusterMap, MapHandle, Node, NodeContext, Role};
use tern_proto::internal::presence_server::{Presence, PresenceServer};
use tern_proto::internal::{
    AnnounceReplies, Announcements, DownItem, FoundSession, GetStatesRequest, GetStatesResponse, LiveSession,
    LookupReplies, LookupReply, LookupRequests, PresenceChanges, Push, WatchRequests, down_item,
};
use tern_types::{ChatId, DeviceId, Seq, SessionId, Slot, UserId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// The longest time in which a link is made, or made again.
const PATIENCE: Duration = Duration::from_secs(60);
/// A node that hangs is waited for as long as this. A node that answers does so within it on every machine.
const LOOK_UP_PATIENCE: Patience = Patience {
    presence: Duration::from_secs(2),
    gateway: Duration::from_secs(3),
};

/// What a presence node does when it is asked.
#[derive(Debug, Clone)]
enum Mood {
    /// It answers that these sessions are online.
    Knows(Vec<LiveSession>),
    /// It answers that these are online, and perhaps others.
    Unsure(Vec<LiveSession>),
    /// It answers that nobody is online, by an older map than the asker's.
    Behind,
    /// It answers that it does not own the users.
    NotOwner,
    /// It does not answer.
    Hangs,
    /// It ends the stream.
    Fails,
}

#[derive(Clone)]
struct Moody {
    mood: watch::Receiver<Mood>,
    /// The number of look-ups that reached it.
    asked: Arc<AtomicUsize>,
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Presence for Moody {
    type AnnounceStream = Out<AnnounceReplies>;
    type LookupStream = Out<LookupReplies>;

    async fn announce(
        &self,
        _: Request<Streaming<Announcements>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        Err(Status::unimplemented("no gateway is here"))
    }

    async fn lookup(
        &self,
        request: Request<Streaming<LookupRequests>>,
    ) -> Result<Response<Self::LookupStream>, Status> {
        let (mut frames, mood) = (request.into_inner(), self.mood.clone());
        let asked = self.asked.clone();
        let replies = async_stream::stream! {
            while let Ok(Some(frame)) = frames.message().await {
                asked.fetch_add(frame.requests.len(), Ordering::Relaxed);
                let mood = mood.borrow().clone();
                if matches!(mood, Mood::Fails) {
                    yield Err(Status::unavailable("by the test"));
                    return;
                }
                let replies = frame.requests.into_iter().filter_map(|request| reply(request.r#ref, &mood));
                let map_version = i64::from(!matches!(mood, Mood::Behind));
                yield Ok(LookupReplies { map_version, replies: replies.collect() });
            }
        };
        Ok(Response::new(replies.boxed()))
    }

    type WatchStream = Out<PresenceChanges>;

    async fn watch(
        &self,
        _: Request<Streaming<WatchRequests>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }

    async fn get_states(&self, _: Request<GetStatesRequest>) -> Result<Response<GetStatesResponse>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }
}

fn reply(reference: u64, mood: &Mood) -> Option<LookupReply> {
    let (sessions, not_owner) = match mood {
        Mood::Knows(sessions) | Mood::Unsure(sessions) => (sessions.clone(), false),
        Mood::Behind => (Vec::new(), false),
        Mood::NotOwner => (Vec::new(), true),
        Mood::Hangs | Mood::Fails => return None,
    };
    Some(LookupReply {
        r#ref: reference,
        sessions,
        not_owner,
        unsure: matches!(mood, Mood::Unsure(_)),
    })
}

fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.to_owned(),
        address: address.to_owned(),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}

/// A presence node that does as it is told. Dropping it ends it.
struct PresenceNode {
    mood: watch::Sender<Mood>,
    node: Node,
    asked: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl PresenceNode {
    async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = node(name, &listener.local_addr().unwrap().to_string());
        let asked = Arc::<AtomicUsize>::default();
        let (mood, moods) = watch::channel(Mood::Knows(Vec::new()));
        let serving = Server::builder()
            .add_service(PresenceServer::new(Moody {
                mood: moods,
                asked: asked.clone(),
            }))
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            mood,
            node,
            asked,
            server,
        }
    }

    fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

impl Drop for PresenceNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a shard uses to reach devices.
struct Chat {
    fanout: Fanout,
    gateways: Gateways,
    chat: ChatId,
    map: ClusterMap,
}

impl Chat {
    /// A chat node with these presence nodes in its map.
    fn of(presences: impl IntoIterator<Item = Node>) -> Self {
        Self::with_gateways(presences, &[])
    }

    /// A chat node with these presence nodes and gateways in its map.
    fn with_gateways(presences: impl IntoIterator<Item = Node>, names: &[&str]) -> Self {
        let presences = presences.into_iter().map(|node| (Role::Presence, node));
        let in_map = names.iter().map(|name| (Role::Gateway, node(name, "")));
        let map = ClusterMap::new(1, presences.chain(in_map));
        let gateways = Gateways::default();
        let ctx = NodeContext::alone("chat-0", 1, MapHandle::fixed(map.clone()));
        Self {
            fanout: Fanout {
                lookup: Lookup::start(&ctx, gateways.clone(), LOOK_UP_PATIENCE),
            },
            gateways,
            chat: ChatId(uuid::Uuid::nil()),
            map,
        }
    }

    /// A chat node that is linked to all of these presence nodes.
    async fn linked(presences: &[&PresenceNode]) -> Self {
        let chat = Self::of(presences.iter().map(|presence| presence.node.clone()));
        chat.until_linked(presences).await;
        chat
    }

    async fn until_linked(&self, presences: &[&PresenceNode]) {
        let users: Vec<UserId> = presences.iter().map(|presence| self.user_of(presence)).collect();
        let linked = async {
            while self.fanout.lookup.sessions(users.clone()).await.failed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE, linked).await.is_ok(), "not linked");
    }

    /// A user whose slot this presence node owns.
    fn user_of(&self, presence: &PresenceNode) -> UserId {
        let its = |user: &UserId| {
            self.map
                .owner(Role::Presence, Slot::of_user(*user))
                .is_some_and(|owner| owner.name == presence.node.name)
        };
        std::iter::repeat_with(UserId::random).find(its).unwrap()
    }

    async fn wakes(&self, missing: &[Missing]) -> bool {
        self.woken(missing).await == Woken::All
    }

    async fn woken(&self, missing: &[Missing]) -> Woken {
        wake(&self.fanout, &self.gateways, self.chat, Seq(9), missing).await
    }

    fn gateway(&self, name: &str) -> Gateway {
        let peer = Peer {
            name: name.to_owned(),
            incarnation: 1,
        };
        let (_link, items) = self.gateways.open_control(peer);
        Gateway { _link, items }
    }
}

/// A gateway's end of its link.
struct Gateway {
    _link: ControlLink,
    items: mpsc::Receiver<DownItem>,
}

impl Gateway {
    /// The next wake: its number, its sessions, and the seq from which it begins.
    async fn woken(&mut self) -> (u64, Vec<u64>, u64) {
        match timeout(PATIENCE, self.items.recv()).await.unwrap().unwrap().item {
            Some(down_item::Item::Wake(wake)) => (wake.wake, wake.sessions, wake.from_seq),
            other => panic!("{other:?}"),
        }
    }
}

fn missing(user: UserId) -> Missing {
    Missing {
        user,
        device: DeviceId::random(),
        from: Seq(3),
    }
}

fn online(missing: &Missing, gateway: &str, session: u64) -> LiveSession {
    LiveSession {
        user_id: missing.user.to_vec().into(),
        device_id: missing.device.to_vec().into(),
        gateway: gateway.to_owned(),
        session,
    }
}

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

/// A node that may have lost its slots without knowing it says who is online, but never that nobody is. This holds
/// for a presence node that is unsure of its slots, and for one whose map is older than the asker's.
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
    let mut g0 = chat.gateway("g0");
    let confirmed = async { chat.gateways.wake_done(g0.woken().await.0) };
    let devices = [device];
    let (woken, ()) = tokio::join!(chat.woken(&devices), confirmed);
    assert_eq!(woken, Woken::Unsure, "who was found is woken all the same");
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

impl Gateway {
    /// Lets the gateway answer from now on that it has these sessions, and confirm every wake.
    fn answers(self, chat: &Chat, sessions: Vec<FoundSession>) -> JoinHandle<()> {
        let Self { _link, mut items } = self;
        let gateways = chat.gateways.clone();
        let answer = async move {
            let _link = _link;
            while let Some(item) = items.recv().await {
                match item.item {
                    Some(down_item::Item::FindSessions(asked)) => {
                        let asked_for = |found: &&FoundSession| asked.user_ids.contains(&found.user_id);
                        let found = sessions.iter().filter(asked_for).cloned().collect();
                        gateways.sessions_found(asked.question, found);
                    }
                    Some(down_item::Item::Wake(wake)) => gateways.wake_done(wake.wake),
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::spawn(answer)
    }
}

fn here(missing: &Missing, session: u64) -> FoundSession {
    FoundSession {
        user_id: missing.user.to_vec().into(),
        device_id: missing.device.to_vec().into(),
        session,
    }
}

/// Rule 3 holds with the gateways' registries in place of presence.
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
        // A gateway that is linked but not in this node's map yet.
        let _new = chat.gateway("g2").answers(&chat, vec![here(&devices[1], 12)]);
        let half = sessions().await;
        let found = |sessions: &Sessions| {
            let mut found: Vec<_> = sessions.sessions.iter().map(|found| found.session.0).collect();
            found.sort_unstable();
            found
        };
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
        users: vec![device.user],
        except: Vec::<SessionId>::new(),
        event: Bytes::from_static(what.as_bytes()),
        span: None,
    };
    presence.is(Mood::NotOwner);
    for (kind, what) in [
        (Kind::Receipt, "receipt 1"),
        (Kind::Entry(Seq(7)), "entry"),
        (Kind::Typing, "typing"),
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
