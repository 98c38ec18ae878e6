//! Identifiers. On the public wire they are UUID strings, between nodes 16 bytes, in code these newtypes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Namespaces of derived ids (UUIDv5). Fixed for ever: changing one would move every derived id.
const DIRECT_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0001);
const SELF_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0002);
const GROUP_NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_9d0a_52c1_4c0e_9f0b_7465_726e_0003);

/// A string or byte string that is no id.
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
            /// As one number: as bytes, their length would be hashed too.
            #[inline]
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write_u128(u128::from_ne_bytes(*self.0.as_bytes()));
            }
        }

        impl $name {
            /// From the 16 bytes of the internal protocols.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError)
            }

            /// The 16 bytes of the internal protocols.
            pub fn to_vec(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Only the hyphenated form of 36 characters.
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
    /// A person.
    UserId
);
uuid_id!(
    /// One installation of the app.
    DeviceId
);
uuid_id!(
    /// A chat of any kind.
    ChatId
);
uuid_id!(
    /// A client's own name for one send or one creation.
    RequestId
);
uuid_id!(
    /// An object of the media store.
    MediaId
);
uuid_id!(
    /// One upload of media.
    UploadId
);

impl UserId {
    /// The sender of what a back end does in nobody's name.
    pub const SYSTEM: Self = Self(Uuid::nil());

    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

impl DeviceId {
    /// The sending device of what a back end sends.
    pub const BACK_END: Self = Self(Uuid::nil());

    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// Stands in the inbox for a user who has no device yet; the first linked device takes its rows over.
    pub fn reserved(user: UserId) -> Self {
        Self(user.0)
    }
}

impl RequestId {
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl MediaId {
    /// Not to be guessed, though knowing one opens nothing.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl UploadId {
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

impl ChatId {
    /// The direct chat of two people; the same from either side.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut name = [0; 32];
        name[..16].copy_from_slice(low.as_bytes());
        name[16..].copy_from_slice(high.as_bytes());
        Self(Uuid::new_v5(&DIRECT_NAMESPACE, &name))
    }

    /// A user's own log.
    pub fn own(user: UserId) -> Self {
        Self(Uuid::new_v5(&SELF_NAMESPACE, user.as_bytes()))
    }

    /// The group that this creator made with this request: making it again gives the same.
    pub fn group(creator: UserId, request: RequestId) -> Self {
        let mut name = [0; 32];
        name[..16].copy_from_slice(creator.as_bytes());
        name[16..].copy_from_slice(request.as_bytes());
        Self(Uuid::new_v5(&GROUP_NAMESPACE, &name))
    }
}

/// One open stream of one device, named by the gateway that holds it; never used twice.
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

    /// The example of messaging.proto: clients may compute it, so it never changes.
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
