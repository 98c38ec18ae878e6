//! The links to the chat nodes. Each item goes to the node that owns its chat's slot.
//!
//! An item for a node without a link is refused at once, and one whose link breaks before its answer is given back.
//! Its session then answers the device UNAVAILABLE, or sends or asks again. An item that a node refuses because
//! another node owns the chat waits until this gateway's map has caught up, and goes there in order ([`lanes`]).
//!
//! Every queue is bounded. If one is full the item is refused, so a slow chat node delays nobody but the chats that it
//! owns.
//!
//! - [`ops`]: the operations of sessions, and how a link treats each
//! - [`link`]: the queues to one node
//! - [`pending`]: items and window requests without an answer yet
//! - [`reader`]: the three streams of a link
//! - [`lost`]: chat nodes whose receipts may be lost, and when devices are to ask for them
//! - [`lanes`]: keeps the items of a slot in order, also those that a node has refused

pub mod lanes;
pub mod link;
pub mod lost;
pub mod ops;
pub mod pending;
pub mod reader;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tern_cluster::{ClusterMap, NodeContext, Role, links};
use tern_proto::internal::{NoticeOp, UpItem, WindowRequest, up_item};
use tern_proto::notice;
use tern_types::{ChatId, Notice, SessionId, Slot};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::Instrument;

use tern_gateway_core::session::{Mail, Op};

use self::lanes::Lanes;
use self::link::Link;
use self::lost::Lost;
use crate::audience::Audience;
use crate::registry::{Handle, Registry};
use crate::{metrics, redrain};

/// The number of sessions that are told of a change of the routes at once. The next ones are told [`TELL_PAUSE`] later,
/// so that tens of thousands do not wake in the same moment.
const TOLD_AT_ONCE: usize = 512;
/// The pause after each [`TOLD_AT_ONCE`] sessions that are told.
const TELL_PAUSE: Duration = Duration::from_millis(5);

/// The cluster map and the links that are up. A change replaces the whole value, so a reader sees a consistent one.
#[derive(Debug)]
pub struct Routes {
    map: Arc<ClusterMap>,
    links: HashMap<String, Arc<Link>>,
}

impl Routes {
    /// Returns the link to the owner of the slot. `None` while it is down.
    fn link(&self, slot: Slot) -> Option<&Arc<Link>> {
        let owner = self.map.owner(Role::Chat, slot)?;
        self.links
            .get(&owner.name)
            .filter(|link| link.incarnation == owner.incarnation)
    }

    /// Returns whether items of the chat take another link by these routes than by `older`.
    pub fn moved_since(&self, older: &Self, chat: ChatId) -> bool {
        let slot = Slot::of_chat(chat);
        let way = |routes: &Self| routes.link(slot).map(|link| link.generation);
        way(self) != way(older)
    }
}

/// The links of this gateway to all chat nodes.
#[derive(Debug)]
pub struct ChatLinks {
    routes: ArcSwap<Routes>,
    registry: Arc<Registry>,
    audience: Arc<Audience>,
    lanes: Lanes,
    lost: Lost,
    /// The generation of the next link.
    generation: AtomicU64,
    /// Notified when the routes have changed.
    changed: Notify,
}

