//! The content of entries (`tern.v1.EntryContent`), which is encoded once when the entry is made.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{Seq, UserId};

use crate::entry::{EntryKind, Fingerprint, NewEntry};
use crate::role::Role;

/// Returns the encoded content of a group's first entry.
pub fn of_creation(title: &str, members: &[UserId]) -> Bytes {
    let member_user_ids = members.iter().map(ToString::to_string).collect();
    encode(Content::ChatCreated(v1::ChatCreated {
        title: title.to_owned(),
        member_user_ids,
    }))
}

/// Returns the encoded content that stands in the place of an erased one. `kind` is the stored number of the entry's
/// kind, and `target` the seq that the entry is about, if it is about another. `expired` is true if the content is gone
/// because of the chat's retention, and not by a deletion.
pub fn of_erased(kind: i16, target: Option<Seq>, expired: bool) -> Bytes {
    encode(Content::Erased(v1::Erased {
        kind: kind.into(),
        target_seq: target.map_or(0, |target| target.0),
        expired,
    }))
}

/// Returns the fingerprint of a request that consists of these parts: the first 16 bytes of a SHA-256. Each part is
/// hashed after its length, so that the parts "ab" and "c" have another fingerprint than "a" and "bc".
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// Returns what a request's fingerprint becomes under a chat's data key. Who does not have the key cannot find out by
/// trying which of the contents that are likely it is of.
pub fn keyed(request: Fingerprint, key: &[u8; 32]) -> Fingerprint {
    fingerprint([&key[..], &b"request"[..], &request[..]])
}

/// Returns the fingerprint that the store keeps with an entry of the chat with this data key.
///
/// For what is done to messages that is the keyed one. For messages and for changes of the chat it is still the
/// request's own, because nodes of the version before compare that with the request when it comes again. A node of this
/// version knows both: see docs/decisions/91-acts-are-bounded-and-erased-in-the-background.md.
pub fn stored_fingerprint(entry: &NewEntry, key: &[u8; 32]) -> Fingerprint {
    if entry.kind.is_message() && entry.kind != EntryKind::Message {
        keyed(entry.fingerprint, key)
    } else {
        entry.fingerprint
    }
}

/// Returns the role as the public API has it.
pub fn role_to_wire(role: Role) -> v1::Role {
    match role {
        Role::Member => v1::Role::Member,
        Role::Admin => v1::Role::Admin,
        Role::Owner => v1::Role::Owner,
    }
}

/// Returns the role that the public API's role stands for, and `None` if that is unspecified.
pub fn role_from_wire(role: v1::Role) -> Option<Role> {
    match role {
        v1::Role::Unspecified => None,
        v1::Role::Member => Some(Role::Member),
        v1::Role::Admin => Some(Role::Admin),
        v1::Role::Owner => Some(Role::Owner),
    }
}

/// Encodes the content of an entry.
pub(crate) fn encode(content: Content) -> Bytes {
    v1::EntryContent {
        content: Some(content),
        ..Default::default()
    }
    .encoded()
}

#[cfg(test)]
mod tests {
    use tern_types::{DeviceId, RequestId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_done_to_messages_is_stored_with_a_fingerprint_that_only_the_key_gives() {
        let (request, key) = (fingerprint([&b"+"[..]]), [7; 32]);
        let id = Uuid::from_u128(1);
        let of = |kind| NewEntry {
            kind,
            ..NewEntry::message(UserId(id), DeviceId(id), RequestId(id), request, Bytes::new())
        };
        for kind in [
            EntryKind::Edit,
            EntryKind::Delete,
            EntryKind::Reaction,
            EntryKind::Pin,
        ] {
            let stored = stored_fingerprint(&of(kind), &key);
            assert_ne!(stored, request, "{kind:?}");
            assert_eq!(stored, keyed(request, &key), "{kind:?}");
            assert_ne!(stored, stored_fingerprint(&of(kind), &[8; 32]), "another chat");
        }
        for kind in [
            EntryKind::Message,
            EntryKind::ChatCreated,
            EntryKind::MembersAdded,
        ] {
            assert_eq!(stored_fingerprint(&of(kind), &key), request, "{kind:?}");
        }
    }
}
