//! A device's stream: the response stream itself polls what the client sends, the mailbox and the timer, and feeds the
//! session; no task is spawned for it. Whatever waits goes out as one frame.
//!
//! Its slow-consumer rule: nobody waits for a device. While its transport takes nothing, the stream is not polled; the
//! mailbox fills to its bounds, and the device is served from its inbox afterwards.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tern_proto::raw::event_len_in_frame;
use tern_proto::{ApiError, v1};
use tern_types::limits::MAX_FRAME_EVENTS;
use tern_types::{SessionId, Timestamp};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status, Streaming};

use crate::chat_links::Routes;
use crate::codec::{Frame, Incoming};
use crate::connection::Connection;
use crate::gateway::{Gateway, Registered};
use crate::item;
use crate::mailbox::{Mailbox, Waiting};
use crate::metrics;
use crate::session::{self, Effect, Event, Mail, Session};
use crate::traces::Sends;
use crate::watchdog::Watch;

/// Bytes of one frame; one event always fits.
const MAX_FRAME_BYTES: usize = 512 << 10;
/// Rounds over the sources before others get their turn. Each takes all mail, one frame of the client.
const ROUNDS: usize = 4;
/// A timer is set no further ahead than this.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// See the module.
pub struct DeviceStream {
    gateway: Arc<Gateway>,
    id: SessionId,
    session: Session,
    /// `None` once the client's side is done.
    inbound: Option<Streaming<Incoming>>,
    /// Of the client's last frame.
    items: VecDeque<v1::ClientItem>,
    mailbox: Arc<Mailbox>,
    registered: Option<Registered>,
    /// As the session was last told of them.
    routes: Arc<Routes>,
    out: VecDeque<Bytes>,
    /// Something was put since the transport had taken all.
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Timestamp,
    clock: Clock,
    watch: Watch,
    last_reference: u32,
    traced: Sends,
    end: End,
    opened: bool,
}

enum End {
    /// The stream goes on.
    Not,
    /// After what waits to go out: the status.
    With(Option<ApiError>),
    Over,
}