/// The error for an item that was not sent: there is no link to the owner, or a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl ChatLinks {
    /// Starts the tasks that keep links to all chat nodes. If receipts may be lost, all sessions are told so
    /// within `spread`, not all at once.
    pub fn start(
        ctx: &NodeContext,
        registry: Arc<Registry>,
        audience: Arc<Audience>,
        spread: Duration,
    ) -> Arc<Self> {
        let routes = Routes {
            map: ctx.map.current(),
            links: HashMap::new(),
        };
        let links = Arc::new(Self {
            routes: ArcSwap::from_pointee(routes),
            registry,
            audience,
            lanes: Lanes::default(),
            lost: Lost::default(),
            generation: AtomicU64::new(1),
            changed: Notify::new(),
        });
        let span = tracing::info_span!("chat_links");
        tokio::spawn(links.clone().follow(ctx.clone()).instrument(span.clone()));
        tokio::spawn(links.clone().tell_sessions().instrument(span.clone()));
        tokio::spawn(links.clone().tell_of_loss(spread).instrument(span));
        links.clone().maintain(ctx);
        links
    }

    fn maintain(self: Arc<Self>, ctx: &NodeContext) -> JoinHandle<()> {
        let context = ctx.clone();
        links::maintain(ctx, Role::Chat, move |node, channel| {
            reader::run(self.clone(), context.clone(), node, channel)
        })
    }

    /// Returns the number of chat nodes that are linked.
    pub fn linked(&self) -> u32 {
        u32::try_from(self.routes.load().links.len()).unwrap_or(u32::MAX)
    }

    /// Returns the routes as they are now.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// Passes an operation of a session on to its chat's owner. If there is no way to the owner, returns what the session
    /// is told.
    pub fn up(&self, from: &Handle, op: Op) -> Option<Mail> {
        let (kind, chat, item) = ops::from_session(from, op);
        let lost = ops::lost(&item);
        match self.route(Slot::of_chat(chat), item) {
            Ok(()) => None,
            Err(Refused) => {
                metrics::refused(kind);
                lost
            }
        }
    }

    /// Passes a notice on to the owner. It overtakes parked items, and is dropped if it would have to wait; then `Err`
    /// is the reason, as the metrics name it.
    pub fn notice(&self, from: &Handle, chat: ChatId, notice: &Notice) -> Result<(), &'static str> {
        let op = NoticeOp {
            chat_id: chat.to_vec().into(),
            event: notice::event(chat, from.user, notice),
        };
        let routes = self.routes.load();
        let link = routes.link(Slot::of_chat(chat)).ok_or("no_link")?;
        let item = ops::item(from, 0, up_item::Op::Notice(op));
        link.hint(item).map_err(|_| "link")
    }

    /// Asks the owner for at most `limit` entries from `from_seq` on. The session gets a `Window` or `WindowFailed`,
    /// unless this returns `Err`.
    pub fn window(
        &self,
        of: &Handle,
        reference: u64,
        chat: ChatId,
        from_seq: u64,
        limit: u32,
    ) -> Result<(), Refused> {
        let request = WindowRequest {
            r#ref: reference,
            session: of.id.0,
            user_id: of.user.to_vec().into(),
            device_id: of.device.to_vec().into(),
            chat_id: chat.to_vec().into(),
            from_seq,
            limit,
        };
        let routes = self.routes.load();
        let link = routes.link(Slot::of_chat(chat)).ok_or(Refused);
        link.and_then(|link| link.ask(request, chat))
            .inspect_err(|_| metrics::refused("window"))
    }

    /// Forgets the acknowledgements of a session that has ended, since nobody waits for their answers. Its sends and
    /// read marks go on.
    pub fn session_ended(&self, session: SessionId) {
        for link in self.routes.load().links.values() {
            link.forget_acks(session);
        }
        self.lanes.forget_acks(session);
    }

    /// Gives the item to the owner's link, or parks it behind items that it must not overtake.
    fn route(&self, slot: Slot, item: UpItem) -> Result<(), Refused> {
        let routes = self.routes.load();
        let version = routes.map.version();
        self.lanes
            .route(slot, item, version, || routes.link(slot).cloned())
    }

    /// Follows the map: replaces the routes, and tries again to send the parked items.
    async fn follow(self: Arc<Self>, ctx: NodeContext) {
        let mut map = ctx.map.clone();
        self.change(|routes| routes.map = ctx.map.current());
        loop {
            tokio::select! {
                next = map.changed() => {
                    self.change(|routes| routes.map = next.clone());
                    self.lost.map_is(&next);
                }
                () = self.lanes.due() => {}
                () = ctx.drain.ended() => return,
            }
            let routes = self.routes.load();
            let failed = self
                .lanes
                .retry(routes.map.version(), |slot| routes.link(slot).cloned());
            for item in failed {
                link::give_back(&self.registry, &item);
            }
        }
    }

    fn change(&self, change: impl Fn(&mut Routes)) {
        self.routes.rcu(|routes| {
            let mut next = Routes {
                map: routes.map.clone(),
                links: routes.links.clone(),
            };
            change(&mut next);
            next
        });
        self.changed.notify_one();
    }

    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes all devices ask for receipts when some may have been lost. Losses that are noticed while it does so are
    /// told in one more round.
    async fn tell_of_loss(self: Arc<Self>, spread: Duration) {
        loop {
            self.lost.due().await;
            tokio::time::sleep(lost::AFTER).await;
            redrain::receipts_lost(self.registry.sessions(|_| true), spread).await;
        }
    }

    /// Tells every session of each change of the routes, [`TOLD_AT_ONCE`] at a time.
    async fn tell_sessions(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let sessions = self.registry.sessions(|_| true);
            for some in sessions.chunks(TOLD_AT_ONCE) {
                for session in some {
                    session.mailbox.moved();
                }
                if sessions.len() > TOLD_AT_ONCE {
                    tokio::time::sleep(TELL_PAUSE).await;
                }
            }
        }
    }
}
