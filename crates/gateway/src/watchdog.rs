//! Cuts off streams that are not polled although they have something to do: their clients grant no room to write.
//! Nothing inside such a stream can end it, timers included. So one task looks at all streams from time to time, and
//! cuts the connection of one that stays so.
//!
//! A stream costs one small entry here, and neither a task nor a timer. If the connection carries other streams (behind
//! a proxy), a stalled one is put up with for longer: it only costs memory, while they would all have to reconnect.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_cluster::Drain;
use tern_transport::connections::{Connection, StreamHold};
use tern_types::{IdMap, SessionId};
use tokio::time::Instant;

use crate::mailbox::Mailbox;
use crate::metrics;

/// The number of looks in a row that find a stream unpolled with something to do, after which it is cut off.
const LOOKS: u8 = 12;
/// The number of looks for a stream that was told to end: it has nothing left to send but the reason.
const LOOKS_CLOSING: u8 = 2;
/// The number of looks for a stream whose connection carries others.
const LOOKS_SHARED: u8 = 120;
/// The number of tables over which streams are spread. Each has a lock, so that none is locked for long.
const TABLES: usize = 16;

/// One stream, as the watchdog sees it.
#[derive(Debug)]
pub struct Watched {
    /// The number of polls of the stream.
    polls: AtomicU32,
    /// True if the last poll returned a frame, so that the transport polls again as soon as that is written.
    writing: AtomicBool,
    /// The time at which the stream's next timer is due, in milliseconds since the watchdog started.
    due: AtomicU64,
    mailbox: Arc<Mailbox>,
    connection: Option<Arc<Connection>>,
    /// The number of polls at the last look.
    seen: AtomicU32,
    /// The number of looks in a row that found the stream unpolled with something to do.
    in_vain: AtomicU8,
    /// True once the stream was counted as cut off. It stays in its table until its connection has ended.
    counted: AtomicBool,
}

/// The watchdog of all streams of this gateway.
#[derive(Debug)]
pub struct Watchdog {
    started: Instant,
    tables: [Mutex<IdMap<SessionId, Arc<Watched>>>; TABLES],
}

/// The guard that keeps a stream watched. Dropping it ends that.
#[derive(Debug)]
pub struct Watch {
    watchdog: Arc<Watchdog>,
    id: SessionId,
    watched: Arc<Watched>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            tables: Default::default(),
        }
    }
}

impl Watchdog {
    /// Watches a stream whose first timer is due after `due`. `connection` is what is cut; without one a stalled
    /// stream is only counted.
    pub fn watch(
        self: &Arc<Self>,
        id: SessionId,
        mailbox: Arc<Mailbox>,
        connection: Option<Arc<Connection>>,
        due: Duration,
    ) -> Watch {
        if let Some(connection) = &connection {
            connection.streams.fetch_add(1, Ordering::AcqRel);
        }
        let watched = Arc::new(Watched {
            polls: AtomicU32::new(0),
            writing: AtomicBool::new(false),
            due: AtomicU64::new(self.millis(Instant::now() + due)),
            mailbox,
            connection,
            seen: AtomicU32::new(0),
            in_vain: AtomicU8::new(0),
            counted: AtomicBool::new(false),
        });
        self.table(id).insert(id, watched.clone());
        Watch {
            watchdog: self.clone(),
            id,
            watched,
        }
    }

