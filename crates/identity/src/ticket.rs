//! Signs and checks tickets. A ticket lets one user attach one media to messages until it expires. Media nodes sign
//! tickets, and chat nodes check them without asking anybody; both have the same keys.
//!
//! A ticket consists of its expiry (8 bytes, milliseconds since the epoch, big-endian) and an HMAC-SHA-256 of media,
//! user and expiry.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tern_types::{MediaId, Timestamp, UserId};

/// The time for which a ticket is valid: long enough for a message that waits in an outbox overnight. The collector of
/// media waits longer.
pub const TICKET_TTL: Duration = Duration::from_secs(24 * 3600);

const EXPIRY_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
/// The length of a ticket in bytes.
const TICKET_BYTES: usize = EXPIRY_BYTES + MAC_BYTES;
/// The prefix that separates tickets from anything else that might be signed with the same key.
const CONTEXT: &[u8] = b"tern media ticket v1";

/// The flags of the roles that use tickets.
#[derive(clap::Args, Clone, Debug)]
pub struct TicketArgs {
    /// File with the keys of media tickets, 64 hexadecimal digits a line: the first signs, all are accepted. The same
    /// on every media and chat node
    #[arg(long, env = "TERN_MEDIA_TICKET_KEY_FILE")]
    pub media_ticket_key_file: Option<std::path::PathBuf>,
}

impl TicketArgs {
    /// Reads the keys. Returns `Ok(None)` if no file is named, and `Err` if the file cannot be read or has no valid
    /// keys.
    pub fn load(&self) -> anyhow::Result<Option<Tickets>> {
        self.media_ticket_key_file
            .as_deref()
            .map(Tickets::from_file)
            .transpose()
    }
}

/// A signer and verifier of tickets.
#[derive(Clone)]
pub struct Tickets {
    /// The keys, of which the first signs and all verify.
    keys: Vec<Hmac<Sha256>>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tickets({} keys)", self.keys.len())
    }
}

impl Tickets {
    fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_hex(&text).with_context(|| format!("no ticket keys in {}", path.display()))
    }

    /// Reads keys of 64 hexadecimal digits each, one a line. Returns `Err` if there is none, or one is malformed.
    pub fn from_hex(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines
            .map(|line| {
                let mut key = [0; 32];
                hex::decode_to_slice(line, &mut key).context("a key is 64 hexadecimal digits")?;
                Hmac::new_from_slice(&key).context("an HMAC takes keys of any length")
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(!keys.is_empty(), "there is no key");
        Ok(Self { keys })
    }

    /// Returns a new ticket and the time at which it expires.
    pub fn sign(&self, media: MediaId, user: UserId, now: Timestamp) -> (Vec<u8>, Timestamp) {
        let expiry = now + TICKET_TTL;
        let mut ticket = expiry.0.to_be_bytes().to_vec();
        let mac = said(&self.keys[0], media, user, &ticket).finalize();
        ticket.extend_from_slice(&mac.into_bytes());
        debug_assert_eq!(ticket.len(), TICKET_BYTES);
        (ticket, expiry)
    }

    /// Returns the time at which the ticket expires, or `None` if it is not a ticket of this user for this
    /// media. The caller has to compare the time with the present time: an expired ticket is not `None`.
    pub fn verify(&self, ticket: &[u8], media: MediaId, user: UserId) -> Option<Timestamp> {
        let (expiry, mac) = ticket.split_at_checked(EXPIRY_BYTES)?;
        let genuine = |key| said(key, media, user, expiry).verify_slice(mac).is_ok();
        let millis = i64::from_be_bytes(expiry.try_into().ok()?);
        self.keys.iter().any(genuine).then_some(Timestamp(millis))
    }
}

/// Returns the HMAC of a ticket's statement, which consists of media, user and expiry.
fn said(key: &Hmac<Sha256>, media: MediaId, user: UserId, expiry: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    for part in [CONTEXT, media.as_bytes(), user.as_bytes(), expiry] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const OLD: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
    const NEW: &str = "00000000000000000000000000000000000000000000000000000000000000bb";
    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn ids() -> (MediaId, UserId) {
        (MediaId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)))
    }

    #[test]
    fn a_ticket_is_for_one_user_and_one_media() {
        let tickets = Tickets::from_hex(OLD).unwrap();
        let (media, user) = ids();
        let (ticket, expiry) = tickets.sign(media, user, NOW);
        assert_eq!(ticket.len(), TICKET_BYTES);
        assert_eq!(expiry, NOW + TICKET_TTL);
        assert_eq!(tickets.verify(&ticket, media, user), Some(expiry));
        assert_eq!(tickets.verify(&ticket, MediaId(user.0), user), None);
        assert_eq!(tickets.verify(&ticket, media, UserId(media.0)), None);
    }

    #[test]
    fn a_ticket_with_any_bit_changed_is_none() {
        let tickets = Tickets::from_hex(OLD).unwrap();
        let (media, user) = ids();
        let (ticket, _) = tickets.sign(media, user, NOW);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.verify(&changed, media, user), None, "byte {at}");
        }
        for length in [0, 1, EXPIRY_BYTES, TICKET_BYTES - 1] {
            assert_eq!(
                tickets.verify(&ticket[..length], media, user),
                None,
                "{length} bytes"
            );
        }
        let longer = [ticket.as_slice(), b"x"].concat();
        assert_eq!(tickets.verify(&longer, media, user), None);
    }

    #[test]
    fn keys_are_rotated_by_adding_one_in_front() {
        let (media, user) = ids();
        let old = Tickets::from_hex(OLD).unwrap();
        let both = Tickets::from_hex(&format!("{NEW}\n{OLD}\n")).unwrap();
        let new = Tickets::from_hex(NEW).unwrap();
        let (before, _) = old.sign(media, user, NOW);
        assert!(both.verify(&before, media, user).is_some());
        assert!(new.verify(&before, media, user).is_none());
        let (after, _) = both.sign(media, user, NOW);
        assert!(new.verify(&after, media, user).is_some());
        assert!(old.verify(&after, media, user).is_none());
        for bad in ["", "\n", "aa", "xx"] {
            assert!(Tickets::from_hex(bad).is_err(), "{bad:?}");
        }
    }
}
