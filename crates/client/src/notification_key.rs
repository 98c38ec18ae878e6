//! The key to which a device's notifications are sealed, by HPKE (RFC 9180), as push.proto says. The store keeps it,
//! and the app's handle gives it out.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, Serializable as _, single_shot_open};
use prost::Message as _;
use tern_proto::v1::Notification;

/// The text that ties a sealed notification to its purpose.
const INFO: &[u8] = b"tern.v1.Notification";
/// The size of the encapsulated key with which a sealed notification begins, in bytes.
const ENCAPSULATED_BYTES: usize = 32;
/// The size of a secret and of a public key, in bytes.
const KEY_BYTES: usize = 32;

type Secret = <X25519HkdfSha256 as Kem>::PrivateKey;

/// A device's key pair. Whoever has it can read the notifications of this device, but not its messages.
#[derive(Clone)]
pub struct NotificationKey(Secret);

/// The reason why a notification was not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// The text is not the base64 of a key and a ciphertext.
    #[error("the notification is no base64 of a key and a ciphertext")]
    Malformed,
    /// The notification was sealed to another key or for another tag, or was changed on its way.
    #[error("the notification was sealed to another key, or for another chat")]
    NotSealedToThis,
    /// The text that was sealed is no notification.
    #[error("what was sealed is no notification: {0}")]
    NotUnderstood(prost::DecodeError),
}

impl NotificationKey {
    /// Makes a new key pair.
    pub fn generate() -> Self {
        Self(X25519HkdfSha256::gen_keypair().0)
    }

    /// Returns the key pair with this secret, or `None` if it does not have 32 bytes.
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        Secret::from_bytes(secret).ok().map(Self)
    }

    /// Returns the secret key, for the app's notification extension.
    pub fn secret(&self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        self.0.write_exact(&mut bytes);
        bytes
    }

    /// Returns the public key, which the server has (`PushToken.sealing_key`).
    pub fn public(&self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        X25519HkdfSha256::sk_to_pk(&self.0).write_exact(&mut bytes);
        bytes
    }

    /// Opens the field `sealed` of a push that has this tag.
    ///
    /// # Errors
    ///
    /// The variants of [`OpenError`]. The app then shows that something has come, without saying what.
    pub fn open(&self, tag: &str, sealed: &str) -> Result<Notification, OpenError> {
        let sealed = STANDARD.decode(sealed).map_err(|_| OpenError::Malformed)?;
        let (key, ciphertext) = sealed
            .split_at_checked(ENCAPSULATED_BYTES)
            .ok_or(OpenError::Malformed)?;
        let key =
            <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(key).map_err(|_| OpenError::Malformed)?;
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &key,
            INFO,
            ciphertext,
            tag.as_bytes(),
        );
        let opened = opened.map_err(|_| OpenError::NotSealedToThis)?;
        Notification::decode(opened.as_slice()).map_err(OpenError::NotUnderstood)
    }
}

impl fmt::Debug for NotificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotificationKey")
    }
}

impl PartialEq for NotificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

impl Eq for NotificationKey {}

#[cfg(test)]
mod tests {
    use hpke::{OpModeS, single_shot_seal};

    use super::*;

    const TAG: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn notification() -> Notification {
        Notification {
            chat_title: "Lunch".to_owned(),
            sender_name: "Alice".to_owned(),
            seq: 7,
            ..Default::default()
        }
    }

    /// Seals bytes as a server does that knows nothing but the public key.
    fn sealed(public: &[u8], info: &[u8], tag: &str, plain: &[u8]) -> String {
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).unwrap();
        let (key, ciphertext) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            info,
            plain,
            tag.as_bytes(),
        )
        .unwrap();
        STANDARD.encode([key.to_bytes().as_slice(), &ciphertext].concat())
    }

    #[test]
    fn a_notification_is_opened_by_its_key_and_under_its_tag_only() {
        let key = NotificationKey::generate();
        let plain = notification().encode_to_vec();
        let good = sealed(&key.public(), INFO, TAG, &plain);
        assert_eq!(key.open(TAG, &good), Ok(notification()));
        let same = NotificationKey::from_secret(&key.secret()).unwrap();
        assert_eq!(same.open(TAG, &good), Ok(notification()), "the extension's copy");

        let other = NotificationKey::generate();
        let mut changed = STANDARD.decode(&good).unwrap();
        *changed.last_mut().unwrap() ^= 1;
        let short = STANDARD.encode([0_u8; ENCAPSULATED_BYTES - 1]);
        let only_a_key = STANDARD.encode(&STANDARD.decode(&good).unwrap()[..ENCAPSULATED_BYTES]);
        let no_notification = sealed(&key.public(), INFO, TAG, &[0xff; 9]);
        use OpenError::{Malformed, NotSealedToThis};
        for (what, key, tag, sealed, expected) in [
            ("another key", &other, TAG, &good, NotSealedToThis),
            (
                "another tag",
                &key,
                "BAAAAAAAAAAAAAAAAAAAAA",
                &good,
                NotSealedToThis,
            ),
            (
                "a changed one",
                &key,
                TAG,
                &STANDARD.encode(changed),
                NotSealedToThis,
            ),
            (
                "one for another purpose",
                &key,
                TAG,
                &self::sealed(&key.public(), b"tern.v2", TAG, &plain),
                NotSealedToThis,
            ),
            ("no base64", &key, TAG, &"%".to_owned(), Malformed),
            ("nothing", &key, TAG, &String::new(), Malformed),
            ("too short a key", &key, TAG, &short, Malformed),
            ("no ciphertext", &key, TAG, &only_a_key, NotSealedToThis),
        ] {
            assert_eq!(key.open(tag, sealed), Err(expected), "{what}");
        }
        let opened = key.open(TAG, &no_notification);
        assert!(matches!(opened, Err(OpenError::NotUnderstood(_))), "{opened:?}");
    }

    #[test]
    fn a_secret_of_another_size_is_none_and_is_not_shown() {
        for bytes in [0, 31, 33] {
            assert!(NotificationKey::from_secret(&vec![1; bytes]).is_none(), "{bytes}");
        }
        assert_eq!(format!("{:?}", NotificationKey::generate()), "NotificationKey");
    }
}
