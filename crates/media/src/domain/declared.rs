//! Checks what a client declares that it will upload, and divides it into parts.

use sha2::{Digest, Sha256};
use tern_proto::ApiError;
use tern_proto::v1::{ErrorReason, MediaPurpose};
use tern_types::limits::{MAX_MEDIA_BYTES, MEDIA_PART_BYTES};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The longest content type in bytes.
const MAX_TYPE_BYTES: usize = 128;
/// The content type of uploads that declare none. To the server they are encrypted bytes.
const CIPHERTEXT: &str = "application/octet-stream";

/// An upload as the client declared it. Only exactly this content is accepted as the upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The length of the whole upload in bytes.
    pub length: u64,
    /// The content type, such as `image/jpeg`, in lower case.
    pub content_type: String,
    /// The SHA-256 of each part, in order. There is at least one.
    pub parts: Vec<Hash>,
}

/// One part of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The number of the part, from 1.
    pub number: u32,
    /// The offset in bytes at which the part begins in the whole.
    pub offset: u64,
    /// The length of the part in bytes.
    pub length: u64,
    /// The SHA-256 of the part.
    pub sha256: Hash,
}

impl Declared {
    /// Checks a declaration. `hashes` are the SHA-256s of the parts, one for each 16 MiB.
    ///
    /// # Errors
    ///
    /// Returns INVALID_FIELD with the field's name, or TOO_LARGE if `length` exceeds the limit of the purpose.
    pub fn parse(
        length: u64,
        hashes: &[impl AsRef<[u8]>],
        content_type: &str,
        purpose: MediaPurpose,
    ) -> Result<Self, ApiError> {
        let most = match purpose {
            MediaPurpose::Picture => MEDIA_PART_BYTES,
            MediaPurpose::Attachment | MediaPurpose::Unspecified => MAX_MEDIA_BYTES,
        };
        if length == 0 {
            return Err(ApiError::invalid("length", "must be at least 1"));
        }
        if length > most {
            let words = format!("length: at most {most} bytes for this purpose");
            return Err(ApiError::new(ErrorReason::TooLarge, words));
        }
        let wanted = length.div_ceil(MEDIA_PART_BYTES);
        if hashes.len() as u64 != wanted {
            let words = format!("must be {wanted}, one for each {} MiB", MEDIA_PART_BYTES >> 20);
            return Err(ApiError::invalid("part_sha256s", &words));
        }
        let hash = |bytes: &_| {
            let bytes: &[u8] = AsRef::as_ref(bytes);
            let wrong = |_| {
                let words = format!("must have {} bytes each", size_of::<Hash>());
                ApiError::invalid("part_sha256s", &words)
            };
            Hash::try_from(bytes).map_err(wrong)
        };
        Ok(Self {
            length,
            content_type: media_type(content_type)?,
            parts: hashes.iter().map(hash).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the hash that names the content: for one part its SHA-256, for several parts the SHA-256 of their
    /// SHA-256s.
    pub fn content_id(&self) -> Hash {
        content_id(&self.parts)
    }

    /// Returns whether there are several parts.
    pub(crate) fn is_multipart(&self) -> bool {
        self.parts.len() > 1
    }

    /// Returns the parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().zip(0_u32..).map(|(sha256, index)| {
            let offset = u64::from(index) * MEDIA_PART_BYTES;
            Part {
                number: index + 1,
                offset,
                length: (self.length - offset).min(MEDIA_PART_BYTES),
                sha256: *sha256,
            }
        })
    }
}

/// Returns the hash that names the content with these parts' SHA-256s, as [`Declared::content_id`] does.
pub fn content_id(parts: &[Hash]) -> Hash {
    match parts {
        [only] => *only,
        parts => Sha256::digest(parts.concat()).into(),
    }
}

/// Checks a content type, and returns it in lower case, or [`CIPHERTEXT`] if it is empty. Only `type/subtype` without
/// parameters is accepted, because it becomes a header of the object store's answers.
fn media_type(text: &str) -> Result<String, ApiError> {
    if text.is_empty() {
        return Ok(CIPHERTEXT.to_owned());
    }
    let token = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let fits = text.len() <= MAX_TYPE_BYTES
        && text
            .split_once('/')
            .is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ApiError::invalid(
            "content_type",
            "must be a type and a subtype, as image/jpeg",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PURPOSE: MediaPurpose = MediaPurpose::Attachment;

    fn parse(length: u64, parts: usize) -> Result<Declared, ErrorReason> {
        Declared::parse(length, &vec![[7_u8; 32]; parts], "image/png", PURPOSE).map_err(|error| error.reason)
    }

    #[test]
    fn there_is_one_hash_a_part() {
        assert!(parse(1, 1).is_ok());
        assert!(parse(MEDIA_PART_BYTES, 1).is_ok());
        assert!(parse(MEDIA_PART_BYTES + 1, 2).is_ok());
        assert!(parse(MAX_MEDIA_BYTES, 128).is_ok());
        for (length, parts, reason) in [
            (0, 0, ErrorReason::InvalidField),
            (0, 1, ErrorReason::InvalidField),
            (1, 0, ErrorReason::InvalidField),
            (1, 2, ErrorReason::InvalidField),
            (MEDIA_PART_BYTES + 1, 1, ErrorReason::InvalidField),
            (MAX_MEDIA_BYTES + 1, 129, ErrorReason::TooLarge),
            (u64::MAX, 1, ErrorReason::TooLarge),
        ] {
            assert_eq!(parse(length, parts), Err(reason), "{length} bytes, {parts} parts");
        }
        for bytes in [0, 31, 33] {
            let short = Declared::parse(1, &[vec![0; bytes]], "", PURPOSE);
            assert_eq!(short.unwrap_err().field, Some("part_sha256s"));
        }
    }

    #[test]
    fn a_picture_is_one_part() {
        let large = Declared::parse(MEDIA_PART_BYTES + 1, &[[0; 32]; 2], "", MediaPurpose::Picture);
        assert_eq!(large.unwrap_err().reason, ErrorReason::TooLarge);
        assert!(Declared::parse(MEDIA_PART_BYTES, &[[0; 32]], "", MediaPurpose::Picture).is_ok());
    }

    #[test]
    fn types_are_type_and_subtype() {
        for (given, kept) in [
            ("", CIPHERTEXT),
            ("image/JPEG", "image/jpeg"),
            ("application/vnd.ms-excel", "application/vnd.ms-excel"),
            ("image/svg+xml", "image/svg+xml"),
        ] {
            assert_eq!(media_type(given).unwrap(), kept);
        }
        let long = format!("image/{}", "x".repeat(MAX_TYPE_BYTES));
        for bad in [
            "image",
            "image/",
            "/png",
            "a/b/c",
            "a/b; c=d",
            "a/b\r\nx: y",
            "ä/b",
            " a/b",
            &long,
        ] {
            assert_eq!(media_type(bad).unwrap_err().field, Some("content_type"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parts_cover_the_whole_without_gaps(length in 1..=MAX_MEDIA_BYTES) {
            let declared = parse(length, length.div_ceil(MEDIA_PART_BYTES) as usize).unwrap();
            let mut end = 0;
            for (part, number) in declared.parts().zip(1..) {
                prop_assert_eq!(part.number, number);
                prop_assert_eq!(part.offset, end);
                prop_assert!(part.length > 0 && part.length <= MEDIA_PART_BYTES);
                end += part.length;
            }
            prop_assert_eq!(end, length);
        }
    }
}
