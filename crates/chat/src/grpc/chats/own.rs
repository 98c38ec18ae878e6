//! Handles the calls by which a user keeps their chats: settings, and messages that are hidden from the user alone. Only
//! the owner of the user's own log takes them. Each public method handles the call of its name.

use std::collections::BTreeSet;

use prost::Message as _;
use tern_identity::principal::Scope;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::{ChatId, Clock, RequestId, Seq, Timestamp, UserId};
use tonic::{Request, Status};

use tern_chat_core::change::Action;
use tern_chat_core::change::own::{OwnChange, SettingsChange};
use tern_chat_core::content::fingerprint;
use tern_chat_core::settings::{Kept, Wanted};
use tern_chat_core::{Change, Sending};

use super::call::{Acting, Call, Calls, Who};
use crate::answer;
use crate::grpc::own_log::OwnLog;
use crate::grpc::parsed::{chat_id, no_chat};
use crate::grpc::read_marks::ReadMarks;
use crate::grpc::store_failed;
use crate::store::change::own::OUTDATED;
use crate::store::listing;
use crate::store::own::{hidden, settings};
use crate::store::seal::MasterKey;

/// The largest draft in bytes.
const MAX_DRAFT_BYTES: usize = 8 << 10;
/// The most messages that one call hides.
const MAX_SEQS: usize = 100;
/// The number of times that settings are read and changed if they change in between each time. Another device of the
/// user changes them then, which happens once or twice.
const TRIES: usize = 4;

/// The handlers of the calls about a user's own log.
pub struct OwnCalls {
    pub calls: Calls,
    pub own_log: OwnLog,
    pub read_marks: ReadMarks,
    pub pools: Pools,
    pub master: MasterKey,
}

impl OwnCalls {
    /// Changes the settings of a chat.
    pub async fn set_chat_settings(
        &self,
        request: Request<v1::SetChatSettingsRequest>,
    ) -> Result<v1::SetChatSettingsResponse, Status> {
        let call = self.open(request).await?;
        let user = call.caller.user;
        let chat = self.chat(user, &call.request.chat_id)?;
        let request: RequestId = parse::id("request_id", &call.request.request_id)?;
        let wanted = wanted(&call.request)?;
        let fingerprint = fingerprint([asked(&call.request, chat).as_slice()]);
        for _ in 0..TRIES {
            let read = self.read_mark(user, chat).await?;
            let kept = self.kept(user, chat).await?;
            let present = kept.shown(read);
            let settings = present.with(&wanted, Clock::wall());
            let change = SettingsChange {
                chat,
                is_news: settings != present,
                settings,
                seen: kept.seq,
                read,
            };
            let change = change_of(&call, request, fingerprint, OwnChange::Settings(change));
            let changed = self.own_log.change(user, change).await?;
            if changed == Err(OUTDATED) {
                continue;
            }
            let place = changed.map_err(|refusal| answer::change_to_error(&refusal))?;
            // A repeated request has changed them earlier, and others may have since.
            let shown = self.kept(user, chat).await?.shown(read);
            return Ok(v1::SetChatSettingsResponse {
                settings: Some(shown.to_wire()),
                own_seq: place.map_or(0, |place| place.seq.0),
            });
        }
        Err(answer::change_to_error(&OUTDATED).into())
    }

    /// Hides messages of a chat from the user.
    pub async fn hide_messages(
        &self,
        request: Request<v1::HideMessagesRequest>,
    ) -> Result<v1::HideMessagesResponse, Status> {
        let call = self.open(request).await?;
        let user = call.caller.user;
        let chat = self.chat(user, &call.request.chat_id)?;
        let request: RequestId = parse::id("request_id", &call.request.request_id)?;
        let seqs = seqs(&call.request.seqs)?;
        self.read_mark(user, chat).await?;
        let listed: Vec<u8> = seqs.iter().flat_map(|seq| seq.0.to_le_bytes()).collect();
        let fingerprint = fingerprint([&b"hide"[..], chat.as_bytes(), &listed]);
        let hidden = hidden::among(&self.pools, user, chat, seqs.iter().copied()).await;
        let hidden = hidden.map_err(store_failed)?;
        let seqs = seqs.into_iter().filter(|seq| !hidden.contains(seq)).collect();
        let change = change_of(&call, request, fingerprint, OwnChange::Hide { chat, seqs });
        let changed = self.own_log.change(user, change).await?;
        let place = changed.map_err(|refusal| answer::change_to_error(&refusal))?;
        Ok(v1::HideMessagesResponse {
            own_seq: place.map_or(0, |place| place.seq.0),
        })
    }

