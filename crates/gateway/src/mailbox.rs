//! What other tasks leave for a session. Bounded: live pushes find room only while few wait, and are dropped otherwise,
//! not affecting other sessions; wakes find a little more room; both then leave a sticky wish to read the inbox again,
//! which takes no room. Results, windows and the like always fit: a session is owed no more of them than it asked for.
//! Receipts and typing have room of their own ([`crate::hints`]).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_types::{ChatId, UserId};
use tracing::Span;

use crate::hints::{Hints, Mark};
use crate::session::{CloseRequest, Inbox, Mail};

/// Pushes that wait: two frames of them. A session that is further behind is read to from its inbox.
const LIVE_ROOM: usize = 128;
/// Their bytes.
const LIVE_BYTES: usize = 1 << 20;
/// Wakes find room up to here, so that one burst of live pushes does not displace them.
const WAKE_ROOM: usize = 256;
/// A mailbox that grew in a burst gives its memory back when it is larger than this.
const KEEP_CAPACITY: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Waiting,
    hints: Hints,
    live_bytes: usize,
    waker: Option<Waker>,
    /// When the stream, which waited, was woken.
    woken: Option<Instant>,
}

/// Everything that waits for a session.
#[derive(Debug, Default)]
pub struct Waiting {
    pub mail: VecDeque<Mail>,
    /// Of the traced among the live pushes: each ends when the session has taken the mail.
    pub spans: Vec<Span>,
    pub announced: bool,
    pub redrain: bool,
    /// Receipts may have been lost on their way.
    pub receipts_lost: bool,
    /// What the sweep read last.
    pub swept: Option<Box<Inbox>>,
    /// Whether the user turned read receipts off: what was told last.
    pub read_receipts_off: Option<bool>,
    /// Owners or links changed.
    pub moved: bool,
    pub close: Option<CloseRequest>,
    /// Reconnect after, close after.
    pub drain: Option<(Duration, Duration)>,
    /// What watched people show, the newest of each, and answers in between.
    pub seen: Vec<(Option<UserId>, Bytes)>,
    /// Receipts and typing: some of what waits.
    pub hints: Vec<Bytes>,
    /// How long ago the stream was woken for it.
    pub age: Duration,
}

impl Waiting {
    /// Apart from what is seen of people.
    fn is_empty(&self) -> bool {
        let flags = self.announced
            || self.redrain
            || self.receipts_lost
            || self.moved
            || self.read_receipts_off.is_some();
        self.mail.is_empty() && self.swept.is_none() && !flags && self.close.is_none() && self.drain.is_none()
    }
}

impl Mailbox {
    /// A live entry; `span` where it is traced. Without an event the session reads it from the log (see `Push.event` of
    /// link.proto). False: dropped.
    pub fn push_live(&self, chat: ChatId, seq: u64, event: Bytes, span: Option<Span>) -> bool {
        self.change(|inner| {
            let room = inner.waiting.mail.len() < LIVE_ROOM && inner.live_bytes < LIVE_BYTES;
            if room {
                inner.live_bytes += event.len();
                inner.waiting.mail.push_back(if event.is_empty() {
                    Mail::Added { chat, seq }
                } else {
                    Mail::Live { chat, seq, event }
                });
                inner.waiting.spans.extend(span);
            } else {
                inner.waiting.redrain = true;
            }
            inner.hints.entry(chat);
            room
        })
    }

    /// How far somebody has got. False: dropped, and CaughtUp makes up for it.
    pub fn push_receipt(&self, chat: ChatId, user: UserId, mark: Mark, event: Bytes) -> bool {
        self.change(|inner| {
            let room = inner.hints.receipt(chat, user, mark, event);
            inner.waiting.receipts_lost |= !room;
            room
        })
    }

    /// Somebody writes, or stopped. False: dropped.
    pub fn push_typing(&self, chat: ChatId, user: UserId, event: Bytes) -> bool {
        self.change(|inner| inner.hints.typing(chat, user, event))
    }

    /// Receipts may have been lost before they came here.
    pub fn receipts_lost(&self) {
        self.change(|inner| inner.waiting.receipts_lost = true);
    }

