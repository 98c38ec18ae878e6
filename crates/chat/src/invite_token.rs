//! The tokens of invite links. A token proves that its bearer was given the link. It consists of the link's id and the
//! first half of an HMAC-SHA-256 of it under the chat's data key, so the store has nothing by which a link could be
//! used, and a guessed token is refused before the store is asked about the link.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tern_chat_core::chat::ChatKey;
use tern_types::InviteId;

const ID_BYTES: usize = 16;
/// The length of the code that proves the id, in bytes. Who does not know the key guesses it in 2^128 tries.
const MAC_BYTES: usize = 16;
/// The length of a token in characters.
const TOKEN_CHARS: usize = 43;
/// The length of a block of SHA-256 in bytes. HMAC pads its key to a block.
const BLOCK_BYTES: usize = 64;
/// The prefix that separates these codes from anything else that might be signed with the same key.
const CONTEXT: &[u8] = b"tern invite";

/// Returns the token of the link: 43 characters of URL-safe Base64.
pub fn of(key: &ChatKey, invite: InviteId) -> String {
    let mut token = [0; ID_BYTES + MAC_BYTES];
    token[..ID_BYTES].copy_from_slice(invite.as_bytes());
    token[ID_BYTES..].copy_from_slice(&mac(key, invite.as_bytes()).finalize().into_bytes()[..MAC_BYTES]);
    URL_SAFE_NO_PAD.encode(token)
}

/// Returns the link whose token this is; `None` if it is none that was made with this key. Codes are compared in
/// constant time.
pub fn verify(key: &ChatKey, token: &str) -> Option<InviteId> {
    if token.len() != TOKEN_CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (id, proof) = bytes.split_at_checked(ID_BYTES)?;
    if proof.len() != MAC_BYTES {
        return None;
    }
    mac(key, id).verify_truncated_left(proof).ok()?;
    InviteId::from_slice(id).ok()
}

/// Returns the HMAC of a link's id.
fn mac(key: &ChatKey, id: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; BLOCK_BYTES];
    for (to, from) in block.iter_mut().zip(key.0.iter()) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new((&block).into());
    mac.update(CONTEXT);
    mac.update(id);
    mac
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    const INVITE: InviteId = InviteId(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));

    fn key(byte: u8) -> ChatKey {
        ChatKey(Arc::new([byte; 32]))
    }

    #[test]
    fn a_token_is_of_one_link_and_one_chat() {
        let token = of(&key(1), INVITE);
        assert_eq!(token.len(), TOKEN_CHARS);
        assert_eq!(verify(&key(1), &token), Some(INVITE));
        assert_eq!(verify(&key(2), &token), None);
        assert_ne!(token, of(&key(1), InviteId(Uuid::nil())));
    }

    /// The links that people have were made by earlier versions.
    #[test]
    fn a_token_stays_what_it_was() {
        let signed = Hmac::<Sha256>::new_from_slice(&[1; 32])
            .unwrap()
            .chain_update(b"tern invite")
            .chain_update(INVITE.as_bytes());
        let code = signed.finalize().into_bytes();
        let bytes = [INVITE.as_bytes().as_slice(), &code[..16]].concat();
        assert_eq!(URL_SAFE_NO_PAD.decode(of(&key(1), INVITE)).unwrap(), bytes);
    }

    #[test]
    fn a_token_with_any_character_changed_is_none() {
        let token = of(&key(1), INVITE);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(verify(&key(1), &changed), None, "character {at}");
        }
        let padded = format!("{token}=");
        let longer = format!("{token}A");
        for bad in [
            "",
            "A",
            &token[..42],
            &padded,
            &longer,
            &"é".repeat(21),
            &"+".repeat(43),
        ] {
            assert_eq!(verify(&key(1), bad), None, "{bad}");
        }
    }
}
