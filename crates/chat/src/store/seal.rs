//! Encrypts bodies at rest with AES-256-GCM. Each chat has a data key, which is wrapped by the node's master key.
//! Rotating the master key wraps the data keys anew; destroying a data key erases its chat.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use bytes::Bytes;
use rand::RngCore;
use tern_types::{ChatId, RequestId, UserId};

use tern_chat_core::chat::ChatKey;

/// The number of the format, which is the first byte of everything sealed.
const FORMAT: u8 = 1;
/// The length of a GCM nonce in bytes (NIST SP 800-38D).
const NONCE: usize = 12;

/// The reason why something cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes were sealed with another key or for another place, or they are damaged.
    #[error("does not open: other key, other place, or damaged")]
    DoesNotOpen,
    /// The text is no master key.
    #[error("the master key must be 64 hexadecimal digits")]
    BadMasterKey,
}

/// The master key, which wraps the chats' data keys.
#[derive(Clone)]
pub struct MasterKey(Aes256Gcm);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// Reads the key from 64 hexadecimal digits, around which white space is ignored. Any other text is
    /// [`SealError::BadMasterKey`].
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let text = text.trim();
        let digits = (text.len() == 64 && text.is_ascii())
            .then_some(text)
            .ok_or(SealError::BadMasterKey)?;
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| SealError::BadMasterKey)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| SealError::BadMasterKey)?;
        }
        Ok(Self(cipher(&key)))
    }

    /// Makes a new data key, and its wrapped form for the store.
    pub fn new_chat_key(&self, chat: ChatId) -> (ChatKey, Vec<u8>) {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        let wrapped = seal_with(&self.0, &key, chat.as_bytes());
        (ChatKey(Arc::new(key)), wrapped)
    }

    /// Unwraps a chat's data key. [`SealError::DoesNotOpen`] if it was wrapped by another master key or for another
    /// chat.
    pub fn unwrap(&self, chat: ChatId, wrapped: &[u8]) -> Result<ChatKey, SealError> {
        let key = open_with(&self.0, wrapped, chat.as_bytes())?;
        let key: [u8; 32] = key.try_into().map_err(|_| SealError::DoesNotOpen)?;
        Ok(ChatKey(Arc::new(key)))
    }
}

/// The number of bytes that a task seals or opens before it yields to other tasks. They take a fraction of a
/// millisecond, even if the processor has no AES instructions. Without yielding, a window of the largest bodies would
/// keep the thread for hundreds of times as long as anything else does, and the task that renews the node's lease must
/// run too.
const TURN_BYTES: usize = 64 << 10;

/// The count of bytes that a task has sealed or opened since it last yielded.
#[derive(Debug, Default)]
pub struct Turn(usize);

