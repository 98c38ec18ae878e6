//! What a request to link a device comes to.

use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MAX_DEVICES;
use tern_types::{DeviceId, Timestamp};

/// For so long the same request gives the same device.
pub const REPEATABLE: Duration = Duration::from_secs(24 * 3600);

/// A device that is not active yet counts for so long: the request that began it is under way or is tried again.
pub const PENDING_COUNTS: Duration = Duration::from_secs(600);

/// What the app says about the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub display_name: String,
    pub platform: String,
}

/// The device that the same request made before.
#[derive(Clone, Debug)]
pub struct Before {
    pub device: DeviceId,
    pub asked: Asked,
    pub linked_at: Timestamp,
    pub active: bool,
    pub revoked: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A device of a new id.
    New,
    /// This one, which has not joined its chats yet.
    Resume(DeviceId),
    /// This one, which only needs tokens.
    Again(DeviceId),
}

/// `others`: devices of the user beside that of `before` that are active, or may become so.
pub fn decide(
    before: Option<&Before>,
    asked: &Asked,
    others: usize,
    now: Timestamp,
) -> Result<Link, ApiError> {
    if let Some(before) = before {
        if before.revoked || before.asked != *asked || now.since(before.linked_at) > REPEATABLE {
            return Err(ApiError::new(
                ErrorReason::RequestIdReused,
                "the request_id stands for another device, one that was revoked, or one of over 24 h ago",
            ));
        }
        if before.active {
            return Ok(Link::Again(before.device));
        }
    }
    if others >= MAX_DEVICES {
        return Err(ApiError::new(
            ErrorReason::TooManyDevices,
            format!("a user has at most {MAX_DEVICES} devices: revoke one first"),
        ));
    }
    Ok(before.map_or(Link::New, |before| Link::Resume(before.device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gives_one_device_for_a_day_and_a_user_has_ten() {
        use ErrorReason as R;
        let now = Timestamp(1_700_000_000_000);
        let asked = Asked {
            display_name: "phone".into(),
            platform: "ios".into(),
        };
        let device = DeviceId::random();
        let active = Before {
            device,
            asked: asked.clone(),
            linked_at: now - REPEATABLE,
            active: true,
            revoked: false,
        };
        let pending = Before {
            active: false,
            ..active.clone()
        };
        let old = Before {
            linked_at: now - REPEATABLE - Duration::from_millis(1),
            ..active.clone()
        };
        let revoked = Before {
            revoked: true,
            ..active.clone()
        };
        let other_name = Before {
            asked: Asked {
                display_name: "tablet".into(),
                ..asked.clone()
            },
            ..active.clone()
        };
        let cases = [
            ("first device", None, 0, Ok(Link::New)),
            ("tenth device", None, 9, Ok(Link::New)),
            ("eleventh device", None, 10, Err(R::TooManyDevices)),
            ("repeated", Some(&active), 0, Ok(Link::Again(device))),
            (
                "repeated as the tenth",
                Some(&active),
                10,
                Ok(Link::Again(device)),
            ),
            ("broken off", Some(&pending), 9, Ok(Link::Resume(device))),
            (
                "broken off, then ten others",
                Some(&pending),
                10,
                Err(R::TooManyDevices),
            ),
            ("repeated after a day", Some(&old), 0, Err(R::RequestIdReused)),
            (
                "repeated after revocation",
                Some(&revoked),
                0,
                Err(R::RequestIdReused),
            ),
            (
                "repeated with other content",
                Some(&other_name),
                0,
                Err(R::RequestIdReused),
            ),
        ];
        for (name, before, others, expected) in cases {
            let decided = decide(before, &asked, others, now).map_err(|error| error.reason);
            assert_eq!(decided, expected, "{name}");
        }
    }
}
