//! Registers where this device gets its pushes, and opens what they carry. docs/push.md tells more.
//!
//! A push often comes while the app does not run. Then the app's notification extension opens it, which is another
//! process, and the store has one owner at a time. Therefore an app puts [`Client::notification_key`] into a place that
//! both can read, such as the shared keychain on iOS, and the extension calls [`NotificationKey::open`].

use bytes::Bytes;
use tern_proto::v1::{self, Notification, push_token};

use crate::client::Client;
use crate::error::ClientError;
use crate::notification_key::NotificationKey;

/// The place at which a device gets its pushes: a token of Apple's or Google's service, or a subscription of Web Push.
pub type PushProvider = push_token::Provider;

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Client {
    /// Says where this device gets its pushes. An app calls it at each start, and whenever it has got a new token.
    /// Notifications are sealed to [`Client::notification_key`]. With a subscription of Web Push, the whole push is
    /// encrypted to the subscription's keys instead.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with INVALID_FIELD if the token cannot be one; otherwise as
    /// [`Client::notification_key`].
    pub async fn set_push_token(&self, provider: PushProvider) -> Result<()> {
        let sealing_key = match &provider {
            PushProvider::Apns(_) | PushProvider::Fcm(_) => {
                Bytes::copy_from_slice(&self.notification_key().await?.public())
            }
            PushProvider::WebPush(_) => Bytes::new(),
        };
        let token = v1::PushToken {
            provider: Some(provider),
            sealing_key,
        };
        let request = v1::SetPushTokenRequest { token: Some(token) };
        self.api().set_push_token(request).await?;
        Ok(())
    }

    /// Says that this device gets no more pushes. Fails with [`ClientError::Call`].
    pub async fn remove_push_token(&self) -> Result<()> {
        self.api()
            .set_push_token(v1::SetPushTokenRequest::default())
            .await?;
        Ok(())
    }

    /// Returns the key to which this device's notifications are sealed. The first call makes it, and the store keeps
    /// it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Stopped`], [`ClientError::Store`], and [`ClientError::Corrupt`] if the stored key is damaged.
    pub async fn notification_key(&self) -> Result<NotificationKey> {
        self.read(|store| store.notification_key()).await
    }

    /// Opens the field `sealed` of a push that has this tag, in the process that has the store.
    ///
    /// # Errors
    ///
    /// [`ClientError::Notification`] if it cannot be opened; otherwise as [`Client::notification_key`].
    pub async fn open_notification(&self, tag: &str, sealed: &str) -> Result<Notification> {
        Ok(self.notification_key().await?.open(tag, sealed)?)
    }
}

#[cfg(test)]
mod tests {
    use tern_client_core::testing::credentials;

    use super::*;
    use crate::config::{ClientConfig, StoreLocation};
    use crate::notification_key::OpenError;

    #[tokio::test]
    async fn a_client_opens_only_what_was_sealed_to_its_key() {
        // Nothing listens at this address, and nothing has to.
        let config = ClientConfig::new(vec!["http://127.0.0.1:1".into()], StoreLocation::Memory);
        let (client, _events) = Client::start(config.credentials(credentials())).await.unwrap();
        let key = client.notification_key().await.unwrap();
        assert_eq!(client.notification_key().await.unwrap(), key, "it stays the same");
        let opened = client.open_notification("tag", "AAAA").await;
        assert!(
            matches!(opened, Err(ClientError::Notification(OpenError::Malformed))),
            "{opened:?}"
        );
    }
}
