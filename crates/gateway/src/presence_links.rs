//! The links to the presence nodes. Each node is told which sessions of the users in its slots are on this gateway.
//!
//! Rule 3, register then drain: a session reads its inbox after its presence node has confirmed it. When a link is
//! made again, or the map gives a node slots, all sessions of the node's slots are announced to it again, and they
//! read their inboxes once more after it has confirmed them. They do so yet again when the slots' old node has
//! confirmed the new map, or is gone (fine print 9): until then a chat node may have asked the old node.
//!
//! The queue of each node is bounded ([`queues`]). What does not fit is dropped, and all sessions of the node's slots
//! are announced again; if it was the end of a session, over a new link, on which the node misses that session.

pub mod queues;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use tern_cluster::links::identify;
use tern_cluster::{ClusterMap, Node, NodeContext, Role, links};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{Activity, AnnounceReplies, Announcement, Announcements, OpenedStream};
use tern_types::{Clock, SLOTS, SessionId, Slot};
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tracing::Instrument;

use tern_gateway_core::session::CloseRequest;

use self::queues::{Item, Queue, Queues};
use crate::metrics;
use crate::redrain::redrain;
use crate::registry::{Handle, Registry};

/// The most announcements of one frame.
const GATHER: usize = 256;
/// The pause before an announcement that a node refused is made again. A change of the map ends the pause.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// The links of this gateway to all presence nodes.
pub struct PresenceLinks {
    ctx: NodeContext,
    registry: Arc<Registry>,
    /// The time over which the readings are spread when many sessions have to read their inboxes again.
    spread: Duration,
    queues: Queues<Said>,
    /// The slots that a map took from a node, until the node has confirmed that map or is gone.
    leaving: Mutex<Vec<Leaving>>,
    /// The sessions whose announcements a node refused, until they are announced again.
    refused: Mutex<Vec<SessionId>>,
    some_refused: Notify,
}

/// One thing that a node is told: a session, a user's activity, or that a session's stream is open.
enum Said {
    Session(Announcement),
    Sign(Activity),
    Opened(OpenedStream),
}

impl Item for Said {
    fn ends(&self) -> bool {
        matches!(self, Self::Session(announcement) if announcement.ended)
    }
}

/// The slots that a map of `version` took from a node.
struct Leaving {
    node: String,
    incarnation: u64,
    version: i64,
    slots: HashSet<Slot>,
}

impl PresenceLinks {
    /// Starts the tasks that keep links to all presence nodes. Sessions that have to read their inboxes again do so
    /// spread over `spread`.
    pub fn start(ctx: &NodeContext, registry: Arc<Registry>, spread: Duration) -> Arc<Self> {
        let links = Arc::new(Self::new(ctx, registry, spread));
        let span = tracing::info_span!("presence_links");
        tokio::spawn(links.clone().follow().instrument(span.clone()));
        tokio::spawn(links.clone().announce_refused().instrument(span));
        let context = ctx.clone();
        let these = links.clone();
        links::maintain(ctx, Role::Presence, move |node, channel| {
            these.clone().run(context.clone(), node, channel)
        });
        links
    }

    fn new(ctx: &NodeContext, registry: Arc<Registry>, spread: Duration) -> Self {
        Self {
            ctx: ctx.clone(),
            registry,
            spread,
            queues: Queues::default(),
            leaving: Mutex::default(),
            refused: Mutex::default(),
            some_refused: Notify::new(),
        }
    }

    /// Announces a session. Its mailbox is told when presence has confirmed it.
    pub fn announce(&self, session: &Handle) {
        self.tell(session, false);
    }

    /// Ends a session: takes it out of the registry and tells presence, even if its stream takes nothing. Does nothing
    /// if it has ended before.
    pub fn end(&self, session: &Handle, why: CloseRequest) {
        if self.registry.end(session, why) {
            self.ended(session);
        }
    }

    /// Tells presence that a session has ended. It must not be in the registry any more.
    pub fn ended(&self, session: &Handle) {
        self.tell(session, true);
    }

    fn tell(&self, session: &Handle, ended: bool) {
        // Nothing is queued without an owner: the link to the next owner announces every session.
        if let Some(node) = self.ctx.map.current().owner(Role::Presence, session.slot()) {
            let said = Said::Session(announcement(session, ended));
            self.queues.of(&node.name).push(said);
        }
    }

