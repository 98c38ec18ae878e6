//! Converts the items of a client frame into those of the session, and verifies their tokens.

use tern_identity::token::Verifier;
use tern_proto::ApiError;
use tern_proto::v1::{self, ErrorReason, client_item};
use tern_types::{Notice, Timestamp};

use tern_gateway_core::session::{Identity, Item};

use crate::metrics;

/// Converts one item and counts it. `now` is the time of the wall clock, by which tokens are verified.
pub fn from_wire(item: v1::ClientItem, verifier: &Verifier, now: Timestamp) -> Item {
    use client_item::Item as Wire;
    let (kind, item) = match item.item {
        Some(Wire::Open(open)) => {
            let token = verified(verifier, &open.access_token, now);
            (
                "open",
                Item::Open {
                    token,
                    client_version: open.client_version,
                    active: open.active,
                },
            )
        }
        Some(Wire::Send(send)) => ("send", Item::Send(send)),
        Some(Wire::Ack(ack)) => ("ack", Item::Ack(ack)),
        Some(Wire::MarkRead(mark)) => ("mark_read", Item::MarkRead(mark)),
        Some(Wire::Reauthenticate(renewal)) => (
            "reauthenticate",
            Item::Reauthenticate(verified(verifier, &renewal.access_token, now)),
        ),
        Some(Wire::Heartbeat(beat)) => ("heartbeat", Item::Heartbeat { token: beat.token }),
        Some(Wire::SetActive(set)) => ("set_active", Item::SetActive { active: set.active }),
        Some(Wire::WatchPresence(watch)) => ("watch_presence", Item::WatchPresence(watch.user_ids)),
        Some(Wire::Typing(typing)) => {
            let stopped = typing.stopped;
            ("typing", Item::Notice(typing.chat_id, Notice::Typing { stopped }))
        }
        None => ("unknown", Item::Unknown),
    };
    metrics::item_in(kind);
    item
}

fn verified(verifier: &Verifier, token: &str, now: Timestamp) -> Result<Identity, ApiError> {
    if token.is_empty() {
        return Err(ApiError::new(
            ErrorReason::CredentialsMissing,
            "an access token is needed",
        ));
    }
    let token = verifier.verify(token, now)?;
    Ok(Identity {
        user: token.user,
        device: token.device,
        expires_at: token.expires_at,
    })
}
