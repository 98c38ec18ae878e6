//! Finds the chat or the user that a unary request is about, without knowing the request's type. Field 1 of every
//! request about a chat is its chat_id, and of every request about a user its user_id.

use std::str::FromStr;

use tern_types::{ChatId, UserId};

/// The key of field 1 with a length-delimited value.
const FIRST_KEY: u64 = 1 << 3 | 2;

/// Returns the chat in field 1, or the last one if the field occurs several times, as protobuf has it. `None`
/// if there is none, if the bytes are no message, or if they have a group, which no request has. The node
/// that decodes the message says what is wrong.
pub fn chat_id(message: &[u8]) -> Option<ChatId> {
    first(message)
}

/// Returns the user in field 1, by the same rules as [`chat_id`].
pub fn user_id(message: &[u8]) -> Option<UserId> {
    first(message)
}

/// Returns the last field 1 of an encoded message, parsed.
fn first<T: FromStr>(mut message: &[u8]) -> Option<T> {
    let mut found = None;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = match key & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => take(&mut message, 8)?,
            2 => {
                let len = varint(&mut message)?;
                take(&mut message, usize::try_from(len).ok()?)?
            }
            5 => take(&mut message, 4)?,
            _ => return None,
        };
        if key == FIRST_KEY {
            found = std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(len)?;
    *message = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use tern_proto::v1::SendMessageRequest;

    use super::*;

    /// Returns the chat as prost decodes it. `None` for bytes that prost refuses.
    fn by_prost(bytes: &[u8]) -> Option<Option<ChatId>> {
        SendMessageRequest::decode(bytes)
            .ok()
            .map(|request| request.chat_id.parse().ok())
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_prost_reads_it(
            chat in proptest::option::of(any::<u128>()),
            peer in ".{0,40}",
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let chat_id = chat.map(|id| ChatId(uuid::Uuid::from_u128(id)));
            let request = SendMessageRequest {
                chat_id: chat_id.map(|id| id.to_string()).unwrap_or_default(),
                peer_user_id: peer,
                body: body.into(),
                ..Default::default()
            };
            prop_assert_eq!(super::chat_id(&request.encode_to_vec()), chat_id);
        }

        #[test]
        fn whatever_prost_takes_is_read_the_same_way(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let peeked = super::chat_id(&bytes);
            if let Some(expected) = by_prost(&bytes) {
                prop_assert_eq!(peeked, expected);
            }
        }

        #[test]
        fn a_request_that_was_tampered_with_is_read_the_same_way_or_not_at_all(
            id in any::<u128>(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let chat_id = ChatId(uuid::Uuid::from_u128(id)).to_string();
            let mut bytes = SendMessageRequest { chat_id, body: vec![1; 9].into(), ..Default::default() }.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let peeked = super::chat_id(&bytes);
            if let Some(expected) = by_prost(&bytes) {
                prop_assert_eq!(peeked, expected);
            }
        }
    }

    #[test]
    fn the_last_of_several_counts() {
        let ids = [ChatId(uuid::Uuid::from_u128(1)), ChatId(uuid::Uuid::from_u128(2))];
        let mut bytes = Vec::new();
        for id in ids {
            SendMessageRequest {
                chat_id: id.to_string(),
                ..Default::default()
            }
            .encode(&mut bytes)
            .unwrap();
        }
        assert_eq!(chat_id(&bytes), Some(ids[1]));
        assert_eq!(chat_id(&[]), None);
    }
}
