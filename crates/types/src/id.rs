//! Ids. On the public wire they are UUID strings, between nodes 16 bytes, and in code the newtypes of this module.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The namespaces of derived ids (UUIDv5). They never change, because every derived id would change with them.
const DIRECT_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0001);
const SELF_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0002);
const GROUP_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0003);
const INVITE_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0004);

/// The error for a string or byte string that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct IdError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl Hash for $name {
            /// Hashes the id as one number. Hashing it as a byte slice would hash the slice's length too.
            #[inline]
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write_u128(u128::from_ne_bytes(*self.0.as_bytes()));
            }
        }

        impl $name {
            /// Reads the 16 bytes that the internal protocols use. `Err` if there are more or fewer.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError)
            }

            /// Returns the 16 bytes that the internal protocols use.
            pub fn to_vec(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }

            /// Returns the 16 bytes that the internal protocols use, without copying them.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts only the hyphenated form of 36 characters. Other forms of a UUID are an `Err`.
            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != 36 {
                    return Err(IdError);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| IdError)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    };
}

uuid_id!(
    /// A person who uses the app.
    UserId
);
uuid_id!(
    /// One installation of the app, which belongs to one user.
    DeviceId
);
uuid_id!(
    /// A chat of any kind: direct, group, or a user's own log.
    ChatId
);
uuid_id!(
    /// The id that a client gives to one send or one creation, so that a retry is recognised (rule 5).
    RequestId
);
uuid_id!(
    /// An object in the media store.
    MediaId
);
uuid_id!(
    /// One upload of an object to the media store.
    UploadId
);
uuid_id!(
    /// An invite link of a group.
    InviteId
);

impl UserId {
    /// The sender of messages that a back end sends in nobody's name.
    pub const SYSTEM: Self = Self(Uuid::nil());

    /// Makes a new id (UUIDv7), which sorts by the time at which it was made.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

impl DeviceId {
    /// The sending device of messages that a back end sends.
    pub const BACK_END: Self = Self(Uuid::nil());

    /// Makes a new id (UUIDv7), which sorts by the time at which it was made.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns the id that stands in the inbox for a user who has no device yet. The first device that is linked takes
    /// over the inbox rows of this id.
    pub fn reserved(user: UserId) -> Self {
        Self(user.0)
    }
}

impl RequestId {
    /// Draws a new random id (UUIDv4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl MediaId {
    /// Draws a random id (UUIDv4) that cannot be guessed. That is a precaution only, because knowing the id gives no
    /// access to the object.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl UploadId {
    /// Makes a new id (UUIDv7), which sorts by the time at which it was made.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

impl ChatId {
    /// Returns the id of the direct chat of two people. The order of the arguments does not matter.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut name = [0; 32];
        name[..16].copy_from_slice(low.as_bytes());
        name[16..].copy_from_slice(high.as_bytes());
        Self(Uuid::new_v5(&DIRECT_NAMESPACE, &name))
    }

    /// Returns the id of a user's own log, a chat with nobody else in it.
    pub fn own(user: UserId) -> Self {
        Self(Uuid::new_v5(&SELF_NAMESPACE, user.as_bytes()))
    }

    /// Returns the id of the group that `creator` makes with this request. The same request gives the same id again.
    pub fn group(creator: UserId, request: RequestId) -> Self {
        let mut name = [0; 32];
        name[..16].copy_from_slice(creator.as_bytes());
        name[16..].copy_from_slice(request.as_bytes());
        Self(Uuid::new_v5(&GROUP_NAMESPACE, &name))
    }
}

impl InviteId {
    /// Returns the id of the link into `chat` that `maker` makes with this request. The same request gives the same id
    /// again.
    pub fn of(maker: UserId, chat: ChatId, request: RequestId) -> Self {
        let mut name = [0; 48];
        name[..16].copy_from_slice(maker.as_bytes());
        name[16..32].copy_from_slice(chat.as_bytes());
        name[32..].copy_from_slice(request.as_bytes());
        Self(Uuid::new_v5(&INVITE_NAMESPACE, &name))
    }
}

/// One open stream of one device. The gateway that holds the stream gives it the id, which is never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_chat_is_the_same_from_either_side() {
        let (a, b) = (UserId::random(), UserId::random());
        assert_eq!(ChatId::direct(a, b), ChatId::direct(b, a));
        assert_ne!(ChatId::direct(a, b), ChatId::direct(a, a));
        assert_ne!(ChatId::direct(a, a), ChatId::own(a));
    }

    /// The ids are the example in messaging.proto. Clients may compute the id of a chat, so it must never change.
    #[test]
    fn the_id_of_a_direct_chat_is_what_the_protos_say() {
        let [low, high] = [
            "0d9c7f3e-8a52-4b1d-9c46-2f1e5a7b3c10",
            "c3a1e5d2-47b9-4e08-8f6a-91d0b2c4e6f7",
        ];
        let (low, high) = (low.parse().unwrap(), high.parse().unwrap());
        assert_eq!(
            ChatId::direct(high, low).to_string(),
            "23359432-3d44-534a-8b32-86be14b3c387"
        );
    }

    #[test]
    fn a_link_is_that_of_its_maker_chat_and_request() {
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let of = |maker, chat, request| InviteId::of(UserId(maker), ChatId(chat), RequestId(request));
        assert_eq!(of(a, a, a), of(a, a, a));
        for other in [of(b, a, a), of(a, b, a), of(a, a, b)] {
            assert_ne!(other, of(a, a, a));
        }
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        let id = UserId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "x",
            &id.0.simple().to_string(),
            &format!("{{{id}}}"),
            "'; drop table users; --",
        ] {
            assert_eq!(bad.parse::<UserId>(), Err(IdError), "{bad}");
        }
        assert_eq!(UserId::from_slice(&[0; 15]), Err(IdError));
    }
}
