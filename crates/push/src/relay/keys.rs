//! Reads the keys of those who may have pushes forwarded, and bounds how many pushes each may.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tern_types::Timestamp;

use crate::providers::relay::MAX_PUSHES;

/// The most bytes of a key's name, which is a label of metrics.
const MAX_NAME: usize = 64;
/// The bytes of a SHA-256.
const HASH: usize = 32;
/// The number of parts of a push. A bucket counts parts, so that less than a push can be refilled in a millisecond.
const PARTS: u64 = 1000;

/// The keys. Only their hashes are known.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

/// A key, whose holder may have pushes forwarded.
#[derive(Debug)]
pub(super) struct Key {
    /// The name in metrics.
    pub name: Arc<str>,
    hash: [u8; HASH],
    /// The pushes a second that may be forwarded over a longer time.
    rate: u32,
    bucket: Mutex<Bucket>,
}

/// The number of pushes that may be forwarded now. A bucket that was not used for long is full.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// The parts of pushes that are left.
    parts: u64,
    /// The time at which that was so, by the monotonic clock.
    at: Timestamp,
}

impl Keys {
    /// Reads the file of the flag `--keys`. Fails with the line's number if a line has no key, with the name if that or
    /// its key is there twice, and if the file has no key.
    pub(super) fn read(path: &Path, rate: u32) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(name)?;
        Self::parse(&text, rate).with_context(name)
    }

    fn parse(text: &str, rate: u32) -> anyhow::Result<Self> {
        let (mut keys, mut names, mut hashes) = (Vec::new(), HashSet::new(), HashSet::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = Key::parse(line, rate)
                .with_context(|| format!("line {}: it must have a name and a SHA-256 in hex", at + 1))?;
            ensure!(names.insert(key.name.clone()), "{} is there twice", key.name);
            ensure!(hashes.insert(key.hash), "the key of {} is there twice", key.name);
            keys.push(key);
        }
        ensure!(!keys.is_empty(), "it has no key");
        Ok(Self(keys))
    }

    /// Returns the names of all keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|key| &key.name)
    }

    /// Finds the entry of a key. The search takes the same time for each key.
    pub(super) fn find(&self, key: &str) -> Option<&Key> {
        let hash: [u8; HASH] = Sha256::digest(key.as_bytes()).into();
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.hash[..].ct_eq(&hash[..])) {
                found = Some(key);
            }
        }
        found
    }
}

impl Key {
    fn parse(line: &str, rate: u32) -> Option<Self> {
        let (name, hash) = line.split_once(char::is_whitespace)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.len() > MAX_NAME || !name.bytes().all(fits) {
            return None;
        }
        let hash = hex::decode(hash.trim()).ok()?.try_into().ok()?;
        let bucket = Bucket {
            parts: u64::MAX,
            at: Timestamp(0),
        };
        Some(Self {
            name: name.into(),
            hash,
            rate,
            bucket: Mutex::new(bucket),
        })
    }

    /// Takes `wanted` pushes out of the bucket. Returns how many of them may be forwarded, and the time after which
    /// there is room for the rest. A full bucket has the pushes of one second, and at least those of one call.
    pub(super) fn take(&self, wanted: usize, now: Timestamp) -> (usize, Duration) {
        let rate = u64::from(self.rate.max(1));
        let full = rate.max(MAX_PUSHES as u64) * PARTS;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        let left = bucket.parts.saturating_add(passed.saturating_mul(rate)).min(full);
        let granted = (left / PARTS).min(wanted as u64);
        *bucket = Bucket {
            parts: left - granted * PARTS,
            at: now.max(bucket.at),
        };
        let lacking = wanted as u64 - granted;
        // A push is refilled in PARTS / rate milliseconds.
        let wait = Duration::from_millis((lacking * PARTS).div_ceil(rate));
        (usize::try_from(granted).unwrap_or(wanted), wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: &str) -> String {
        hex::encode(Sha256::digest(key.as_bytes()))
    }

    #[test]
    fn a_key_is_found_by_itself_alone() {
        let text = format!(
            "# customers\nacme {}\n\n  beta.eu\t{}  \n",
            hash("one"),
            hash("two")
        );
        let keys = Keys::parse(&text, 10).unwrap();
        let names: Vec<&str> = keys.names().map(|name| &**name).collect();
        assert_eq!(names, ["acme", "beta.eu"]);
        for (key, expected) in [
            ("one", Some("acme")),
            ("two", Some("beta.eu")),
            ("", None),
            ("three", None),
        ] {
            assert_eq!(keys.find(key).map(|key| &*key.name), expected, "{key}");
        }
    }

    #[test]
    fn a_file_that_is_of_no_use_is_refused() {
        let (one, two) = (hash("one"), hash("two"));
        for (text, expected) in [
            (String::new(), "no key"),
            ("# none".to_owned(), "no key"),
            ("acme".to_owned(), "line 1"),
            (format!("acme {one}\nbe/ta {two}"), "line 2"),
            (format!("acme {}", &one[2..]), "line 1"),
            (format!("acme {one}\nacme {two}"), "acme is there twice"),
            (format!("acme {one}\nbeta {one}"), "key of beta is there twice"),
        ] {
            let error = Keys::parse(&text, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_has_its_rate_and_a_burst() {
        let keys = Keys::parse(&format!("acme {}", hash("one")), 1000).unwrap();
        let key = keys.find("one").unwrap();
        let now = Timestamp(1_000_000);
        let none = Duration::ZERO;
        assert_eq!(key.take(900, now), (900, none));
        assert_eq!(key.take(200, now), (100, Duration::from_millis(100)));
        assert_eq!(key.take(1, now), (0, Duration::from_millis(1)));
        let later = now + Duration::from_millis(50);
        assert_eq!(key.take(60, later), (50, Duration::from_millis(10)));
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(key.take(2000, much_later), (1000, Duration::from_secs(1)));
    }

    #[test]
    fn a_slow_key_has_the_burst_of_one_call() {
        let keys = Keys::parse(&format!("acme {}", hash("one")), 1).unwrap();
        let key = keys.find("one").unwrap();
        let now = Timestamp(1_000_000);
        assert_eq!(key.take(MAX_PUSHES, now), (MAX_PUSHES, Duration::ZERO));
        assert_eq!(key.take(2, now), (0, Duration::from_secs(2)));
        assert_eq!(
            key.take(2, now + Duration::from_secs(1)),
            (1, Duration::from_secs(1))
        );
    }
}