    /// Reads who calls, and checks that this node owns the user's own log.
    async fn open<R: Acting>(&self, request: Request<R>) -> Result<Call<R>, Status> {
        let opened = self.calls.open(request, Who::Person, Scope::ChatsWrite).await;
        let call = opened.map_err(about_user_id)?;
        self.calls.check_owner(&call, ChatId::own(call.caller.user))?;
        Ok(call)
    }

    /// Parses the chat that the call is about. The own log itself is not kept in any way.
    fn chat(&self, user: UserId, text: &str) -> Result<ChatId, ApiError> {
        let chat = chat_id(text)?;
        if chat == ChatId::own(user) {
            return Err(no_chat());
        }
        Ok(chat)
    }

    /// Returns the user's read mark in the chat, as its owner or else the store knows it. Fails if the user never was a
    /// member of the chat. Who has left it still unpins it, and deletes for themselves what their devices have of it.
    async fn read_mark(&self, user: UserId, chat: ChatId) -> Result<Seq, ApiError> {
        let stored = listing::read_mark(&self.pools, chat, user).await;
        let stored = stored.map_err(store_failed)?.ok_or_else(no_chat)?;
        let known = self.read_marks.of(user, [chat].into_iter()).await;
        let known = known.into_iter().map(|(_, seq, _)| seq);
        Ok(known.fold(stored, Seq::max))
    }

    /// Reads the settings of the chat.
    async fn kept(&self, user: UserId, chat: ChatId) -> Result<Kept, ApiError> {
        let kept = settings::of_chats(&self.pools, &self.master, user, [chat]).await;
        Ok(kept.map_err(store_failed)?.remove(&chat).unwrap_or_default())
    }
}

/// Makes the change that the call asks for. `fingerprint` is that of what the caller asked for, from which the change may
/// be computed differently when the call is repeated.
fn change_of<R>(
    call: &Call<R>,
    request: RequestId,
    fingerprint: tern_chat_core::entry::Fingerprint,
    change: OwnChange,
) -> Change {
    Change {
        actor: call.caller.user,
        device: call.caller.sender_device(),
        request,
        fingerprint,
        action: Action::Own(Box::new(change)),
        sending: Sending::default(),
    }
}

/// Makes an error about the acting user one about the field by which these requests name the user.
fn about_user_id(error: ApiError) -> ApiError {
    if error.reason == v1::ErrorReason::ActingUserNotFound {
        return ApiError::new(v1::ErrorReason::UserNotFound, error.message);
    }
    match error.field {
        Some("acting_user_id") => ApiError {
            field: Some("user_id"),
            message: error.message.replace("acting_user_id", "user_id"),
            ..error
        },
        _ => error,
    }
}

/// Reads which settings the request changes, and checks them.
fn wanted(request: &v1::SetChatSettingsRequest) -> Result<Wanted, ApiError> {
    if request.muted_until_ms.is_some_and(|until| until < 0) {
        return Err(ApiError::invalid("muted_until_ms", "must not be negative"));
    }
    let length = request.draft.as_ref().map_or(0, |draft| draft.len());
    if length > MAX_DRAFT_BYTES {
        let problem = format!("must have at most {MAX_DRAFT_BYTES} bytes");
        return Err(ApiError::invalid("draft", &problem));
    }
    Ok(Wanted {
        muted_until: request.muted_until_ms.map(Timestamp),
        archived: request.archived,
        pinned: request.pinned,
        marked_unread: request.marked_unread,
        draft: request.draft.clone(),
        mentions_only: request.mentions_only,
    })
}