impl DeviceStream {
    pub fn new(
        gateway: Arc<Gateway>,
        inbound: Streaming<Incoming>,
        connection: Option<Arc<Connection>>,
    ) -> Self {
        metrics::stream_began();
        let id = gateway.registry.next_id();
        let clock = Clock::start();
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
            routes: gateway.chats.routes(),
            out: VecDeque::new(),
            unflushed: false,
            timer: Box::pin(tokio::time::sleep(first)),
            timer_at,
            clock,
            watch,
            last_reference: session::OWN_REFERENCES,
            traced: Sends::default(),
            end: End::Not,
            opened: false,
            gateway,
        }
    }

    fn apply(&mut self, event: Event<'_>) {
        let effects = self.session.apply(event, self.clock.now());
        for effect in effects {
            self.carry_out(effect);
        }
    }

    /// What cannot be done comes back as mail.
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
                self.registered = None;
            }
            Effect::Register { user, device } => {
                match self.gateway.register(self.id, user, device, self.mailbox.clone()) {
                    Ok(registered) => self.registered = Some(registered),
                    Err(why) => self.mailbox.close(why),
                }
            }
            Effect::SweepFound { chat, from } => {
                metrics::sweep_found();
                let device = self
                    .registered
                    .as_ref()
                    .map(|registered| registered.handle().device);
                tracing::error!(session = %self.id, ?device, %chat, from, "the sweep found a lost inbox row");
            }
            other => self.pass_on(other),
        }
    }

    fn pass_on(&mut self, effect: Effect) {
        let Some(registered) = &self.registered else {
            return;
        };
        let (handle, chats) = (registered.handle(), &self.gateway.chats);
        let refused = match effect {
            Effect::ReadInbox => {
                self.gateway.inboxes.ask(handle);
                None
            }
            Effect::Send { reference, mut send } => {
                self.traced.begin(&self.gateway.traces, reference, &mut send);
                chats
                    .send(handle, reference, send)
                    .err()
                    .map(|_| Mail::SendFailed { reference })
            }
            Effect::Ack { chat, seq, write } => {
                self.last_reference = self.last_reference.wrapping_add(1) | !session::OWN_REFERENCES;
                let reference = self.id.0 << 32 | u64::from(self.last_reference);
                chats
                    .acknowledge(handle, reference, chat, seq, write)
                    .err()
                    .map(|_| Mail::AckLost { chat })
            }
            Effect::Read { chat, seq } => chats
                .mark_read(handle, chat, seq)
                .err()
                .map(|_| Mail::AckLost { chat }),
            Effect::Window {
                reference,
                chat,
                from,
                limit,
            } => chats
                .window(handle, reference, chat, from, limit)
                .err()
                .map(|_| Mail::WindowFailed { reference, chat }),
            Effect::Put(_) | Effect::End(_) | Effect::Register { .. } | Effect::SweepFound { .. } => None,
        };
        if let Some(mail) = refused {
            self.mailbox.push(mail);
        }
    }

    /// One look at everything that may have happened. False: nothing has.
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
            && let Poll::Ready(waiting) = self.mailbox.poll_take(cx)
        {
            news = true;
            self.take_mail(waiting);
        }
        news | self.take_items(cx)
    }

    fn timer_is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.session.due();
        if due != self.timer_at {
            self.timer_at = due;
            let at = Instant::now() + self.clock.until(due);
            self.timer.as_mut().reset(at);
        }
        let fired = self.timer.as_mut().poll(cx).is_ready();
        if fired {
            // Whatever is due next, the timer is to be set for it.
            self.timer_at = Timestamp(0);
        }
        fired
    }

    fn take_mail(&mut self, waiting: Waiting) {
        if let Some(request) = waiting.close {
            self.apply(Event::Close(request));
        }
        if waiting.moved {
            let new = self.gateway.chats.routes();
            let old = std::mem::replace(&mut self.routes, new.clone());
            self.apply(Event::Moved(&|chat| new.moved_since(&old, chat)));
        }
        for mail in waiting.mail {
            let _ends_afterwards = self.traced.answered(&mail);
            self.apply(Event::Mail(mail));
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
        }
    }

    /// Takes the client's items, and its next frame when they are all taken.
    fn take_items(&mut self, cx: &mut Context<'_>) -> bool {
        let mut news = false;
        while !self.has_ended() && self.session.takes_items() {
            if let Some(item) = self.items.pop_front() {
                let item = item::from_wire(item, &self.gateway.verifier, Timestamp::now());
                self.apply(Event::Item(item));
                news = true;
                continue;
            }
            let Some(inbound) = &mut self.inbound else { break };
            // Only one frame a look: its answers go out before the next is read.
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

    fn take_frame(&mut self, frame: Option<Result<Incoming, Status>>) {
        match frame {
            Some(Ok(Incoming::Frame(items))) => {
                self.items = items.into();
                self.apply(Event::Frame);
            }
            Some(Ok(Incoming::Garbage)) => self.apply(Event::BadFrame("a frame is no ClientFrame")),
            Some(Ok(Incoming::TooManyItems)) => {
                self.apply(Event::FrameTooLarge(
                    "a frame has more items than Limits.max_frame_items",
                ));
            }
            Some(Err(status)) => {
                self.inbound = None;
                if status.code() == Code::OutOfRange {
                    self.apply(Event::FrameTooLarge(
                        "a frame has more bytes than Limits.max_frame_bytes",
                    ));
                } else if status.source().is_some() || status.code() == Code::Cancelled {
                    // The connection is gone: nobody hears a Closing.
                    self.carry_out(Effect::End(None));
                } else {
                    self.apply(Event::BadFrame("the stream is not framed as gRPC"));
                }
            }
            None => {
                self.inbound = None;
                self.apply(Event::HalfClosed);
            }
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(self.end, End::Not)
    }
}

/// Some of what waits to go out, as one frame.
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
        // Most streams are idle most of the time.
        *out = VecDeque::new();
    }
    metrics::frame_out(events.len());
    Some(Frame { events })
}

impl Stream for DeviceStream {
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = this.poll_frame(cx);
        this.watch.polled(polled.is_ready(), this.timer.deadline());
        polled
    }
}

impl DeviceStream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        let mut news = true;
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
            End::With(Some(error)) => return Poll::Ready(Some(Err(error.into()))),
            End::With(None) | End::Over => return Poll::Ready(None),
        }
        if news {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        if !self.session.has_ended() && !self.has_ended() {
            metrics::stream_ended(None, self.opened);
        }
    }
}

/// A stream's time: the wall clock's when it began, and what has passed since. A step of the wall clock neither ends
/// streams nor keeps them from ending.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Timestamp,
    at: Instant,
}

impl Clock {
    fn start() -> Self {
        Self {
            began: Timestamp::now(),
            at: Instant::now(),
        }
    }

    fn now(&self) -> Timestamp {
        self.began + self.at.elapsed()
    }

    fn until(&self, due: Timestamp) -> Duration {
        due.since(self.now()).min(MAX_SLEEP)
    }
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

    #[tokio::test(start_paused = true)]
    async fn a_streams_time_is_what_has_passed_whatever_the_wall_clock_says() {
        let clock = Clock::start();
        let hour = Duration::from_secs(3600);
        let due = clock.now() + hour;
        tokio::time::advance(hour).await;
        assert_eq!((clock.now(), clock.until(due)), (due, Duration::ZERO));
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