    /// Tells presence of the user's newest activity on the session. While there is no link nothing is queued: the
    /// next announcement of the session carries the activity.
    pub fn sign(&self, session: &Handle) {
        if let Some(node) = self.ctx.map.current().owner(Role::Presence, session.slot()) {
            let sign = session.sign();
            let activity = Activity {
                session: session.id.0,
                user_id: session.user.to_vec().into(),
                active: sign.active,
                at_ms: sign.at.0,
                said_ms: sign.said.0,
            };
            self.queues.of(&node.name).push_if_linked(Said::Sign(activity));
        }
    }

    /// Tells presence that the session's stream is open, and its number, so that older streams of the device on other
    /// gateways are replaced. While there is no link nothing is queued: the next announcement of the session carries
    /// the number.
    pub fn opened(&self, session: &Handle) {
        let (Some(number), Some(node)) = (
            session.number(),
            self.ctx
                .map
                .current()
                .owner(Role::Presence, session.slot())
                .cloned(),
        ) else {
            return;
        };
        let opened = OpenedStream {
            session: session.id.0,
            user_id: session.user.to_vec().into(),
            stream_number: number.get(),
        };
        self.queues.of(&node.name).push_if_linked(Said::Opened(opened));
    }

    async fn run(self: Arc<Self>, ctx: NodeContext, node: Node, channel: Channel) -> Result<(), Status> {
        let taker = self.queues.begin(&node.name);
        let frames = self
            .clone()
            .frames(taker.queue.clone(), taker.link, node.name.clone());
        let mut request = Request::new(frames);
        identify(&mut request, &ctx);
        let replies = PresenceClient::new(channel).announce(request).await?.into_inner();
        let _up = metrics::LinkUp::new("presence", &node.name);
        self.read(&node.name, replies).await
    }

    /// Returns the frames for the node, until the link is to end or there is a newer one: what waits in its queue first,
    /// then all sessions of its slots if that is due.
    fn frames(
        self: Arc<Self>,
        queue: Arc<Queue<Said>>,
        link: u64,
        node: String,
    ) -> impl Stream<Item = Announcements> {
        async_stream::stream! {
            let mut rest: VecDeque<SessionId> = VecDeque::new();
            // The slots of the node and the map's version, while not all sessions of these slots are
            // announced.
            let mut slots: Option<(Vec<u8>, i64)> = None;
            loop {
                let Some((said, all)) = queue.take(link, GATHER) else { return };
                // The map is read after `all`, so it is at least as new as the one that gave the node its
                // slots.
                let map = self.ctx.map.current();
                let (mut items, mut activities, mut opened) = (Vec::new(), Vec::new(), Vec::new());
                for said in said {
                    match said {
                        Said::Session(announcement) => items.push(announcement),
                        Said::Sign(activity) => activities.push(activity),
                        Said::Opened(stream) => opened.push(stream),
                    }
                }
                if all {
                    let of_node = |session: &Handle| map.owns(Role::Presence, &node, session.slot());
                    rest = self.registry.sessions(of_node).iter().map(|session| session.id).collect();
                    let of_node = Slot::all().filter(|slot| map.owns(Role::Presence, &node, *slot));
                    slots = Some((bitmap(of_node), map.version()));
                }
                while items.len() < GATHER && let Some(id) = rest.pop_front() {
                    // The session is looked up now: its end may have been announced meanwhile, and must not be
                    // followed by its beginning.
                    items.extend(self.registry.get(id).map(|session| announcement(&session, false)));
                }
                let (said_slots, said_map_version) = slots.take_if(|_| rest.is_empty()).unwrap_or_default();
                let says_nothing = items.is_empty() && activities.is_empty() && opened.is_empty();
                if !says_nothing || !said_slots.is_empty() {
                    let (map_version, now_ms) = (map.version(), Clock::monotonic().0);
                    let said_slots = said_slots.into();
                    yield Announcements {
                        map_version,
                        items,
                        activities,
                        opened,
                        now_ms,
                        said_slots,
                        said_map_version,
                    };
                } else if rest.is_empty() {
                    queue.news.notified().await;
                }
            }
        }
    }

