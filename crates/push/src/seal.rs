//! Seals notifications to the key of a device by HPKE (RFC 9180), as `PushToken.sealing_key` in `push.proto` says. Only
//! the device can open them: not Apple, not Google, not a relay.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeS, Serializable};
use prost::Message;
use tern_proto::v1::Notification;
use tern_push_core::Tag;

/// The text that ties a sealed notification to this use of the key.
const INFO: &[u8] = b"tern.v1.Notification";
/// The most bytes of a name or a title in a notification. With names of this length a sealed notification has about 700
/// characters in base64, so every payload fits into Apple's 4,096 bytes.
pub(crate) const MAX_NAME: usize = 128;

/// Seals a notification to a device's public key, for this tag alone. Names that are longer than [`MAX_NAME`] are cut.
/// Returns the encapsulated key and the ciphertext, one after the other.
///
/// # Errors
///
/// Fails if the key is no X25519 key to which something can be sealed.
pub(crate) fn seal(key: &[u8], tag: &Tag, notification: &Notification) -> Result<Vec<u8>, HpkeError> {
    let key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(key)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &key,
        INFO,
        &shortened(notification).encode_to_vec(),
        tag.0.as_bytes(),
    )?;
    let mut sealed = encapsulated.to_bytes().as_slice().to_vec();
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// Returns the notification with names of at most [`MAX_NAME`] bytes.
pub(crate) fn shortened(notification: &Notification) -> Notification {
    let mut shortened = notification.clone();
    for name in [&mut shortened.chat_title, &mut shortened.sender_name] {
        name.truncate(name.floor_char_boundary(MAX_NAME));
    }
    shortened
}

#[cfg(test)]
mod tests {
    use hpke::OpModeR;

    use super::*;

    type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;
    type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

    /// The bytes of an encapsulated key.
    const KEY: usize = 32;

    fn open(key: &PrivateKey, info: &[u8], sealed: &[u8], tag: &[u8]) -> Result<Vec<u8>, HpkeError> {
        let encapsulated = EncappedKey::from_bytes(&sealed[..KEY])?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            key,
            &encapsulated,
            info,
            &sealed[KEY..],
            tag,
        )
    }

    fn notification() -> Notification {
        Notification {
            chat_title: "Ferry".into(),
            sender_name: "Alice".into(),
            seq: 7,
            ..Notification::default()
        }
    }

    #[test]
    fn only_the_device_opens_what_is_sealed_and_only_for_the_tag() {
        let (private, public) = X25519HkdfSha256::derive_keypair(&[7; KEY]);
        let (another, _) = X25519HkdfSha256::derive_keypair(&[8; KEY]);
        let tag = Tag("tag".into());
        let sealed = seal(&public.to_bytes(), &tag, &notification()).unwrap();
        let opened = open(&private, b"tern.v1.Notification", &sealed, b"tag").unwrap();
        assert_eq!(Notification::decode(opened.as_slice()).unwrap(), notification());
        assert!(open(&another, INFO, &sealed, b"tag").is_err(), "another key");
        assert!(open(&private, INFO, &sealed, b"gat").is_err(), "another tag");
        assert!(open(&private, b"tern", &sealed, b"tag").is_err(), "another use");
        let again = seal(&public.to_bytes(), &tag, &notification()).unwrap();
        assert_ne!(sealed, again, "each is sealed anew");
    }

    #[test]
    fn the_suite_is_the_one_of_the_rfc() {
        // RFC 9180, A.2.1: base mode, the first ciphertext.
        let bytes = |text: &str| hex::decode(text).unwrap();
        let private = bytes("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let private = PrivateKey::from_bytes(&private).unwrap();
        let sealed = bytes(concat!(
            "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        ));
        let info = bytes("4f6465206f6e2061204772656369616e2055726e");
        let opened = open(&private, &info, &sealed, &bytes("436f756e742d30"));
        assert_eq!(
            opened.unwrap(),
            bytes("4265617574792069732074727574682c20747275746820626561757479")
        );
    }

    #[test]
    fn a_key_of_no_use_is_an_error() {
        let keys: [&[u8]; 3] = [&[], &[7; 31], &[0; 32]];
        for key in keys {
            assert!(seal(key, &Tag("tag".into()), &notification()).is_err(), "{key:?}");
        }
    }

    #[test]
    fn names_are_cut_at_a_character() {
        let long = Notification {
            chat_title: "é".repeat(100),
            sender_name: "a".repeat(129),
            ..Notification::default()
        };
        let cut = shortened(&long);
        assert_eq!(cut.chat_title, "é".repeat(64));
        assert_eq!(cut.sender_name, "a".repeat(128));
    }
}
