//! Keeps the key to which the device's notifications are sealed, as a row of `meta`. An earlier version of the program
//! does not know the row and leaves it alone, so that the store needs no new version for it.

use super::{Store, write};
use crate::error::ClientError;
use crate::notification_key::NotificationKey;

/// The key of the row.
const NOTIFICATION_KEY: &str = "notification_key";

impl Store {
    /// Returns the key to which the device's notifications are sealed. The first call makes it.
    pub fn notification_key(&mut self) -> Result<NotificationKey, ClientError> {
        if let Some(secret) = self.meta(NOTIFICATION_KEY)? {
            let damaged = ClientError::Corrupt("the key of notifications is damaged");
            return NotificationKey::from_secret(&secret).ok_or(damaged);
        }
        let key = NotificationKey::generate();
        write::put_meta(&self.connection, NOTIFICATION_KEY, &key.secret())?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreLocation;

    #[test]
    fn the_key_is_made_once_and_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let location = StoreLocation::File(directory.path().join("device.db"));
        let open = || Store::open(&location, true).unwrap();
        let key = open().notification_key().unwrap();
        assert_eq!(open().notification_key().unwrap(), key);
        let other = Store::open(&StoreLocation::Memory, true)
            .unwrap()
            .notification_key();
        assert_ne!(other.unwrap(), key, "each device has its own");

        let store = open();
        write::put_meta(&store.connection, NOTIFICATION_KEY, &[1; 31]).unwrap();
        drop(store);
        let damaged = open().notification_key();
        assert!(matches!(damaged, Err(ClientError::Corrupt(_))), "{damaged:?}");
    }
}
