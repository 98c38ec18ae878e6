//! The three streams of a gateway's link: control, live, catch-up.
//!
//! Items of the control stream become events of the shards. A full shard holds the stream back, which holds the
//! gateway back. Live events are dropped if the gateway does not keep up. Windows of logs are read beside the shards,
//! a bounded number at a time.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sqlx::PgPool;
use tern_cluster::links::{gather, identity};
use tern_cluster::shedding::{self, Level, Shedding, gather_or_level};
use tern_identity::ticket::Tickets;
use tern_proto::internal::chat_link_server::ChatLink;
use tern_proto::internal::{
    ControlDown, ControlUp, LiveDown, LiveRequest, UpItem, WindowReplies, WindowReply, WindowRequest,
    WindowRequests, up_item,
};
use tern_proto::{raw, v1};
use tern_types::limits::CATCH_UP_WINDOW;
use tern_types::{ChatId, Clock, DeviceId, IdError, RequestId, Seq, SessionId, TraceContext, UserId};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use tern_chat_core::shard::Event;
use tern_chat_core::{Origin, Outcome, Refusal};

use super::message;
use crate::answer;
use crate::epoch::StoreEpoch;
use crate::gateways::Gateways;
use crate::metrics;
use crate::ownership::Ownership;
use crate::shard::{Ended, Shards};
use crate::store::StoreError;
use crate::store::entries::{self, Item};
use crate::store::seal::MasterKey;

/// Items or pushes of one frame to a gateway.
const GATHER: usize = 256;
/// Windows that are read at a time, for all gateways: fewer than the pool has connections, so that loads get some
/// too.
const WINDOW_READS: usize = 4;
/// Windows that wait to be sent on one link.
const WINDOWS: usize = 64;
/// Bytes of one window: a few of the largest bodies.
const WINDOW_BYTES: usize = 2 << 20;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the items of a link are given to, and what is asked about them.
#[derive(Clone)]
pub struct Parts {
    pub shards: Shards,
    pub gateways: Gateways,
    pub ownership: Ownership,
    pub shedding: Shedding,
    pub epoch: StoreEpoch,
    pub tickets: Option<Tickets>,
}

/// The service of the gateways' links.
pub struct LinkService {
    parts: Parts,
    windows: Arc<Windows>,
}

struct Windows {
    ownership: Ownership,
    pool: PgPool,
    master: MasterKey,
    reads: Semaphore,
}

impl LinkService {
    /// Wires the service. Windows are read from this pool.
    pub fn new(parts: Parts, pool: PgPool, master: MasterKey) -> Self {
        let windows = Windows {
            ownership: parts.ownership.clone(),
            pool,
            master,
            reads: Semaphore::new(WINDOW_READS),
        };
        Self {
            parts,
            windows: Arc::new(windows),
        }
    }
}

#[tonic::async_trait]
impl ChatLink for LinkService {
    type ControlStream = Out<ControlDown>;
    type LiveStream = Out<LiveDown>;
    type CatchUpStream = Out<WindowReplies>;

    async fn control(
        &self,
        request: Request<Streaming<ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (link, mut items) = self.parts.gateways.open_control(identity(&request)?);
        let reader = Reader {
            link: link.number,
            gateway: self.parts.shedding.peer(),
            parts: self.parts.clone(),
        };
        let reading = tokio::spawn(reader.run(request.into_inner()).in_current_span());
        let (ownership, mut own) = (self.parts.ownership.clone(), self.parts.shedding.own());
        let out = async_stream::stream! {
            let (_link, reading) = (link, AbortOnDrop(reading));
            while !reading.0.is_finished() {
                let Some(items) = gather_or_level(&mut items, GATHER, &mut own).await else { break };
                let shed_level = own.borrow().to_wire();
                yield Ok(ControlDown { map_version: ownership.map_version(), items, shed_level });
            }
        };
        Ok(Response::new(Box::pin(out)))
    }

    async fn live(&self, request: Request<LiveRequest>) -> Result<Response<Self::LiveStream>, Status> {
        let gateway = identity(&request)?;
        let (gateways, name) = (self.parts.gateways.clone(), gateway.name.clone());
        let frame = move |pushes| {
            let missed = gateways.take_missed(&name);
            LiveDown {
                pushes,
                missed_sessions: missed.sessions.into_iter().collect(),
                missed_any: missed.any,
            }
        };
        let (link, mut pushes) = self.parts.gateways.open_live(gateway);
        let out = async_stream::stream! {
            let _link = link;
            // The first frame says what the gateway missed while it had no link.
            yield Ok(frame(Vec::new()));
            while let Some(pushes) = gather(&mut pushes, GATHER).await {
                yield Ok(frame(pushes));
            }
        };
        Ok(Response::new(Box::pin(out)))
    }

