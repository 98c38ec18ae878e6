//! Makes a desk for tests.

use std::path::PathBuf;
use std::time::Duration;

use tern_client::{Chat, ClientConfig, Credentials, EventStream, StoreLocation};
use tern_proto::v1::{ChatKind, Role};
use tern_types::{ChatId, Clock, DeviceId, UserId};

use super::Desk;
use crate::messenger::setup::Device;

/// Returns the desk of a new device that reaches no server, and the events of its client.
pub async fn offline() -> (Desk, EventStream) {
    let credentials = Credentials {
        user: UserId::random(),
        device: DeviceId::random(),
        access_token: "access".to_owned(),
        access_expires_at: Clock::wall() + Duration::from_secs(3600),
        refresh_token: "refresh".to_owned(),
    };
    // Nothing listens at this address.
    let config = ClientConfig::new(vec!["http://127.0.0.1:1".to_owned()], StoreLocation::Memory);
    let device = Device {
        config: config.credentials(credentials),
        back_end: None,
        store: PathBuf::new(),
        downloads: PathBuf::new(),
    };
    Desk::start(device).await.unwrap()
}

/// Returns a chat of this kind, of two people without messages, in which the user is an ordinary member.
pub fn chat(id: ChatId, kind: ChatKind) -> Chat {
    Chat {
        kind,
        member_count: 2,
        role: Role::Member,
        ..Chat::unknown(id)
    }
}
