//! Answers of the simulated server.

use tern_proto::v1::{self, SendErrorCode, send_result::Outcome};
use tern_types::{ChatId, Seq};

use tern_client_core::model::Chat;
use tern_client_core::testing::NOW;

use super::Log;

/// Refuses a send.
pub(super) fn refused(send: &v1::SendMessage, code: SendErrorCode) -> v1::SendResult {
    let error = v1::SendError {
        code: code.into(),
        retry_after_ms: 500,
        message: code.as_str_name().into(),
    };
    v1::SendResult {
        request_id: send.request_id.clone(),
        outcome: Some(Outcome::Error(error)),
    }
}

/// Lists a chat.
pub(super) fn listed(id: ChatId, log: &Log) -> Chat {
    Chat {
        kind: v1::ChatKind::Group,
        title: "simulated".into(),
        member_count: 2,
        role: v1::Role::Member,
        head: Seq(log.entries.len() as u64),
        active_at: NOW,
        ..Chat::unknown(id)
    }
}
