//! Converts a [`Notice`] to and from the event that the others of its chat get.

use bytes::Bytes;
use tern_types::{ChatId, Notice, UserId, typing};

use crate::raw;
use crate::v1::{self, server_event::Event};

/// Encodes the event that tells the others of the chat of a notice that `user` gives.
pub fn event(chat: ChatId, user: UserId, notice: &Notice) -> Bytes {
    let (chat_id, user_id) = (chat.to_string(), user.to_string());
    raw::event(match notice {
        Notice::Typing { stopped } => Event::UserTyping(v1::UserTyping {
            chat_id,
            user_id,
            stopped: *stopped,
            expires_in_ms: if *stopped {
                0
            } else {
                milliseconds(typing::EXPIRES)
            },
        }),
    })
}

/// Reads the user and the notice of an event. Returns `None` if the event is no notice, or names no user.
pub fn of_event(event: &Event) -> Option<(UserId, Notice)> {
    match event {
        Event::UserTyping(typing) => {
            let stopped = typing.stopped;
            Some((typing.user_id.parse().ok()?, Notice::Typing { stopped }))
        }
        _ => None,
    }
}

fn milliseconds(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_notice_is_read_from_its_event() {
        let (chat, user) = (ChatId::own(UserId::random()), UserId::random());
        for notice in [false, true].map(|stopped| Notice::Typing { stopped }) {
            let decoded = v1::ServerEvent::decode(event(chat, user, &notice)).unwrap();
            assert_eq!(of_event(&decoded.event.unwrap()), Some((user, notice)));
        }
        assert_eq!(of_event(&Event::CaughtUp(v1::CaughtUp {})), None);
    }
}
