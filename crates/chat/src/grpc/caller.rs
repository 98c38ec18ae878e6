//! In whose name a unary call acts.

use tern_node::principal::{Principal, Scope};
use tern_proto::v1::ErrorReason;
use tern_proto::{ApiError, parse};
use tern_types::{DeviceId, UserId};
use tonic::metadata::MetadataMap;

/// The user that a call acts as, and the device it comes from, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    pub device: Option<DeviceId>,
}

impl Caller {
    /// A device acts as its user; a back end with `scope` as the user it names, or, where that is left empty, as
    /// [`UserId::SYSTEM`].
    pub fn read(metadata: &MetadataMap, acting_user_id: &str, scope: Scope) -> Result<Self, ApiError> {
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
                Ok(Self {
                    user: acting.unwrap_or(UserId::SYSTEM),
                    device: None,
                })
            }
        }
    }

    /// The same, where a back end has to name the user.
    pub fn person(metadata: &MetadataMap, acting_user_id: &str, scope: Scope) -> Result<Self, ApiError> {
        let caller = Self::read(metadata, acting_user_id, scope)?;
        if caller.is_nobody() {
            return Err(ApiError::invalid("acting_user_id", "is needed from back ends"));
        }
        Ok(caller)
    }

    /// A back end in nobody's name: sees every chat, is a member of none.
    pub fn is_nobody(self) -> bool {
        self.user == UserId::SYSTEM
    }

    /// The sending device of an entry.
    pub fn sender_device(self) -> DeviceId {
        self.device.unwrap_or(DeviceId::BACK_END)
    }
}