impl Turn {
    /// Adds `bytes`, and yields to other tasks if the count has reached [`TURN_BYTES`].
    pub(crate) async fn worked(&mut self, bytes: usize) {
        self.0 += bytes;
        if self.0 >= TURN_BYTES {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// The cipher that seals and opens the contents of one chat. It is made once for many entries.
pub struct Sealer(Aes256Gcm);

impl Sealer {
    /// Prepares the cipher of the chat's data key.
    pub fn new(key: &ChatKey) -> Self {
        Self(cipher(&key.0))
    }

    /// Encrypts a content, bound to its chat, sender and request.
    pub fn seal(&self, content: &[u8], chat: ChatId, sender: UserId, request: RequestId) -> Vec<u8> {
        seal_with(&self.0, content, &place(chat, sender, request))
    }

    /// Decrypts a content. [`SealError::DoesNotOpen`] if the key, the chat, the sender or the request is another one,
    /// or the bytes are damaged.
    pub fn open(
        &self,
        sealed: &[u8],
        chat: ChatId,
        sender: UserId,
        request: RequestId,
    ) -> Result<Bytes, SealError> {
        open_with(&self.0, sealed, &place(chat, sender, request)).map(Bytes::from)
    }

    /// Encrypts the draft of a message to the chat `of`, bound to the own log that keeps it and to the chat.
    pub fn seal_draft(&self, draft: &[u8], own: ChatId, of: ChatId) -> Vec<u8> {
        seal_with(&self.0, draft, &draft_place(own, of))
    }

    /// Decrypts a draft. [`SealError::DoesNotOpen`] if the key, the own log or the chat is another one, or the bytes are
    /// damaged.
    pub fn open_draft(&self, sealed: &[u8], own: ChatId, of: ChatId) -> Result<Bytes, SealError> {
        open_with(&self.0, sealed, &draft_place(own, of)).map(Bytes::from)
    }
}

/// Returns the additional data of a body. It binds the body to its entry: a body that was moved to another entry does
/// not open.
fn place(chat: ChatId, sender: UserId, request: RequestId) -> [u8; 48] {
    let mut place = [0; 48];
    place[..16].copy_from_slice(chat.as_bytes());
    place[16..32].copy_from_slice(sender.as_bytes());
    place[32..].copy_from_slice(request.as_bytes());
    place
}

/// Returns the additional data of a draft. Its length differs from that of a body, so that neither opens as the other.
fn draft_place(own: ChatId, of: ChatId) -> [u8; 32] {
    let mut place = [0; 32];
    place[..16].copy_from_slice(own.as_bytes());
    place[16..].copy_from_slice(of.as_bytes());
    place
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

fn seal_with(cipher: &Aes256Gcm, plain: &[u8], aad: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE];
    rand::rng().fill_bytes(&mut nonce);
    let mut sealed = Vec::with_capacity(1 + NONCE + plain.len() + 16);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&nonce);
    // Encryption fails only above 64 GiB, and no content is so large.
    let text = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad })
        .unwrap_or_default();
    sealed.extend_from_slice(&text);
    sealed
}

fn open_with(cipher: &Aes256Gcm, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
    let (head, text) = sealed.split_at_checked(1 + NONCE).ok_or(SealError::DoesNotOpen)?;
    if head[0] != FORMAT {
        return Err(SealError::DoesNotOpen);
    }
    let nonce: [u8; NONCE] = head[1..].try_into().map_err(|_| SealError::DoesNotOpen)?;
    cipher
        .decrypt(&Nonce::from(nonce), Payload { msg: text, aad })
        .map_err(|_| SealError::DoesNotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_opens_only_in_its_own_place() {
        let master = MasterKey::from_hex(&"0f".repeat(32)).unwrap();
        let (chat, other) = (ChatId(uuid::Uuid::new_v4()), ChatId(uuid::Uuid::new_v4()));
        let (key, wrapped) = master.new_chat_key(chat);
        assert_eq!(master.unwrap(chat, &wrapped).unwrap(), key);
        assert!(master.unwrap(other, &wrapped).is_err());

        let (sender, request) = (UserId::random(), RequestId::random());
        let sealer = Sealer::new(&key);
        let mut sealed = sealer.seal(b"hello", chat, sender, request);
        assert!(!sealed.windows(5).any(|part| part == b"hello"));
        assert_eq!(sealer.open(&sealed, chat, sender, request).unwrap(), "hello");
        assert!(sealer.open(&sealed, chat, sender, RequestId::random()).is_err());
        let draft = sealer.seal_draft(b"hel", chat, other);
        assert_eq!(sealer.open_draft(&draft, chat, other).unwrap(), "hel");
        assert!(sealer.open_draft(&draft, other, chat).is_err());
        assert!(sealer.open_draft(&sealed, chat, other).is_err());
        *sealed.last_mut().unwrap() ^= 1;
        assert!(sealer.open(&sealed, chat, sender, request).is_err());
        assert!(sealer.open(b"", chat, sender, request).is_err());
    }

    #[test]
    fn a_master_key_is_64_hexadecimal_digits() {
        for bad in ["", "0f", &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(MasterKey::from_hex(bad).err(), Some(SealError::BadMasterKey));
        }
    }
}
