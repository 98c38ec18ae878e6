//! The caller of a unary call. The gateway authenticates the caller and writes it into the metadata, where
//! services read it. The gateway passes on no metadata `tern-*` that comes from outside, so a client cannot
//! name a caller.

use std::fmt;
use std::str::FromStr;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, UserId};
use tonic::metadata::{MetadataMap, MetadataValue};

const USER: &str = "tern-user";
const DEVICE: &str = "tern-device";
const KEY: &str = "tern-key";
const SCOPES: &str = "tern-scopes";

/// The caller of a unary call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The app on one device, which acts in its user's name.
    Device {
        /// The user to whom the device belongs.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// A back end with an API key.
    Key {
        /// The key's id, which is no secret: it names the key in logs and in lists.
        key_id: String,
        /// The rights of the key.
        scopes: Vec<Scope>,
    },
}

/// A right that an API key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Reads users and their devices, blocks, contacts and settings.
    UsersRead,
    /// Makes and changes users, and changes their blocks, contacts and settings.
    UsersWrite,
    /// Links and revokes devices.
    DevicesLink,
    /// Reads chats, their logs and receipts.
    ChatsRead,
    /// Makes and changes chats, and sets read marks.
    ChatsWrite,
    /// Sends messages in a user's name.
    MessagesSend,
    /// Sends messages from the system, which have no sender.
    MessagesSystem,
    /// Reads who is online.
    PresenceRead,
    /// Downloads media in a user's name.
    MediaRead,
    /// Uploads and forwards media, and sets pictures, in a user's name.
    MediaWrite,
    /// Includes all other scopes, and allows the calls of operators' tools.
    Admin,
}

impl Scope {
    /// All scopes, in the order in which they are listed to people.
    pub const ALL: [Self; 11] = [
        Self::UsersRead,
        Self::UsersWrite,
        Self::DevicesLink,
        Self::ChatsRead,
        Self::ChatsWrite,
        Self::MessagesSend,
        Self::MessagesSystem,
        Self::PresenceRead,
        Self::MediaRead,
        Self::MediaWrite,
        Self::Admin,
    ];

    /// Returns the scope's name as it is written in metadata, flags and API keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::DevicesLink => "devices:link",
            Self::ChatsRead => "chats:read",
            Self::ChatsWrite => "chats:write",
            Self::MessagesSend => "messages:send",
            Self::MessagesSystem => "messages:system",
            Self::PresenceRead => "presence:read",
            Self::MediaRead => "media:read",
            Self::MediaWrite => "media:write",
            Self::Admin => "admin",
        }
    }

    /// Returns the names of all scopes, separated by commas, for error messages and help texts.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a word that is not the name of a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such scope: {0} ({scopes})", scopes = Scope::list())]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

impl Principal {
    /// Writes the caller into the metadata, replacing any caller there.
    pub fn write(&self, metadata: &mut MetadataMap) {
        for key in [USER, DEVICE, KEY, SCOPES] {
            metadata.remove(key);
        }
        match self {
            Self::Device { user, device } => {
                put(metadata, USER, &user.to_string());
                put(metadata, DEVICE, &device.to_string());
            }
            Self::Key { key_id, scopes } => {
                put(metadata, KEY, key_id);
                let scopes: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
                put(metadata, SCOPES, &scopes.join(","));
            }
        }
    }

    /// Reads the caller from the metadata. Returns `Err` with CREDENTIALS_MISSING if there is none.
    pub fn read(metadata: &MetadataMap) -> Result<Self, ApiError> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        if let Some(key_id) = text(KEY) {
            // A scope that this version does not know gives no right that this version checks, so it is left out.
            let scopes = text(SCOPES)
                .unwrap_or_default()
                .split(',')
                .filter_map(|scope| scope.parse().ok())
                .collect();
            return Ok(Self::Key {
                key_id: key_id.to_owned(),
                scopes,
            });
        }
        let user = text(USER).and_then(|user| user.parse().ok());
        let device = text(DEVICE).and_then(|device| device.parse().ok());
        match (user, device) {
            (Some(user), Some(device)) => Ok(Self::Device { user, device }),
            _ => Err(ApiError::new(
                ErrorReason::CredentialsMissing,
                "the call needs an access token or an API key",
            )),
        }
    }

    /// Checks that the caller has the right `scope`. A device always passes, because its rights follow from its
    /// memberships; an API key needs the scope itself, or `Admin`. Returns `Err` with SCOPE_MISSING otherwise.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        match self {
            Self::Device { .. } => Ok(()),
            Self::Key { scopes, .. } if scopes.contains(&scope) || scopes.contains(&Scope::Admin) => Ok(()),
            Self::Key { .. } => Err(ApiError::new(
                ErrorReason::ScopeMissing,
                format!("the API key lacks the scope {scope}"),
            )
            .with("scope", scope.as_str())),
        }
    }

    /// Returns the calling device, or `Err` with DEVICES_ONLY if the caller is a back end.
    pub fn device(&self) -> Result<(UserId, DeviceId), ApiError> {
        match self {
            Self::Device { user, device } => Ok((*user, *device)),
            Self::Key { .. } => Err(ApiError::new(
                ErrorReason::DevicesOnly,
                "only devices may call this",
            )),
        }
    }

    /// Returns the id of the back end's API key if the key has the scope. Returns `Err` with NOT_FOR_DEVICES for a
    /// device, and with SCOPE_MISSING for a key without the scope.
    pub fn key(&self, scope: Scope) -> Result<&str, ApiError> {
        match self {
            Self::Key { key_id, .. } => self.require(scope).map(|()| key_id.as_str()),
            Self::Device { .. } => Err(ApiError::new(
                ErrorReason::NotForDevices,
                "only back ends may call this",
            )),
        }
    }
}

