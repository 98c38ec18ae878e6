//! The states of an upload, and the check whether the object store has what was declared.

use std::collections::HashMap;

use super::declared::{Declared, Hash};

/// The state of an upload. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum State {
    /// Parts are being uploaded.
    Open = 0,
    /// The upload became a media, to which its object belongs.
    Done = 1,
    /// The upload was given up or refused. What it has in the object store is deleted once nobody can write to it any
    /// more.
    Failed = 2,
    /// The upload became a media that was there already. Its own object is deleted once nobody can write to it any
    /// more.
    Duplicate = 3,
}

impl State {
    /// Reads the stored number. Returns `None` if this version does not know it.
    pub(crate) fn from_number(number: i16) -> Option<Self> {
        [Self::Open, Self::Done, Self::Failed, Self::Duplicate]
            .into_iter()
            .find(|state| *state as i16 == number)
    }
}

/// A part as the object store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// The number of the part, from 1.
    pub number: u32,
    /// The length of the part in bytes.
    pub length: u64,
    /// The SHA-256 of the part, or `None` if the object store does not keep a checksum.
    pub sha256: Option<Hash>,
    /// The object store's own id of the part's content.
    pub etag: String,
}

/// An object as the object store describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The length of the object in bytes.
    pub length: u64,
    /// The content type that the object was put with.
    pub content_type: String,
    /// The SHA-256 of an object of one part, or the SHA-256 of the parts' SHA-256s. It is `None` if the object store
    /// does not keep a checksum.
    pub sha256: Option<Hash>,
}

/// The result of comparing an object or part in the object store with its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is exactly what was declared.
    AsDeclared,
    /// Its length, content type or checksum is not what was declared.
    Mismatch,
    /// The object store has no checksum of it, so Tern cannot vouch for it.
    Unknown,
}

fn verdict(same: bool, stored: Option<Hash>, declared: Hash) -> Verdict {
    match stored {
        _ if !same => Verdict::Mismatch,
        None => Verdict::Unknown,
        Some(hash) if hash == declared => Verdict::AsDeclared,
        Some(_) => Verdict::Mismatch,
    }
}

/// Decides whether the object is as declared, and so may become a media.
pub fn judge(declared: &Declared, stored: &StoredObject) -> Verdict {
    let same = stored.length == declared.length && stored.content_type == declared.content_type;
    verdict(same, stored.sha256, declared.content_id())
}

/// Returns the parts that are there and are as declared, with their declared checksums; the others have to be
/// uploaded again. A part without a listed checksum counts as good: the object store compared it with the signed
/// checksum when it was put, and in the end the checksum of the whole object decides.
pub(crate) fn good_parts(declared: &Declared, stored: Vec<StoredPart>) -> Vec<StoredPart> {
    let mut stored: HashMap<u32, StoredPart> = stored.into_iter().map(|part| (part.number, part)).collect();
    declared
        .parts()
        .filter_map(|part| {
            let found = stored.remove(&part.number)?;
            let judged = verdict(found.length == part.length, found.sha256, part.sha256);
            (judged != Verdict::Mismatch).then_some(StoredPart {
                sha256: Some(part.sha256),
                ..found
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tern_types::limits::MEDIA_PART_BYTES;

    use super::*;

    fn declared() -> Declared {
        Declared {
            length: MEDIA_PART_BYTES + 5,
            content_type: "image/png".to_owned(),
            parts: vec![[1; 32], [2; 32]],
        }
    }

    fn part(number: u32, length: u64, hash: u8) -> StoredPart {
        StoredPart {
            number,
            length,
            sha256: Some([hash; 32]),
            etag: format!("e{number}"),
        }
    }

    #[test]
    fn an_object_is_media_only_when_everything_is_as_declared() {
        let declared = declared();
        let good = StoredObject {
            length: declared.length,
            content_type: declared.content_type.clone(),
            sha256: Some(declared.content_id()),
        };
        assert_eq!(judge(&declared, &good), Verdict::AsDeclared);
        for (bad, verdict) in [
            (
                StoredObject {
                    length: 1,
                    ..good.clone()
                },
                Verdict::Mismatch,
            ),
            (
                StoredObject {
                    content_type: "text/html".to_owned(),
                    ..good.clone()
                },
                Verdict::Mismatch,
            ),
            (
                StoredObject {
                    sha256: Some([9; 32]),
                    ..good.clone()
                },
                Verdict::Mismatch,
            ),
            (
                StoredObject {
                    sha256: None,
                    ..good.clone()
                },
                Verdict::Unknown,
            ),
            (
                StoredObject {
                    sha256: None,
                    length: 1,
                    ..good
                },
                Verdict::Mismatch,
            ),
        ] {
            assert_eq!(judge(&declared, &bad), verdict, "{bad:?}");
        }
    }

    #[test]
    fn only_parts_as_declared_count() {
        let declared = declared();
        let (one, two) = (part(1, MEDIA_PART_BYTES, 1), part(2, 5, 2));
        let count = |stored: Vec<StoredPart>| good_parts(&declared, stored).len();
        assert_eq!(
            good_parts(&declared, vec![two.clone(), one.clone()]),
            [one.clone(), two.clone()]
        );
        assert_eq!(count(vec![two.clone()]), 1);
        assert_eq!(count(vec![part(1, 3, 1), two.clone()]), 1, "too short");
        assert_eq!(
            count(vec![part(1, MEDIA_PART_BYTES, 2), two.clone()]),
            1,
            "other bytes"
        );
        let bare = StoredPart {
            sha256: None,
            ..one.clone()
        };
        assert_eq!(
            good_parts(&declared, vec![bare, two.clone()]),
            [one, two],
            "no checksum listed"
        );
        assert_eq!(count(vec![part(3, 5, 2)]), 0, "not declared");
    }
}
