//! Reads the items of a control stream. Each kind of item has a function of its own, which makes a [`Command`] for the
//! chat's shard or handles the item at once.

use prost::Message;
use tern_cluster::shedding::{self, Level};
use tern_identity::ticket::Tickets;
use tern_proto::internal::up_item::Op;
use tern_proto::internal::{AckOp, ControlUp, NoticeOp, ReadOp, SendOp, SessionsFound, UpItem, WakeDone};
use tern_proto::notice;
use tern_proto::v1::ServerEvent;
use tern_types::{ChatId, Clock, DeviceId, IdError, RequestId, Seq, SessionId, TraceContext, UserId};
use tonic::Streaming;

use tern_chat_core::shard::Event;
use tern_chat_core::{Origin, Outcome, Refusal};

use super::Parts;
use crate::answer;
use crate::grpc::message;
use crate::metrics;
use crate::shard_loop::Ended;

/// The reader of one control stream.
pub struct Reader {
    /// The number of the link, to which answers go.
    pub link: u64,
    /// The shedding level that the gateway sends with each frame.
    pub gateway: shedding::HeardLevel,
    /// The parts of the node that handle the items.
    pub parts: Parts,
}

impl Reader {
    /// Reads the stream to its end. A shard whose queue is full holds the reading back.
    pub async fn run(self, mut frames: Streaming<ControlUp>) {
        while let Ok(Some(frame)) = frames.message().await {
            self.gateway.says(Level::from_wire(frame.shed_level));
            let Ok(same) = self.same_store(frame.store).await else {
                // Nothing more is read, because an answer from memory might be about a store that is gone.
                // The link ends with this reader, and the gateway asks again on its next link.
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
                        tracing::error!(
                            "a gateway sent an item without an id, with that of nobody, or with a notice that cannot be read"
                        )
                    }
                    Err(Failed::Refused(origin, refusal)) => {
                        metrics::send_refused(answer::send_error_code(&refusal));
                        self.answer(origin, &Outcome::Sent(Err(refusal)));
                    }
                    Err(Failed::Ended) => return,
                }
            }
        }
    }

    /// Makes sure that this node follows the store's epoch, and returns whether the gateway's sessions belong to that
    /// store too. `store` is the mark of their epoch; 0 if the gateway does not know it yet.
    async fn same_store(&self, store: u64) -> sqlx::Result<bool> {
        if store == 0 || self.parts.epoch.is(store) {
            return Ok(true);
        }
        self.parts.epoch.look().await?;
        Ok(self.parts.epoch.is(store))
    }

    /// Handles one item: sends its command to the shard, or answers that this node is not the chat's owner.
    async fn item(&self, mut item: UpItem, map_version: i64) -> Result<(), Failed> {
        let Some(op) = item.op.take() else { return Ok(()) };
        let command = match op {
            Op::WakeDone(done) => return self.wake_done(&done),
            Op::SessionsFound(found) => return self.sessions_found(found),
            Op::Notice(notice) => return self.notice(&self.sender(&item)?, notice, map_version),
            Op::Send(send) => send_command(&self.sender(&item)?, &send, self.parts.tickets.as_ref())?,
            Op::Ack(ack) => ack_command(&self.sender(&item)?, &ack)?,
            Op::Read(read) => read_command(&self.sender(&item)?, &read)?,
        };
        if self.parts.ownership.check(command.chat, map_version).is_err() {
            self.answer(command.origin, &Outcome::NotOwner);
            return Ok(());
        }
        Ok(self.parts.shards.send(command.chat, command.event).await?)
    }

    /// Reads who sent the item. An item in nobody's name is malformed.
    fn sender<'a>(&self, item: &'a UpItem) -> Result<Sender<'a>, Failed> {
        let user = UserId::from_slice(&item.user_id)?;
        let device = DeviceId::from_slice(&item.device_id)?;
        if user == UserId::SYSTEM {
            return Err(Failed::Malformed);
        }
        Ok(Sender {
            user,
            device,
            link: self.link,
            reference: item.r#ref,
            session: SessionId(item.session),
            traceparent: &item.traceparent,
        })
    }

    fn wake_done(&self, done: &WakeDone) -> Result<(), Failed> {
        self.parts.gateways.wake_done(done.wake);
        Ok(())
    }

    fn sessions_found(&self, found: SessionsFound) -> Result<(), Failed> {
        self.parts.gateways.sessions_found(found.question, found.sessions);
        Ok(())
    }

    /// Handles a notice. It gets no answer, and is dropped if it would have to wait. One of a kind that this version does
    /// not know is ignored.
    fn notice(&self, sender: &Sender<'_>, op: NoticeOp, map_version: i64) -> Result<(), Failed> {
        let chat = ChatId::from_slice(&op.chat_id)?;
        let event = ServerEvent::decode(op.event)
            .map_err(|_| Failed::Malformed)?
            .event;
        let Some((user, notice)) = event.as_ref().and_then(notice::of_event) else {
            return Ok(());
        };
        if user != sender.user {
            return Err(Failed::Malformed);
        }
        let kind = notice.kind();
        metrics::notice_in(kind);
        let level = Level::drops(kind);
        if self.parts.shedding.level() >= level {
            self.parts.shedding.gave_up(level);
            metrics::notice_dropped(kind, "shed");
            return Ok(());
        }
        if self.parts.ownership.check(chat, map_version).is_err() {
            metrics::notice_dropped(kind, "not_owner");
            return Ok(());
        }
        let event = Event::Notice {
            chat,
            user,
            notice,
            at: Clock::monotonic(),
        };
        if !self.parts.shards.offer(chat, event) {
            metrics::notice_dropped(kind, "shard");
        }
        Ok(())
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
            if let Some(item) = answer::to_link(reference, session, request, outcome, version) {
                self.parts.gateways.answer(link, item);
            }
        }
    }
}