    /// Looks at all streams until the drain has ended, so often that a stalled one is cut off after `stalled`.
    pub async fn run(self: Arc<Self>, stalled: Duration, drain: Drain) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(stalled / u32::from(LOOKS)) => {}
                () = drain.ended() => return,
            }
            for number in 0..TABLES {
                for id in self.look(number) {
                    metrics::stream_cut();
                    tracing::info!(session = %id, "cutting off a stream that takes nothing");
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Looks at the streams of one table, and cuts those off that have stalled. Returns those among them that were not
    /// returned before.
    fn look(&self, table: usize) -> Vec<SessionId> {
        let now = self.millis(Instant::now());
        let stalled: Vec<(SessionId, Arc<Watched>)> = self
            .lock(table)
            .iter()
            .filter(|(_, watched)| watched.has_stalled(now))
            .map(|(id, watched)| (*id, watched.clone()))
            .collect();
        let mut new = Vec::new();
        for (id, watched) in stalled {
            if let Some(connection) = &watched.connection {
                connection.cut();
            }
            if !watched.counted.swap(true, Ordering::AcqRel) {
                new.push(id);
            }
        }
        new
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn table(&self, id: SessionId) -> MutexGuard<'_, IdMap<SessionId, Arc<Watched>>> {
        self.lock(id.0 as usize % TABLES)
    }

    fn lock(&self, table: usize) -> MutexGuard<'_, IdMap<SessionId, Arc<Watched>>> {
        self.tables[table].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Takes one look at the stream, `now` milliseconds after the watchdog started. Returns whether the stream is to be
    /// cut off.
    fn has_stalled(&self, now: u64) -> bool {
        let polls = self.polls.load(Ordering::Acquire);
        let idle = self.seen.swap(polls, Ordering::AcqRel) == polls;
        let wanted = || {
            self.writing.load(Ordering::Acquire)
                || self.due.load(Ordering::Acquire) <= now
                || self.mailbox.has_mail()
        };
        if !(idle && wanted()) {
            self.in_vain.store(0, Ordering::Release);
            return false;
        }
        let in_vain = self.in_vain.load(Ordering::Acquire).saturating_add(1);
        self.in_vain.store(in_vain, Ordering::Release);
        in_vain >= self.patience()
    }

    /// Returns the number of looks that the stream is given.
    fn patience(&self) -> u8 {
        let others = |connection: &Arc<Connection>| connection.streams.load(Ordering::Acquire) > 1;
        if self.connection.as_ref().is_some_and(others) {
            LOOKS_SHARED
        } else if self.mailbox.is_closing() {
            LOOKS_CLOSING
        } else {
            LOOKS
        }
    }
}

impl Watch {
    /// Notes that the stream is authenticated: while the returned value lives, its connection is neither ended for
    /// being idle nor for another one. `None` without a connection.
    pub fn hold(&self) -> Option<StreamHold> {
        self.watched.connection.as_ref().map(Connection::hold)
    }

    /// Notes that the stream was polled, whether that returned a frame, and when its next timer is due.
    pub fn polled(&self, writing: bool, due: Instant) {
        self.watched
            .due
            .store(self.watchdog.millis(due), Ordering::Release);
        self.watched.writing.store(writing, Ordering::Release);
        self.watched.polls.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchdog.table(self.id).remove(&self.id);
        if let Some(connection) = &self.watched.connection {
            connection.streams.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_gateway_core::session::CloseRequest;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Stream {
        watch: Watch,
        mailbox: Arc<Mailbox>,
    }

    fn stream(watchdog: &Arc<Watchdog>, id: u64, connection: &Arc<Connection>) -> Stream {
        let mailbox = Arc::new(Mailbox::default());
        let watch = watchdog.watch(SessionId(id), mailbox.clone(), Some(connection.clone()), HOUR);
        watch.polled(false, Instant::now() + HOUR);
        // Earlier polls do not count.
        watch.watched.has_stalled(0);
        Stream { watch, mailbox }
    }

    /// Returns the number of looks after which the stream is cut off. `None` if it is more than 200.
    fn looks(stream: &Stream, now: u64) -> Option<u8> {
        (1..=200).find(|_| stream.watch.watched.has_stalled(now))
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_with_something_to_do_that_is_not_polled_is_given_up() {
        let (watchdog, connection) = (Arc::new(Watchdog::default()), Arc::default());
        let stream = stream(&watchdog, 1, &connection);
        let now = Instant::now();
        assert_eq!(looks(&stream, 0), None, "idle");
        assert_eq!(looks(&stream, 3_600_000), Some(LOOKS), "its timer is due");
        stream.watch.polled(true, now + HOUR);
        assert_eq!(looks(&stream, 0), Some(LOOKS + 1), "it writes");
        stream.watch.polled(false, now + HOUR);
        assert_eq!(looks(&stream, 0), None);
        stream.mailbox.redrain();
        assert_eq!(looks(&stream, 0), Some(LOOKS), "it has mail");
        for _ in 0..200 {
            stream.watch.polled(true, now + HOUR);
            assert!(!stream.watch.watched.has_stalled(0), "it is polled");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_stream_is_counted_once_however_long_its_connection_takes_to_end() {
        let (watchdog, connection) = (Arc::new(Watchdog::default()), Arc::default());
        let stream = stream(&watchdog, 1, &connection);
        stream.mailbox.redrain();
        let counted: Vec<SessionId> = (0..3 * LOOKS).flat_map(|_| watchdog.look(1)).collect();
        assert_eq!(counted, [SessionId(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_told_to_end_is_given_up_soon_and_one_among_others_late() {
        let (watchdog, connection) = (Arc::new(Watchdog::default()), Arc::default());
        let first = stream(&watchdog, 1, &connection);
        first.mailbox.close(CloseRequest::Replaced);
        assert_eq!(looks(&first, 0), Some(LOOKS_CLOSING));
        let second = stream(&watchdog, 2, &connection);
        second.mailbox.redrain();
        assert_eq!(looks(&second, 0), Some(LOOKS_SHARED));
        drop(first);
        assert_eq!(
            looks(&second, 0),
            Some(1),
            "it has waited long enough for one that is alone"
        );
        drop(second);
        assert_eq!(connection.streams.load(Ordering::Acquire), 0);
        assert!(watchdog.table(SessionId(1)).is_empty() && watchdog.table(SessionId(2)).is_empty());
    }
}