    /// A wake. False: the inbox will be read instead; the session has the duty all the same.
    pub fn push_wake(&self, chat: ChatId, from: u64, to: u64) -> bool {
        self.change(|inner| {
            let room = inner.waiting.mail.len() < WAKE_ROOM;
            if room {
                inner.waiting.mail.push_back(Mail::Wake { chat, from, to });
            } else {
                inner.waiting.redrain = true;
            }
            room
        })
    }

    /// What a watched person shows: it takes the place of what still waits of them.
    pub fn push_seen(&self, user: UserId, event: Bytes) {
        self.change(|inner| {
            let seen = &mut inner.waiting.seen;
            match seen.iter_mut().rev().find(|(of, _)| *of == Some(user)) {
                Some(older) => older.1 = event,
                None => seen.push((Some(user), event)),
            }
        });
    }

    /// The answer to one WatchPresence, behind what was seen so far.
    pub fn push_watched(&self, event: Bytes) {
        self.change(|inner| inner.waiting.seen.push((None, event)));
    }

    /// An answer to what the session asked for.
    pub fn push(&self, mail: Mail) {
        self.change(|inner| inner.waiting.mail.push_back(mail));
    }

    /// The sweep read the inbox. Only the newest counts: a stream that is not polled for hours gathers none.
    pub fn swept(&self, inbox: Inbox) {
        self.change(|inner| inner.waiting.swept = Some(Box::new(inbox)));
    }

    /// Presence knows the session.
    pub fn announced(&self) {
        self.change(|inner| inner.waiting.announced = true);
    }

    /// The inbox is to be read again.
    pub fn redrain(&self) {
        self.change(|inner| inner.waiting.redrain = true);
    }

    /// The user turned read receipts off, or on again.
    pub fn read_receipts(&self, off: bool) {
        self.change(|inner| inner.waiting.read_receipts_off = Some(off));
    }

    /// Owners or links changed.
    pub fn moved(&self) {
        self.change(|inner| inner.waiting.moved = true);
    }

    /// The stream is to end. The first reason counts.
    pub fn close(&self, request: CloseRequest) {
        self.change(|inner| {
            inner.waiting.close.get_or_insert(request);
        });
    }

    /// The gateway is about to stop.
    pub fn drain(&self, reconnect_after: Duration, close_after: Duration) {
        self.change(|inner| inner.waiting.drain = Some((reconnect_after, close_after)));
    }