    async fn read(&self, node: &str, mut replies: Streaming<AnnounceReplies>) -> Result<(), Status> {
        while let Some(frame) = replies.message().await? {
            self.confirmed_map(node, frame.map_version);
            let mut again = Vec::new();
            for item in frame.items {
                if item.replaced_session != 0 {
                    if let Some(session) = self.registry.get(SessionId(item.replaced_session)) {
                        self.end(&session, CloseRequest::Replaced);
                    }
                } else if item.not_owner {
                    lock(&self.refused).push(SessionId(item.r#ref));
                    self.some_refused.notify_one();
                } else if let Some(session) = self.registry.get(SessionId(item.r#ref)) {
                    if session.first_announced() {
                        session.mailbox.announced();
                    } else {
                        again.push(session);
                    }
                }
            }
            redrain(again, self.spread, "announced_again");
        }
        Ok(())
    }

    /// Follows the map: announces all sessions to new owners, and remembers which slots left an owner until that owner
    /// knows.
    async fn follow(self: Arc<Self>) {
        let mut map = self.ctx.map.clone();
        let mut old = map.current();
        loop {
            let new = tokio::select! {
                new = map.changed() => new,
                () = self.ctx.drain.ended() => return,
            };
            self.moved(&old, &new);
            self.forget_gone(&new);
            old = new;
        }
    }

    /// Makes the links announce all sessions to nodes that gained slots, and notes the slots that left each node.
    fn moved(&self, old: &ClusterMap, new: &ClusterMap) {
        let mut gained = HashSet::new();
        let mut left: HashMap<(&str, u64), HashSet<Slot>> = HashMap::new();
        for (slot, before, now) in new.moved_since(old, Role::Presence) {
            gained.extend(now.map(|node| node.name.as_str()));
            if let Some(before) = before {
                left.entry((&before.name, before.incarnation))
                    .or_default()
                    .insert(slot);
            }
        }
        for node in gained {
            self.queues.of(node).say_all();
        }
        let leaving = left.into_iter().map(|((node, incarnation), slots)| Leaving {
            node: node.to_owned(),
            incarnation,
            version: new.version(),
            slots,
        });
        lock(&self.leaving).extend(leaving);
    }

    /// Forgets the slots that left nodes which are gone: such a node answers no chat node any more, so it is not waited
    /// for.
    fn forget_gone(&self, map: &ClusterMap) {
        let there = |node: &str, incarnation: u64| {
            map.node(Role::Presence, node)
                .is_some_and(|node| node.incarnation == incarnation)
        };
        self.drain_left(|leaving| !there(&leaving.node, leaving.incarnation));
        self.queues.keep(|node| map.node(Role::Presence, node).is_some());
    }

    /// Takes note that the node answers by a map of this version from now on, or by a newer one.
    fn confirmed_map(&self, node: &str, version: i64) {
        self.drain_left(|leaving| leaving.node == node && leaving.version <= version);
    }

    /// Makes sessions read their inboxes again: those whose slots left a node for which `which` returns true.
    fn drain_left(&self, which: impl Fn(&Leaving) -> bool) {
        let done: Vec<Leaving> = lock(&self.leaving)
            .extract_if(.., |leaving| which(leaving))
            .collect();
        if !done.is_empty() {
            let moved = |session: &Handle| done.iter().any(|leaving| leaving.slots.contains(&session.slot()));
            redrain(self.registry.sessions(moved), self.spread, "presence_moved");
        }
    }

    /// Repeats the announcements that a node refused because its map, or this gateway's, is behind.
    async fn announce_refused(self: Arc<Self>) {
        let mut map = self.ctx.map.clone();
        loop {
            tokio::select! {
                () = self.some_refused.notified() => {}
                () = self.ctx.drain.ended() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(REFUSED_PAUSE) => {}
                _ = map.changed() => {}
            }
            let refused = std::mem::take(&mut *lock(&self.refused));
            for session in refused.into_iter().filter_map(|id| self.registry.get(id)) {
                self.announce(&session);
            }
        }
    }
}

/// Encodes slots as `said_slots` of presence.proto has them.
fn bitmap(slots: impl Iterator<Item = Slot>) -> Vec<u8> {
    let mut bits = vec![0; usize::from(SLOTS) / 8];
    for slot in slots {
        bits[slot.index() / 8] |= 1 << (slot.index() % 8);
    }
    bits
}

fn announcement(session: &Handle, ended: bool) -> Announcement {
    let sign = session.sign();
    Announcement {
        r#ref: session.id.0,
        session: session.id.0,
        user_id: session.user.to_vec().into(),
        device_id: session.device.to_vec().into(),
        since_ms: session.since.0,
        ended,
        active: sign.active,
        active_at_ms: sign.at.0,
        active_said_ms: sign.said.0,
        stream_number: session.number().map_or(0, NonZeroU64::get),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
