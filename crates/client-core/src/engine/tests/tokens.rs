//! These tests hold when access and refresh tokens are renewed, and what follows when they are refused.

use std::time::Duration;

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, ErrorReason};
use tern_types::Timestamp;

use super::{connected, feed, lost, opens, refused, tokens};
use crate::engine::{Call, Change, Engine, Input, Stored};
use crate::model::StopReason;
use crate::testing::{NOW, credentials, settings};

#[test]
fn a_token_that_ends_is_renewed_on_the_running_stream() {
    let mut engine = connected();
    let expiring = v1::TokenExpiring { expires_at_ms: NOW.0 };
    let effects = feed(&mut engine, Wire::TokenExpiring(expiring));
    assert_eq!(
        effects.calls,
        [Call::Refresh {
            refresh_token: "refresh-1".into()
        }]
    );
    assert!(
        feed(&mut engine, Wire::TokenExpiring(expiring)).calls.is_empty(),
        "one at a time"
    );
    let effects = engine.apply([Input::Refreshed(Ok(tokens(2)))], NOW);
    assert!(matches!(&effects.changes[..], [Change::Credentials(new)] if new.refresh_token == "refresh-2"));
    assert!(matches!(&effects.items[..], [Item::Reauthenticate(item)] if item.access_token == "access-2"));

    // Once the server has accepted it, the token is renewed like any other when it ends.
    let renewed = v1::Reauthenticated {
        token_expires_at_ms: 0,
    };
    feed(&mut engine, Wire::Reauthenticated(renewed));
    let much_later = engine.credentials().access_expires_at + Duration::from_secs(3600);
    engine.apply([lost()], much_later);
    let at = engine.next_wake().expect("a try");
    let effects = engine.apply([Input::Tick], at);
    assert_eq!(opens(&effects), None);
    assert!(matches!(&effects.calls[..], [Call::Refresh { refresh_token }] if refresh_token == "refresh-2"));
}

#[test]
fn a_refused_token_is_renewed_before_the_next_stream_and_never_in_a_hot_loop() {
    let mut engine = connected();
    let expired = || {
        Input::StreamLost(refused(
            tern_proto::Code::Unauthenticated,
            ErrorReason::TokenExpired,
        ))
    };
    let effects = engine.apply([expired()], NOW);
    assert_eq!(effects.calls.len(), 1);
    let effects = engine.apply([Input::Refreshed(Ok(tokens(2)))], NOW);
    assert_eq!(opens(&effects), Some("access-2"));
    let effects = engine.apply([expired()], NOW);
    assert!(
        effects.calls.is_empty() && engine.next_wake().is_some(),
        "it waits before it tries the next token"
    );
}

#[test]
fn the_end_of_the_refresh_token_ends_the_client() {
    for (reason, stopped) in [
        (ErrorReason::RefreshTokenInvalid, Some(StopReason::SignedOut)),
        (ErrorReason::RefreshTokenReused, Some(StopReason::Revoked)),
        (ErrorReason::DeviceRevoked, Some(StopReason::Revoked)),
        (ErrorReason::Unavailable, None),
    ] {
        let mut engine = connected();
        feed(&mut engine, Wire::TokenExpiring(v1::TokenExpiring::default()));
        let error = refused(tern_proto::Code::Unauthenticated, reason);
        assert_eq!(
            engine.apply([Input::Refreshed(Err(error))], NOW).stopped,
            stopped,
            "{reason:?}"
        );
    }
}

#[test]
fn an_expired_token_is_renewed_before_the_first_stream() {
    let stale = crate::model::Credentials {
        access_expires_at: Timestamp(NOW.0 - 1),
        ..credentials()
    };
    let mut engine = Engine::new(stale, Stored::default(), settings());
    let effects = engine.apply([Input::Start], NOW);
    assert!(effects.stream.is_none());
    assert_eq!(
        effects.calls,
        [Call::Refresh {
            refresh_token: "refresh-1".into()
        }]
    );
}
