//! Tests of the accounts services over gRPC, on a real Postgres.

#![allow(clippy::unwrap_used, reason = "tests")]

mod chat;
mod linking;
mod node;
mod notifications;
mod own_log;
mod plans;
mod privacy;
mod push_tokens;
mod refreshing;
mod requests;
mod revoking;
mod secrets;
mod spreading;
mod suspending;
mod users;
mod watching;
mod world;

use std::time::Duration;

use tern_proto::v1;
use tern_types::DeviceId;

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

fn device_id(linked: &v1::LinkDeviceResponse) -> DeviceId {
    linked.device.as_ref().unwrap().device_id.parse().unwrap()
}

fn refresh_token(linked: &v1::LinkDeviceResponse) -> String {
    linked.tokens.as_ref().unwrap().refresh_token.clone()
}
