//! The three streams of a link to one chat node, from when the link is made until it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::Stream;
use tern_cluster::links::{MAX_LINK_MESSAGE_BYTES, gather, identify};
use tern_cluster::shedding::{self, Level, gather_or_level};
use tern_cluster::{MapHandle, Node, NodeContext};
use tern_proto::internal::chat_link_client::ChatLinkClient;
use tern_proto::internal::{
    ControlDown, ControlUp, DownItem, FindSessions, FoundSession, LiveDown, LiveRequest, NotOwner, Push,
    SessionsFound, UpItem, Wake, WindowReplies, WindowReply, WindowRequest, WindowRequests, down_item,
};
use tern_types::{ChatId, SessionId, UserId};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use tern_gateway_core::session::{Mail, Window};

use super::link::{Found, Link, Queues, give_back};
use super::pending::Waiting;
use super::{ChatLinks, metrics};
use crate::hints::Hint;
use crate::registry::Registry;
use crate::traces::{self, Deliveries};

/// The most items of one frame to a node.
const GATHER: usize = 256;

/// Makes a link to the node and serves it until one of its streams ends. `Err` is the status with which a
/// stream failed, or could not be opened.
pub async fn run(
    links: Arc<ChatLinks>,
    ctx: NodeContext,
    node: Node,
    channel: Channel,
) -> Result<(), Status> {
    let mut client = ChatLinkClient::new(channel)
        .max_decoding_message_size(MAX_LINK_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_LINK_MESSAGE_BYTES);
    let (link, queues) = Link::new(node.name.clone(), node.incarnation, links.next_generation());
    let Queues {
        control,
        found,
        windows,
    } = queues;
    let control = client
        .control(identified(
            control_frames(control, found, &ctx, links.registry.clone()),
            &ctx,
        ))
        .await?
        .into_inner();
    let live = client.live(identified(LiveRequest {}, &ctx)).await?.into_inner();
    let windows = client
        .catch_up(identified(window_frames(windows, ctx.map.clone()), &ctx))
        .await?
        .into_inner();

    let (up, shedding) = (Up::new(links, link), ctx.shedding.hear());
    tracing::info!("linked");
    tokio::select! {
        ended = up.read_control(control, shedding) => ended,
        ended = up.read_live(live) => ended,
        ended = up.read_windows(windows) => ended,
    }
}

fn identified<T>(message: T, ctx: &NodeContext) -> Request<T> {
    let mut request = Request::new(message);
    identify(&mut request, ctx);
    request
}

fn control_frames(
    mut items: mpsc::Receiver<UpItem>,
    found: Found,
    ctx: &NodeContext,
    registry: Arc<Registry>,
) -> impl Stream<Item = ControlUp> + use<> {
    let (map, mut own) = (ctx.map.clone(), ctx.shedding.own());
    async_stream::stream! {
        while let Some(items) = gather_or_level(&mut items, GATHER, &mut own).await {
            found.taken(&items);
            let shed_level = own.borrow().to_wire();
            let store = registry.store_mark();
            yield ControlUp { map_version: map.current().version(), items, shed_level, store };
        }
    }
}

fn window_frames(
    mut requests: mpsc::Receiver<WindowRequest>,
    map: MapHandle,
) -> impl Stream<Item = WindowRequests> {
    async_stream::stream! {
        while let Some(requests) = gather(&mut requests, GATHER).await {
            yield WindowRequests { map_version: map.current().version(), requests };
        }
    }
}

/// A link while it is up. Dropping it takes the link out of the routes and gives back the items without an answer.
struct Up {
    links: Arc<ChatLinks>,
    link: Arc<Link>,
    /// True once the node has ended the live stream in good order, so that it has sent all receipts that it had.
    all_came: AtomicBool,
}

impl Up {
    fn new(links: Arc<ChatLinks>, link: Link) -> Self {
        let link = Arc::new(link);
        links.change(|routes| {
            routes.links.insert(link.node.clone(), link.clone());
        });
        metrics::link_up("chat", &link.node, true);
        links.lost.linked(&link.node, link.incarnation);
        Self {
            links,
            link,
            all_came: AtomicBool::new(false),
        }
    }