    /// Everything that waits; pending while nothing does. What is seen of people, receipts and typing stay here, where the
    /// newest takes the place of older ones, unless `seen`: the device has taken what was put before.
    pub fn poll_take(&self, cx: &mut Context<'_>, seen: bool) -> Poll<Waiting> {
        let mut inner = self.lock();
        let none_seen = inner.waiting.seen.is_empty() && inner.hints.is_empty();
        if inner.waiting.is_empty() && (!seen || none_seen) {
            if !inner
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                inner.waker = Some(cx.waker().clone());
            }
            if inner.waiting.mail.capacity() > KEEP_CAPACITY {
                inner.waiting.mail = VecDeque::new();
            }
            return Poll::Pending;
        }
        inner.live_bytes = 0;
        let age = inner.woken.take().map(|woken| woken.elapsed());
        let mut waiting = std::mem::take(&mut inner.waiting);
        if seen {
            waiting.hints = inner.hints.take();
        } else {
            inner.waiting.seen = std::mem::take(&mut waiting.seen);
        }
        waiting.age = age.unwrap_or_default();
        Poll::Ready(waiting)
    }

    /// Something waits.
    pub fn has_mail(&self) -> bool {
        let inner = self.lock();
        !inner.waiting.is_empty() || !inner.waiting.seen.is_empty() || !inner.hints.is_empty()
    }

    /// It waits for the stream to end.
    pub fn is_closing(&self) -> bool {
        self.lock().waiting.close.is_some()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let outcome = change(&mut inner);
        let waker = inner.waker.take();
        if waker.is_some() {
            inner.woken = Some(Instant::now());
        }
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(mailbox: &Mailbox) -> Option<Waiting> {
        match mailbox.poll_take(&mut Context::from_waker(Waker::noop()), true) {
            Poll::Ready(waiting) => Some(waiting),
            Poll::Pending => None,
        }
    }

    #[test]
    fn live_pushes_are_dropped_first_then_wakes_and_answers_never() {
        let (mailbox, chat) = (Mailbox::default(), ChatId::own(UserId::random()));
        assert!((0..LIVE_ROOM).all(|seq| mailbox.push_live(chat, seq as u64 + 1, Bytes::new(), None)));
        assert!((0..WAKE_ROOM - LIVE_ROOM).all(|_| mailbox.push_wake(chat, 1, 2)));
        assert!(!mailbox.push_live(chat, 1, Bytes::new(), None));
        mailbox.push(Mail::SendFailed { reference: 1 });
        let waiting = take(&mailbox).expect("mail");
        assert_eq!((waiting.mail.len(), waiting.redrain), (WAKE_ROOM + 1, true));
        assert!(take(&mailbox).is_none());
        assert!(mailbox.push_wake(chat, 1, 2));
    }

    /// Everybody in a group acknowledges while the device is slow.
    #[test]
    fn however_many_receipts_wait_an_entry_finds_room_and_what_is_lost_of_them_is_known() {
        let (mailbox, chat) = (Mailbox::default(), ChatId::own(UserId::random()));
        let mark = Mark::default();
        let kept = (0..5000).filter(|_| mailbox.push_receipt(chat, UserId::random(), mark, Bytes::new()));
        assert_eq!(kept.count(), tern_types::limits::MAX_GROUP_MEMBERS);
        assert!((1..=LIVE_ROOM as u64).all(|seq| mailbox.push_live(chat, seq, Bytes::new(), None)));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(waiting) = mailbox.poll_take(&mut cx, false) else {
            panic!("the entries")
        };
        assert_eq!((waiting.mail.len(), waiting.hints.len()), (LIVE_ROOM, 0));
        assert!(
            waiting.receipts_lost && !waiting.redrain,
            "no reason to read the inbox"
        );
        assert!(mailbox.poll_take(&mut cx, false).is_pending());
        assert!(!take(&mailbox).expect("receipts").hints.is_empty());
    }

    #[test]
    fn of_many_sweeps_only_the_newest_waits() {
        let mailbox = Mailbox::default();
        for number in 0..1000 {
            mailbox.swept(Inbox {
                store_epoch: number.to_string(),
                ..Inbox::default()
            });
        }
        let waiting = take(&mailbox).expect("mail");
        assert!(waiting.mail.is_empty());
        assert_eq!(waiting.swept.map(|inbox| inbox.store_epoch), Some("999".into()));
        assert!(take(&mailbox).is_none());
    }

    #[test]
    fn a_wake_that_finds_no_room_leaves_the_duty() {
        let (mailbox, chat) = (Mailbox::default(), ChatId::own(UserId::random()));
        assert!((0..WAKE_ROOM).all(|_| mailbox.push_wake(chat, 1, 2)));
        assert!(!mailbox.push_wake(chat, 3, 4));
        assert!(take(&mailbox).expect("mail").redrain);
    }

    #[test]
    fn of_a_watched_person_only_the_newest_waits_and_nothing_while_the_device_is_slow() {
        let (mailbox, one, other) = (Mailbox::default(), UserId::random(), UserId::random());
        for number in 0..100u8 {
            mailbox.push_seen(one, vec![number].into());
        }
        mailbox.push_watched(vec![100].into());
        mailbox.push_seen(other, vec![101].into());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(mailbox.poll_take(&mut cx, false).is_pending());
        mailbox.redrain();
        assert!(matches!(mailbox.poll_take(&mut cx, false), Poll::Ready(waiting) if waiting.seen.is_empty()));
        let seen = take(&mailbox).expect("seen").seen;
        let events: Vec<u8> = seen.iter().map(|(_, event)| event[0]).collect();
        assert_eq!(events, [99, 100, 101]);
    }

    #[test]
    fn large_pushes_are_bounded_by_their_bytes() {
        let (mailbox, chat) = (Mailbox::default(), ChatId::own(UserId::random()));
        let event = Bytes::from(vec![0; 256 << 10]);
        let taken = (1..100)
            .filter(|seq| mailbox.push_live(chat, *seq, event.clone(), None))
            .count();
        assert_eq!(taken, 4);
    }
}
