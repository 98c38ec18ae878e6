//! The links to the presence nodes. Each node is told which sessions of the users in its slots are on this gateway.
//!
//! Rule 3, register then drain: a session reads its inbox after its presence node has confirmed it. When a link is
//! made again, or the map gives a node slots, all sessions of the node's slots are announced to it again, and they
//! read their inboxes once more after it has confirmed them. They do so yet again when the slots' old node has
//! confirmed the new map, or is gone (fine print 9): until then a chat node may have asked the old node.
//!
//! The queue of each node is bounded ([`queues`]). What does not fit is dropped, and all sessions of the node's slots
//! are announced again; if it was the end of a session, over a new link, on which the node misses that session.
//! The module [`dialogue`] has the part that these links have in common with those of [`crate::watches`].

pub mod dialogue;
pub mod queues;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tern_cluster::{ClusterMap, NodeContext, Role};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{Activity, AnnounceReplies, Announcement, Announcements, OpenedStream};
use tern_types::{Clock, SLOTS, SessionId, Slot};
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use tern_gateway_core::session::CloseRequest;

use self::dialogue::{Dialogue, Frames};
use self::queues::{Item, Queues};
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

/// One thing that a node is told.
pub enum Said {
    /// A session has begun or ended, or is announced again.
    Session(Announcement),
    /// A user was or is active.
    Sign(Activity),
    /// A session's stream is open.
    Opened(OpenedStream),
}

impl Item for Said {
    fn ends(&self) -> bool {
        matches!(self, Self::Session(announcement) if announcement.ended)
    }
}

/// The sessions that are still to be announced anew to a node.
#[derive(Default)]
pub struct Anew {
    sessions: VecDeque<SessionId>,
    /// The slots of the node and the map's version, while not all sessions of these slots are announced.
    slots: Option<(Vec<u8>, i64)>,
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
        tokio::spawn(dialogue::follow(links.clone()).instrument(span.clone()));
        tokio::spawn(links.clone().announce_refused().instrument(span));
        dialogue::maintain(&links);
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

impl Dialogue for PresenceLinks {
    type Said = Said;
    type Anew = Anew;
    type Frame = Announcements;
    type Reply = AnnounceReplies;

    const NAME: &'static str = "presence";
    const GATHER: usize = GATHER;

    fn ctx(&self) -> &NodeContext {
        &self.ctx
    }

    fn queues(&self) -> &Queues<Said> {
        &self.queues
    }

    fn open(
        mut node: PresenceClient<Channel>,
        frames: Request<Frames<Announcements>>,
    ) -> BoxFuture<'static, Result<Response<Streaming<AnnounceReplies>>, Status>> {
        Box::pin(async move { node.announce(frames).await })
    }

    fn everything(&self, map: &ClusterMap, node: &str) -> Anew {
        let of_node = |session: &Handle| map.owns(Role::Presence, node, session.slot());
        let sessions = self.registry.sessions(of_node);
        let slots = Slot::all().filter(|slot| map.owns(Role::Presence, node, *slot));
        Anew {
            sessions: sessions.iter().map(|session| session.id).collect(),
            slots: Some((bitmap(slots), map.version())),
        }
    }

    fn frame(&self, map: &ClusterMap, said: Vec<Said>, anew: &mut Anew) -> Option<Announcements> {
        let (mut items, mut activities, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        for said in said {
            match said {
                Said::Session(announcement) => items.push(announcement),
                Said::Sign(activity) => activities.push(activity),
                Said::Opened(stream) => opened.push(stream),
            }
        }
        while items.len() < GATHER
            && let Some(id) = anew.sessions.pop_front()
        {
            // The session is looked up now: its end may have been announced meanwhile, and must not be followed by its
            // beginning.
            items.extend(self.registry.get(id).map(|session| announcement(&session, false)));
        }
        let all_said = anew.sessions.is_empty();
        let (said_slots, said_map_version) = anew.slots.take_if(|_| all_said).unwrap_or_default();
        if items.is_empty() && activities.is_empty() && opened.is_empty() && said_slots.is_empty() {
            return None;
        }
        Some(Announcements {
            map_version: map.version(),
            items,
            activities,
            opened,
            now_ms: Clock::monotonic().0,
            said_slots: said_slots.into(),
            said_map_version,
        })
    }

    fn hear(self: &Arc<Self>, node: &str, reply: AnnounceReplies) {
        self.confirmed_map(node, reply.map_version);
        let mut again = Vec::new();
        for item in reply.items {
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

    /// Notes the slots that left each node, until that node knows. A node that is gone answers no chat node any more,
    /// so it is not waited for.
    fn moved(&self, old: &ClusterMap, new: &ClusterMap) {
        let mut left: HashMap<(&str, u64), HashSet<Slot>> = HashMap::new();
        for (slot, before, _) in new.moved_since(old, Role::Presence) {
            if let Some(before) = before {
                left.entry((&before.name, before.incarnation))
                    .or_default()
                    .insert(slot);
            }
        }
        let leaving = left.into_iter().map(|((node, incarnation), slots)| Leaving {
            node: node.to_owned(),
            incarnation,
            version: new.version(),
            slots,
        });
        lock(&self.leaving).extend(leaving);
        let there = |node: &str, incarnation: u64| {
            new.node(Role::Presence, node)
                .is_some_and(|node| node.incarnation == incarnation)
        };
        self.drain_left(|leaving| !there(&leaving.node, leaving.incarnation));
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
