//! This module keeps what a content says and this version does not know: the store has it as it came, so that a later
//! version finds it there.

use bytes::Bytes;
use prost::{DecodeError, Message as _};
use tern_proto::v1;

use super::Entry;

/// Decodes a content. Returns it with the value of [`Entry::unknown`], which is the encoded content itself if decoding
/// has left out a part of it.
///
/// # Errors
///
/// The bytes are no encoded `EntryContent`.
pub fn decoded(content: Bytes) -> Result<(v1::EntryContent, Bytes), DecodeError> {
    let known = v1::EntryContent::decode(content.clone())?;
    // Known fields take no more bytes when they are encoded again, so a content of the same length is complete.
    let complete = known.encoded_len() == content.len();
    Ok((known, if complete { Bytes::new() } else { content }))
}

impl Entry {
    /// Returns the encoded content, with what this version does not know of it.
    pub fn encoded_content(&self) -> Bytes {
        if self.unknown.is_empty() {
            self.content.encoded()
        } else {
            self.unknown.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::{self, WireType};
    use tern_types::ChatId;

    use super::*;
    use crate::testing::{entry, wire};

    #[test]
    fn a_content_is_kept_with_what_this_version_does_not_know() {
        let known = entry(ChatId(uuid::Uuid::from_u128(1)), 9);
        let mut newer = known.content.encode_to_vec();
        encoding::encode_key(1000, WireType::Varint, &mut newer);
        encoding::encode_varint(3, &mut newer);
        let mut of_a_new_kind = Vec::new();
        encoding::encode_key(19, WireType::LengthDelimited, &mut of_a_new_kind);
        encoding::encode_varint(0, &mut of_a_new_kind);
        for (what, content, complete) in [
            ("known", known.content.encoded(), true),
            ("a new field", newer.into(), false),
            ("a new kind", of_a_new_kind.into(), false),
            ("nothing", Bytes::new(), true),
        ] {
            let came = v1::Entry {
                content: content.clone(),
                ..wire(&known)
            };
            let came = Entry::try_from(came).unwrap();
            assert_eq!(came.unknown.is_empty(), complete, "{what}");
            assert_eq!(came.encoded_content(), content, "{what}");
        }
    }
}
