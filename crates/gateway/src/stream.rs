//! The stream of one device, over gRPC ([`crate::codec`]) or a WebSocket ([`crate::websocket`]). The transport gives
//! it the client's frames and writes the frames that it yields. The stream polls those frames, the mailbox and a
//! timer, feeds the session, and carries out its effects; no task is spawned for it. All events that are ready go out
//! as one frame.
//!
//! Slow-consumer rule: nothing waits for a device. While the transport takes nothing the stream is not polled; its
//! mailbox fills to its bounds, and the device gets the rest from its inbox later.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tern_proto::raw::event_len_in_frame;
use tern_proto::{ApiError, v1};
use tern_transport::connections::{Connection, StreamHold};
use tern_types::limits::MAX_FRAME_EVENTS;
use tern_types::{Clock, SessionId, Timestamp};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use tern_gateway_core::session::{Effect, Event, Mail, Op, Session};

use crate::chat_links::Routes;
use crate::clock::StreamClock;
use crate::codec::{Frame, Incoming};
use crate::gateway::{Gateway, Registered};
use crate::item;
use crate::mailbox::{Mailbox, Waiting};
use crate::metrics;
use crate::registry::Sign;
use crate::traces::Sends;
use crate::watchdog::Watch;

/// The most bytes of one frame; a single larger event still goes out.
const MAX_FRAME_BYTES: usize = 512 << 10;
/// The most times that one poll looks at all sources before other tasks get their turn. Each look takes all mail and
/// one frame of the client.
const ROUNDS: usize = 4;

/// One device's stream: the adapter between a transport that carries `I`, the client's frames, and the [`Session`].
pub struct DeviceStream<I> {
    gateway: Arc<Gateway>,
    id: SessionId,
    session: Session,
    /// The client's frames; `None` once its side has ended.
    inbound: Option<I>,
    /// The items of the client's last frame that the session has not taken yet.
    items: VecDeque<v1::ClientItem>,
    mailbox: Arc<Mailbox>,
    registered: Option<Registered>,
    /// The guard that keeps the connection from being ended for another one, as long as the session is registered.
    hold: Option<StreamHold>,
    /// The routes that the session was last told of.
    routes: Arc<Routes>,
    /// The encoded ServerEvents that have not gone out.
    out: VecDeque<Bytes>,
    /// True if an event was put since the transport had taken everything.
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    /// The time of the session for which `timer` is set.
    timer_at: Timestamp,
    clock: StreamClock,
    watch: Watch,
    traced: Sends,
    end: End,
    /// True once the session has been open.
    opened: bool,
    /// True if there was nothing to do at the last poll. What has woken the stream since then has waited for a
    /// processor only, not for the client.
    idle: bool,
}

/// The progress of the stream's end.
enum End {
    /// The stream goes on.
    Not,
    /// It ends with this status (`None`: OK), after the frames that are left.
    With(Option<ApiError>),
    /// The status was given.
    Over,
}

impl<I: Stream<Item = Incoming> + Unpin> DeviceStream<I> {
    /// Makes a stream that waits for Open. `connection` is the one that carries it, if it is known.
    pub fn new(gateway: Arc<Gateway>, inbound: I, connection: Option<Arc<Connection>>) -> Self {
        metrics::stream_began();
        let id = gateway.registry.next_id();
        let clock = StreamClock::start();
        let session = Session::new(id, gateway.settings, clock.now());
        let timer_at = session.due();
        let mailbox = Arc::<Mailbox>::default();
        let first = clock.until(timer_at);
        let watch = gateway.watchdog.watch(id, mailbox.clone(), connection, first);
        Self {
            id,
            session,
            inbound: Some(inbound),
            items: VecDeque::new(),
            mailbox,
            registered: None,
            hold: None,
            routes: gateway.chats.routes(),
            out: VecDeque::new(),
            unflushed: false,
            timer: Box::pin(tokio::time::sleep(first)),
            timer_at,
            clock,
            watch,
            traced: Sends::default(),
            end: End::Not,
            opened: false,
            idle: false,
            gateway,
        }
    }

    fn apply(&mut self, event: Event<'_>) {
        let effects = self.session.apply(event, self.clock.now());
        for effect in effects {
            self.carry_out(effect);
        }
    }

