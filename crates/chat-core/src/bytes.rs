//! A counter of the bytes that a queue holds, so that its owner can bound them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The counter: how many bytes are queued at present.
#[derive(Debug, Default)]
pub struct QueuedBytes(Arc<AtomicUsize>);

/// A number of bytes that a [`QueuedBytes`] counts until this value is dropped.
#[derive(Debug)]
pub struct Share {
    queued: Arc<AtomicUsize>,
    bytes: usize,
}

impl QueuedBytes {
    /// Holds `bytes` more. Returns `None`, and holds nothing more, if the total would be larger than `max` bytes. When
    /// nothing is queued, any size fits.
    pub fn take(&self, bytes: usize, max: usize) -> Option<Share> {
        let queued = self.0.load(Ordering::Relaxed);
        if queued > 0 && queued.saturating_add(bytes) > max {
            return None;
        }
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Share {
            queued: self.0.clone(),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let before = self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
        debug_assert!(before >= self.bytes, "the total includes every share");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_makes_room() {
        let queued = QueuedBytes::default();
        let large = queued.take(15, 10).unwrap();
        assert!(queued.take(1, 10).is_none());
        drop(large);
        let some = queued.take(4, 10).unwrap();
        assert!(queued.take(7, 10).is_none());
        assert!(queued.take(6, 10).is_some());
        drop(some);
    }
}
