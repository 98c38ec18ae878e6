//! Parses the fields that several requests of `tern.v1.Chats` have.

use tern_proto::v1::ErrorReason;
use tern_proto::{ApiError, parse};
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, UserId};

/// Returns the error of a call about a chat that does not exist or that the caller is no member of.
pub fn no_chat() -> ApiError {
    ApiError::new(
        ErrorReason::ChatNotFound,
        "no such chat, or the caller is no member of it",
    )
}

/// Returns the error of a call that would give a group too many members.
pub fn group_full() -> ApiError {
    ApiError::new(
        ErrorReason::GroupFull,
        format!("a group has at most {MAX_GROUP_MEMBERS} members"),
    )
}

/// Parses a chat's id.
pub fn chat_id(text: &str) -> Result<ChatId, ApiError> {
    parse::id("chat_id", text)
}

/// Parses a list of users' ids. Fails if an id is malformed, or if they are more than the members that a group may
/// have.
pub fn user_ids(field: &'static str, ids: &[String]) -> Result<Vec<UserId>, ApiError> {
    if ids.len() > MAX_GROUP_MEMBERS {
        return Err(group_full());
    }
    ids.iter().map(|id| parse::id(field, id)).collect()
}