/// Returns whether an item means the same after the store was restored. Acknowledgements and read marks do not: their
/// seqs are places in a log that is gone. A send does, because it has no seq yet.
fn outlives_a_restore(item: &UpItem) -> bool {
    !matches!(item.op, Some(Op::Ack(_) | Op::Read(_)))
}

/// The device that sent an item, and the fields by which an answer refers to the item.
struct Sender<'a> {
    user: UserId,
    device: DeviceId,
    link: u64,
    reference: u64,
    session: SessionId,
    traceparent: &'a str,
}

impl Sender<'_> {
    /// Returns the origin to which the answer to this item goes.
    fn origin(&self, request: RequestId) -> Origin {
        Origin::Link {
            link: self.link,
            reference: self.reference,
            session: self.session,
            request,
        }
    }

    /// Returns the origin of an item that has no request_id, with a nil one.
    fn origin_without_request(&self) -> Origin {
        self.origin(RequestId(uuid::Uuid::nil()))
    }
}

/// An event for the chat's shard. `origin` is answered if this node does not own the chat.
struct Command {
    chat: ChatId,
    origin: Origin,
    event: Event,
}

/// Makes the command of a message. The message is refused if it goes to its sender, or cannot become an entry.
fn send_command(sender: &Sender<'_>, send: &SendOp, tickets: Option<&Tickets>) -> Result<Command, Failed> {
    let chat = ChatId::from_slice(&send.chat_id)?;
    let request = RequestId::from_slice(&send.request_id)?;
    let peer = (!send.peer_user_id.is_empty()).then(|| UserId::from_slice(&send.peer_user_id));
    let peer = peer.transpose()?;
    let origin = sender.origin(request);
    if peer == Some(sender.user) {
        let refusal = Refusal::Invalid("peer_user_id", "is the sender");
        return Err(Failed::Refused(origin, refusal));
    }
    let message = message::Message {
        sender: sender.user,
        device: sender.device,
        request,
        envelope: &send.envelope,
        body: &send.body,
        read_receipts_off: send.read_receipts_off,
        acked: Seq(send.acked_seq),
        trace: TraceContext::sampled(sender.traceparent),
        arrived: Clock::monotonic(),
    };
    let entry = message::entry(&message, tickets).map_err(|refusal| Failed::Refused(origin, refusal))?;
    let event = Event::Send {
        origin,
        chat,
        peer,
        entry,
    };
    Ok(Command { chat, origin, event })
}

/// Makes the command of an acknowledgement.
fn ack_command(sender: &Sender<'_>, ack: &AckOp) -> Result<Command, Failed> {
    let chat = ChatId::from_slice(&ack.chat_id)?;
    let origin = sender.origin_without_request();
    let event = Event::Ack {
        origin,
        chat,
        user: sender.user,
        device: sender.device,
        seq: Seq(ack.seq),
        write: ack.write,
    };
    Ok(Command { chat, origin, event })
}

/// Makes the command of a read mark.
fn read_command(sender: &Sender<'_>, read: &ReadOp) -> Result<Command, Failed> {
    let chat = ChatId::from_slice(&read.chat_id)?;
    let origin = sender.origin_without_request();
    let event = Event::Read {
        chat,
        user: sender.user,
        seq: Seq(read.seq),
        off: read.read_receipts_off,
    };
    Ok(Command { chat, origin, event })
}

/// The reason why an item goes to no shard.
enum Failed {
    /// The gateway broke the link's protocol: an id is missing, malformed, or that of nobody, or a notice is malformed
    /// or another user's.
    Malformed,
    /// The item, a message, is refused, and its origin is told so.
    Refused(Origin, Refusal),
    /// The shards have ended, because the node is stopping.
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
