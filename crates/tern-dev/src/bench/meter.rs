//! Counts the events of a load, and measures their latencies. Most counters change only between [`Meter::begin`] and
//! [`Meter::end`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;

/// The number of significant digits of a latency.
const DIGITS: u8 = 3;
/// The longest latency in microseconds; longer ones count as this.
const LONGEST_US: u64 = 60_000_000;

/// A clock that measures the age of messages. Bodies carry the time in nanoseconds since it was started.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns a body of `len` bytes that contains the present time. The rest is random, so that it does not
    /// compress. Panics if `len` is below 8.
    pub fn stamp(&self, len: u32) -> Bytes {
        let mut body = vec![0; len as usize];
        rand::fill(&mut body[8..]);
        body[..8].copy_from_slice(&self.now().to_le_bytes());
        body.into()
    }

    /// Returns the time since the body at the end of `content` was made; `len` is the body's length in bytes. `None`
    /// if `content` is too short for such a body.
    pub fn age(&self, content: &Bytes, len: u32) -> Option<Duration> {
        self.age_of(content.get(content.len().checked_sub(len as usize)?..)?)
    }

    /// Returns the time since this body was made, or `None` if it is too short to contain a time.
    pub fn age_of(&self, body: &[u8]) -> Option<Duration> {
        let at = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
        Some(Duration::from_nanos(self.now().checked_sub(at)?))
    }
}

/// A histogram of latencies, in microseconds up to a minute.
#[derive(Debug)]
pub struct Latency(Mutex<Histogram<u64>>);

impl Latency {
    /// Makes an empty histogram.
    #[allow(clippy::expect_used, reason = "the bounds are constants")]
    pub fn new() -> Self {
        Self(Mutex::new(
            Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("constant bounds"),
        ))
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a latency. Those above a minute count as a minute.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        self.lock().saturating_record(us);
    }

    /// Returns the latency at a quantile (0 to 1) in milliseconds, or `None` if nothing was recorded.
    pub fn ms(&self, quantile: f64) -> Option<f64> {
        let histogram = self.lock();
        (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

/// The counters and latencies of one load, shared by all its devices.
#[derive(Debug)]
pub struct Meter {
    /// The clock whose time the bodies carry.
    pub clock: Clock,
    /// True within the time that is measured.
    counts: AtomicBool,
    /// True when the load has ended, so that nobody sends any more.
    stopped: AtomicBool,
    /// The number of complete messages. Each load defines when a message is complete.
    pub messages: AtomicU64,
    /// The number of entries that devices have received.
    pub deliveries: AtomicU64,
    /// The number of sends. This and `refused`, `repeated` and `lost` are counted during the whole run, because at its
    /// end nothing may be lost.
    pub sent: AtomicU64,
    /// The number of sends that were refused.
    pub refused: AtomicU64,
    /// The number of entries that came more than once.
    pub repeated: AtomicU64,
    /// The number of messages or deliveries that have not come in time.
    pub lost: AtomicU64,
    /// The latency from the send to the result.
    pub to_result: Latency,
    /// The latency from the send to the delivery at a device.
    pub to_delivered: Latency,
    /// The latency from the send to the delivered receipt.
    pub to_receipt: Latency,
    /// The latency to the last of several events: of a message to the last member of a group, or of a connect to
    /// CaughtUp.
    pub to_last: Latency,
    /// The reason why the first send was refused.
    refusal: Mutex<Option<String>>,
}

impl Meter {
    /// Makes a meter with all counters at 0, and starts its clock.
    pub fn new() -> Self {
        Self {
            clock: Clock::start(),
            counts: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            messages: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            to_result: Latency::new(),
            to_delivered: Latency::new(),
            to_receipt: Latency::new(),
            to_last: Latency::new(),
            refusal: Mutex::new(None),
        }
    }

    /// Begins the time that is measured.
    pub fn begin(&self) {
        self.counts.store(true, Ordering::Relaxed);
    }

    /// Ends the time that is measured.
    pub fn end(&self) {
        self.counts.store(false, Ordering::Relaxed);
    }

    /// Tells all devices to send no more messages.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Returns whether devices are to send no more messages.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Adds 1 to a counter, if this is within the time that is measured.
    pub fn count(&self, what: &AtomicU64) {
        if self.counts.load(Ordering::Relaxed) {
            what.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a latency, if this is within the time that is measured.
    pub fn time(&self, what: &Latency, took: Duration) {
        if self.counts.load(Ordering::Relaxed) {
            what.record(took);
        }
    }

    /// Counts a send that was refused. The first reason is kept.
    pub fn refused(&self, why: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut first = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(why);
    }

    /// Returns the reason why the first send was refused, or `None` if none was.
    pub fn refusal(&self) -> Option<String> {
        self.refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_carries_the_time_at_which_it_was_made() {
        let clock = Clock::start();
        let body = clock.stamp(200);
        let content = Bytes::from([&b"whatever stands before"[..], &body].concat());
        assert!(clock.age(&content, 200).unwrap() < Duration::from_secs(60));
        assert_eq!(clock.age(&Bytes::from_static(b"short"), 200), None);
    }

    #[test]
    fn only_what_happens_meanwhile_counts() {
        let meter = Meter::new();
        let deliver = || {
            meter.count(&meter.deliveries);
            meter.time(&meter.to_result, Duration::from_millis(2));
        };
        deliver();
        assert_eq!(meter.to_result.ms(0.5), None);
        meter.begin();
        deliver();
        meter.end();
        deliver();
        assert_eq!(meter.deliveries.load(Ordering::Relaxed), 1);
        assert!((meter.to_result.ms(0.99).unwrap() - 2.0).abs() < 0.01);
    }
}