/// Returns the bytes that equal requests have in common, whichever device of the user or back end makes them.
fn asked(request: &v1::SetChatSettingsRequest, chat: ChatId) -> Vec<u8> {
    let same = v1::SetChatSettingsRequest {
        user_id: String::new(),
        request_id: String::new(),
        chat_id: chat.to_string(),
        ..request.clone()
    };
    same.encode_to_vec()
}

/// Reads the seqs of messages, each once and ascending.
fn seqs(seqs: &[u64]) -> Result<BTreeSet<Seq>, ApiError> {
    let possible = |seq: &u64| (1..=i64::MAX as u64).contains(seq);
    if seqs.is_empty() || seqs.len() > MAX_SEQS || !seqs.iter().all(possible) {
        let problem = format!("must be 1 to {MAX_SEQS} seqs of messages");
        return Err(ApiError::invalid("seqs", &problem));
    }
    Ok(seqs.iter().map(|seq| Seq(*seq)).collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_setting_that_cannot_be_is_named() {
        let request = v1::SetChatSettingsRequest::default;
        let cases = [
            (request(), None),
            (
                v1::SetChatSettingsRequest {
                    muted_until_ms: Some(i64::MAX),
                    draft: Some(Bytes::from(vec![0; MAX_DRAFT_BYTES])),
                    ..request()
                },
                None,
            ),
            (
                v1::SetChatSettingsRequest {
                    muted_until_ms: Some(-1),
                    ..request()
                },
                Some("muted_until_ms"),
            ),
            (
                v1::SetChatSettingsRequest {
                    draft: Some(Bytes::from(vec![0; MAX_DRAFT_BYTES + 1])),
                    ..request()
                },
                Some("draft"),
            ),
        ];
        for (request, field) in cases {
            assert_eq!(wanted(&request).err().and_then(|error| error.field), field);
        }
    }

    #[test]
    fn messages_are_1_to_100_and_each_counts_once() {
        for bad in [&[][..], &[0], &[1, u64::MAX], &[1; MAX_SEQS + 1]] {
            assert_eq!(seqs(bad).unwrap_err().field, Some("seqs"));
        }
        let once: Vec<u64> = seqs(&[3, 1, 3]).unwrap().iter().map(|seq| seq.0).collect();
        assert_eq!(once, [1, 3]);
    }

    #[test]
    fn requests_are_equal_by_what_they_ask_for() {
        let chat = ChatId(Uuid::from_u128(0xabc));
        let request = |user_id: &str, archived| v1::SetChatSettingsRequest {
            user_id: user_id.to_owned(),
            request_id: user_id.to_owned(),
            chat_id: chat.to_string().to_uppercase(),
            archived,
            ..v1::SetChatSettingsRequest::default()
        };
        let hers = asked(&request("", Some(false)), chat);
        assert_eq!(hers, asked(&request("a back end says it", Some(false)), chat));
        assert_ne!(hers, asked(&request("", Some(true)), chat));
        assert_ne!(hers, asked(&request("", None), chat));
    }

    #[test]
    fn an_error_about_the_user_names_their_field() {
        let named = about_user_id(ApiError::invalid("acting_user_id", "is needed"));
        assert_eq!(
            (named.field, named.message.as_str()),
            (Some("user_id"), "user_id is needed")
        );
        let other = about_user_id(ApiError::invalid("chat_id", "is needed"));
        assert_eq!(other.field, Some("chat_id"));
        let nobody = about_user_id(ApiError::new(v1::ErrorReason::ActingUserNotFound, "nobody"));
        assert_eq!(
            (nobody.reason, nobody.message.as_str()),
            (v1::ErrorReason::UserNotFound, "nobody")
        );
    }
}