    async fn read_control(
        &self,
        mut stream: Streaming<ControlDown>,
        shedding: shedding::HeardLevel,
    ) -> Result<(), Status> {
        while let Some(frame) = stream.message().await? {
            shedding.says(Level::from_wire(frame.shed_level));
            for item in frame.items {
                self.control(item);
            }
        }
        Ok(())
    }

    async fn read_live(&self, mut stream: Streaming<LiveDown>) -> Result<(), Status> {
        while let Some(frame) = stream.message().await? {
            for push in frame.pushes {
                self.push(push);
            }
            self.missed(&frame.missed_sessions, frame.missed_any);
        }
        self.all_came.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn read_windows(&self, mut stream: Streaming<WindowReplies>) -> Result<(), Status> {
        while let Some(frame) = stream.message().await? {
            for reply in frame.replies {
                self.window(reply);
            }
        }
        Ok(())
    }

    fn control(&self, item: DownItem) {
        match item.item {
            Some(down_item::Item::Result(result)) => {
                if let Some(Waiting::Item { place, item }) = self.link.answered(result.r#ref) {
                    self.links.lanes.answered(place, &item);
                }
                let placed = ChatId::from_slice(&result.chat_id)
                    .ok()
                    .filter(|_| result.seq > 0);
                let placed = placed.map(|chat| (chat, result.seq));
                self.mail(
                    result.session,
                    Mail::Result {
                        reference: result.r#ref,
                        event: result.event,
                        placed,
                    },
                );
            }
            Some(down_item::Item::AckWritten(ack)) => {
                self.link.answered(ack.r#ref);
                if let Ok(chat) = ChatId::from_slice(&ack.chat_id) {
                    self.mail(
                        ack.session,
                        Mail::AckWritten {
                            chat,
                            seq: ack.seq,
                            row_from: ack.row_from_seq,
                        },
                    );
                }
            }
            Some(down_item::Item::NotOwner(not_owner)) => self.not_owner(&not_owner),
            Some(down_item::Item::Wake(wake)) => self.wake(&wake),
            Some(down_item::Item::FindSessions(asked)) => {
                self.link.sessions_found(found(&self.links.registry, &asked));
            }
            None => {}
        }
    }

    /// Parks an item that the node refused, since another node owns the chat, until the map shows the new owner. The
    /// gateway does not keep read marks and acknowledgements without an answer; their sessions send them again when the
    /// routes change.
    fn not_owner(&self, not_owner: &NotOwner) {
        let Some(Waiting::Item { place, item }) = self.link.answered(not_owner.r#ref) else {
            return;
        };
        metrics::rerouted("item");
        if let Err(item) = self.links.lanes.park(place, *item, not_owner.map_version) {
            give_back(&self.links.registry, &item);
        }
    }

    /// Makes each session responsible for the inbox row. A session is responsible once its mailbox has the wake or, if
    /// the mailbox is full, the note to read the inbox. The row of a session that has ended is read by the device's
    /// next session.
    fn wake(&self, wake: &Wake) {
        if let Ok(chat) = ChatId::from_slice(&wake.chat_id) {
            for session in &wake.sessions {
                let Some(session) = self.links.registry.get(SessionId(*session)) else {
                    continue;
                };
                if !session.mailbox.push_wake(chat, wake.from_seq, wake.to_seq) {
                    metrics::wake_deferred();
                }
            }
        }
        self.link.wake_done(wake.wake);
    }

    /// Puts a live push into the mailboxes of its sessions. A full mailbox drops it.
    fn push(&self, push: Push) {
        let Ok(chat) = ChatId::from_slice(&push.chat_id) else {
            return;
        };
        if push.seq == 0 {
            return self.hint(chat, &push);
        }
        let mut deliveries = Deliveries::of(&push);
        for session in &push.sessions {
            let Some(session) = self.links.registry.get(SessionId(*session)) else {
                continue;
            };
            let span = deliveries.next(session.id);
            if !session
                .mailbox
                .push_live(chat, push.seq, push.event.clone(), span.clone())
            {
                metrics::live_dropped();
                traces::dropped(span);
            }
        }
    }

    /// Passes on a push that carries a receipt or a notice instead of an entry.
    fn hint(&self, chat: ChatId, push: &Push) {
        match Hint::of(&push.event) {
            Some(Hint::Receipt { user, mark }) => {
                for session in &push.sessions {
                    let session = self.links.registry.get(SessionId(*session));
                    if session.is_some_and(|session| {
                        !session.mailbox.push_receipt(chat, user, mark, push.event.clone())
                    }) {
                        metrics::receipt_dropped();
                    }
                }
            }
            Some(Hint::Notice { user, kind }) => {
                let (audience, event) = (&self.links.audience, push.event.clone());
                audience.tell(chat, user, kind, event, &push.sessions);
            }
            None => tracing::error!(node = self.link.node, "a push that says nothing"),
        }
    }

    /// Tells the sessions that the node could not push receipts for them. With `any` the node does not know for which,
    /// so all are told.
    fn missed(&self, sessions: &[u64], any: bool) {
        for session in sessions {
            if let Some(session) = self.links.registry.get(SessionId(*session)) {
                session.mailbox.receipts_lost();
            }
        }
        if any {
            self.links.lost.receipts();
        }
    }

    fn window(&self, reply: WindowReply) {
        let Some(Waiting::Window {
            session,
            reference,
            chat,
        }) = self.link.answered(reply.r#ref)
        else {
            return;
        };
        let mail = if reply.failed {
            Mail::WindowFailed { reference, chat }
        } else {
            let WindowReply {
                events,
                seqs,
                next_seq,
                done,
                ..
            } = reply;
            Mail::Window(Window {
                reference,
                chat,
                events,
                seqs,
                next: next_seq,
                done,
            })
        };
        self.mail(session.0, mail);
    }

    fn mail(&self, session: u64, mail: Mail) {
        if let Some(session) = self.links.registry.get(SessionId(session)) {
            session.mailbox.push(mail);
        }
    }
}

/// Returns the sessions on this gateway of the users that a chat node asks for when it cannot ask presence (rule 3). A
/// session that is registered later reads its inbox later too, so it does not have to be found.
fn found(registry: &Registry, asked: &FindSessions) -> SessionsFound {
    let users = asked
        .user_ids
        .iter()
        .filter_map(|user| UserId::from_slice(user).ok());
    let sessions = users.flat_map(|user| registry.of_user(user));
    let sessions = sessions.map(|session| FoundSession {
        user_id: session.user.to_vec().into(),
        device_id: session.device.to_vec().into(),
        session: session.id.0,
    });
    SessionsFound {
        question: asked.question,
        sessions: sessions.collect(),
    }
}

impl Up {
    /// Tells the sessions whose requests went over the link that there will be no answer.
    fn give_up(&self) {
        let registry = &self.links.registry;
        for waiting in self.link.close() {
            match waiting {
                Waiting::Item { place, item } => {
                    self.links.lanes.answered(place, &item);
                    give_back(registry, &item);
                }
                Waiting::Window {
                    session,
                    reference,
                    chat,
                } => {
                    if let Some(session) = registry.get(session) {
                        session.mailbox.push(Mail::WindowFailed { reference, chat });
                    }
                }
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.links.change(|routes| {
            if routes
                .links
                .get(&self.link.node)
                .is_some_and(|link| link.generation == self.link.generation)
            {
                routes.links.remove(&self.link.node);
            }
        });
        self.give_up();
        metrics::link_up("chat", &self.link.node, false);
        if !self.all_came.load(Ordering::Relaxed) {
            let map = self.links.routes().map.clone();
            self.links.lost.link(&self.link.node, self.link.incarnation, &map);
        }
    }
}