    /// Carries out one effect. If that fails, the mailbox gets the failure.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Put(event) => {
                self.unflushed = true;
                self.out.push_back(event);
            }
            Effect::End(error) => {
                metrics::stream_ended(error.as_ref(), self.opened);
                tracing::debug!(session = %self.id, reason = ?error.as_ref().map(|error| error.reason), "stream ends");
                self.end = End::With(error);
                (self.registered, self.hold) = (None, None);
            }
            Effect::Register { user, device } => {
                match self.gateway.register(self.id, user, device, self.mailbox.clone()) {
                    Ok(registered) => {
                        (self.registered, self.hold) = (Some(registered), self.watch.hold());
                    }
                    Err(why) => self.mailbox.close(why),
                }
            }
            Effect::SweepFound {
                chat,
                from,
                age,
                acked,
            } => {
                metrics::sweep_found();
                let handle = self.registered.as_ref().map(Registered::handle);
                let device = handle.map(|handle| handle.device);
                let announced = handle.is_some_and(|handle| handle.is_announced());
                let open_for = self.clock.elapsed();
                tracing::error!(session = %self.id, ?device, %chat, from, acked, ?age, ?open_for, announced,
                    "the sweep found a lost inbox row");
            }
            Effect::NoticeThrottled(kind) => metrics::notice_dropped(kind, "throttled"),
            other => self.pass_on(other),
        }
    }

    /// Passes an effect on to other parts of the gateway, for a session that is registered.
    fn pass_on(&mut self, effect: Effect) {
        let Some(registered) = &self.registered else {
            return;
        };
        let (handle, chats) = (registered.handle(), &self.gateway.chats);
        let refused = match effect {
            Effect::Sign { active, at, tell } => {
                handle.set_sign(Sign {
                    active,
                    at: Clock::wall(),
                    said: at,
                });
                if tell {
                    self.gateway.presence.sign(handle);
                }
                None
            }
            Effect::Watch(users) => {
                self.gateway.watches.watch(handle, users);
                None
            }
            Effect::ReadInbox => {
                self.gateway.inboxes.ask(handle);
                None
            }
            Effect::Up(mut op) => {
                if let Op::Send { reference, send } = &mut op {
                    self.traced.begin(&self.gateway.traces, *reference, send);
                }
                chats.up(handle, op)
            }
            Effect::Notice { chat, notice } => {
                self.gateway.notice(handle, chat, &notice);
                None
            }
            Effect::Window {
                reference,
                chat,
                from,
                limit,
            } => chats
                .window(handle, reference, chat, from, limit)
                .err()
                .map(|_| Mail::WindowFailed { reference, chat }),
            Effect::Put(_)
            | Effect::End(_)
            | Effect::Register { .. }
            | Effect::SweepFound { .. }
            | Effect::NoticeThrottled(_) => None,
        };
        if let Some(mail) = refused {
            self.mailbox.push(mail);
        }
    }

    /// Looks once at everything that may have happened. Returns false when nothing has.
    fn look(&mut self, cx: &mut Context<'_>) -> bool {
        let mut news = false;
        if self.out.is_empty() && std::mem::take(&mut self.unflushed) {
            self.apply(Event::Flushed);
        }
        while !self.has_ended() && self.timer_is_due(cx) {
            news = true;
            self.apply(Event::Tick);
        }
        if !self.has_ended()
            && let Poll::Ready(waiting) = self.mailbox.poll_take(cx, self.out.is_empty())
        {
            news = true;
            if self.idle {
                self.gateway.send_queue.record(waiting.age);
            }
            self.take_mail(waiting);
        }
        news | self.take_items(cx)
    }

    /// Returns whether the session's timer has fired. Sets it anew if the session has changed its time.
    fn timer_is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.session.due();
        if due != self.timer_at {
            self.timer_at = due;
            let at = Instant::now() + self.clock.until(due);
            self.timer.as_mut().reset(at);
        }
        let fired = self.timer.as_mut().poll(cx).is_ready();
        if fired {
            // The timer has to be set anew, whatever is due next.
            self.timer_at = Timestamp(0);
        }
        fired
    }

    /// Feeds everything from the mailbox to the session.
    fn take_mail(&mut self, waiting: Waiting) {
        if let Some(request) = waiting.close {
            self.apply(Event::Close(request));
        }
        if waiting.moved {
            let new = self.gateway.chats.routes();
            let old = std::mem::replace(&mut self.routes, new.clone());
            self.apply(Event::Moved(&|chat| new.moved_since(&old, chat)));
        }
        if let Some(off) = waiting.read_receipts_off {
            self.apply(Event::ReadReceipts { off });
        }
        for mail in waiting.mail {
            let _ends_afterwards = self.traced.answered(&mail);
            self.apply(Event::Mail(mail));
        }
        for event in waiting
            .hints
            .into_iter()
            .chain(waiting.seen.into_iter().map(|(_, event)| event))
        {
            self.apply(Event::Mail(Mail::Seen(event)));
        }
        if waiting.receipts_lost {
            self.apply(Event::ReceiptsLost);
        }
        if let Some(inbox) = waiting.swept {
            self.apply(Event::Mail(Mail::Swept(*inbox)));
        }
        if waiting.announced {
            self.apply(Event::Announced);
        }
        if waiting.redrain {
            self.apply(Event::Redrain);
        }
        if let Some((reconnect_after, close_after)) = waiting.drain {
            self.apply(Event::Drain {
                reconnect_after,
                close_after,
            });
        }
        if !self.opened && self.session.is_open() {
            self.opened = true;
            metrics::opened();
            if let Some(registered) = &self.registered {
                self.gateway.presence.opened(registered.handle());
            }
        }
    }

    /// Takes the client's items, and its next frame when they are all taken. Returns false if there was nothing to
    /// take.
    fn take_items(&mut self, cx: &mut Context<'_>) -> bool {
        let mut news = false;
        while !self.has_ended() && self.session.takes_items() {
            if let Some(item) = self.items.pop_front() {
                let item = item::from_wire(item, &self.gateway.verifier, Clock::wall());
                self.apply(Event::Item(item));
                news = true;
                continue;
            }
            let Some(inbound) = &mut self.inbound else { break };
            // One look takes only one frame, whose answers go out before the next one is read.
            match Pin::new(inbound).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(frame) => self.take_frame(frame),
            }
            news = true;
            if self.items.is_empty() {
                break;
            }
        }
        news
    }

    fn take_frame(&mut self, frame: Option<Incoming>) {
        match frame {
            Some(Incoming::Frame(items)) => {
                self.items = items.into();
                self.apply(Event::Frame);
            }
            Some(Incoming::Malformed(why)) => self.apply(Event::BadFrame(why)),
            Some(Incoming::TooLarge(why)) => self.apply(Event::FrameTooLarge(why)),
            Some(Incoming::Gone) => self.carry_out(Effect::End(None)),
            None => {
                self.inbound = None;
                self.apply(Event::HalfClosed);
            }
        }
    }

    /// Returns the next frame, or after the last one the status. The transport calls this when it has taken the frame
    /// before.
    pub fn poll_next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ApiError>>> {
        let polled = self.poll_frame(cx);
        self.idle = polled.is_pending();
        self.watch.polled(polled.is_ready(), self.timer.deadline());
        polled
    }

    /// Returns the rest of the client's side, for a transport that has to end it.
    pub fn take_inbound(&mut self) -> Option<I> {
        self.inbound.take()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ApiError>>> {
        let mut news = true;
        self.session.wall_is(Clock::wall(), self.clock.now());
        for _ in 0..ROUNDS {
            if self.has_ended() || self.out.len() >= MAX_FRAME_EVENTS {
                break;
            }
            news = self.look(cx);
            if !news {
                break;
            }
        }
        if let Some(frame) = pack(&mut self.out) {
            return Poll::Ready(Some(Ok(frame)));
        }
        match std::mem::replace(&mut self.end, End::Over) {
            End::Not => self.end = End::Not,
            End::With(Some(error)) => return Poll::Ready(Some(Err(error))),
            End::With(None) | End::Over => return Poll::Ready(None),
        }
        if news {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<I> DeviceStream<I> {
    fn has_ended(&self) -> bool {
        !matches!(self.end, End::Not)
    }
}

/// The stream as gRPC's response.
impl<I: Stream<Item = Incoming> + Unpin> Stream for DeviceStream<I> {
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = self.get_mut().poll_next_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(Status::from)))
    }
}

