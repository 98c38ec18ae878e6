//! Decides what happens on a request to link a device: a new device, the device of an earlier attempt, or an error.

use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MAX_DEVICES;
use tern_types::{DeviceId, Timestamp};

/// The time after the linking of a device for which the same request returns the same device.
pub const REPEATABLE: Duration = Duration::from_secs(24 * 3600);

/// The time for which a device that is not active yet counts as a device of its user, because the request that began it
/// may be under way or be retried.
pub(crate) const PENDING_COUNTS: Duration = Duration::from_secs(600);

/// The name and platform that the app gives the device. A retry has to give the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name that people see in the list of devices, such as "phone".
    pub display_name: String,
    /// The platform, such as "ios".
    pub platform: String,
}

/// The device that the same request has made before.
#[derive(Clone, Debug)]
pub struct Before {
    /// The id of the device.
    pub device: DeviceId,
    /// The name and platform that the app gave the device then.
    pub asked: Asked,
    /// The time at which it was linked, or at which a retry last resumed its linking.
    pub linked_at: Timestamp,
    /// True if the device has joined its user's chats and is not revoked.
    pub active: bool,
    /// True if the device was revoked.
    pub revoked: bool,
}

/// The next step for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Make a new device.
    New,
    /// Go on with this device, which has not joined its user's chats yet.
    Resume(DeviceId),
    /// Give the present tokens to this device, which is complete.
    Again(DeviceId),
}

/// Decides what to do for a request. `before` is the device that the same request has made, and `others` is the number
/// of the user's other devices that are active or may become so. Returns `Err` with REQUEST_ID_REUSED if the request
/// stands for something else, and with TOO_MANY_DEVICES if the user has no room for another device.
pub(crate) fn decide(
    before: Option<&Before>,
    asked: &Asked,
    others: usize,
    now: Timestamp,
) -> Result<Link, ApiError> {
    if let Some(before) = before {
        if before.revoked || before.asked != *asked || now.since(before.linked_at) > REPEATABLE {
            let hours = REPEATABLE.as_secs() / 3600;
            return Err(ApiError::new(
                ErrorReason::RequestIdReused,
                format!(
                    "the request_id stands for another device, one that was revoked, or one of over {hours} h ago"
                ),
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

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn asked() -> Asked {
        Asked {
            display_name: "phone".into(),
            platform: "ios".into(),
        }
    }

    /// Returns a complete device that the request made exactly [`REPEATABLE`] ago.
    fn active(device: DeviceId) -> Before {
        Before {
            device,
            asked: asked(),
            linked_at: NOW - REPEATABLE,
            active: true,
            revoked: false,
        }
    }

    #[test]
    fn a_request_gives_one_device_for_a_day_and_a_user_has_ten() {
        use ErrorReason as R;
        let device = DeviceId::random();
        let active = active(device);
        let changed = |change: fn(&mut Before)| {
            let mut before = active.clone();
            change(&mut before);
            before
        };
        let pending = changed(|before| before.active = false);
        let old = changed(|before| before.linked_at = NOW - REPEATABLE - Duration::from_millis(1));
        let revoked = changed(|before| before.revoked = true);
        let other_name = changed(|before| before.asked.display_name = "tablet".into());
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
            let decided = decide(before, &asked(), others, NOW).map_err(|error| error.reason);
            assert_eq!(decided, expected, "{name}");
        }
    }
}