/// Sets an entry of the metadata. A value that metadata cannot have is left out, which happens for no id or scope,
/// because they are ASCII without control characters.
fn put(metadata: &mut MetadataMap, key: &'static str, value: &str) {
    if let Ok(value) = MetadataValue::try_from(value) {
        metadata.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(principal: &Principal) -> Principal {
        let mut metadata = MetadataMap::new();
        principal.write(&mut metadata);
        Principal::read(&metadata).unwrap()
    }

    fn key(scopes: &[Scope]) -> Principal {
        Principal::Key {
            key_id: "0190-a".to_owned(),
            scopes: scopes.to_vec(),
        }
    }

    #[test]
    fn a_caller_is_read_as_it_was_written() {
        let device = Principal::Device {
            user: UserId::random(),
            device: DeviceId::random(),
        };
        for principal in [
            device,
            key(&Scope::ALL),
            key(&[]),
            key(&[Scope::ChatsRead, Scope::DevicesLink]),
        ] {
            assert_eq!(round_trip(&principal), principal);
        }
    }

    #[test]
    fn writing_a_caller_replaces_any_other() {
        let device = Principal::Device {
            user: UserId::random(),
            device: DeviceId::random(),
        };
        let mut metadata = MetadataMap::new();
        key(&[Scope::Admin]).write(&mut metadata);
        device.write(&mut metadata);
        assert_eq!(Principal::read(&metadata).unwrap(), device);
    }

    #[test]
    fn without_a_caller_credentials_are_missing() {
        let mut metadata = MetadataMap::new();
        let missing = |metadata: &MetadataMap| Principal::read(metadata).unwrap_err().reason;
        assert_eq!(missing(&metadata), ErrorReason::CredentialsMissing);
        metadata.insert(USER, UserId::random().to_string().parse().unwrap());
        metadata.insert(DEVICE, "no-uuid".parse().unwrap());
        assert_eq!(missing(&metadata), ErrorReason::CredentialsMissing);
    }

    #[test]
    fn a_key_needs_the_scope_and_admin_has_all() {
        assert!(key(&[Scope::ChatsRead]).require(Scope::ChatsRead).is_ok());
        assert!(
            Scope::ALL
                .iter()
                .all(|scope| key(&[Scope::Admin]).require(*scope).is_ok())
        );
        let refused = key(&[Scope::ChatsRead]).require(Scope::ChatsWrite).unwrap_err();
        assert_eq!(
            (refused.reason, refused.metadata),
            (
                ErrorReason::ScopeMissing,
                vec![("scope", "chats:write".to_owned())]
            )
        );
    }

    #[test]
    fn devices_and_back_ends_are_told_apart() {
        let (user, device) = (UserId::random(), DeviceId::random());
        let app = Principal::Device { user, device };
        assert_eq!(app.device().unwrap(), (user, device));
        assert!(app.require(Scope::MessagesSend).is_ok());
        assert_eq!(
            app.key(Scope::UsersRead).unwrap_err().reason,
            ErrorReason::NotForDevices
        );
        assert_eq!(
            key(&[Scope::Admin]).device().unwrap_err().reason,
            ErrorReason::DevicesOnly
        );
        assert_eq!(key(&[Scope::UsersRead]).key(Scope::UsersRead).unwrap(), "0190-a");
    }

    #[test]
    fn scope_names_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("everything".parse::<Scope>().is_err());
    }
}
