//! Parses a message that a client sends, whether it comes on a stream or by a unary call.

use bytes::Bytes;
use tern_types::limits::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES};
use tern_types::{ChatId, RequestId, UserId};

use super::id;
use crate::ApiError;
use crate::v1::{self, ErrorReason, send_message::To};

/// A message whose ids are parsed and whose parts are not too large. Its envelope is still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The id by which a repetition of the message is recognised.
    pub request: RequestId,
    /// The chat that the message goes to.
    pub chat: ChatId,
    /// The other person, if the message is addressed to a person: it goes to the direct chat with them.
    pub peer: Option<UserId>,
    /// An encoded [`v1::Envelope`].
    pub envelope: Bytes,
    /// The message itself, opaque to the server.
    pub body: Bytes,
}

/// Parses a message of `sender`.
///
/// # Errors
///
/// INVALID_FIELD if an id is not a UUID, if there is no address, or if the sender is the addressee; TOO_LARGE
/// if the body has more than [`MAX_BODY_BYTES`], or the envelope more than [`MAX_ENVELOPE_BYTES`].
pub fn send(sender: UserId, message: &v1::SendMessage) -> Result<Send, ApiError> {
    let request = id("request_id", &message.request_id)?;
    let (chat, peer) = address(sender, message.to.as_ref())?;
    at_most("body", &message.body, MAX_BODY_BYTES)?;
    at_most("envelope", &message.envelope, MAX_ENVELOPE_BYTES)?;
    Ok(Send {
        request,
        chat,
        peer,
        envelope: message.envelope.clone(),
        body: message.body.clone(),
    })
}

fn address(sender: UserId, to: Option<&To>) -> Result<(ChatId, Option<UserId>), ApiError> {
    match to {
        Some(To::ChatId(chat)) => Ok((id("chat_id", chat)?, None)),
        Some(To::PeerUserId(peer)) => {
            let peer = id("peer_user_id", peer)?;
            if peer == sender {
                return Err(ApiError::invalid("peer_user_id", "is the sender"));
            }
            Ok((ChatId::direct(sender, peer), Some(peer)))
        }
        None => Err(ApiError::invalid(
            "chat_id",
            "or peer_user_id is needed, and only one",
        )),
    }
}

fn at_most(part: &str, bytes: &Bytes, most: usize) -> Result<(), ApiError> {
    if bytes.len() > most {
        let message = format!("the {part} has {} bytes, at most {most} are taken", bytes.len());
        return Err(ApiError::new(ErrorReason::TooLarge, message));
    }
    Ok(())
}

impl From<v1::SendMessageRequest> for v1::SendMessage {
    /// A request that names both a chat and a person, or neither, has no address.
    fn from(request: v1::SendMessageRequest) -> Self {
        let (chat, peer) = (request.chat_id, request.peer_user_id);
        let to = match (chat.is_empty(), peer.is_empty()) {
            (false, true) => Some(To::ChatId(chat)),
            (true, false) => Some(To::PeerUserId(peer)),
            _ => None,
        };
        Self {
            request_id: request.request_id,
            to,
            envelope: request.envelope,
            body: request.body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "6d0f9d0a-52c1-4c0e-9f0b-7465726e0001";

    fn request() -> v1::SendMessageRequest {
        v1::SendMessageRequest {
            request_id: RequestId::random().to_string(),
            chat_id: CHAT.to_owned(),
            body: vec![0; MAX_BODY_BYTES].into(),
            envelope: vec![0; MAX_ENVELOPE_BYTES].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_call_and_a_stream_address_a_message_in_the_same_way() {
        let [sender, peer] = [UserId::random(), UserId::random()];
        let sent = send(sender, &request().into()).unwrap();
        assert_eq!((sent.chat.to_string().as_str(), sent.peer), (CHAT, None));
        let to_a_person = v1::SendMessageRequest {
            chat_id: String::new(),
            peer_user_id: peer.to_string(),
            ..request()
        };
        let sent = send(sender, &to_a_person.into()).unwrap();
        assert_eq!((sent.chat, sent.peer), (ChatId::direct(sender, peer), Some(peer)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Change = fn(&mut v1::SendMessageRequest);
        let cases: [(Change, ErrorReason, Option<&str>); 7] = [
            (
                |send| send.request_id.clear(),
                ErrorReason::InvalidField,
                Some("request_id"),
            ),
            (
                |send| send.chat_id.clear(),
                ErrorReason::InvalidField,
                Some("chat_id"),
            ),
            (
                |send| send.chat_id = "x".into(),
                ErrorReason::InvalidField,
                Some("chat_id"),
            ),
            (
                |send| send.peer_user_id = UserId::SYSTEM.to_string(),
                ErrorReason::InvalidField,
                Some("chat_id"),
            ),
            (
                |send| (send.chat_id, send.peer_user_id) = (String::new(), UserId::SYSTEM.to_string()),
                ErrorReason::InvalidField,
                Some("peer_user_id"),
            ),
            (
                |send| send.body = vec![0; MAX_BODY_BYTES + 1].into(),
                ErrorReason::TooLarge,
                None,
            ),
            (
                |send| send.envelope = vec![0; MAX_ENVELOPE_BYTES + 1].into(),
                ErrorReason::TooLarge,
                None,
            ),
        ];
        for (change, reason, field) in cases {
            let mut request = request();
            change(&mut request);
            let error = send(UserId::SYSTEM, &request.into()).unwrap_err();
            assert_eq!((error.reason, error.field), (reason, field), "{error}");
        }
    }
}