    async fn catch_up(
        &self,
        request: Request<Streaming<WindowRequests>>,
    ) -> Result<Response<Self::CatchUpStream>, Status> {
        let (replies, replies_out) = mpsc::channel(WINDOWS);
        let windows = self.windows.clone();
        let mut frames = request.into_inner();
        let work = async move {
            while let Ok(Some(frame)) = frames.message().await {
                for request in frame.requests {
                    let (windows, replies) = (windows.clone(), replies.clone());
                    let Ok(slot) = replies.clone().reserve_owned().await else {
                        return;
                    };
                    let version = frame.map_version;
                    tokio::spawn(
                        async move { slot.send(Ok(windows.reply(request, version).await)) }.in_current_span(),
                    );
                }
            }
        };
        tokio::spawn(work.in_current_span());
        Ok(Response::new(ReceiverStream::new(replies_out).boxed()))
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether an item means the same after a restore. Acknowledgements and read marks do not: their seqs are of another
/// log. A send has no seq yet.
fn outlives_a_restore(item: &UpItem) -> bool {
    !matches!(item.op, Some(up_item::Op::Ack(_) | up_item::Op::Read(_)))
}

/// Reads one control stream.
struct Reader {
    link: u64,
    gateway: shedding::Peer,
    parts: Parts,
}

impl Reader {
    async fn run(self, mut frames: Streaming<ControlUp>) {
        while let Ok(Some(frame)) = frames.message().await {
            self.gateway.says(Level::from_wire(frame.shed_level));
            let Ok(same) = self.same_store(frame.store).await else {
                // The link is ended, because answers from memory would be of a store that is gone. The gateway asks
                // again on its next link.
                return;
            };
            for item in frame
                .items
                .into_iter()
                .filter(|item| same || outlives_a_restore(item))
            {
                match self.item(item, frame.map_version).await {
                    Ok(()) => {}
                    Err(Failed::Malformed) => {
                        tracing::error!("a gateway sent an item without an id, or with that of nobody")
                    }
                    Err(Failed::Ended) => return,
                }
            }
        }
    }

    /// Makes sure that this node follows the store's epoch, and returns whether the gateway's sessions belong to that
    /// store too.
    async fn same_store(&self, store: u64) -> sqlx::Result<bool> {
        if store == 0 || self.parts.epoch.is(store) {
            return Ok(true);
        }
        self.parts.epoch.look().await?;
        Ok(self.parts.epoch.is(store))
    }

    async fn item(&self, item: UpItem, map_version: i64) -> Result<(), Failed> {
        let op = match item.op {
            None => return Ok(()),
            Some(up_item::Op::WakeDone(done)) => {
                self.parts.gateways.wake_done(done.wake);
                return Ok(());
            }
            Some(up_item::Op::SessionsFound(found)) => {
                self.parts.gateways.sessions_found(found.question, found.sessions);
                return Ok(());
            }
            Some(op) => op,
        };
        let (user, device) = (
            UserId::from_slice(&item.user_id)?,
            DeviceId::from_slice(&item.device_id)?,
        );
        if user == UserId::SYSTEM {
            return Err(Failed::Malformed);
        }
        let origin = |request| Origin::Link {
            link: self.link,
            reference: item.r#ref,
            session: SessionId(item.session),
            request,
        };
        let nobody = RequestId(uuid::Uuid::nil());
        let (chat, origin, event) = match op {
            up_item::Op::Send(send) => {
                let chat = ChatId::from_slice(&send.chat_id)?;
                let request = RequestId::from_slice(&send.request_id)?;
                let peer = (!send.peer_user_id.is_empty()).then(|| UserId::from_slice(&send.peer_user_id));
                let origin = origin(request);
                let peer = peer.transpose()?;
                if peer == Some(user) {
                    self.answer(
                        origin,
                        &Outcome::Refused(Refusal::Invalid("peer_user_id", "is the sender")),
                    );
                    return Ok(());
                }
                let message = message::Message {
                    sender: user,
                    device,
                    request,
                    envelope: &send.envelope,
                    body: &send.body,
                    read_receipts_off: send.read_receipts_off,
                    acked: Seq(send.acked_seq),
                    trace: TraceContext::sampled(&item.traceparent),
                    arrived: Clock::monotonic(),
                };
                match message::entry(&message, self.parts.tickets.as_ref()) {
                    Ok(entry) => {
                        let event = Event::Send {
                            origin,
                            chat,
                            peer,
                            entry,
                        };
                        (chat, origin, event)
                    }
                    Err(refusal) => {
                        self.answer(origin, &Outcome::Refused(refusal));
                        return Ok(());
                    }
                }
            }
            up_item::Op::Ack(ack) => {
                let chat = ChatId::from_slice(&ack.chat_id)?;
                let origin = origin(nobody);
                (
                    chat,
                    origin,
                    Event::Ack {
                        origin,
                        chat,
                        user,
                        device,
                        seq: Seq(ack.seq),
                        write: ack.write,
                    },
                )
            }
            up_item::Op::Read(read) => {
                let chat = ChatId::from_slice(&read.chat_id)?;
                (
                    chat,
                    origin(nobody),
                    Event::Read {
                        chat,
                        user,
                        seq: Seq(read.seq),
                        off: read.read_receipts_off,
                    },
                )
            }
            up_item::Op::Typing(typing) => {
                let chat = ChatId::from_slice(&typing.chat_id)?;
                self.typing(chat, user, typing.stopped, map_version);
                return Ok(());
            }
            up_item::Op::WakeDone(_) | up_item::Op::SessionsFound(_) => return Ok(()),
        };
        if self.parts.ownership.check(chat, map_version).is_err() {
            self.answer(origin, &Outcome::NotOwner);
            return Ok(());
        }
        Ok(self.parts.shards.send(chat, event).await?)
    }

    /// Handles a sign of typing, which is not answered, and dropped rather than kept waiting.
    fn typing(&self, chat: ChatId, user: UserId, stopped: bool, map_version: i64) {
        metrics::typing_in();
        if self.parts.shedding.level() >= Level::Typing {
            self.parts.shedding.gave_up(Level::Typing);
            return metrics::typing_dropped("shed");
        }
        if self.parts.ownership.check(chat, map_version).is_err() {
            return metrics::typing_dropped("not_owner");
        }
        let event = Event::Typing {
            chat,
            user,
            stopped,
            at: Clock::monotonic(),
        };
        if !self.parts.shards.offer(chat, event) {
            metrics::typing_dropped("shard");
        }
    }

    fn answer(&self, origin: Origin, outcome: &Outcome) {
        if let Origin::Link {
            link,
            reference,
            session,
            request,
        } = origin
        {
            let version = self.parts.ownership.map_version();
            self.parts.gateways.answer(
                link,
                answer::to_link(reference, session, request, outcome, version),
            );
        }
    }
}

enum Failed {
    Malformed,
    Ended,
}

impl From<IdError> for Failed {
    fn from(_: IdError) -> Self {
        Self::Malformed
    }
}

impl From<Ended> for Failed {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

impl Windows {
    async fn reply(&self, request: WindowRequest, map_version: i64) -> WindowReplies {
        let mut reply = WindowReply {
            r#ref: request.r#ref,
            session: request.session,
            chat_id: request.chat_id.clone(),
            next_seq: request.from_seq,
            ..WindowReply::default()
        };
        match self.read(&request, map_version).await {
            Some((chat, window)) => {
                metrics::window(window.items.len());
                reply.seqs = window.items.iter().map(|item| item.seq().0).collect();
                reply.events = window.items.into_iter().map(|item| event(chat, item)).collect();
                reply.next_seq = window.next.0;
                reply.done = window.done;
            }
            None => reply.failed = true,
        }
        WindowReplies {
            map_version: self.ownership.map_version(),
            replies: vec![reply],
        }
    }

    async fn read(&self, request: &WindowRequest, map_version: i64) -> Option<(ChatId, entries::Window)> {
        let chat = ChatId::from_slice(&request.chat_id).ok()?;
        let user = UserId::from_slice(&request.user_id).ok()?;
        let device = DeviceId::from_slice(&request.device_id).ok()?;
        self.ownership.check(chat, map_version).ok()?;
        let _permit = self.reads.acquire().await.ok()?;
        match self.window(request, chat, user, device).await {
            Ok(window) => Some((chat, window)),
            Err(error) => {
                tracing::warn!(%chat, %error, "cannot read a window");
                None
            }
        }
    }

    async fn window(
        &self,
        request: &WindowRequest,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
    ) -> Result<entries::Window, StoreError> {
        let from = match Seq(request.from_seq) {
            Seq::ZERO => entries::place(&self.pool, chat, user, device).await?,
            from => Some(from),
        };
        let (from, limit) = (from.unwrap_or(Seq(1)), request.limit.clamp(1, CATCH_UP_WINDOW));
        entries::window(&self.pool, &self.master, chat, user, from, limit, WINDOW_BYTES).await
    }
}

/// The encoded server event of an item of a log.
pub fn event(chat: ChatId, item: Item) -> Bytes {
    match item {
        Item::Entry(entry) => raw::entry_event(&entry),
        Item::Skipped { to } => raw::event(v1::server_event::Event::Skipped(v1::Skipped {
            chat_id: chat.to_string(),
            to_seq: to.0,
            reason: v1::SkipReason::NotAMember.into(),
        })),
    }
}
