//! The devices that lack entries, as far as the owner knows. They may show notifications of the chat, which are withdrawn
//! when their user reads it on another device.

use tern_types::{DeviceId, IdMap, UserId};

use crate::Missing;

/// The devices with an inbox row of the chat. They are as many as the last settle found missing, so at most all devices
/// of the members.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// The devices of each user, of whom there is one at least. `None`: nobody knows, because this owner has settled
    /// nothing since it loaded the chat.
    known: Option<IdMap<UserId, Vec<DeviceId>>>,
}

impl Behind {
    /// Takes the devices that a settle found missing. Every device that has a row still lacks the newest entries, or has
    /// acknowledged them and so has no row.
    pub fn settled(&mut self, missing: &[Missing]) {
        let known = self.known.insert(IdMap::default());
        for missing in missing {
            known.entry(missing.user).or_default().push(missing.device);
        }
    }

    /// Notes that the device has no row any more.
    pub fn caught_up(&mut self, user: UserId, device: DeviceId) {
        if let Some(known) = &mut self.known
            && let Some(devices) = known.get_mut(&user)
        {
            devices.retain(|its| *its != device);
            if devices.is_empty() {
                known.remove(&user);
            }
        }
    }

    /// Notes that nobody knows any more which devices have a row.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Returns whether some device of the user may have a row.
    pub fn may_have(&self, user: UserId) -> bool {
        self.known.as_ref().is_none_or(|known| known.contains_key(&user))
    }
}

#[cfg(test)]
mod tests {
    use tern_types::Seq;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_user_is_behind_until_the_last_device_has_caught_up() {
        let user = |n| UserId(Uuid::from_u128(n));
        let device = |n| DeviceId(Uuid::from_u128(n));
        let missing = |of, n| Missing {
            user: user(of),
            device: device(n),
            from: Seq(1),
        };
        let mut behind = Behind::default();
        assert!(behind.may_have(user(1)), "nobody knows");
        behind.caught_up(user(1), device(11));
        assert!(behind.may_have(user(1)), "there may be another device");
        behind.settled(&[missing(1, 11), missing(1, 12), missing(2, 21)]);
        behind.caught_up(user(1), device(11));
        behind.caught_up(user(3), device(31));
        let of = |behind: &Behind| [1, 2, 3].map(|n| behind.may_have(user(n)));
        assert_eq!(of(&behind), [true, true, false]);
        behind.caught_up(user(1), device(12));
        assert_eq!(of(&behind), [false, true, false]);
        behind.settled(&[missing(1, 12)]);
        assert_eq!(of(&behind), [true, false, false], "the other has caught up");
        behind.settled(&[]);
        assert_eq!(of(&behind), [false; 3]);
        behind.forget();
        assert_eq!(of(&behind), [true; 3]);
    }
}
