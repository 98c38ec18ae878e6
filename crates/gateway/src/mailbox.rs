//! The mailbox of a session has what other tasks leave for it. Putting something into it never waits, and a session
//! that does not take its mail affects no other.
//!
//! It is bounded. A live push is dropped if too much mail waits, and a wake if still more waits; a flag then makes the
//! session read its inbox again. Results, windows and other answers always fit: there are no more of them than the
//! session has asked for. Receipts and notices have room of their own ([`crate::hints`]).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_types::{ChatId, NoticeKind, UserId};
use tracing::Span;

use tern_gateway_core::session::{CloseRequest, Inbox, Mail};

use crate::hints::{Hints, Mark};

/// The amount of waiting mail from which on a live push is dropped: two frames. A session that is further behind reads
/// its inbox.
const LIVE_ROOM: usize = 128;
/// The bytes of waiting live pushes from which on another one is dropped.
const LIVE_BYTES: usize = 1 << 20;
/// The amount of waiting mail from which on a wake is dropped: more than for live pushes, so that a burst of those
/// leaves room for wakes.
const WAKE_ROOM: usize = 256;

/// The mailbox of one session. The session's stream takes from it; every other task only puts into it.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Waiting,
    hints: Hints,
    /// The bytes of the live pushes that wait.
    live_bytes: usize,
    waker: Option<Waker>,
    /// The time at which the waiting stream was woken. `None` if it did not wait.
    woken: Option<Instant>,
}

/// Everything that was put into a mailbox since the stream took from it.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Live pushes, wakes, results and other answers, in the order in which they came.
    pub mail: VecDeque<Mail>,
    /// The spans of those live pushes that are traced. Dropping a span ends it, which is after the session has taken
    /// the mail.
    pub spans: Vec<Span>,
    /// True if presence has taken an announcement of the session.
    pub announced: bool,
    /// True if the inbox is to be read, for example because a push was dropped.
    pub redrain: bool,
    /// True if receipts for the device may have been lost.
    pub receipts_lost: bool,
    /// The inbox that the sweep read last.
    pub swept: Option<Box<Inbox>>,
    /// The newest setting of the user: true if they have turned read receipts off. `None` if none was told.
    pub read_receipts_off: Option<bool>,
    /// True if owners of chats, or links to them, have changed.
    pub moved: bool,
    /// The reason for which the stream is to end, if it is.
    pub close: Option<CloseRequest>,
    /// The times until the device is to reconnect, and until it is cut off, if the gateway wants it to leave.
    pub drain: Option<(Duration, Duration)>,
    /// The newest presence of each watched user, and in between the answers to WatchPresence, which have no user.
    pub seen: Vec<(Option<UserId>, Bytes)>,
    /// Some of the receipts and notices that wait, encoded.
    pub hints: Vec<Bytes>,
    /// The time from when the stream was woken for this to when it took it. Zero if the stream did not wait.
    pub age: Duration,
}

impl Waiting {
    /// Returns whether there is nothing apart from `seen` and `hints`.
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
    /// Puts a live entry, with its span if it is traced. An empty `event` makes the session read the entry from the
    /// log (see `Push.event` of link.proto). Returns false when there is no room: the entry is dropped, and the inbox
    /// read.
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

    /// Puts a receipt: how far a user has got. Returns false when there is no room: it is dropped, and CaughtUp makes
    /// the device ask for receipts.
    pub fn push_receipt(&self, chat: ChatId, user: UserId, mark: Mark, event: Bytes) -> bool {
        self.change(|inner| {
            let room = inner.hints.receipt(chat, user, mark, event);
            inner.waiting.receipts_lost |= !room;
            room
        })
    }

    /// Puts a notice. Returns false when there is no room: it is dropped.
    pub fn push_notice(&self, chat: ChatId, user: UserId, kind: NoticeKind, event: Bytes) -> bool {
        self.change(|inner| inner.hints.notice((chat, user, kind), event))
    }

    /// Says that receipts for the device may have been lost on their way here.
    pub fn receipts_lost(&self) {
        self.change(|inner| inner.waiting.receipts_lost = true);
    }

    /// Puts a wake. Returns false when there is no room: the inbox is read instead. The session is responsible either
    /// way.
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

    /// Puts the presence of a watched user, in place of an older one that still waits.
    pub fn push_seen(&self, user: UserId, event: Bytes) {
        self.change(|inner| {
            let seen = &mut inner.waiting.seen;
            match seen.iter_mut().rev().find(|(of, _)| *of == Some(user)) {
                Some(older) => older.1 = event,
                None => seen.push((Some(user), event)),
            }
        });
    }

    /// Puts the answer to one WatchPresence, behind the presence that was put so far.
    pub fn push_watched(&self, event: Bytes) {
        self.change(|inner| inner.waiting.seen.push((None, event)));
    }

    /// Puts an answer that the session has asked for. It always fits.
    pub fn push(&self, mail: Mail) {
        self.change(|inner| inner.waiting.mail.push_back(mail));
    }

    /// Puts the inbox that the sweep read, in place of an older one. So a stream that is not polled for hours gathers
    /// only one.
    pub fn swept(&self, inbox: Inbox) {
        self.change(|inner| inner.waiting.swept = Some(Box::new(inbox)));
    }

    /// Says that presence has taken an announcement of the session.
    pub fn announced(&self) {
        self.change(|inner| inner.waiting.announced = true);
    }

    /// Makes the session read its inbox again.
    pub fn redrain(&self) {
        self.change(|inner| inner.waiting.redrain = true);
    }

    /// Says that the user has turned read receipts off, or on again.
    pub fn read_receipts(&self, off: bool) {
        self.change(|inner| inner.waiting.read_receipts_off = Some(off));
    }

    /// Says that owners of chats, or links to them, have changed.
    pub fn moved(&self) {
        self.change(|inner| inner.waiting.moved = true);
    }

    /// Makes the stream end. If there are several reasons, the first one counts.
    pub fn close(&self, request: CloseRequest) {
        self.change(|inner| {
            inner.waiting.close.get_or_insert(request);
        });
    }

    /// Says that the device is to reconnect after the first time, and is cut off after the second: the gateway is about
    /// to stop, or others reach more of the cluster.
    pub fn drain(&self, reconnect_after: Duration, close_after: Duration) {
        self.change(|inner| inner.waiting.drain = Some((reconnect_after, close_after)));
    }

    /// Takes everything, or is pending if there is nothing. Presence, receipts and notices are taken only with `seen`,
    /// which says that the device has taken everything that was put before. Until then they stay here, where a newer
    /// one takes the place of an older one.
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

    /// Returns whether the stream has something to take.
    pub fn has_mail(&self) -> bool {
        let inner = self.lock();
        !inner.waiting.is_empty() || !inner.waiting.seen.is_empty() || !inner.hints.is_empty()
    }

    /// Returns whether the stream was told to end.
    pub fn is_closing(&self) -> bool {
        self.lock().waiting.close.is_some()
    }

    /// Changes the mailbox and wakes the stream.
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

    /// All members of a group acknowledge while the device is slow.
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