impl<I> Drop for DeviceStream<I> {
    fn drop(&mut self) {
        if !self.session.has_ended() && !self.has_ended() {
            metrics::stream_ended(None, self.opened);
        }
    }
}

/// Packs events that wait into one frame. `None` if none do.
fn pack(out: &mut VecDeque<Bytes>) -> Option<Frame> {
    let mut bytes = 0;
    let fits = |event: &&Bytes| {
        let first = bytes == 0;
        bytes += event_len_in_frame(event);
        first || bytes <= MAX_FRAME_BYTES
    };
    let count = out.iter().take(MAX_FRAME_EVENTS).take_while(fits).count();
    if count == 0 {
        return None;
    }
    let events: Vec<Bytes> = out.drain(..count).collect();
    if out.is_empty() {
        // An idle stream keeps no memory for events: most are idle most of the time.
        *out = VecDeque::new();
    }
    metrics::frame_out(events.len());
    Some(Frame { events })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(events: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
        let mut out: VecDeque<Bytes> = events.into_iter().map(|len| vec![0; len].into()).collect();
        std::iter::from_fn(|| pack(&mut out))
            .map(|frame| frame.events.iter().map(Bytes::len).collect())
            .collect()
    }

    #[test]
    fn a_frame_has_at_most_64_events_and_512_kib_but_one_event_always_fits() {
        assert_eq!(frames([]), [] as [Vec<usize>; 0]);
        let lengths: Vec<usize> = frames([10; 130]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [64, 64, 2]);
        let (large, half) = (600 << 10, 255 << 10);
        assert_eq!(
            frames([large, half, half, half, large, 1]),
            [vec![large], vec![half, half], vec![half], vec![large], vec![1]]
        );
    }
}
