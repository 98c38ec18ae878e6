//! A counter of the bytes that a queue holds, so that its owner can bound them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The counter: how many bytes are held at present.
#[derive(Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

/// A number of bytes that a [`Held`] counts until this value is dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// Holds `bytes` more. Returns `None`, and holds nothing more, if the total would be larger than `max` bytes. When
    /// nothing is held, any size fits.
    pub fn take(&self, bytes: usize, max: usize) -> Option<Share> {
        let held = self.0.load(Ordering::Relaxed);
        if held > 0 && held.saturating_add(bytes) > max {
            return None;
        }
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Share {
            held: self.0.clone(),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let before = self.held.fetch_sub(self.bytes, Ordering::Relaxed);
        debug_assert!(before >= self.bytes, "the total includes every share");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_makes_room() {
        let held = Held::default();
        let large = held.take(15, 10).unwrap();
        assert!(held.take(1, 10).is_none());
        drop(large);
        let some = held.take(4, 10).unwrap();
        assert!(held.take(7, 10).is_none());
        assert!(held.take(6, 10).is_some());
        drop(some);
    }
}
