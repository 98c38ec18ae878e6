//! Finds the user that a unary call acts as.

use sqlx::PgPool;
use tern_identity::principal::{Principal, Scope};
use tern_proto::v1::ErrorReason;
use tern_proto::{ApiError, parse};
use tern_types::{DeviceId, UserId};
use tonic::metadata::MetadataMap;

use super::store_failed;
use crate::store::people;

/// The user that a call acts as, and the device that it comes from, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user that the call acts as; [`UserId::SYSTEM`] if a back end calls in nobody's name.
    pub user: UserId,
    /// The calling device; `None` if a back end calls.
    pub device: Option<DeviceId>,
}

impl Caller {
    /// Reads the caller from the metadata. A device acts as its user. A back end needs `scope`, and acts as the user
    /// whom it names; if it names none, as [`UserId::SYSTEM`].
    fn read(metadata: &MetadataMap, acting_user_id: &str, scope: Scope) -> Result<Self, ApiError> {
        let acting = parse::optional_id("acting_user_id", acting_user_id)?;
        match Principal::read(metadata)? {
            Principal::Device { .. } if acting.is_some() => Err(ApiError::new(
                ErrorReason::NotForDevices,
                "a device acts as its own user only",
            )),
            Principal::Device { user, device } => Ok(Self {
                user,
                device: Some(device),
            }),
            principal @ Principal::Key { .. } => {
                principal.require(scope)?;
                if acting == Some(UserId::SYSTEM) {
                    return Err(ApiError::invalid("acting_user_id", "is the id of nobody"));
                }
                Ok(Self {
                    user: acting.unwrap_or(UserId::SYSTEM),
                    device: None,
                })
            }
        }
    }

    /// Reads a back end that calls in nobody's name, by a call that names no user. Fails for devices, and without the
    /// scope.
    pub fn nobody(metadata: &MetadataMap, scope: Scope) -> Result<Self, ApiError> {
        Principal::read(metadata)?.key(scope)?;
        Ok(Self {
            user: UserId::SYSTEM,
            device: None,
        })
    }

    /// Returns whether a back end calls in nobody's name. Such a caller sees every chat and is a member of none.
    pub fn is_nobody(self) -> bool {
        self.user == UserId::SYSTEM
    }

    /// Returns the sending device of the entries that the call makes: [`DeviceId::BACK_END`] if a back end calls.
    pub fn sender_device(self) -> DeviceId {
        self.device.unwrap_or(DeviceId::BACK_END)
    }
}

/// The reader of callers. It looks up in the store a user whom a back end names; a device's user is known to exist.
#[derive(Clone)]
pub struct Callers {
    pool: PgPool,
}

impl Callers {
    /// Creates a reader that looks users up in this pool's database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Reads the caller: a device, or a back end with `scope` in the name of a user or of nobody.
    ///
    /// # Errors
    ///
    /// The metadata has no valid principal, the back end lacks the scope, the user does not exist, or the store is
    /// away.
    pub async fn read(
        &self,
        metadata: &MetadataMap,
        acting_user_id: &str,
        scope: Scope,
    ) -> Result<Caller, ApiError> {
        let caller = Caller::read(metadata, acting_user_id, scope)?;
        if caller.device.is_none() && !caller.is_nobody() {
            self.read_receipts_off(caller).await?;
        }
        Ok(caller)
    }

    /// Reads the caller as [`Self::read`] does, and fails also if a back end names no user.
    pub async fn person(
        &self,
        metadata: &MetadataMap,
        acting_user_id: &str,
        scope: Scope,
    ) -> Result<Caller, ApiError> {
        let caller = self.read(metadata, acting_user_id, scope).await?;
        if caller.is_nobody() {
            return Err(ApiError::invalid("acting_user_id", "is needed from back ends"));
        }
        Ok(caller)
    }

    /// Reads the caller as [`Self::person`] does, and fails also for devices.
    pub async fn back_end(
        &self,
        metadata: &MetadataMap,
        acting_user_id: &str,
        scope: Scope,
    ) -> Result<Caller, ApiError> {
        Principal::read(metadata)?.key(scope)?;
        self.person(metadata, acting_user_id, scope).await
    }

    /// Reads the sender of a message, and whether they turned read receipts off. A message in nobody's name needs a
    /// scope of its own.
    pub async fn sender(
        &self,
        metadata: &MetadataMap,
        acting_user_id: &str,
    ) -> Result<(Caller, bool), ApiError> {
        let scope = if acting_user_id.is_empty() {
            Scope::MessagesSystem
        } else {
            Scope::MessagesSend
        };
        let caller = Caller::read(metadata, acting_user_id, scope)?;
        let off = !caller.is_nobody() && self.read_receipts_off(caller).await?;
        Ok((caller, off))
    }

    /// Returns whether the caller turned read receipts off. Fails if there is no such user, or the store is away.
    async fn read_receipts_off(&self, caller: Caller) -> Result<bool, ApiError> {
        let off = people::read_receipts_off(&self.pool, caller.user).await;
        off.map_err(store_failed)?.ok_or_else(|| {
            ApiError::new(
                ErrorReason::ActingUserNotFound,
                format!("no user has the id {}", caller.user),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: Scope) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        Principal::Key {
            key_id: "k".to_owned(),
            scopes: vec![scope],
        }
        .write(&mut metadata);
        metadata
    }

    #[test]
    fn only_a_back_end_with_the_scope_is_nobody() {
        let (user, device) = (UserId::random(), DeviceId::random());
        let mut phone = MetadataMap::new();
        Principal::Device { user, device }.write(&mut phone);
        let read = |metadata: &MetadataMap| {
            let caller = Caller::nobody(metadata, Scope::ChatsWrite);
            caller.map_err(|error| error.reason)
        };
        assert!(read(&key(Scope::ChatsWrite)).unwrap().is_nobody());
        assert_eq!(read(&phone), Err(ErrorReason::NotForDevices));
        assert_eq!(read(&key(Scope::ChatsRead)), Err(ErrorReason::ScopeMissing));
    }

    #[test]
    fn nobody_is_meant_by_leaving_the_field_empty_only() {
        let metadata = key(Scope::ChatsWrite);
        let read = |acting: &str| Caller::read(&metadata, acting, Scope::ChatsWrite);
        assert!(read("").unwrap().is_nobody());
        let nil = read(&UserId::SYSTEM.to_string()).unwrap_err();
        assert_eq!(
            (nil.reason, nil.field),
            (ErrorReason::InvalidField, Some("acting_user_id"))
        );
        let user = UserId::random();
        assert_eq!(read(&user.to_string()).unwrap().user, user);
    }
}
