//! This property holds that a tick does what was due: otherwise the driver would tick again and again without a pause.

use std::time::Duration;

use proptest::prelude::*;
use tern_proto::v1;
use tern_proto::v1::ErrorReason;
use tern_proto::v1::server_event::Event as Wire;

use super::{chat, connected, lost, refused, tokens};
use crate::engine::Input;
use crate::error::CallError;
use crate::model::Outgoing;
use crate::testing::{NOW, entry, frame, opened, user, wire};

/// The most ticks at one time. Example: a stream is given up, and the delay before the next attempt is 0 ms.
const TICKS: usize = 8;

/// A random thing that happens to the engine.
#[derive(Debug, Clone)]
enum Act {
    Pass(u64),
    Opened(u128),
    Draining(u32),
    Entry(u64),
    CaughtUp,
    TypingCame,
    Active(bool),
    Send,
    Lost,
    TokenExpired,
    Refreshed(bool),
    CallFailed(u8),
}

impl Act {
    /// Returns the input for the engine, or `None` if only time passes.
    fn input(&self) -> Option<Input> {
        let error = CallError::unavailable("lost");
        let chat = chat(1);
        Some(match *self {
            Self::Pass(_) => return None,
            Self::Opened(epoch) => Input::Frame(frame(opened(epoch))),
            Self::Draining(reconnect_after_ms) => {
                Input::Frame(frame(Wire::Draining(v1::Draining { reconnect_after_ms })))
            }
            Self::Entry(seq) => Input::Frame(frame(Wire::Entry(wire(&entry(chat, seq))))),
            Self::CaughtUp => Input::Frame(frame(Wire::CaughtUp(v1::CaughtUp {}))),
            Self::TypingCame => Input::Frame(frame(Wire::UserTyping(v1::UserTyping {
                chat_id: chat.to_string(),
                user_id: user(2).to_string(),
                expires_in_ms: 5000,
                ..Default::default()
            }))),
            Self::Active(active) => Input::SetActive(active),
            Self::Send => Input::Send(Outgoing::new(chat, "mine")),
            Self::Lost => lost(),
            Self::TokenExpired => Input::StreamLost(refused(
                tern_proto::Code::Unauthenticated,
                ErrorReason::TokenExpired,
            )),
            Self::Refreshed(true) => Input::Refreshed(Ok(tokens(2))),
            Self::Refreshed(false) => Input::Refreshed(Err(error)),
            Self::CallFailed(0) => Input::Listed(Err(error)),
            Self::CallFailed(1) => Input::LookedUp {
                chat,
                result: Err(error),
            },
            Self::CallFailed(2) => Input::Filled {
                chat,
                result: Err(error),
            },
            Self::CallFailed(_) => Input::ReceiptsRead {
                chat,
                result: Err(error),
            },
        })
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u64..60_000).prop_map(Act::Pass),
        1 => (1_000_000u64..4_000_000).prop_map(Act::Pass),
        6 => (1u128..3).prop_map(Act::Opened),
        3 => (0u32..60_000).prop_map(Act::Draining),
        4 => (1u64..6).prop_map(Act::Entry),
        1 => Just(Act::CaughtUp),
        1 => Just(Act::TypingCame),
        2 => any::<bool>().prop_map(Act::Active),
        2 => Just(Act::Send),
        1 => Just(Act::Lost),
        1 => Just(Act::TokenExpired),
        2 => any::<bool>().prop_map(Act::Refreshed),
        2 => (0u8..4).prop_map(Act::CallFailed),
    ]
}

proptest! {
    #[test]
    fn after_a_tick_the_next_one_is_due_at_a_later_time(acts in prop::collection::vec(act(), 0..100)) {
        let mut engine = connected();
        let mut now = NOW;
        engine.apply([Input::SetActive(true)], now);
        for act in acts {
            if let Act::Pass(millis) = act {
                now = now + Duration::from_millis(millis);
            }
            engine.apply(act.input(), now);
            let mut ticks = 0;
            while engine.next_wake().is_some_and(|wake| wake <= now) {
                ticks += 1;
                prop_assert!(ticks <= TICKS, "{act:?}: {now:?} is due again and again");
                engine.apply([Input::Tick], now);
            }
        }
    }
}
