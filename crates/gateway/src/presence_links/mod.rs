//! The links to the presence nodes: each is told which sessions of its slots' users are here.
//!
//! Rule 3, register then drain: a session reads its inbox after its presence node has confirmed it. When a link is made
//! again or the map moved slots, everything of the node's slots is announced again, and those sessions read their
//! inboxes once more after the confirmation; they do so yet again when the slots' old node has confirmed the new map or
//! is gone (fine print 9), for until then a chat node may have asked the old one.

pub mod queues;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use tern_node::links::identify;
use tern_node::{ClusterMap, Node, NodeContext, Role, links};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{Activity, AnnounceReplies, Announcement, Announcements, OpenedStream};
use tern_types::{Clock, SessionId, Slot};
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tracing::Instrument;

use self::queues::{Queue, Queues};
use crate::metrics;
use crate::redrain::redrain;
use crate::registry::{Handle, Registry};
use crate::session::CloseRequest;

/// Announcements of one frame.
const GATHER: usize = 256;
/// An announcement that a node refused is made again after this, if the map does not change before.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub struct PresenceLinks {
    ctx: NodeContext,
    registry: Arc<Registry>,
    spread: Duration,
    queues: Queues<Said>,
    /// Slots that left a node which has not confirmed it.
    leaving: Mutex<Vec<Leaving>>,
    refused: Mutex<Vec<SessionId>>,
    some_refused: Notify,
}

/// What a node is told.
enum Said {
    Session(Announcement),
    Sign(Activity),
    Opened(OpenedStream),
}

struct Leaving {
    node: String,
    incarnation: u64,
    version: i64,
    slots: HashSet<Slot>,
}

impl PresenceLinks {
    /// Keeps links to every presence node up from now on.
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

    /// The session is here; its mailbox is told when presence knows.
    pub fn announce(&self, session: &Handle) {
        self.tell(session, false);
    }

    /// Ends the session here and tells presence, whatever its stream does.
    pub fn end(&self, session: &Handle, why: CloseRequest) {
        if self.registry.end(session, why) {
            self.ended(session);
        }
    }

    /// The session is over: it is in the registry no more.
    pub fn ended(&self, session: &Handle) {
        self.tell(session, true);
    }

    fn tell(&self, session: &Handle, ended: bool) {
        // Without an owner now: when there is one, its link announces everything.
        if let Some(node) = self.ctx.map.current().owner(Role::Presence, session.slot()) {
            let said = Said::Session(announcement(session, ended));
            self.queues.of(&node.name).push(said);
        }
    }

    /// The person's newest sign on the session. A session that is announced later carries it along.
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

    /// The session's stream is open, and has its number: older ones of the device on other gateways are replaced. A session
    /// that is announced later carries it along.
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

    /// What the node is told while the link is the newest: single announcements first, then all of its slots where
    /// that is due.
    fn frames(
        self: Arc<Self>,
        queue: Arc<Queue<Said>>,
        link: u64,
        node: String,
    ) -> impl Stream<Item = Announcements> {
        async_stream::stream! {
            let mut rest: VecDeque<SessionId> = VecDeque::new();
            loop {
                let map = self.ctx.map.current();
                let Some((said, all)) = queue.take(link, GATHER) else { return };
                let (mut items, mut activities, mut opened) = (Vec::new(), Vec::new(), Vec::new());
                for said in said {
                    match said {
                        Said::Session(announcement) => items.push(announcement),
                        Said::Sign(activity) => activities.push(activity),
                        Said::Opened(stream) => opened.push(stream),
                    }
                }
                if all {
                    let of_node = |session: &Handle| owned_by(&map, session.slot(), &node);
                    rest = self.registry.sessions(of_node).iter().map(|session| session.id).collect();
                }
                while items.len() < GATHER && let Some(id) = rest.pop_front() {
                    // Looked up now: an end that was announced meanwhile must not be followed by its beginning.
                    items.extend(self.registry.get(id).map(|session| announcement(&session, false)));
                }
                if !items.is_empty() || !activities.is_empty() || !opened.is_empty() {
                    let (map_version, now_ms) = (map.version(), Clock::monotonic().0);
                    yield Announcements { map_version, items, activities, opened, now_ms };
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

    /// Follows the map: new owners are told everything, and what left an owner is remembered until that one knows.
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

    fn moved(&self, old: &ClusterMap, new: &ClusterMap) {
        let mut gained = HashSet::new();
        let mut left: HashMap<(&str, u64), HashSet<Slot>> = HashMap::new();
        for slot in Slot::all() {
            let (before, now) = (old.owner(Role::Presence, slot), new.owner(Role::Presence, slot));
            let name = |node: Option<&Node>| node.map(|node| (node.name.clone(), node.incarnation));
            if name(before) == name(now) {
                continue;
            }
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

    /// A node that is gone answers nobody any more.
    fn forget_gone(&self, map: &ClusterMap) {
        let there = |node: &str, incarnation: u64| {
            map.node(Role::Presence, node)
                .is_some_and(|node| node.incarnation == incarnation)
        };
        self.drain_left(|leaving| !there(&leaving.node, leaving.incarnation));
        self.queues.keep(|node| map.node(Role::Presence, node).is_some());
    }

    /// The node answers by this map from now on.
    fn confirmed_map(&self, node: &str, version: i64) {
        self.drain_left(|leaving| leaving.node == node && leaving.version <= version);
    }

    fn drain_left(&self, which: impl Fn(&Leaving) -> bool) {
        let done: Vec<Leaving> = lock(&self.leaving)
            .extract_if(.., |leaving| which(leaving))
            .collect();
        if !done.is_empty() {
            let moved = |session: &Handle| done.iter().any(|leaving| leaving.slots.contains(&session.slot()));
            redrain(self.registry.sessions(moved), self.spread, "presence_moved");
        }
    }

    /// Announces again what a node did not take because its map or this one is behind.
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

fn owned_by(map: &ClusterMap, slot: Slot, node: &str) -> bool {
    map.owner(Role::Presence, slot)
        .is_some_and(|owner| owner.name == node)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
