//! The names of chats for devices.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tern_types::{ChatId, DeviceId};

/// The text at the beginning of what is hashed, so that the hash differs from others of the same ids.
const CONTEXT: &[u8] = b"tern push tag";
/// The number of bytes of the hash that the name has: they are 22 characters of base64url, which Web Push allows for a
/// Topic (RFC 8030 has at most 32).
const BYTES: usize = 16;

/// The name under which a device's notifications of a chat are shown, replaced and withdrawn: 22 characters of
/// base64url. Nobody but the device and the platform can tell from it which chat it is, because a device's id is random
/// and known to no provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag(pub String);

impl Tag {
    /// Returns the name of the chat for the device. It never changes.
    pub fn of(device: DeviceId, chat: ChatId) -> Self {
        let mut hash = Sha256::new();
        hash.update(CONTEXT);
        hash.update(device.as_bytes());
        hash.update(chat.as_bytes());
        Self(URL_SAFE_NO_PAD.encode(&hash.finalize()[..BYTES]))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// The name is on devices, and in what they show, so it must never change.
    #[test]
    fn the_name_of_a_chat_is_what_it_always_was() {
        let (device, chat) = (DeviceId(Uuid::from_u128(1)), ChatId(Uuid::from_u128(2)));
        assert_eq!(Tag::of(device, chat).to_string(), "oNikplveyrPO92vii7Ycug");
    }

    #[test]
    fn each_device_has_another_name_for_each_chat() {
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let tags =
            [(a, a), (a, b), (b, a), (b, b)].map(|(device, chat)| Tag::of(DeviceId(device), ChatId(chat)));
        for (n, tag) in tags.iter().enumerate() {
            assert_eq!(tag.0.len(), 22);
            assert!(
                tag.0
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            );
            assert!(!tags[..n].contains(tag));
        }
    }
}
